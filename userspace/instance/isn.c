/* SPDX-License-Identifier: Apache-2.0 */
/* Initial sequence numbers and SYN cookies. */
#include "instance/isn.h"

#include <string.h>

#include "base/clock.h"
#include "base/util.h"
#include "dmm/abi/wire.h"

#define TICK	     4000 /* ns: RFC 9293, 3.4.1 */
#define COOKIE_CLOCK (64 * DMM_NS_PER_SEC)
#define COOKIE_AGE   1 /* of these */

/* A cookie is | 5 bits of its clock | 3 bits: which MSS | 24 bits of a keyed hash |. So it tells who
 * guesses one in 16 million times, as others' cookies do. */
#define CLOCK_SHIFT 27
#define MSS_SHIFT   24
#define HASH_MASK   0xffffffu

/* Least (RFC 1122), tunnels, IPv6's least MTU, PPPoE and Ethernet in IPv6 and IPv4, large frames. */
static const uint16_t mss_of[] = { 536, 1220, 1360, 1420, 1440, 1452, 1460, 8940 };

/* SipHash-2-4 of a connection and a word more. */
static uint64_t hash_of(const uint64_t key[2], const struct dmm_endpoint *local,
			const struct dmm_endpoint *remote, uint64_t more)
{
	struct dmm_sip s = { key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
			     key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573 };
	uint64_t words[7] = { [4] = (uint64_t)local->port << 16 | remote->port, [5] = more };

	memcpy(&words[0], local->addr, 16);
	memcpy(&words[2], remote->addr, 16);
	words[6] = (uint64_t)(6 * 8) << 56;
	for (size_t i = 0; i < DMM_ARRAY_SIZE(words); i++) {
		s.d ^= words[i];
		dmm_sip_round(&s);
		dmm_sip_round(&s);
		s.a ^= words[i];
	}
	s.c ^= 0xff;
	for (int i = 0; i < 4; i++)
		dmm_sip_round(&s);
	return s.a ^ s.b ^ s.c ^ s.d;
}

uint32_t isn_make(const struct isn *isn, const struct dmm_endpoint *local,
		  const struct dmm_endpoint *remote, uint64_t now)
{
	return (uint32_t)(now / TICK) + (uint32_t)hash_of(isn->key, local, remote, 0);
}

static uint32_t cookie_at(const struct isn *isn, const struct isn_syn *syn, uint64_t clock,
			  uint32_t mss)
{
	uint64_t more = (uint64_t)syn->seq << 32 | (uint32_t)(clock << 3 | mss);
	uint32_t hash = (uint32_t)hash_of(isn->cookie_key, syn->local, syn->remote, more);

	return (uint32_t)clock << CLOCK_SHIFT | mss << MSS_SHIFT | (hash & HASH_MASK);
}

uint32_t isn_make_cookie(const struct isn *isn, const struct isn_syn *syn, uint64_t now)
{
	uint32_t mss = DMM_ARRAY_SIZE(mss_of) - 1;

	while (mss > 0 && mss_of[mss] > syn->mss)
		mss--;
	return cookie_at(isn, syn, now / COOKIE_CLOCK, mss);
}

bool isn_check_cookie(const struct isn *isn, uint32_t cookie, struct isn_syn *syn, uint64_t now)
{
	const uint32_t mss = cookie >> MSS_SHIFT & 7;

	for (uint64_t age = 0; age <= COOKIE_AGE; age++)
		if (cookie_at(isn, syn, now / COOKIE_CLOCK - age, mss) == cookie) {
			syn->mss = mss_of[mss];
			return true;
		}
	return false;
}
