# SPDX-License-Identifier: Apache-2.0
# Packet scripts against the native engine; what is no test_*.c here is the driver of all.

script-c := $(call test-c,script)
script-objs := $(filter-out $(script-c:=.o),$(call objs,tests/script/*.c))
TEST_PROGRAMS += $(script-c)
TESTS_UNIT_C += $(script-c)
TESTS_UNIT += $(script-c)

$(script-c): %: %.o $(script-objs) $(LIBNET) $(LIBDMM)
	$(link)

DEPENDS += $(script-c:%=%.d) $(script-objs:.o=.d)
