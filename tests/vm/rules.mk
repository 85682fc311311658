# SPDX-License-Identifier: Apache-2.0
# The test guest's init: static, it is all there is in the guest. It and the tests the guest runs
# are named for tests/vm/run through the folder they are in.

vm-init := $(O)/tests/vm/init
TEST_PROGRAMS += $(vm-init)
DEPENDS += $(vm-init).d

$(vm-init): $(vm-init).o
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -static -o $@ $< $(call pkg,libbpf libelf zlib,--static --libs)
