/* SPDX-License-Identifier: Apache-2.0 */
/* Is it text at all? Refuses everything but UTF-8 before libyaml sees it. */
#include "policy/policy_internal.h"

#include <errno.h>

#include "base/util.h"

/* Length of the UTF-8 sequence at @s and its code point, 0 where it is none. */
static size_t decode(const uint8_t *s, size_t len, uint32_t *ret)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n, i;
	uint32_t c;

	if (s[0] < 0x80) {
		*ret = s[0];
		return 1;
	}
	n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	if (s[0] < 0xc2 || s[0] > 0xf4 || n > len)
		return 0;
	c = s[0] & (0x7f >> n);
	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	*ret = c;
	return n;
}

/* What YAML calls printable; a byte order mark only counts at the start. */
static bool printable(uint32_t c)
{
	return (c >= 0x20 && c < 0x7f) || c == '\t' || c == '\n' || c == '\r' || c == 0x85 ||
	       (c >= 0xa0 && c < 0xfeff) || (c > 0xfeff && c < 0xfffe) || c >= 0x10000;
}

static int refuse(struct dmm_findings *found, struct dmm_place place, const uint8_t *s, size_t len)
{
	static const char hint[] = "save the file as UTF-8";
	uint32_t c;
	int r;

	if (place.line == 1 && place.column <= 2 && len >= 2 &&
	    ((s[0] == 0xff && s[1] == 0xfe) || (s[0] == 0xfe && s[1] == 0xff) || !s[0] || !s[1]))
		r = dmm_find(found, DMM_CODE_ENCODING, place, hint, "this looks like UTF-16");
	else if (!decode(s, len, &c))
		r = dmm_find(found, DMM_CODE_ENCODING, place, hint, "byte 0x%02x is not UTF-8",
			     s[0]);
	else if (c == 0)
		r = dmm_find(found, DMM_CODE_ENCODING, place, NULL, "NUL byte");
	else
		r = dmm_find(found, DMM_CODE_ENCODING, place, NULL,
			     "control character U+%04X is not allowed", c);
	return r < 0 ? r : -EINVAL;
}

int dmm_text_check(const char *text, size_t len, struct dmm_findings *found)
{
	const uint8_t *s = (const uint8_t *)text, *end = s + len;
	struct dmm_place place = { 1, 1, 1 };
	uint32_t c, last = 0;
	size_t n;

	for (; s < end; s += n, last = c) {
		n = decode(s, end - s, &c);
		if (!n || !printable(c))
			return refuse(found, place, s, end - s);
		if (c == '\n' && last == '\r')
			continue;
		/* the line breaks of YAML 1.1, as libyaml counts them */
		if (c == '\n' || c == '\r' || c == 0x85 || c == 0x2028 || c == 0x2029) {
			place.line++;
			place.column = 1;
		} else {
			place.column++;
		}
	}
	return 0;
}
