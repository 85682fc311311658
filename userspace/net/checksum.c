// SPDX-License-Identifier: Apache-2.0
/* The Internet checksum. RFC 1071 lets any width be added as long as it is folded in the end;
 * 32-bit words into 64-bit sums overflow after 16 GiB. */
#include "net/checksum.h"

#include <arpa/inet.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define WIDE 128u /* bytes from which wide registers are worth it */

static uint64_t word_at(const uint8_t *p)
{
	uint32_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

uint64_t net_sum_plain(const void *data, size_t len, uint64_t sum)
{
	const uint8_t *p = data;
	uint64_t other = 0;
	uint32_t last = 0;

	for (; len >= 16; len -= 16, p += 16) {
		sum += word_at(p) + word_at(p + 4);
		other += word_at(p + 8) + word_at(p + 12);
	}
	for (; len >= 4; len -= 4, p += 4)
		sum += word_at(p);
	if (len) {
		memcpy(&last, p, len);
		sum += last;
	}
	/* folded once, so that sums of sums do not overflow either */
	sum += other;
	return (sum & 0xffffffff) + (sum >> 32);
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static inline __m256i add_words(__m256i sum, const uint8_t *p)
{
	const __m256i words = _mm256_loadu_si256((const __m256i_u *)(const void *)p);

	sum = _mm256_add_epi64(sum, _mm256_srli_epi64(words, 32));
	return _mm256_add_epi64(sum, _mm256_and_si256(words, _mm256_set1_epi64x(0xffffffff)));
}

__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *p, size_t len, uint64_t sum)
{
	__m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
	uint64_t lanes[4];

	for (; len >= 128; len -= 128, p += 128) {
		a = add_words(a, p);
		b = add_words(b, p + 32);
		c = add_words(c, p + 64);
		d = add_words(d, p + 96);
	}
	for (; len >= 32; len -= 32, p += 32)
		a = add_words(a, p);
	a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
	_mm256_storeu_si256((__m256i_u *)(void *)lanes, a);
	return net_sum_plain(p, len, sum + lanes[0] + lanes[1] + lanes[2] + lanes[3]);
}
#endif

uint64_t net_sum(const void *data, size_t len, uint64_t sum)
{
#ifdef __x86_64__
	if (len >= WIDE && __builtin_cpu_supports("avx2"))
		return sum_avx2(data, len, sum);
#endif
	return net_sum_plain(data, len, sum);
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
	uint64_t sum = (uint64_t)htonl(len) + htonl(proto);
	size_t i;

	for (i = 0; i < addr_len; i += 4)
		sum += word_at(src + i) + word_at(dst + i);
	return sum;
}
