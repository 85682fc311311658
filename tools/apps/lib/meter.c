/* SPDX-License-Identifier: Apache-2.0 */
/* Counting messages. */
#include "apps.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"

void app_meter_open(struct app_meter *meter, const struct app_options *options)
{
	*meter = (struct app_meter){ .options = options, .begin_ns = dmm_now_ns() };
	meter->last_ns = meter->begin_ns;
}

static double per_second(uint64_t n, uint64_t ns)
{
	return ns ? (double)n * 1e9 / (double)ns : 0;
}

void app_meter_count(struct app_meter *meter)
{
	const struct app_options *o = meter->options;
	uint64_t n = __atomic_add_fetch(&meter->n, 1, __ATOMIC_RELAXED);

	if (o->say_every && n % o->say_every == 0) {
		uint64_t now = dmm_now_ns(), since;

		since = now - __atomic_exchange_n(&meter->last_ns, now, __ATOMIC_RELAXED);
		printf("%" PRIu64 " messages, pps %.0f", n, per_second(o->say_every, since));
		if (o->say_interval)
			printf(", interval %" PRIu64 " ns", since / o->say_every);
		printf("\n");
		fflush(stdout);
	}
	if (o->sleep_every && o->sleep_us && n % o->sleep_every == 0)
		usleep(o->sleep_us);
}

void app_meter_end(const struct app_meter *meter, const char *what, unsigned int connections)
{
	printf("%s %" PRIu64 " messages of %zu bytes on %u connections, pps %.0f\n", what, meter->n,
	       meter->options->length, connections,
	       per_second(meter->n, dmm_now_ns() - meter->begin_ns));
}
