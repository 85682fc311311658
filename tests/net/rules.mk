# SPDX-License-Identifier: Apache-2.0
# A static program: nothing of ours and no shared library is in it.

$(O)/tests/net/static_client: private DMM_LDFLAGS += -static
$(O)/tests/net/static_client: private DMM_LIBS :=

# Preloaded: none of ours is in it either.
FAILAT := $(O)/tests/net/failat.so
TEST_PROGRAMS += $(FAILAT)

$(FAILAT): $(O)/tests/net/failat.o
	$(call say,LINK,$@)
	$(Q)$(CC) -shared -o $@ $< -ldl
