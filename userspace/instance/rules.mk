# SPDX-License-Identifier: Apache-2.0
# What an instance may ask of the kernel: collected from the comments of what runs in it.

syscalls-from := $(wildcard userspace/base/*.c userspace/pktio/*.c userspace/net/*.c \
	userspace/instance/*.c userspace/stacks/*.c userspace/stacks/*/*.c)

$(O)/instance/syscalls.inc: tools/build/syscalls $(syscalls-from)
	$(call say,GEN,$@)
	$(Q)mkdir -p $(@D)
	$(Q)tools/build/syscalls $(syscalls-from) >$@

$(O)/userspace/instance/sandbox.o: $(O)/instance/syscalls.inc

MORE_INSTALLED += 644:userspace/instance/dmm-stack.socket:lib/systemd/system/dmm-stack.socket
MORE_INSTALLED += 644:userspace/instance/dmm-stack@.service:lib/systemd/system/dmm-stack@.service
