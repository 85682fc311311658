# SPDX-License-Identifier: Apache-2.0
# The unit file names the installed program, so there is one for each PREFIX.

UNIT := $(O)/units$(PREFIX)/dmmd.service

all: $(UNIT)

$(UNIT): userspace/dmmd/dmmd.service.in
	$(call say,GEN,$@)
	$(Q)mkdir -p $(@D)
	$(Q)sed 's|@PREFIX@|$(PREFIX)|' $< >$@

MORE_INSTALLED += 644:$(UNIT):lib/systemd/system/dmmd.service
