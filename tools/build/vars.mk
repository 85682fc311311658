# SPDX-License-Identifier: Apache-2.0
# Tools, flags and how to say things.

comma := ,
space := $(subst ,, )

SAN ?=
V ?=
O ?= .output$(if $(SAN),-san)
PREFIX ?= /usr/local
DESTDIR ?=
KEEP ?=
T ?=
LONG ?=
export O SAN V KEEP T LONG

CC = gcc
CLANG ?= clang
BPFTOOL ?= bpftool
CLANG_FORMAT ?= clang-format
PKG_CONFIG ?= pkg-config

# Debian keeps bpftool in sbin, which is not in everyone's path
export PATH := $(PATH):/usr/sbin:/sbin

Q := $(if $(filter-out 0,$(V)),,@)
say = $(if $(Q),@printf '  %-5s %s\n' $(1) '$(2)')

# A build inside a target that needs root: as whoever called sudo, on all cores.
JOBS ?= $(shell nproc)
BUILD = +$(Q)tools/build/as-user $(O) $(MAKE) --no-print-directory \
	$(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(JOBS))
RUN = tests/lib/run

# pkg-config is asked when the first compiler runs, then its answer is remembered. Headers of
# libraries are not held to our warnings.
pkg = $(if $(1),$(call pkg-cached,$(1),$(2),_pkg$(subst $(space),_,$(1)$(2))))
pkg-cached = $(if $(filter undefined,$(origin $(3))),$(eval $(3) := \
	$$(shell $(PKG_CONFIG) $(2) $(1))))$($(3))
pkg-libs = $(call pkg,$(strip $(1)),--libs)
pkg-isystem = $(patsubst -I%,-isystem %,$(call pkg,$(strip $(1)),--cflags))

# Libraries of all programs; --as-needed keeps what one does not use out of it.
PKGS := libbpf libxdp yaml-0.1 json-c libmnl
TEST_PKGS := cmocka
STACK_PKGS_lwip := lwip

CFLAGS ?= -O2 -g
WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
# gcc guesses worse about instrumented code: its warnings count in the ordinary build only
SAN_FLAGS := $(if $(SAN),-fsanitize=address$(comma)undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer -Wno-error)
INCLUDES = -Iinclude -Iuserspace -I$(O)
DMM_CFLAGS = -std=gnu11 $(CFLAGS) $(WARNINGS) $(SAN_FLAGS) -fPIC -ffunction-sections \
	-fdata-sections $(INCLUDES) -DDMM_VERSION='"$(VERSION)"' $(call pkg-isystem,$(PKGS))
DMM_LDFLAGS = $(LDFLAGS) $(SAN_FLAGS) -Wl,--as-needed -Wl,--gc-sections
DMM_LIBS = $(call pkg-libs,$(PKGS)) -ldl

arch := $(shell uname -m | sed 's/x86_64/x86/; s/aarch64/arm64/')
multiarch = $(eval multiarch := $$(shell $(CC) -print-multiarch))$(multiarch)
BPF_CFLAGS = -target bpf -mcpu=v3 -O2 -g -Wall -Werror -D__TARGET_ARCH_$(arch) -Iinclude -Ibpf \
	-I/usr/include/$(multiarch)

# Everything is made again when the rules change.
MK := Makefile $(wildcard tools/build/*.mk)

# What the rules and the folders' rules.mk add to
BPF_OBJS :=
PROGRAMS :=
STACKS :=
APPS :=
BENCH :=
MANPAGES :=
TEST_PROGRAMS :=
TESTS_CHECK :=
TESTS_UNIT :=
TESTS_UNIT_C :=
TESTS_BPF :=
TESTS_NET :=
TESTS_VM :=
MORE_INSTALLED :=
