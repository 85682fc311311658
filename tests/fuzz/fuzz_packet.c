/* SPDX-License-Identifier: Apache-2.0 */
/* Packets as the wire and the lo filter give them: parsed within their bounds; a held SYN comes out
 * whole, and so does every answer that is built from it. */
#include <netinet/in.h>
#include <stdlib.h>

#include "base/util.h"
#include "instance/icmp.h"
#include "instance/inject.h"

#define MAX_ICMP 1500

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void want(bool condition)
{
	if (!condition)
		abort();
}

static void want_whole(const uint8_t *packet, size_t len)
{
	struct packet p;

	want(len <= INJECT_MAX && packet_parse(packet, len, &p));
	want(p.len == len);
	if (p.proto == IPPROTO_ICMP) /* the one without a pseudo-header */
		want(checksum_fold(checksum_add(0, packet + p.header, p.len - p.header)) == 0);
	else
		want(checksum_transport(&p, packet + p.header, p.len - p.header) == 0);
}

static void hold(const uint8_t *data, size_t len)
{
	struct icmp_error error;
	struct held_syn syn;
	uint8_t out[INJECT_MAX];

	if (len > DMM_HELD_SYN_MAX || !inject_hold(data, len, &syn))
		return;
	want(syn.len <= DMM_HELD_SYN_MAX && syn.tcp_len >= 20);
	want_whole(syn.packet, syn.len);
	want_whole(out, inject_refusal(&syn, out));
	icmp_unreachable(syn.ip.family, ICMP_NO_HOST, &error);
	want_whole(out, inject_icmp(&syn, &error, out));
}

/* As a wire error would be, its checksum made right: else hardly one would get past it. */
static void read_icmp(const struct packet *p, const uint8_t *data)
{
	uint32_t len = p->len - p->header;
	uint8_t copy[MAX_ICMP], *icmp = copy + p->header;
	struct icmp_error error;

	if (p->len > sizeof(copy) || len < 8)
		return;
	memcpy(copy, data, p->len);
	packet_put16(icmp + 2, 0);
	packet_put16(icmp + 2, p->proto == IPPROTO_ICMP ? checksum_fold(checksum_add(0, icmp, len))
							: checksum_transport(p, icmp, len));
	icmp_parse(p, copy, &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct packet p;

	if (packet_parse_quoted(data, len, &p))
		want(p.header <= p.len && p.len <= len);
	if (packet_parse(data, len, &p)) {
		want(p.header <= p.len && p.len <= len);
		addr_is_illegal_source(p.src);
		checksum_transport(&p, data + p.header, p.len - p.header);
		read_icmp(&p, data);
	}
	hold(data, len);
	return 0;
}
