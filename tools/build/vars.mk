# SPDX-License-Identifier: Apache-2.0
# Tools, flags and how to say things. Read before the folders' rules.mk.

comma := ,

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
export CC CLANG CLANG_FORMAT PKG_CONFIG

# Debian keeps bpftool in sbin, which is not in everyone's path
export PATH := $(PATH):/usr/sbin:/sbin

Q := $(if $(filter-out 0,$(V)),,@)
say = $(if $(Q),@printf '  %-5s %s\n' $(1) '$(2)')

# A build inside a target that needs root: as whoever called sudo, on all cores.
JOBS ?= $(shell nproc)
BUILD = +$(Q)tools/build/as-user $(O) $(MAKE) --no-print-directory \
	$(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(JOBS))
RUN = tests/lib/run

# Asked when the first compiler runs, then remembered: $(call pkg,--cflags|--libs,MODULES)
pkg = $(strip $(if $(filter undefined,$(origin _pkg $1 $2)),$(eval _pkg $1 $2 := \
	$$(shell $(PKG_CONFIG) $1 $2)))$(_pkg $1 $2))

# Libraries of all programs; --as-needed keeps what one does not use out of it.
PKGS := libbpf libxdp yaml-0.1 json-c libmnl
TEST_PKGS := cmocka
STACK_PKGS_lwip := lwip

CFLAGS ?= -O2 -g
WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
SAN_FLAGS := $(if $(SAN),-fsanitize=address$(comma)undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer)
INCLUDES = -Iinclude -Iuserspace -I$(O)
DMM_CFLAGS = -std=gnu11 $(CFLAGS) $(WARNINGS) $(SAN_FLAGS) -fPIC -ffunction-sections \
	-fdata-sections $(INCLUDES) -DDMM_VERSION='"$(VERSION)"' \
	$(patsubst -I%,-isystem %,$(call pkg,--cflags,$(PKGS)))
DMM_LDFLAGS = $(LDFLAGS) $(SAN_FLAGS) -Wl,--as-needed -Wl,--gc-sections
DMM_LIBS = $(call pkg,--libs,$(PKGS)) -ldl

arch := $(shell uname -m | sed 's/x86_64/x86/; s/aarch64/arm64/')
multiarch = $(eval multiarch := $$(shell $(CC) -print-multiarch))$(multiarch)
BPF_CFLAGS = -target bpf -mcpu=v3 -O2 -g -Wall -Werror -D__TARGET_ARCH_$(arch) -Iinclude -Ibpf \
	-I/usr/include/$(multiarch)

# Everything is made again when the rules change.
MK := Makefile $(wildcard tools/build/*.mk)

# What rules.mk files add to
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
