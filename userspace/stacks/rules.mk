# SPDX-License-Identifier: Apache-2.0
# A plug-in shows the host one symbol and keeps the rest to itself.

$(O)/userspace/stacks/%.o: DMM_CFLAGS += -fvisibility=hidden
