# SPDX-License-Identifier: Apache-2.0
# A static program: nothing of ours and no shared library is in it.

$(O)/tests/net/static_client: private DMM_LDFLAGS += -static
$(O)/tests/net/static_client: private DMM_LIBS :=
