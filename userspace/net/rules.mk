# SPDX-License-Identifier: Apache-2.0
# A plug-in or program that takes the engine in shows none of it to others.

$(O)/userspace/net/%.o: DMM_CFLAGS += -fvisibility=hidden
# Chunks are long: the C library's copying knows the CPU, what the compiler puts in its place does not.
$(O)/userspace/net/stream.o: DMM_CFLAGS += -fno-builtin-memcpy
