/* SPDX-License-Identifier: Apache-2.0 */
/* What match_wrap.bpf.c is asked. */
#pragma once

#include <dmm/abi/types.h>

struct match_query {
	__u32 class_id;
	__u16 dir, proto;
	__u32 port;
	__u8 remote[16], local[16];
	__u32 rule; /* the answer */
};
