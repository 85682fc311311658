# SPDX-License-Identifier: Apache-2.0
# Folders of C -> libraries -> programs and plug-ins. A folder that is not there yet is empty.

# $(call objs,PATTERN...): the objects of the C files of these patterns, BPF left out
objs = $(patsubst %.c,$(O)/%.o,$(filter-out %.bpf.c,$(wildcard $(1))))

libdmm-objs := $(call objs,$(foreach d,base policy steer pktio ctl,userspace/$(d)/*.c))
libnet-objs := $(call objs,userspace/net/*.c)
instance-objs := $(call objs,userspace/instance/*.c)
dmmd-objs := $(call objs,userspace/dmmd/*.c)
dmmctl-objs := $(call objs,tools/dmmctl/*.c)
app-objs := $(call objs,tools/apps/*.c)
app-lib-objs := $(call objs,tools/apps/lib/*.c)
bench-objs := $(call objs,tools/bench/*.c)

LIBDMM := $(O)/libdmm.a
LIBNET := $(if $(libnet-objs),$(O)/libdmmnet.a)
LIBINSTANCE := $(O)/libdmm-instance.a
LIBDMMD := $(O)/libdmm-dmmd.a
LIBRARIES := $(LIBDMM) $(LIBNET) $(LIBINSTANCE) $(LIBDMMD)

main-of = $(filter %/main.o,$(1))
PROGRAMS += $(if $(call main-of,$(dmmd-objs)),$(O)/dmmd) \
	$(if $(call main-of,$(instance-objs)),$(O)/dmm-stack) $(if $(dmmctl-objs),$(O)/dmmctl)
APPS += $(app-objs:$(O)/tools/%.o=$(O)/%)
alone-obj := $(O)/tools/bench/alone_stack.o # no program, part of two
BENCH += $(patsubst $(O)/tools/%.o,$(O)/%,$(filter-out $(alone-obj),$(bench-objs)))

define compile
$(call say,CC,$@)
$(Q)mkdir -p $(@D)
$(Q)$(CC) $(DMM_CFLAGS) -MMD -MP -c $< -o $@
endef

define archive
$(call say,AR,$@)
$(Q)mkdir -p $(@D)
$(Q)rm -f $@ && ar rcs $@ $(filter %.o,$^)
endef

# Archives refer to each other both ways, so they are one group.
define link
$(call say,LINK,$@)
$(Q)mkdir -p $(@D)
$(Q)$(CC) $(DMM_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
	$(LIBS) $(DMM_LIBS)
endef

$(O)/%.o: %.c $(MK) | $(SKELS)
	$(compile)

$(LIBDMM): $(libdmm-objs)
	$(archive)
$(O)/libdmmnet.a: $(libnet-objs)
	$(archive)
$(LIBINSTANCE): $(filter-out %/main.o,$(instance-objs))
	$(archive)
$(LIBDMMD): $(filter-out %/main.o,$(dmmd-objs))
	$(archive)

$(O)/dmmd: $(call main-of,$(dmmd-objs)) $(LIBDMMD) $(LIBDMM)
	$(link)
$(O)/dmm-stack: $(call main-of,$(instance-objs)) $(LIBINSTANCE) $(LIBNET) $(LIBDMM)
	$(link)
$(O)/dmmctl: $(dmmctl-objs) $(LIBDMM)
	$(link)
$(APPS): $(O)/apps/%: $(O)/tools/apps/%.o $(app-lib-objs) $(LIBDMM)
	$(link)
$(bench-objs): | $(SKELS_BENCH)
$(O)/bench/alone $(O)/bench/alone_serve: $(alone-obj) $(LIBINSTANCE)
$(O)/bench/engine: $(LIBNET)
$(filter $(O)/bench/%,$(BENCH)): $(O)/bench/%: $(O)/tools/bench/%.o $(LIBDMM)
	$(link)

# Plug-in NAME: userspace/stacks/NAME.c and all of userspace/stacks/NAME/, with the pkg-config
# modules of STACK_PKGS_NAME. What it takes from our libraries stays inside it.
stack-dirs := $(sort $(dir $(wildcard userspace/stacks/*/*.c)))
stack-names := $(sort $(basename $(notdir $(wildcard userspace/stacks/*.c))) \
	$(notdir $(stack-dirs:/=)))
stack-objs = $(call objs,userspace/stacks/$(1).c userspace/stacks/$(1)/*.c)
STACKS += $(stack-names:%=$(O)/stacks/%.so)

define stack-rule
$(call stack-objs,$(1)): DMM_CFLAGS += $$(call pkg-isystem,$$(STACK_PKGS_$(1)))
$(O)/stacks/$(1).so: LIBS += $$(call pkg-libs,$$(STACK_PKGS_$(1)))
$(O)/stacks/$(1).so: DMM_LDFLAGS += -shared -Wl,-z,defs -Wl,--exclude-libs,libdmm.a:libdmmnet.a
$(O)/stacks/$(1).so: $(call stack-objs,$(1)) $(LIBNET) $(LIBDMM)
	$$(link)
endef
$(foreach n,$(stack-names),$(eval $(call stack-rule,$(n))))

# Man pages stand beside their tools: dmmctl.1.scd
scd-src := $(wildcard tools/*/*.scd userspace/*/*.scd policy/*.scd)
MANPAGES += $(foreach s,$(scd-src),$(O)/man/$(basename $(notdir $(s))))

define man-rule
$(O)/man/$(basename $(notdir $(1))): $(1)
	$$(call say,MAN,$$@)
	$$(Q)mkdir -p $$(@D)
	$$(Q)scdoc <$$< >$$@
endef
$(foreach s,$(scd-src),$(eval $(call man-rule,$(s))))

DEPENDS += $(patsubst %.o,%.d,$(libdmm-objs) $(libnet-objs) $(instance-objs) $(dmmd-objs) \
	$(dmmctl-objs) $(app-objs) $(app-lib-objs) $(bench-objs) $(foreach n,$(stack-names),$(call stack-objs,$(n))))
