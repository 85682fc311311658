# SPDX-License-Identifier: Apache-2.0
# A static program: nothing of ours and no shared library is in it.

$(O)/tests/net/static_client: private DMM_LDFLAGS += -static
$(O)/tests/net/static_client: private DMM_LIBS :=

# Preloaded: none of ours is in them either.
PRELOADED := $(O)/tests/net/failat.so $(O)/tests/net/clockstep.so
TEST_PROGRAMS += $(PRELOADED)

$(PRELOADED): %.so: %.o
	$(call say,LINK,$@)
	$(Q)$(CC) -shared -o $@ $< -ldl

# What `make test` runs at the same time as the others: what does not mind standing still now and then.
TESTS_BESIDE := $(patsubst %,tests/net/test_%.py,apps bad_input bench callers control demo dmmctl \
	dmmctl_doctor failures failures_stack fdio_cases goodput install memory planted serve_apps upgrade)
