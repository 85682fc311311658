/* SPDX-License-Identifier: Apache-2.0 */
/* What the bench programs share: addresses from the command line, medians, and a histogram of times. */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* Numeric @text of either IP version. */
static inline bool address_parse(const char *text, uint16_t port, union address *ret)
{
	union address a = { 0 };

	if (inet_pton(AF_INET, text, &a.v4.sin_addr) == 1) {
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = htons(port);
	} else if (inet_pton(AF_INET6, text, &a.v6.sin6_addr) == 1) {
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_port = htons(port);
	} else {
		return false;
	}
	*ret = a;
	return true;
}

static inline socklen_t address_len(const union address *a)
{
	return a->any.sa_family == AF_INET6 ? sizeof(a->v6) : sizeof(a->v4);
}

static inline void address_set_port(union address *a, uint16_t port)
{
	if (a->any.sa_family == AF_INET6)
		a->v6.sin6_port = htons(port);
	else
		a->v4.sin_port = htons(port);
}

static inline int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts @values; afterwards the first is the smallest. */
static inline double median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare_doubles);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* ", "key": [...]" of an object in JSON. */
static inline void print_rounds(const char *key, const double *values, size_t n)
{
	printf(", \"%s\": [", key);
	for (size_t i = 0; i < n; i++)
		printf("%s%.1f", i ? ", " : "", values[i]);
	putchar(']');
}

/* Times in ns, each power of two in 128 steps: wrong by less than 1 %. */
#define HIST_STEPS_LOG 7
#define HIST_STEPS     (1u << HIST_STEPS_LOG)

struct histogram {
	uint64_t n;
	uint32_t bucket[(64 - HIST_STEPS_LOG + 1) * HIST_STEPS];
};

static inline void hist_add(struct histogram *h, uint64_t ns)
{
	unsigned int shift = 0, log = 63 - __builtin_clzll(ns | HIST_STEPS);

	shift = log - HIST_STEPS_LOG;
	h->bucket[shift * HIST_STEPS + (ns >> shift)]++;
	h->n++;
}

/* The time that @part (0 to 1) of all times do not exceed, in ns; 0 for an empty histogram. */
static inline double hist_percentile(const struct histogram *h, double part)
{
	uint64_t want = part * h->n, seen = 0;
	size_t i;

	for (i = 0; i < sizeof(h->bucket) / sizeof(h->bucket[0]); i++) {
		unsigned int shift = i < 2 * HIST_STEPS ? 0 : i / HIST_STEPS - 1;

		seen += h->bucket[i];
		if (h->bucket[i] && seen > want)
			return (double)((uint64_t)(i - shift * HIST_STEPS) << shift);
	}
	return 0;
}
