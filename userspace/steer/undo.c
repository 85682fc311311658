/* SPDX-License-Identifier: Apache-2.0 */
/* What was changed outside bpffs, remembered in a small pinned map of its own so that teardown can
 * put it back without a daemon: the clsact qdisc on lo and net.ipv4.ip_local_reserved_ports. */
#include <errno.h>
#include <fcntl.h>

#include "base/util.h"
#include "steer/steer_internal.h"

#define RESERVED_PORTS "/proc/sys/net/ipv4/ip_local_reserved_ports"
#define N_PORTS	       65536u

int dmm_undo_open(struct dmm_steer *steer)
{
	char path[DMM_PIN_PATH_LEN];
	dmm_autoclose int fd = -1;
	int r = dmm_pin_path(path, steer->bpffs, "maps/" DMM_UNDO_MAP);

	if (r < 0)
		return r;
	fd = bpf_obj_get(path);
	if (fd == -ENOENT) {
		fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, DMM_UNDO_MAP, sizeof(__u32),
				    sizeof(struct dmm_undo), 1, NULL);
		if (fd >= 0 && (r = dmm_pin_replace(fd, path)) < 0)
			return r;
	}
	if (fd < 0)
		return dmm_steer_fail(fd, NULL, "map " DMM_UNDO_MAP);
	steer->undo = DMM_TAKE_FD(fd);
	return 0;
}

static int load(struct dmm_steer *steer, struct dmm_undo *ret)
{
	__u32 zero = 0;
	int r = bpf_map_lookup_elem(steer->undo, &zero, ret);

	return r < 0 ? dmm_steer_fail(r, NULL, "map " DMM_UNDO_MAP) : 0;
}

static int save(struct dmm_steer *steer, const struct dmm_undo *undo)
{
	__u32 zero = 0;
	int r = bpf_map_update_elem(steer->undo, &zero, undo, BPF_ANY);

	return r < 0 ? dmm_steer_fail(r, NULL, "map " DMM_UNDO_MAP) : 0;
}

int dmm_undo_made_clsact(struct dmm_steer *steer)
{
	struct dmm_undo undo;
	int r = load(steer, &undo);

	if (r < 0)
		return r;
	undo.made_clsact = 1;
	return save(steer, &undo);
}

/* --- sets of ports --- */

static bool has(const uint8_t *set, unsigned int port)
{
	return set[port / 8] & (1u << port % 8);
}

static void put(uint8_t *set, unsigned int port)
{
	set[port / 8] |= 1u << port % 8;
}

/* The sysctl's own format: "20000-31999,40000". */
static int parse_ports(const char *text, uint8_t *ret)
{
	while (*text && *text != '\n') {
		unsigned long first, last;
		char *end;

		first = last = strtoul(text, &end, 10);
		if (end == text)
			return -EBADMSG;
		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		if (last >= N_PORTS || first > last)
			return -EBADMSG;
		for (; first <= last; first++)
			put(ret, first);
		text = *end == ',' ? end + 1 : end;
	}
	return 0;
}

static char *format_ports(const uint8_t *set)
{
	unsigned int port = 0, last;
	size_t size;
	char *text = NULL;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	while (port < N_PORTS) {
		if (!has(set, port)) {
			port++;
			continue;
		}
		for (last = port; last + 1 < N_PORTS && has(set, last + 1);)
			last++;
		fprintf(f, ftell(f) ? ",%u-%u" : "%u-%u", port, last);
		port = last + 1;
	}
	fputc('\n', f);
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

static int read_reserved(uint8_t *ret)
{
	dmm_autofclose FILE *f = fopen(RESERVED_PORTS, "re");
	dmm_autofree char *line = NULL;
	size_t size = 0;

	if (!f)
		return dmm_steer_fail(-errno, NULL, RESERVED_PORTS);
	if (getline(&line, &size, f) < 0)
		return ferror(f) ? dmm_steer_fail(-EIO, NULL, RESERVED_PORTS) : 0;
	return parse_ports(line, ret) < 0
		       ? dmm_steer_refuse(-EBADMSG, NULL, "%s says '%s'", RESERVED_PORTS, line)
		       : 0;
}

static int write_reserved(const uint8_t *set)
{
	dmm_autofree char *text = format_ports(set);
	dmm_autoclose int fd = open(RESERVED_PORTS, O_WRONLY | O_CLOEXEC);
	ssize_t len;

	if (!text)
		return -ENOMEM;
	len = strlen(text);
	if (fd < 0 || write(fd, text, len) != len)
		return dmm_steer_fail(errno ? -errno : -EIO, "is /proc/sys writable here?",
				      RESERVED_PORTS);
	return 0;
}

struct ports {
	uint8_t set[N_PORTS / 8];
};

/* What the sysctl becomes: what others reserved + @wanted. *ret_added: what is there through us. */
static int merge_reserved(const struct ports *added_before, const struct ports *wanted,
			  struct ports *ret_all, struct ports *ret_added)
{
	struct ports now = {};
	unsigned int i;
	int r = read_reserved(now.set);

	if (r < 0)
		return r;
	for (i = 0; i < sizeof(now.set); i++) {
		uint8_t others = now.set[i] & ~added_before->set[i];

		ret_added->set[i] = wanted->set[i] & ~others;
		ret_all->set[i] = others | wanted->set[i];
	}
	return 0;
}

/* The record is written before and after: a crash in between leaves it naming ports that are not
 * reserved, never missing one that is there through us, never naming one that others reserved. */
int dmm_steer_reserve_ports(struct dmm_steer *steer, const struct dmm_port_range *ranges,
			    unsigned int n)
{
	struct ports wanted = {}, before, all, added;
	struct dmm_undo undo;
	unsigned int i, port;
	int r = load(steer, &undo), r2;

	if (r < 0)
		return r;
	for (i = 0; i < n; i++)
		for (port = ranges[i].first; port <= ranges[i].last; port++)
			put(wanted.set, port);
	memcpy(before.set, undo.reserved, sizeof(before));
	r = merge_reserved(&before, &wanted, &all, &added);
	if (r < 0)
		return r;
	for (i = 0; i < sizeof(added); i++)
		undo.reserved[i] |= added.set[i];
	r = save(steer, &undo);
	if (r == 0)
		r = write_reserved(all.set);
	memcpy(undo.reserved, r < 0 ? before.set : added.set, sizeof(undo.reserved));
	r2 = save(steer, &undo);
	return r < 0 ? r : r2;
}

static int give_back(const uint8_t *reserved)
{
	struct ports none = {}, before, all, added;
	int r;

	memcpy(before.set, reserved, sizeof(before));
	if (memcmp(&before, &none, sizeof(none)) == 0)
		return 0;
	r = merge_reserved(&before, &none, &all, &added);
	return r < 0 ? r : write_reserved(all.set);
}

int dmm_undo_run(const struct dmm_undo *undo, int rings)
{
	int r = dmm_lo_detach(rings, undo->made_clsact);
	int r2 = give_back(undo->reserved);

	return r < 0 ? r : r2;
}
