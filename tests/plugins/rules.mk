# SPDX-License-Identifier: Apache-2.0
# Plug-ins of the tests, built out of tree as by somebody else: a copy of the source in a folder of
# its own, against what `make install` installs, nothing else. The make within finds all made, and
# must not read dependencies that the one around it may be writing.

PLUGIN_ECHO := $(O)/tests/plugins/echo/echo.so

$(PLUGIN_ECHO): tests/plugins/echo/echo.c tests/plugins/echo/Makefile $(wildcard include/dmm/*.h) | all
	$(call say,PLUGIN,$@)
	+$(Q)set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	$(MAKE) --no-print-directory -s install DEPENDS= DESTDIR="$$dir/root" PREFIX=/usr >/dev/null; \
	cp tests/plugins/echo/echo.c tests/plugins/echo/Makefile "$$dir/"; \
	$(MAKE) --no-print-directory -s -C "$$dir" PREFIX="$$dir/root/usr" \
		CFLAGS='-O2 -g -Werror $(SAN_FLAGS)' echo.so; \
	install -D "$$dir/echo.so" $@

# The plug-ins are found beside the tests' own folder.
$(addprefix $(O)/tests/unit/test_stack_,contract lwip) $(O)/tests/bpf/test_stack_tun: \
	| $(O)/stacks/lwip.so $(O)/stacks/native.so $(PLUGIN_ECHO)
