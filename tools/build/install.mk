# SPDX-License-Identifier: Apache-2.0
# What is installed, as MODE:SOURCE:DESTINATION below PREFIX; install and uninstall read one list.

headers := $(wildcard include/dmm/*.h include/dmm/*/*.h)
examples := $(wildcard policy/examples/*)
schema := $(firstword $(wildcard policy/policy.schema.json policy/schema.json))

man-dir = share/man/man$(patsubst .%,%,$(suffix $(f)))

INSTALLED := \
	$(foreach f,$(filter dmmctl,$(notdir $(PROGRAMS))),755:$(O)/$(f):bin/$(f)) \
	$(foreach f,$(filter dmmd,$(notdir $(PROGRAMS))),755:$(O)/$(f):sbin/$(f)) \
	$(foreach f,$(filter dmm-stack,$(notdir $(PROGRAMS))),755:$(O)/$(f):libexec/dmm/$(f)) \
	$(foreach f,$(notdir $(STACKS)),755:$(O)/stacks/$(f):lib/dmm/stacks/$(f)) \
	$(foreach f,$(headers),644:$(f):$(f)) \
	$(foreach f,$(notdir $(examples)),644:policy/examples/$(f):share/dmm/examples/$(f)) \
	$(if $(schema),644:$(schema):share/dmm/policy.schema.json) \
	$(foreach f,$(notdir $(MANPAGES)),644:$(O)/man/$(f):$(man-dir)/$(f)) \
	$(MORE_INSTALLED) \
	644:policy/README.md:share/doc/dmm/policy/README.md \
	644:LICENSE:share/doc/dmm/LICENSE $(if $(wildcard README.md),644:README.md:share/doc/dmm/README.md)

define install-files
$(Q)set -e; for i in $(INSTALLED); do \
	mode=$${i%%:*}; rest=$${i#*:}; dest=$(DESTDIR)$(PREFIX)/$${rest#*:}; \
	$(if $(Q),,echo "install $$dest";) install -D -m $$mode "$${rest%%:*}" "$$dest"; \
done; echo "installed below $(DESTDIR)$(PREFIX): next, dmmctl doctor; make uninstall takes it away"
endef

# Folders that are ours go when they are empty; in a DESTDIR, all that is empty goes.
define uninstall-files
$(Q)for i in $(INSTALLED); do \
	dest=$(PREFIX)/$${i##*:}; rm -f "$(DESTDIR)$$dest"; dir=$${dest%/*}; \
	while [ -n "$$dir" ]; do \
		case "$(DESTDIR):$$dir" in ?*:* | */dmm | */dmm/*) ;; *) break;; esac; \
		rmdir "$(DESTDIR)$$dir" 2>/dev/null || break; dir=$${dir%/*}; \
	done; \
done
endef
