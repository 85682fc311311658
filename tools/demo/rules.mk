# SPDX-License-Identifier: Apache-2.0
# `dmmctl demo` runs demo.py, beside dmmctl or below libexec.

demo-files := demo.py demo.yaml
all: $(demo-files:%=$(O)/demo/%)

$(O)/demo/%: tools/demo/% $(MK)
	$(call say,COPY,$@)
	$(Q)mkdir -p $(@D)
	$(Q)cp $< $@

MORE_INSTALLED += 755:$(O)/demo/demo.py:libexec/dmm/demo/demo.py \
	644:$(O)/demo/demo.yaml:libexec/dmm/demo/demo.yaml
