# SPDX-License-Identifier: Apache-2.0
# The test guest's init is static: the guest has no libraries but those its tests bring along.

vm-init := $(O)/tests/vm/init
TEST_PROGRAMS += $(vm-init)
DEPENDS += $(vm-init).d

$(vm-init): $(vm-init).o
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -static -o $@ $< $(call pkg,libbpf libelf zlib,--static --libs)
