# SPDX-License-Identifier: Apache-2.0

MORE_INSTALLED += 644:userspace/dmmd/dmmd.service:lib/systemd/system/dmmd.service
