// SPDX-License-Identifier: Apache-2.0
/* The Internet checksum for lwIP, in place of its own, which adds 16 bits at a time and so costs a
 * bulk transfer a tenth of our processor time. Debian builds lwIP without its hook for that
 * (LWIP_CHKSUM), but what a shared library calls by name is looked for first in who loaded it. Were
 * that not so, lwIP would use its own, with the same result. */
#include <string.h>

#include <lwip/inet_chksum.h>

/* lwIP declares it where it defines it. */
__attribute__((visibility("default"))) u16_t lwip_standard_chksum(const void *data, int len);

/* 32-bit words in host order: RFC 1071 lets any order and width be folded in the end. */
u16_t lwip_standard_chksum(const void *data, int len)
{
	const uint8_t *p = data;
	uint64_t even = 0, odd = 0;
	uint32_t word[4] = { 0 };

	for (; len >= (int)sizeof(word); len -= sizeof(word), p += sizeof(word)) {
		memcpy(word, p, sizeof(word));
		even += (uint64_t)word[0] + word[2];
		odd += (uint64_t)word[1] + word[3];
	}
	memset(word, 0, sizeof(word));
	memcpy(word, p, (size_t)len);
	even += (uint64_t)word[0] + word[1];
	even += (uint64_t)word[2] + word[3] + odd;
	while (even >> 16)
		even = (even & 0xffff) + (even >> 16);
	return (u16_t)even;
}
