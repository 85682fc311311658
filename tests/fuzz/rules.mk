# SPDX-License-Identifier: Apache-2.0
# Fuzzers (libFuzzer with ASan and UBSan), each with a corpus of its own. The libraries are compiled
# once more for them, by clang.

fuzz-names := $(basename $(notdir $(wildcard tests/fuzz/fuzz_*.c)))
fuzz-lib-src := $(filter-out %.bpf.c,$(foreach d,base policy ctl net,$(wildcard userspace/$(d)/*.c)) \
	$(addprefix userspace/instance/,addrset.c icmp.c inject.c relay.c relay_bytes.c \
	relay_clients.c relay_pending.c))
fuzz-lib-objs := $(fuzz-lib-src:%.c=$(O)/fuzz/%.o)
FUZZERS := $(fuzz-names:%=$(O)/tests/fuzz/%)
FUZZ_FLAGS := -fsanitize=fuzzer$(comma)address$(comma)undefined -fno-sanitize-recover=all
FUZZ_CFLAGS = -std=gnu11 -O1 -g -Wall -Wextra -Werror -fno-omit-frame-pointer $(INCLUDES) \
	-DDMM_VERSION='"$(VERSION)"' $(call pkg-isystem,$(PKGS))

TEST_PROGRAMS += $(FUZZERS)
tests-unit: $(if $(SAN),,$(FUZZERS))
TESTS_UNIT += $(wildcard tests/fuzz/test_fuzz.py)

$(O)/fuzz/%.o: %.c $(MK) | $(SKELS)
	$(call say,CLANG,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link$(comma)address$(comma)undefined \
		-fno-sanitize-recover=all -MMD -MP -c $< -o $@

$(O)/fuzz/libdmm.a: $(fuzz-lib-objs)
	$(archive)

$(FUZZERS): $(O)/tests/fuzz/%: $(O)/fuzz/tests/fuzz/%.o $(O)/fuzz/libdmm.a
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(FUZZ_FLAGS) -o $@ $^ $(call pkg-libs,yaml-0.1 json-c libmnl libbpf)

DEPENDS += $(patsubst %.o,%.d,$(fuzz-lib-objs) $(fuzz-names:%=$(O)/fuzz/tests/fuzz/%.o))
