/* SPDX-License-Identifier: Apache-2.0 */
/* TCP segments of a script: as text, as a struct with absolute numbers, as an IP packet. Independent
 * of the engine and of tests/lib, and able to write what no sane peer would. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmm/net.h>

#define WIRE_MAX 65536

#define WIRE_FIN 0x01
#define WIRE_SYN 0x02
#define WIRE_RST 0x04
#define WIRE_PSH 0x08
#define WIRE_ACK 0x10
#define WIRE_URG 0x20

struct wire_segment {
	struct dmm_endpoint src, dst;
	bool v4;
	uint8_t flags, reserved;
	uint8_t ecn; /* of the IP header */
	uint32_t seq, ack, len;
	uint16_t window, urgent;
	uint8_t options[40];
	uint32_t options_len;
	uint32_t
		data_at; /* relative to its sender's initial number: what its bytes are made from */

	/* only written: */
	uint8_t ip_options[40]; /* of IPv4, or extension headers of IPv6 */
	uint32_t ip_options_len;
	uint8_t next_header; /* which the first extension header is */
	int header_words;    /* the data offset that it claims; 0: the true one */
	uint32_t cut;	     /* bytes of the packet that go; 0: all */
	bool bad_sum;
};

/* What relative numbers count from. */
struct wire_bases {
	uint32_t seq, ack;	 /* initial numbers of the sender and of the other side */
	uint32_t ts_val, ts_ecr; /* their clocks */
};

/* Byte @at of either stream. */
uint8_t wire_byte(uint32_t at);
/* @p has room for WIRE_MAX; returns the length. */
size_t wire_build(const struct wire_segment *s, uint8_t *p);
/* Checks all that every segment must be; NULL, or what is wrong with it. Bytes of data are those of
 * the stream whose byte 0 would have the number @first. */
const char *wire_parse(const uint8_t *p, size_t len, uint32_t first, struct wire_segment *ret);
/* Whose it is, of anything that has ports. */
uint16_t wire_remote_port(const uint8_t *p, bool outgoing);
/* An ICMP error of @type and @code that quotes a segment from @about.src to @about.dst. */
size_t wire_icmp(const struct wire_segment *about, const uint8_t from[16], uint8_t type,
		 uint8_t code, uint32_t word, uint8_t *p);

/* Options as text. "mss 1460,sackOK,ts 1 0,wscale 7,sack 1:5 9:12,nop,eol,raw 0204"; paddings are
 * not printed. False: no such option, or no room. */
bool wire_options_read(const char *text, const struct wire_bases *b, struct wire_segment *s);
void wire_options_print(const struct wire_segment *s, const struct wire_bases *b, char *to,
			size_t room);
/* "SA", "-": none. False: no such flag. */
bool wire_flags_read(const char *text, size_t len, uint8_t *ret);
void wire_flags_print(uint8_t flags, char to[10]);
