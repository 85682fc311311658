# SPDX-License-Identifier: Apache-2.0
# Which tests there are and how they are built. A C test links all libraries and the helpers of
# tests/lib; tests/FOLDER/x.c that is no test_x.c is a helper program of that folder's scripts.

test-c = $(patsubst %.c,$(O)/%,$(filter-out %.bpf.c,$(wildcard tests/$(1)/test_*.c)))
test-py = $(wildcard tests/$(1)/test_*.py)

test-lib-objs := $(call objs,tests/lib/*.c)
LIBTEST := $(O)/libdmm-test.a
test-libs := $(LIBTEST) $(LIBDMMD) $(LIBINSTANCE) $(LIBNET) $(LIBDMM)

unit-c := $(call test-c,unit)
bpf-c := $(call test-c,bpf)
net-c := $(call test-c,net)
net-helpers := $(filter-out $(net-c) %/failat %/clockstep,$(patsubst %.o,%,$(call objs,tests/net/*.c)))

TEST_PROGRAMS += $(unit-c) $(bpf-c) $(net-c) $(net-helpers)
TESTS_CHECK += tools/check/run $(wildcard tools/check/test_* tools/build/test_*)
TESTS_UNIT_C += $(unit-c)
TESTS_UNIT += $(unit-c) $(call test-py,lib) $(call test-py,unit)
TESTS_BPF += $(bpf-c) $(call test-py,bpf)
TESTS_NET += $(net-c) $(call test-py,net)
TESTS_VM += $(wildcard tests/vm/run)

$(LIBTEST): $(test-lib-objs)
	$(archive)

$(O)/tests/%.o: DMM_CFLAGS += -Itests/lib $(call pkg-isystem,$(TEST_PKGS))
$(bpf-c:%=%.o): | $(SKELS_TEST)

$(unit-c) $(bpf-c) $(net-c): LIBS += $(call pkg-libs,$(TEST_PKGS))
$(unit-c) $(bpf-c) $(net-c) $(net-helpers): %: %.o $(test-libs)
	$(link)

DEPENDS += $(patsubst %,%.d,$(unit-c) $(bpf-c) $(net-c) $(net-helpers)) $(test-lib-objs:.o=.d)

# What tools/check asks with `make print-...`
CHECK_CFLAGS = $(DMM_CFLAGS) -Itests/lib $(call pkg-isystem,$(CHECK_PKGS))
CHECK_PKGS = $(PKGS) $(TEST_PKGS) $(foreach n,$(stack-names),$(STACK_PKGS_$(n)))
