/* SPDX-License-Identifier: Apache-2.0 */
/* Counts the TCP sockets that an attach comes too late for: of each the kernel tells in which
 * cgroup it was made. */
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

#include <linux/inet_diag.h>
#include <netinet/in.h>

#include "base/netlink.h"
#include "base/util.h"
#include "dmmd/cgroups.h"

#define CONNECTED (1u << 1 | 1u << 2 | 1u << 8) /* TCP_ESTABLISHED, SYN_SENT, CLOSE_WAIT */
#define LISTEN	  10
#define MAX_DEPTH 32

struct count {
	uint64_t *ids; /* of the cgroup and of all below it, sorted */
	size_t n;
	struct dmmd_late late;
};

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int add_id(struct count *count, uint64_t id)
{
	uint64_t *more = dmm_room_for_one(count->ids, count->n, sizeof(id));

	if (!more)
		return -ENOMEM;
	count->ids = more;
	count->ids[count->n++] = id;
	return 0;
}

/* A cgroup that vanishes meanwhile has no sockets. */
static int add_cgroup(struct count *count, const char *full, unsigned int depth)
{
	char path[PATH_MAX + 256];
	struct dirent *entry;
	struct stat st;
	DIR *dir;
	int r;

	if (depth == MAX_DEPTH)
		return -ELOOP;
	if (stat(full, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	r = add_id(count, st.st_ino); /* the inode's number is the id */
	if (r < 0)
		return r;
	dir = opendir(full);
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while (r == 0 && (entry = readdir(dir))) {
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", full, entry->d_name);
		r = add_cgroup(count, path, depth + 1);
	}
	closedir(dir);
	return r;
}

static int on_socket(const struct nlmsghdr *nlh, void *data)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;
	struct count *count = data;

	mnl_attr_for_each(attr, nlh, sizeof(struct inet_diag_msg))
	{
		uint64_t id;

		if (mnl_attr_get_type(attr) != INET_DIAG_CGROUP_ID)
			continue;
		id = mnl_attr_get_u64(attr);
		if (!bsearch(&id, count->ids, count->n, sizeof(id), compare))
			continue;
		if (msg->idiag_state == LISTEN)
			count->late.listening++;
		else
			count->late.connected++;
	}
	return MNL_CB_OK;
}

int dmmd_cgroup_count_sockets(struct dmmd *d, const char *path, struct dmmd_late *ret)
{
	struct count count = { 0 };
	char full[PATH_MAX];
	int r = dmmd_cgroup_full(d, path, full);

	if (r == 0)
		r = add_cgroup(&count, full, 0);
	if (r == 0) {
		qsort(count.ids, count.n, sizeof(count.ids[0]), compare);
		r = dmm_netlink_tcp_sockets(CONNECTED | 1u << LISTEN, on_socket, &count);
	}
	free(count.ids);
	*ret = count.late;
	return r;
}
