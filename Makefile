# SPDX-License-Identifier: Apache-2.0
# DMM: targets are here, how things are made is in tools/build/*.mk, and what one folder needs
# beyond that in its rules.mk. Nothing may run a compiler or pkg-config while make is still reading:
# `sudo make test` starts on a machine that has only make.

VERSION := 0.1.0

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:

include tools/build/vars.mk
include tools/build/bpf.mk
include tools/build/userspace.mk
include tools/build/tests.mk
-include $(sort $(wildcard bpf/rules.mk userspace/*/rules.mk tools/*/rules.mk tests/*/rules.mk))
include tools/build/install.mk
-include $(DEPENDS)

.PHONY: all tests tests-unit packages test test-unit test-bpf test-net test-6.1 test-long check \
	style demo demo-down demo-proxy demo-proxy-down bench install uninstall clean help

all: $(BPF_OBJS) $(SKELS) $(LIBRARIES) $(PROGRAMS) ## build everything (default)
all: $(STACKS) $(APPS) $(BENCH) $(MANPAGES)
	@:

tests: $(TEST_PROGRAMS) ## build the tests, run none
	@:

tests-unit: $(TESTS_UNIT_C)
	@:

packages: ## install the Debian packages that are missing (as root; else say which)
	$(Q)tools/build/install-packages build run demo test

test: ## everything: install packages, build, run all tests (as root; T=word picks)
	$(Q)tools/build/install-packages
	$(BUILD) all tests
	$(if $(SAN),,$(BUILD) SAN=1 O=$(O)-san tests-unit)
	$(Q)$(RUN) --root $(TESTS_BPF) $(filter-out $(TESTS_BESIDE),$(TESTS_NET)) --beside $(TESTS_BESIDE) \
		$(TESTS_VM) --beside --user $(TESTS_CHECK) $(TESTS_UNIT) \
		$(if $(SAN),,--beside --user $(TESTS_UNIT_C:$(O)/%=$(O)-san/%))

test-unit: ## tests that need nothing (SAN=1: with sanitizers)
	$(BUILD) all tests-unit
	$(Q)$(RUN) --user $(TESTS_UNIT)

test-bpf: ## tests that need bpf(): root
	$(BUILD) all tests
	$(Q)$(RUN) --root $(TESTS_BPF)

test-net: ## tests in network namespaces with real programs: root
	$(BUILD) all tests
	$(Q)$(RUN) --root $(TESTS_NET)

test-6.1: ## bpf and net tests, the demo and the unit on Debian's kernel 6.1, emulated (as root)
	$(Q)tools/build/install-packages build run test vm
	$(BUILD) all tests
	$(Q)tests/vm/harness

test-long: ## all tests at full length: soaks, many seeds; then those on kernel 6.1
	+$(Q)LONG=1 DMM_TEST_TIMEOUT=$${DMM_TEST_TIMEOUT:-7200} $(MAKE) --no-print-directory test; \
	long=$$?; LONG= $(MAKE) --no-print-directory test-6.1 && exit $$long

check: ## what needs no root: headers, format, include rules, packages, unit tests
	$(BUILD) all tests-unit
	$(Q)$(RUN) --user $(TESTS_CHECK) $(TESTS_UNIT)

style: ## reformat the C files in place
	$(Q)tools/check/run --list-c | xargs -r $(CLANG_FORMAT) -i

demo: ## the main job on this machine, then clean up (KEEP=1 leaves it up)
	$(Q)tools/build/install-packages build run demo
	$(BUILD) all
	$(Q)tools/demo/run

demo-down: ## remove what `make demo KEEP=1` left up
	$(Q)tools/demo/down

demo-proxy: ## nginx between two stacks, then clean up (KEEP=1 leaves it up)
	$(Q)tools/build/install-packages build run demo
	$(BUILD) all
	$(Q)tools/demo/proxy

demo-proxy-down: ## remove what `make demo-proxy KEEP=1` left up
	$(Q)tools/demo/proxy down

bench: ## DMM beside the kernel, in one table
	$(Q)tools/build/install-packages build run test bench
	$(BUILD) all
	$(Q)tools/bench/run

install: ## install under PREFIX (/usr/local), staged in DESTDIR
	$(BUILD) all
	$(install-files)

uninstall: ## remove what install installed
	$(uninstall-files)

clean: ## remove the products
	$(Q)rm -rf $(O) $(O)-san

print-%: # the value of a variable, for scripts
	@echo '$(subst ','\'',$($*))'

help: ## this list
	@sed -n 's/^\([a-z0-9.-]*\):.*## /  \1\t/p' Makefile | expand -t 14
	@echo
	@echo '  SAN=1 sanitizers   V=1 commands   T=word one test   O=dir output folder'
