/* SPDX-License-Identifier: Apache-2.0 */
/* One scalar of a policy -> its value: names, ports, prefixes, cgroup paths. */
#include "policy/policy_internal.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <pwd.h>

#include "base/util.h"

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

bool dmm_addr_is_v4(const uint8_t addr[16])
{
	return memcmp(addr, mapped, sizeof(mapped)) == 0;
}

bool dmm_cidr_is_v4(const struct dmm_cidr *cidr)
{
	return cidr->len >= 96 && dmm_addr_is_v4(cidr->addr);
}

static bool alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_name(const char *s, size_t len)
{
	size_t i;

	if (len < 1 || len >= DMM_NAME_LEN || !alnum(s[0]) || !alnum(s[len - 1]))
		return false;
	for (i = 0; i < len; i++) {
		if (!alnum(s[i]) && s[i] != '-')
			return false;
	}
	return true;
}

bool dmm_value_name(const struct dmm_scalar *s, char ret[DMM_NAME_LEN], struct dmm_findings *found)
{
	/* set in any case: who names a badly named thing means that thing */
	snprintf(ret, DMM_NAME_LEN, "%s", s->text);
	if (is_name(s->text, s->len))
		return true;
	dmm_find(found, DMM_CODE_NAME, s->place,
		 "1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit",
		 "'%.80s' is not a valid %s", s->text, s->field);
	return false;
}

bool dmm_value_ifname(const struct dmm_scalar *s, char ret[16], struct dmm_findings *found)
{
	size_t i;
	bool ok = s->len >= 1 && s->len < 16 && !dmm_streq(s->text, ".") &&
		  !dmm_streq(s->text, "..");

	for (i = 0; i < s->len; i++)
		ok &= s->text[i] > ' ' && s->text[i] < 0x7f && !strchr("/:", s->text[i]);
	snprintf(ret, 16, "%s", s->text);
	if (!ok)
		dmm_find(found, DMM_CODE_INTERFACE_NAME, s->place,
			 "1 to 15 characters without space, '/' or ':'",
			 "'%.80s' is not a name of a network interface", s->text);
	return ok;
}

/* A decimal number without sign or leading zeros at @*s, which moves behind it. */
static bool number(const char **s, uint32_t *ret)
{
	const char *p = *s;
	uint32_t n = 0;

	while (*p >= '0' && *p <= '9' && n < 100000)
		n = n * 10 + (*p++ - '0');
	if (p == *s || (**s == '0' && p != *s + 1))
		return false;
	*s = p;
	*ret = n;
	return true;
}

bool dmm_value_range(const struct dmm_scalar *s, uint32_t min, uint32_t max,
		     struct dmm_port_range *ret, struct dmm_findings *found)
{
	const char *p = s->text;
	uint32_t first = 0, last = 0;
	bool ok = number(&p, &first);

	last = first;
	if (ok && *p == '-') {
		p++;
		ok = number(&p, &last);
	}
	if (!ok || *p) {
		dmm_find(found, DMM_CODE_PORT, s->place, "write 443 or 8000-8999",
			 "'%.80s' is not a port or port range", s->text);
		return false;
	}
	if (first < min || first > max || last < min || last > max) {
		dmm_find(found, DMM_CODE_PORT, s->place, NULL,
			 "port %u is out of range: %s are %u to %u",
			 first < min || first > max ? first : last, s->field, min, max);
		return false;
	}
	if (last < first) {
		dmm_find(found, DMM_CODE_PORTS_BACKWARDS, s->place, NULL,
			 "port range %u-%u is backwards", first, last);
		return false;
	}
	*ret = (struct dmm_port_range){ first, last };
	return true;
}

/* "256MiB" or "2GiB", nothing else: what `256M` or `256` would mean is anybody's guess. */
static bool amount(const char *s, uint32_t *ret)
{
	uint32_t n;

	if (!number(&s, &n) || (!dmm_streq(s, "MiB") && !dmm_streq(s, "GiB")))
		return false;
	*ret = *s == 'G' ? n * 1024 : n;
	return true;
}

bool dmm_value_memory(const struct dmm_scalar *s, uint32_t min, uint32_t max, uint32_t *ret,
		      struct dmm_findings *found)
{
	uint32_t n;

	if (!amount(s->text, &n)) {
		dmm_find(found, DMM_CODE_MEMORY, s->place, "write 256MiB or 2GiB",
			 "'%.80s' is not an amount of memory", s->text);
		return false;
	}
	if (n < min || n > max) {
		dmm_find(found, DMM_CODE_MEMORY, s->place, NULL,
			 "%s is out of bounds: %s is %uMiB to %uGiB", s->text, s->field, min,
			 max / 1024);
		return false;
	}
	*ret = n;
	return true;
}

bool dmm_value_number(const struct dmm_scalar *s, uint32_t min, uint32_t max, uint32_t *ret,
		      struct dmm_findings *found)
{
	const char *text = s->text;
	uint32_t n;

	if (!number(&text, &n) || *text || n < min || n > max) {
		dmm_find(found, DMM_CODE_NUMBER, s->place, NULL,
			 "'%.80s' is not a number from %u to %u", s->text, min, max);
		return false;
	}
	*ret = n;
	return true;
}

static bool find_user(const char *name, uint32_t *ret)
{
	struct passwd user, *found = NULL;
	char buf[4096];

	if (getpwnam_r(name, &user, buf, sizeof(buf), &found) != 0 || !found)
		return false;
	*ret = user.pw_uid;
	return true;
}

/* 4294967295 is nobody: (uid_t)-1. */
static bool uid(const char **s, uint32_t *ret)
{
	unsigned long n;
	char *end;

	if (!isdigit((unsigned char)**s))
		return false;
	errno = 0;
	n = strtoul(*s, &end, 10);
	if (errno || n >= UINT32_MAX)
		return false;
	*s = end;
	*ret = n;
	return true;
}

bool dmm_value_uids(const struct dmm_scalar *s, struct dmm_uid_range *ret,
		    struct dmm_findings *found)
{
	struct dmm_uid_range range;
	const char *p = s->text;

	if (uid(&p, &range.first)) {
		range.last = range.first;
		if (*p == '-') {
			p++;
			if (!uid(&p, &range.last) || range.last < range.first)
				p = " ";
		}
	} else if (find_user(s->text, &range.first)) {
		range.last = range.first;
		p = "";
	}
	if (*p) {
		dmm_find(found, DMM_CODE_USER, s->place, "write www-data, 1000 or 1000-1999",
			 "'%.80s' is no user of this machine, number or range", s->text);
		return false;
	}
	*ret = range;
	return true;
}

bool dmm_value_comm(const struct dmm_scalar *s, char ret[16], struct dmm_findings *found)
{
	if (s->len < 1 || s->len > 15) {
		dmm_find(found, DMM_CODE_COMM, s->place, "`ps -o comm` shows the names",
			 "'%.80s' is no name of a process: the kernel keeps 15 characters",
			 s->text);
		return false;
	}
	memset(ret, 0, 16);
	memcpy(ret, s->text, s->len);
	return true;
}

/* Clears the bits behind @len; true where one was set. */
static bool mask(uint8_t addr[16], unsigned int len)
{
	bool set = false;
	unsigned int i;

	for (i = len / 8; i < 16; i++) {
		uint8_t keep = i == len / 8 ? (uint8_t)(0xff00 >> (len % 8)) : 0;

		set |= (addr[i] & ~keep) != 0;
		addr[i] &= keep;
	}
	return set;
}

/* A prefix as people write it. */
static const char *cidr_text(const struct dmm_cidr *cidr, char buf[INET6_ADDRSTRLEN + 4])
{
	bool v4 = dmm_cidr_is_v4(cidr);
	size_t n;

	inet_ntop(v4 ? AF_INET : AF_INET6, cidr->addr + (v4 ? 12 : 0), buf, INET6_ADDRSTRLEN);
	n = strlen(buf);
	snprintf(buf + n, INET6_ADDRSTRLEN + 4 - n, "/%u", cidr->len - (v4 ? 96 : 0));
	return buf;
}

static bool parse_cidr(const struct dmm_scalar *s, struct dmm_cidr *ret, bool *ret_v4)
{
	char addr[INET6_ADDRSTRLEN];
	const char *slash = strchr(s->text, '/'), *p;
	uint32_t len;

	if (!slash || (size_t)(slash - s->text) >= sizeof(addr))
		return false;
	memcpy(addr, s->text, slash - s->text);
	addr[slash - s->text] = 0;
	p = slash + 1;
	*ret = (struct dmm_cidr){ 0 };
	*ret_v4 = inet_pton(AF_INET, addr, ret->addr + 12) == 1;
	if (*ret_v4)
		memcpy(ret->addr, mapped, sizeof(mapped));
	else if (inet_pton(AF_INET6, addr, ret->addr) != 1)
		return false;
	if (!number(&p, &len) || *p || len > (*ret_v4 ? 32 : 128))
		return false;
	ret->len = len + (*ret_v4 ? 96 : 0);
	return true;
}

/* Why it is none, in the words of the likeliest mistake. */
static void bad_cidr(const struct dmm_scalar *s, struct dmm_findings *found)
{
	uint8_t addr[16];
	char hint[80];
	bool v4 = inet_pton(AF_INET, s->text, addr) == 1;

	if (v4 || inet_pton(AF_INET6, s->text, addr) == 1) {
		snprintf(hint, sizeof(hint), "for that address alone write %s/%d", s->text,
			 v4 ? 32 : 128);
		dmm_find(found, DMM_CODE_CIDR, s->place, hint, "'%s' has no prefix length",
			 s->text);
		return;
	}
	dmm_find(found, DMM_CODE_CIDR, s->place,
		 "write 10.0.0.0/8 (length 0 to 32) or 2001:db8::/32 (0 to 128)",
		 "'%.80s' is not an address prefix", s->text);
}

bool dmm_value_cidr(const struct dmm_scalar *s, struct dmm_cidr *ret, struct dmm_findings *found)
{
	char text[INET6_ADDRSTRLEN + 4];
	struct dmm_cidr cidr;
	bool v4;

	if (!parse_cidr(s, &cidr, &v4)) {
		bad_cidr(s, found);
		return false;
	}
	if (mask(cidr.addr, cidr.len))
		dmm_find(found, DMM_CODE_HOST_BITS, s->place, NULL,
			 "%s has host bits set; using %s", s->text, cidr_text(&cidr, text));
	if (!v4 && dmm_cidr_is_v4(&cidr))
		dmm_find(found, DMM_CODE_MAPPED, s->place, NULL,
			 "%s is an IPv4 prefix in IPv6 clothes; using %s", s->text,
			 cidr_text(&cidr, text));
	*ret = cidr;
	return true;
}

/* Why @path cannot name a cgroup, or NULL. */
static const char *cgroup_fault(const char *path)
{
	const char *p;

	if (path[0] != '/')
		return "must start with '/'";
	if (strlen(path) > DMM_CGROUP_MAX)
		return "is too long";
	for (p = path; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return "holds a control character";
		if (p[0] == '/' && p[1] == '.' && p[2] == '.' && (p[3] == '/' || !p[3]))
			return "must not contain '..'";
	}
	return NULL;
}

/* Copies @path without empty parts, "." and a slash at the end. */
static void normalise(const char *path, char *ret)
{
	char *out = ret;

	while (*path) {
		size_t n = strcspn(++path, "/");

		if (n && !(n == 1 && path[0] == '.')) {
			*out++ = '/';
			memcpy(out, path, n);
			out += n;
		}
		path += n;
	}
	*out = 0;
}

int dmm_value_cgroup(const struct dmm_scalar *s, char **ret, struct dmm_findings *found)
{
	const char *fault = cgroup_fault(s->text);
	dmm_autofree char *path = NULL;

	if (fault)
		return dmm_find(found, DMM_CODE_CGROUP, s->place,
				"write the path below the cgroup root, such as /system.slice",
				"cgroup '%.80s' %s", s->text, fault);
	if (strpbrk(s->text, "*?["))
		return dmm_find(found, DMM_CODE_LATER, s->place, "name the cgroup above them",
				"patterns in cgroup are not supported in this version");
	path = malloc(s->len + 1);
	if (!path)
		return -ENOMEM;
	normalise(s->text, path);
	if (!path[0])
		strcpy(path, "/");
	if (!dmm_streq(path, s->text))
		dmm_find(found, DMM_CODE_CGROUP_NORMALISED, s->place, NULL,
			 "cgroup '%.80s' means '%.80s'", s->text, path);
	*ret = DMM_TAKE_PTR(path);
	return 0;
}

bool dmm_cgroup_covers(const char *cgroup, const char *sub)
{
	size_t n;

	if (!cgroup)
		return true;
	if (!sub)
		return false;
	if (dmm_streq(cgroup, "/"))
		return true;
	n = strlen(cgroup);
	return strncmp(cgroup, sub, n) == 0 && (sub[n] == 0 || sub[n] == '/');
}
