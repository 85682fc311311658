# SPDX-License-Identifier: Apache-2.0
# x.bpf.c -> x.bpf.o -> x.skel.h (skeleton x_bpf), in bpf/, tests/bpf/ and tools/bench/.

bpf-src := $(wildcard bpf/*.bpf.c)
bpf-test-src := $(wildcard tests/bpf/*.bpf.c)
bpf-bench-src := $(wildcard tools/bench/*.bpf.c)

bpf-main-objs := $(bpf-src:%.c=$(O)/%.o)
bpf-bench-objs := $(bpf-bench-src:tools/%.c=$(O)/%.o)
bpf-test-objs := $(bpf-test-src:%.c=$(O)/%.o)
BPF_OBJS += $(bpf-main-objs) $(bpf-bench-objs)
TEST_PROGRAMS += $(bpf-test-objs)

# Whoever compiles C waits for these; the dependency files know who really includes which.
SKELS := $(bpf-main-objs:%.bpf.o=%.skel.h)
SKELS_TEST := $(bpf-test-objs:%.bpf.o=%.skel.h)
SKELS_BENCH := $(bpf-bench-objs:%.bpf.o=%.skel.h)
DEPENDS := $(patsubst %.o,%.d,$(bpf-main-objs) $(bpf-bench-objs) $(bpf-test-objs))

define compile-bpf
$(call say,BPF,$@)
$(Q)mkdir -p $(@D)
$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@
endef

$(O)/%.bpf.o: %.bpf.c $(MK)
	$(compile-bpf)

$(O)/bench/%.bpf.o: tools/bench/%.bpf.c $(MK)
	$(compile-bpf)

# by name: what only a pattern makes is intermediate to make, which would delete it
$(SKELS) $(SKELS_TEST) $(SKELS_BENCH): %.skel.h: %.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $(subst -,_,$(notdir $*))_bpf >$@
