/* SPDX-License-Identifier: Apache-2.0 */
/* Address and port, as people write them. */
#include "dmmctl.h"

#include <arpa/inet.h>

#define V4_PREFIX "\0\0\0\0\0\0\0\0\0\0\377\377"

static bool parse_port(const char *text, uint16_t *ret)
{
	char *end;
	unsigned long port = strtoul(text, &end, 10);

	if (*end || end == text || text[0] == '-' || port == 0 || port > 65535)
		return false;
	*ret = port;
	return true;
}

bool parse_address(const char *text, uint8_t ret[16])
{
	if (inet_pton(AF_INET6, text, ret) == 1)
		return true;
	memcpy(ret, V4_PREFIX, 12);
	return inet_pton(AF_INET, text, ret + 12) == 1;
}

bool parse_endpoint(char **words, int n, uint8_t ret_addr[16], uint16_t *ret_port)
{
	char text[64], *colon, *address = text;

	if (n < 1 || n > 2 || strlen(words[0]) >= sizeof(text))
		return false;
	snprintf(text, sizeof(text), "%s", words[0]);
	colon = n == 1 ? strrchr(text, ':') : NULL;
	if (n == 1 && !colon)
		return false;
	if (colon)
		*colon = '\0';
	if (text[0] == '[') {
		if (text[strlen(text) - 1] != ']')
			return false;
		text[strlen(text) - 1] = '\0';
		address++;
	} else if (colon && strchr(text, ':')) {
		return false; /* which colon would end an IPv6 address? */
	}
	return parse_address(address, ret_addr) &&
	       parse_port(n == 2 ? words[1] : colon + 1, ret_port);
}
