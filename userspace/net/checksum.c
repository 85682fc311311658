// SPDX-License-Identifier: Apache-2.0
/* The Internet checksum. RFC 1071 lets any width be added as long as it is folded in the end;
 * 32-bit words into 64-bit sums overflow after 16 GiB. */
#include "net/checksum.h"

#include <arpa/inet.h>
#include <string.h>

uint64_t net_sum(const void *data, size_t len, uint64_t sum)
{
	const uint8_t *p = data;
	uint64_t other = 0;
	uint32_t word[4] = { 0 };

	for (; len >= sizeof(word); len -= sizeof(word), p += sizeof(word)) {
		memcpy(word, p, sizeof(word));
		sum += (uint64_t)word[0] + word[1];
		other += (uint64_t)word[2] + word[3];
	}
	if (len) {
		memset(word, 0, sizeof(word));
		memcpy(word, p, len);
		sum += (uint64_t)word[0] + word[1];
		other += (uint64_t)word[2] + word[3];
	}
	/* folded once, so that sums of sums do not overflow either */
	sum += other;
	return (sum & 0xffffffff) + (sum >> 32);
}

uint16_t net_sum_finish(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

uint64_t net_sum_pseudo(const uint8_t *src, const uint8_t *dst, size_t addr_len, uint8_t proto,
			uint32_t len)
{
	const uint32_t rest[2] = { htonl(len), htonl(proto) };
	uint64_t sum = net_sum(src, addr_len, 0);

	sum = net_sum(dst, addr_len, sum);
	return net_sum(rest, sizeof(rest), sum);
}
