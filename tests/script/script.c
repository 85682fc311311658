// SPDX-License-Identifier: Apache-2.0
/* The language of packet scripts (*.script, and the parts of state.table).
 *
 * A script is read line by line; `#` begins a comment. First what the engine is to be:
 *
 *	ipv6				(ipv4 where not said)
 *	tolerance 0.001			s by which what is timed may be early or late (0)
 *	config NAME N			mtu, send_buffer, receive_buffer, buffer_memory, max_conns,
 *					max_time_wait, congestion, delay_small, ecn,
 *					pacing (off where not said)
 *	isn PEER OURS			the initial numbers; `isn own`: the engine chooses its own
 *
 * then what happens. A line may begin with `+T` or `+T~TOLERANCE`: T seconds after the line before
 * it (+0 where not said). All that leaves must be expected, in order.
 *
 *	< SEGMENT			the peer sends it
 *	> SEGMENT			the engine does
 *	nothing for T			it sends nothing
 *	drain				whatever it sent is no matter
 *	connect [to ADDRESS] | listen [BACKLOG] | unlisten | send N | recv N | shutdown | close |
 *	abort | option NAME N		the user's calls; of the listener while there is no connection. `= R` behind them: what they return, a
 *					number, an errno or any; else all of N, or no error.
 *					options: nodelay, keepalive, user_timeout, congestion
 *	mtu N				that of the interface
 *	icmp TYPE CODE seq N [word N]	an error about what the engine sent with that number
 *	expect event NAME [ERRNO]	the next: CONNECTED, ACCEPTED, EOF, ERROR, CLOSED; READABLE
 *					and WRITABLE may be passed over
 *	expect no event			none but these two
 *	expect result N			what the last call returned
 *	expect state NAME
 *	expect stat NAME N[..N]		a counter of the engine
 *	expect info NAME N[..N]		of the connection: see info_of() in user.c
 *	peer N				the lines that follow are about this one of 16 (0)
 *	let NAME N			$NAME stands for it, $NAME+3 for 3 more
 *	repeat N ... end		the lines between, so often
 *
 * SEGMENT is
 *
 *	FLAGS SEQ[:END](LEN[*COUNT]) [ack N] [win N] [urg N] [ecn N] [<OPTIONS>]
 *
 * FLAGS: letters of SFRPAUEC, or -. SEQ and ack count from the initial numbers of the sides. COUNT
 * segments follow each other, in one go. What an expected one does not say of win, urg, ecn and options
 * may be anything; one that is sent has win 65535. OPTIONS, with commas between them: mss N,
 * wscale N, sackOK, ts VAL ECR, sack A:B C:D, nop, eol, raw HEX. Of timestamps the engine's count
 * from its first; of SACK blocks as ack does. Expected ones name no padding.
 *
 * One that is sent may be odd, by further words: badsum, doff WORDS, reserved BITS, cut BYTES, from
 * ADDRESS, to ADDRESS, ipopt HEX (IPv4), exthdr NEXT HEX (IPv6), count N (the same again). */
#include "script_internal.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool wrong(struct script *s, const char *format, ...)
{
	va_list args;
	int n;

	if (*s->error)
		return false;
	n = snprintf(s->error, sizeof(s->error), "%s:%u: ", s->file, s->line);
	va_start(args, format);
	vsnprintf(s->error + n, sizeof(s->error) - (size_t)n, format, args);
	va_end(args);
	return false;
}

/* --- words --- */

static bool value_of(struct script *s, const char *name, size_t len, long long *ret)
{
	unsigned int i;

	for (i = 0; i < s->n_vars; i++) {
		if (strlen(s->vars[i].name) != len || memcmp(s->vars[i].name, name, len))
			continue;
		*ret = s->vars[i].value;
		return true;
	}
	return wrong(s, "nobody has said what $%.*s is", (int)len, name);
}

static size_t name_len(const char *p)
{
	return strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
}

/* "$a+3-$b" at *@p becomes its value. */
static bool evaluate(struct script *s, const char **p, long long *ret)
{
	long long sum = 0, sign = 1, v = 0;

	for (;;) {
		if (**p == '$') {
			const size_t len = name_len(++*p);

			if (!value_of(s, *p, len, &v))
				return false;
			*p += len;
		} else {
			const size_t len = strspn(*p, "0123456789");

			v = strtoll(*p, NULL, 10);
			*p += len;
		}
		sum += sign * v;
		if ((**p != '+' && **p != '-') || !strchr("$0123456789", (*p)[1]))
			break;
		sign = *(*p)++ == '+' ? 1 : -1;
	}
	*ret = sum;
	return true;
}

static bool substitute(struct script *s, const char *from, char *to)
{
	size_t n = 0;
	long long v;

	while (*from && *from != '#' && *from != '\n' && n < MAX_LINE - 24) {
		if (*from != '$') {
			to[n++] = *from++;
			continue;
		}
		if (!evaluate(s, &from, &v))
			return false;
		n += (size_t)sprintf(to + n, "%lld", v);
	}
	to[n] = 0;
	return true;
}

/* Options, "<...>", are one word. */
static bool split(struct script *s, const char *line, struct words *w)
{
	char *p = w->text;

	w->n = 0;
	w->after = 0;
	w->tolerance = s->tolerance;
	if (!substitute(s, line, w->text))
		return false;
	while (*(p += strspn(p, " \t"))) {
		const bool options = *p == '<' && p[1] && p[1] != ' ';
		char *end = options ? strchr(p, '>') : p + strcspn(p, " \t");

		if (!end || w->n == MAX_WORDS)
			return wrong(s, "cannot read this line");
		w->word[w->n++] = p;
		if (options) {
			w->word[w->n - 1]++;
			*end++ = 0;
			p = end;
		} else {
			p = end + (*end != 0);
			*end = 0;
		}
	}
	w->word[w->n] = NULL;
	return true;
}

static bool take_time(struct script *s, struct words *w)
{
	const char *p = w->word[0];
	char *end;

	if (*p != '+')
		return true;
	w->after = strtod(p + 1, &end);
	if (*end == '~')
		w->tolerance = strtod(end + 1, &end);
	if (end == p + 1 || *end)
		return wrong(s, "'%s' is no time", p);
	memmove(w->word, w->word + 1, w->n * sizeof(*w->word));
	return --w->n > 0 || wrong(s, "nothing behind the time");
}

bool read_range(struct script *s, const char *word, long long *from, long long *to)
{
	char *end;

	if (!word)
		return wrong(s, "a number is missing");
	*from = *to = strtoll(word, &end, 0);
	if (end != word && strncmp(end, "..", 2) == 0)
		*to = strtoll(end + 2, &end, 0);
	return !*end || wrong(s, "'%s' is no number", word);
}

bool read_number(struct script *s, const char *word, long long *ret)
{
	long long to;

	return read_range(s, word, ret, &to);
}

bool read_address(struct script *s, const char *word, uint8_t to[16])
{
	memset(to, 0, 16);
	if (word && inet_pton(AF_INET6, word, to) == 1)
		return true;
	to[10] = to[11] = 0xff;
	return (word && inet_pton(AF_INET, word, to + 12) == 1) || wrong(s, "no address");
}

/* --- lines --- */

static bool do_config(struct script *s, const char *name, const char *word)
{
	struct dmm_net_config *c = &s->rig.config;
	uint32_t *const fields[] = { &c->mtu, &c->send_buffer, &c->receive_buffer, &c->max_conns,
				     &c->max_time_wait };
	static const char *const names[] = { "mtu", "send_buffer", "receive_buffer", "max_conns",
					     "max_time_wait" };
	unsigned int i;
	long long n;

	if (!name || !read_number(s, word, &n))
		return wrong(s, "config NAME N");
	for (i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strcmp(name, names[i]) == 0) {
			*fields[i] = (uint32_t)n;
			return true;
		}
	if (strcmp(name, "buffer_memory") == 0)
		c->buffer_memory = (uint64_t)n;
	else if (strcmp(name, "congestion") == 0)
		c->congestion = (enum dmm_net_congestion)n;
	else if (strcmp(name, "delay_small") == 0)
		c->delay_small = n != 0;
	else if (strcmp(name, "ecn") == 0)
		c->ecn = (enum dmm_net_ecn)n;
	else if (strcmp(name, "pacing") == 0)
		c->no_pacing = n == 0;
	else
		return wrong(s, "the engine has no '%s'", name);
	return true;
}

static bool do_isn(struct script *s, const struct words *w)
{
	long long peer, ours;
	unsigned int i;

	if (w->n == 2 && strcmp(w->word[1], "own") == 0) {
		s->rig.own_isn = true;
		return true;
	}
	if (w->n < 3 || !read_number(s, w->word[1], &peer) || !read_number(s, w->word[2], &ours))
		return wrong(s, "isn PEER OURS");
	for (i = 0; i < RIG_PEERS; i++) {
		s->rig.peers[i].isn = (uint32_t)peer;
		s->rig.peers[i].our_isn = (uint32_t)ours;
	}
	return true;
}

/* Returns whether it is a line of what the engine is to be. */
static bool header(struct script *s, const struct words *w)
{
	const char *word = w->word[0];

	if (strcmp(word, "ipv6") == 0 || strcmp(word, "ipv4") == 0)
		s->rig.v6 = word[3] == '6';
	else if (strcmp(word, "tolerance") == 0 && w->n == 2)
		s->tolerance = strtod(w->word[1], NULL);
	else if (strcmp(word, "config") == 0)
		do_config(s, w->word[1], w->word[2]);
	else if (strcmp(word, "isn") == 0)
		do_isn(s, w);
	else
		return false;
	if (s->rig.net)
		wrong(s, "the engine is there already");
	return true;
}

static bool do_let(struct script *s, struct words *w)
{
	long long value;
	unsigned int i;

	if (w->n != 3 || !read_number(s, w->word[2], &value) ||
	    name_len(w->word[1]) != strlen(w->word[1]) || strlen(w->word[1]) > 15)
		return wrong(s, "let NAME N");
	for (i = 0; i < s->n_vars && strcmp(s->vars[i].name, w->word[1]); i++)
		;
	if (i == MAX_VARS)
		return wrong(s, "too many names");
	if (i == s->n_vars)
		strcpy(s->vars[s->n_vars++].name, w->word[1]);
	s->vars[i].value = value;
	return true;
}

static bool do_peer(struct script *s, struct words *w)
{
	long long n;

	if (!read_number(s, w->word[1], &n) || n < 0 || n >= RIG_PEERS)
		return wrong(s, "there are %d peers", RIG_PEERS);
	s->rig.peer = &s->rig.peers[n];
	return true;
}

static bool do_drain(struct script *s, struct words *w)
{
	const uint64_t until = s->rig.now + (uint64_t)(w->after * SEC + 0.5);

	do {
		rig_run(&s->rig, until);
		while (rig_first(&s->rig))
			rig_drop_first(&s->rig);
	} while (s->rig.now < until && !s->rig.wrong);
	return !s->rig.wrong || wrong(s, "%s", s->rig.wrong);
}

static bool do_nothing(struct script *s, struct words *w)
{
	if (w->n != 3 || strcmp(w->word[1], "for"))
		return wrong(s, "nothing for T");
	rig_run(&s->rig, s->rig.now + (uint64_t)(strtod(w->word[2], NULL) * SEC + 0.5));
	return nothing_left(s);
}

static bool do_mtu(struct script *s, struct words *w)
{
	long long n;

	return read_number(s, w->word[1], &n) &&
	       (dmm_net_configure(s->rig.net, (uint32_t)n, s->rig.config.addrs, 2) == 0 ||
		wrong(s, "the engine does not take this MTU"));
}

static bool do_repeat(struct script *s, struct words *w)
{
	s->n_body = 0;
	return (read_number(s, w->word[1], &s->times) && s->times > 0) || wrong(s, "repeat N");
}

struct action {
	const char *name;
	bool (*act)(struct script *s, struct words *w);
};

static const struct action actions[] = {
	{ "<", do_send_segment },  { ">", do_expect_segment }, { "expect", do_expect },
	{ "nothing", do_nothing }, { "drain", do_drain },      { "mtu", do_mtu },
	{ "icmp", do_icmp },	   { "peer", do_peer },	       { "let", do_let },
	{ "repeat", do_repeat },   { "connect", do_call },     { "listen", do_call },
	{ "unlisten", do_call },   { "send", do_call },	       { "recv", do_call },
	{ "shutdown", do_call },   { "close", do_call },       { "abort", do_call },
	{ "option", do_call },
};

/* Whether what it does may be done while something has left that is still to be expected. */
static bool may_wait(const struct action *a)
{
	return a->act == do_expect_segment || a->act == do_expect || a->act == do_drain ||
	       a->act == do_let || a->act == do_peer || a->act == do_repeat;
}

static bool act(struct script *s, struct words *w)
{
	unsigned int i;

	for (i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
		const struct action *a = &actions[i];

		if (strcmp(a->name, w->word[0]))
			continue;
		if (!may_wait(a) && !nothing_left(s))
			return false;
		if (a->act != do_expect_segment && a->act != do_drain && w->after > 0) {
			rig_run(&s->rig, s->rig.now + (uint64_t)(w->after * SEC + 0.5));
			if (!nothing_left(s))
				return false;
		}
		return a->act(s, w) && !*s->error;
	}
	return wrong(s, "'%s': no such thing to do", w->word[0]);
}

static bool run_body(struct script *s)
{
	long long n = s->times;
	unsigned int i;

	for (s->times = 0; n > 0; n--)
		for (i = 0; i < s->n_body; i++)
			if (!script_line(s, s->body_line[i], s->body[i]))
				return false;
	return true;
}

bool script_line(struct script *s, unsigned int number, const char *line)
{
	struct words w;

	s->line = number;
	if (s->times && strncmp(line + strspn(line, " \t"), "end", 3) == 0)
		return run_body(s);
	if (s->times) {
		if (s->n_body == MAX_BODY || strlen(line) >= MAX_LINE)
			return wrong(s, "too much to repeat");
		s->body_line[s->n_body] = number;
		strcpy(s->body[s->n_body++], line);
		return true;
	}
	if (!split(s, line, &w))
		return false;
	if (!w.n)
		return true;
	if (header(s, &w))
		return !*s->error;
	if (!s->rig.net && !rig_create(&s->rig))
		return wrong(s, "the engine does not take this config");
	return take_time(s, &w) && act(s, &w);
}

bool script_end(struct script *s)
{
	if (s->times)
		return wrong(s, "repeat without end");
	if (!s->rig.net)
		return wrong(s, "an empty script");
	rig_settle(&s->rig);
	if (!nothing_left(s) || !no_end_left(s))
		return false;
	return rig_end(&s->rig) || wrong(s, "not all memory was given back at the end");
}

struct script *script_new(const char *file)
{
	struct script *s = calloc(1, sizeof(*s));

	if (!s)
		abort();
	s->file = file;
	rig_init(&s->rig);
	return s;
}

const char *script_error(const struct script *s)
{
	return s->error;
}

void script_free(struct script *s)
{
	rig_free(&s->rig);
	free(s);
}
