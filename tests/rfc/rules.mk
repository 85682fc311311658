# SPDX-License-Identifier: Apache-2.0
# The trace of the RFCs: which requirement has which test.

TESTS_UNIT += $(call test-py,rfc)
