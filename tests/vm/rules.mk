# SPDX-License-Identifier: Apache-2.0
# The guests' inits are static: an initramfs has no libraries but those its tests bring along. The
# tests that only the guest with a disk can run belong to `make test-6.1`, not to `make test`.

vm-inits := $(O)/tests/vm/init $(O)/tests/vm/diskinit
vm-trace := $(O)/tests/vm/trace
TEST_PROGRAMS += $(vm-inits) $(vm-trace) $(vm-trace).bpf.o
DEPENDS += $(vm-inits:%=%.d) $(vm-trace).d $(vm-trace).bpf.d
TESTS_GUEST += $(wildcard tests/vm/test_*.py)

$(vm-inits): %: %.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -static -o $@ $< $(call pkg,libbpf libelf zlib,--static --libs)

$(vm-trace): $(vm-trace).o
	$(link)
