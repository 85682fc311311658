/* SPDX-License-Identifier: Apache-2.0 */
/* The flow door's links: XDP on interfaces, native where the driver can, else generic; and in words
 * why not. */
#define _GNU_SOURCE
#include <errno.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <linux/if_link.h>

#include "base/util.h"
#include "steer/steer_internal.h"

static int xdp_path(char *ret, const struct dmm_steer *steer, uint32_t ifindex)
{
	return dmm_pin_path(ret, steer->bpffs, "links/xdp-%u", ifindex);
}

static const char *name_of(uint32_t ifindex, char buf[static IF_NAMESIZE])
{
	if (!if_indextoname(ifindex, buf))
		snprintf(buf, IF_NAMESIZE, "#%u", ifindex);
	return buf;
}

static unsigned int mtu_of(const char *name)
{
	dmm_autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq req = {};

	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, SIOCGIFMTU, &req) < 0)
		return 0;
	return req.ifr_mtu;
}

/* --- why not --- */

static uint32_t holder_id(uint32_t ifindex)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);

	if (bpf_xdp_query(ifindex, 0, &opts) < 0)
		return 0;
	if (opts.prog_id)
		return opts.prog_id;
	return opts.drv_prog_id ? opts.drv_prog_id : opts.skb_prog_id;
}

static int refuse_busy(uint32_t ifindex)
{
	uint32_t id = holder_id(ifindex);
	dmm_autoclose int fd = id ? bpf_prog_get_fd_by_id(id) : -1;
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);
	char name[IF_NAMESIZE];
	char hint[192];

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		snprintf(info.name, sizeof(info.name), "?");
	name_of(ifindex, name);
	snprintf(hint, sizeof(hint),
		 "remove it (ip link set dev %s xdp off; if that is refused, a link holds it: "
		 "bpftool link show) or leave %s out of the policy",
		 name, name);
	return dmm_steer_refuse(-EBUSY, hint, "the XDP hook of %s is held by program '%s', id %u",
				name, info.name, id);
}

/* Links are refused without a word; the netlink way to attach explains itself, so it is asked to
 * fail, too. */
static void ask_why(struct dmm_steer *steer, uint32_t ifindex)
{
	LIBBPF_OPTS(bpf_xdp_attach_opts, opts, .old_prog_fd = steer->xdp_prog.fd);
	__u32 flags = XDP_FLAGS_DRV_MODE | XDP_FLAGS_UPDATE_IF_NOEXIST;

	dmm_libbpf_forget();
	if (bpf_xdp_attach(ifindex, steer->xdp_prog.fd, flags, NULL) == 0)
		bpf_xdp_detach(ifindex, XDP_FLAGS_DRV_MODE, &opts);
}

static int refuse_native(struct dmm_steer *steer, int err, uint32_t ifindex)
{
	const char *said, *prefix = "Kernel error message: ";
	char name[IF_NAMESIZE], hint[256];
	unsigned int mtu;

	ask_why(steer, ifindex);
	said = strstr(dmm_libbpf_said(), prefix);
	said = said ? said + strlen(prefix) : strerror(-err);
	mtu = mtu_of(name_of(ifindex, name));
	/* Frames must fit a page with room around them; drivers say so in many ways. */
	if ((mtu > 3400 && err != -EOPNOTSUPP) || strcasestr(said, "MTU")) {
		snprintf(
			hint, sizeof(hint),
			"ip link set dev %s mtu 3400 (on a veth its peer's counts), or mode: generic",
			name);
		return dmm_steer_refuse(err, hint,
					"%s cannot do native XDP: its MTU %u or its peer's is too "
					"large (%s)",
					name, mtu, said);
	}
	return dmm_steer_refuse(err, "mode: generic works with every driver, at a lower speed",
				"%s cannot do native XDP: %s", name, said);
}

/* --- one interface --- */

static bool is_native(const struct dmm_steer *steer, uint32_t ifindex)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);

	return bpf_xdp_query(ifindex, 0, &opts) == 0 && opts.drv_prog_id == steer->xdp_prog.id;
}

static void got(const struct dmm_steer *steer, uint32_t ifindex, struct dmm_xdp_got *ret)
{
	ret->native = is_native(steer, ifindex);
	ret->prog_id = steer->xdp_prog.id;
}

/* The pinned link runs this build's program afterwards. 1: and had to be updated. -ENOENT: there
 * is none, or it is attached to nothing any more. */
static int update_link(struct dmm_steer *steer, const char *path, uint32_t ifindex)
{
	struct bpf_link_info info;
	dmm_autoclose int fd = dmm_link_open(path, &info);
	int r;

	if (fd < 0)
		return fd;
	if (info.type != BPF_LINK_TYPE_XDP || info.xdp.ifindex != ifindex)
		return -ENOENT;
	if (info.prog_id == steer->xdp_prog.id)
		return 0;
	r = bpf_link_update(fd, steer->xdp_prog.fd, NULL);
	return r < 0 ? r : 1;
}

static int make_link(struct dmm_steer *steer, const char *path, uint32_t ifindex, __u32 flags)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = flags);
	dmm_autoclose int fd = bpf_link_create(steer->xdp_prog.fd, ifindex, BPF_XDP, &opts);

	if (fd < 0)
		return fd;
	return dmm_pin_replace(fd, path);
}

/* -EEXIST: a program sits there in the other mode. */
static bool says_busy(int err)
{
	return err == -EBUSY || err == -EEXIST;
}

static int attach_new(struct dmm_steer *steer, const char *path, uint32_t ifindex, int mode)
{
	char name[IF_NAMESIZE];
	int r = -EOPNOTSUPP;

	if (!if_indextoname(ifindex, name))
		return dmm_steer_refuse(-ENODEV, "ip link", "there is no interface with index %u",
					ifindex);
	if (mode != DMM_XDP_GENERIC) {
		r = make_link(steer, path, ifindex, XDP_FLAGS_DRV_MODE);
		if (r == 0)
			return 0;
		if (!says_busy(r))
			refuse_native(steer, r, ifindex);
	}
	if (mode != DMM_XDP_NATIVE && !says_busy(r)) {
		r = make_link(steer, path, ifindex, XDP_FLAGS_SKB_MODE);
		if (r == 0)
			return 0; /* the reason still says why not native */
		if (!says_busy(r))
			return dmm_steer_fail(r, NULL, "cannot attach XDP to %s", name);
	}
	return says_busy(r) ? refuse_busy(ifindex) : r;
}

static void remember(struct dmm_steer *steer, uint32_t ifindex, int mode)
{
	unsigned int i;

	for (i = 0; i < steer->n_interfaces; i++)
		if (steer->interface[i].ifindex == ifindex)
			break;
	if (i == DMM_ARRAY_SIZE(steer->interface))
		return; /* only repair would have wanted to know */
	steer->interface[i].ifindex = ifindex;
	steer->interface[i].mode = mode;
	steer->n_interfaces = DMM_MAX(steer->n_interfaces, i + 1);
}

static void forget(struct dmm_steer *steer, uint32_t ifindex)
{
	unsigned int i;

	for (i = 0; i < steer->n_interfaces; i++)
		if (steer->interface[i].ifindex == ifindex)
			steer->interface[i] = steer->interface[--steer->n_interfaces];
}

int dmm_steer_attach_interface(struct dmm_steer *steer, uint32_t ifindex, int mode,
			       struct dmm_xdp_got *ret)
{
	char path[DMM_PIN_PATH_LEN];
	int r = xdp_path(path, steer, ifindex);

	if (r < 0)
		return r;
	dmm_steer_clear_reason();
	r = update_link(steer, path, ifindex);
	if (r >= 0 && mode != DMM_XDP_AUTO && is_native(steer, ifindex) != (mode == DMM_XDP_NATIVE))
		r = -ENOENT; /* there, but in the other mode than is asked for now */
	if (r == -ENOENT) {
		r = dmm_link_remove(path);
		if (r == 0)
			r = attach_new(steer, path, ifindex, mode);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return dmm_steer_fail(r, NULL, "link %s", path);
	remember(steer, ifindex, mode);
	got(steer, ifindex, ret);
	return 0;
}

int dmm_steer_detach_interface(struct dmm_steer *steer, uint32_t ifindex)
{
	char path[DMM_PIN_PATH_LEN];
	int r = xdp_path(path, steer, ifindex);

	if (r < 0)
		return r;
	forget(steer, ifindex);
	r = dmm_link_remove(path);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot remove %s", path) : 0;
}

bool dmm_steer_has_interface(struct dmm_steer *steer, uint32_t ifindex)
{
	char path[DMM_PIN_PATH_LEN];

	return xdp_path(path, steer, ifindex) == 0 && access(path, F_OK) == 0;
}

/* --- all interfaces --- */

struct adoption {
	struct dmm_steer *steer;
	struct dmm_first first;
	unsigned int changed;
};

static int adopt_link(void *ctx, const char *name)
{
	struct adoption *a = ctx;
	char path[DMM_PIN_PATH_LEN];
	uint32_t ifindex;
	int r;

	if (sscanf(name, "xdp-%u", &ifindex) != 1)
		return 0;
	r = xdp_path(path, a->steer, ifindex);
	if (r == 0)
		r = update_link(a->steer, path, ifindex);
	if (r == -ENOENT || r == -ENOLINK)
		r = dmm_link_remove(path); /* if somebody took it, it is attached again below */
	else if (r > 0)
		a->changed++;
	if (r < 0)
		dmm_first_note(&a->first, dmm_steer_fail(r, NULL, "link %s", path));
	return 0;
}

static int adopt_interface(struct dmm_steer *steer, uint32_t ifindex, int mode)
{
	char path[DMM_PIN_PATH_LEN], name[IF_NAMESIZE];
	int r = xdp_path(path, steer, ifindex);

	if (r < 0 || access(path, F_OK) == 0 || !if_indextoname(ifindex, name))
		return r;
	r = attach_new(steer, path, ifindex, mode);
	return r < 0 ? r : 1;
}

/* Links whose interface is gone lose their pin; interfaces that this process attached and that
 * somebody detached are attached again. One that fails does not keep the others from it. */
int dmm_xdp_adopt(struct dmm_steer *steer, unsigned int *ret_changed)
{
	struct adoption a = { .steer = steer };
	unsigned int i;

	dmm_first_note(&a.first, dmm_pins_each(steer->bpffs, "links", adopt_link, &a));
	for (i = 0; i < steer->n_interfaces; i++)
		a.changed +=
			dmm_first_note(&a.first, adopt_interface(steer, steer->interface[i].ifindex,
								 steer->interface[i].mode));
	*ret_changed = a.changed;
	return dmm_first_end(&a.first);
}
