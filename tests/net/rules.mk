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

# What `make test` runs at the same time as the others, beside what needs no root.
TESTS_BESIDE := $(patsubst %,tests/net/test_%.py,bad_input bench control failures failures_stack planted)
