# SPDX-License-Identifier: Apache-2.0
# Plug-ins of the tests, built out of tree: a copy of the source, installed headers, nothing else.

PLUGIN_ECHO := $(O)/tests/plugins/echo/echo.so
plugin-echo-prefix := $(O)/tests/plugins/prefix

$(PLUGIN_ECHO): tests/plugins/echo/echo.c tests/plugins/echo/Makefile $(wildcard include/dmm/*.h)
	$(call say,PLUGIN,$@)
	$(Q)mkdir -p $(@D) $(plugin-echo-prefix)/include/dmm
	$(Q)cp include/dmm/*.h $(plugin-echo-prefix)/include/dmm/
	$(Q)cp tests/plugins/echo/echo.c tests/plugins/echo/Makefile $(@D)/
	$(Q)$(MAKE) --no-print-directory -s -C $(@D) PREFIX=$(abspath $(plugin-echo-prefix)) \
		CFLAGS='-O2 -g -Werror $(SAN_FLAGS)' echo.so

# The plug-ins are found beside the tests' own folder.
$(addprefix $(O)/tests/unit/test_stack_,contract lwip) $(O)/tests/bpf/test_stack_tun: \
	| $(O)/stacks/lwip.so $(PLUGIN_ECHO)
