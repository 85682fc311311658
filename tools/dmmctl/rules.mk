# SPDX-License-Identifier: Apache-2.0
# bash looks for completions by the command's name.

all: $(O)/completion/dmmctl

$(O)/completion/dmmctl: $(O)/dmmctl
	$(call say,GEN,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$< completion bash >$@

MORE_INSTALLED += 644:$(O)/completion/dmmctl:share/bash-completion/completions/dmmctl
