# SPDX-License-Identifier: Apache-2.0
# Simulations of the native engine: programs like the unit tests, and run among them.

sim-c := $(call test-c,sim)
TEST_PROGRAMS += $(sim-c)
TESTS_UNIT_C += $(sim-c)
TESTS_UNIT += $(sim-c) $(call test-py,sim)

$(sim-c): LIBS += $(call pkg-libs,$(TEST_PKGS)) -lm
$(sim-c): %: %.o $(test-libs)
	$(link)

DEPENDS += $(sim-c:%=%.d)
