# SPDX-License-Identifier: Apache-2.0
# A plug-in or program that takes the engine in shows none of it to others.

$(O)/userspace/net/%.o: DMM_CFLAGS += -fvisibility=hidden
