/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of AF_XDP share. */
#pragma once

#include <stdint.h>

/* Binds to a queue, with some patience where it is busy. @owner_fd: the bound socket whose UMEM and
 * mode it shares, or -1; @mode: XDP_COPY, XDP_ZEROCOPY or 0, the kernel's choice. */
int dmm_xsk_bind(int fd, uint32_t ifindex, uint32_t queue, int owner_fd, uint16_t mode);
