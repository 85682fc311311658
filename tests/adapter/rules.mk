# SPDX-License-Identifier: Apache-2.0
# The engine for conformance suites from elsewhere: it sees nothing of the tree but include/ and
# links nothing but the engine's library.

ADAPTER := $(O)/tests/adapter/adapter
TEST_PROGRAMS += $(ADAPTER)
TESTS_UNIT += $(call test-py,adapter)
tests-unit: $(ADAPTER)

$(ADAPTER).o: INCLUDES := -Iinclude
$(ADAPTER): DMM_LIBS :=
$(ADAPTER): %: %.o $(LIBNET)
	$(link)

DEPENDS += $(ADAPTER).d
