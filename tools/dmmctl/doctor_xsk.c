/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor's AF_XDP round trip, in a network namespace that lives as long as the child it is made
 * in: a packet socket on one end of a veth sends a frame, an AF_XDP socket on the other end gets it
 * and sends it back. */
#define _GNU_SOURCE
#include "doctor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <bpf/bpf.h>

#include "policy/policy.h"
#include "pktio/xsk.h"

#define PROTO	   0x88b5 /* IEEE: for local experiments */
#define FRAME_SIZE 2048
#define FRAMES	   256
#define PATIENCE   2000 /* ms */

/* What the child tells: the step that failed with its errno, or how it went. */
struct outcome {
	int err;
	char step[64], log[192];
	bool native;
	char copy[16];
};

struct rig {
	uint32_t ifindex;
	int packet_fd, map_fd, prog_fd, link_fd;
	bool native;
	struct dmm_pktio *io;
	char log[192]; /* what the verifier said */
};

/* --- netlink: a veth pair, both ends up --- */
static int talk(struct mnl_socket *nl, struct nlmsghdr *nlh)
{
	char buf[8192];
	ssize_t n;

	nlh->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	if (mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
	if (n < 0 || mnl_cb_run(buf, n, 0, mnl_socket_get_portid(nl), NULL, NULL) < 0)
		return -errno;
	return 0;
}

static struct nlmsghdr *new_link(void *buf, const char *name)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *ifi;

	nlh->nlmsg_type = RTM_NEWLINK;
	ifi = mnl_nlmsg_put_extra_header(nlh, sizeof(*ifi));
	ifi->ifi_flags = ifi->ifi_change = IFF_UP;
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	return nlh;
}

static int make_veth(struct mnl_socket *nl)
{
	char buf[512] = { 0 };
	struct nlmsghdr *nlh = new_link(buf, "dmm0");
	struct nlattr *info, *data, *peer;
	int r;

	nlh->nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL;
	info = mnl_attr_nest_start(nlh, IFLA_LINKINFO);
	mnl_attr_put_strz(nlh, IFLA_INFO_KIND, "veth");
	data = mnl_attr_nest_start(nlh, IFLA_INFO_DATA);
	peer = mnl_attr_nest_start(nlh, VETH_INFO_PEER);
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(nlh, IFLA_IFNAME, "dmm1");
	mnl_attr_nest_end(nlh, peer);
	mnl_attr_nest_end(nlh, data);
	mnl_attr_nest_end(nlh, info);
	r = talk(nl, nlh);
	if (r < 0)
		return r;
	memset(buf, 0, sizeof(buf));
	return talk(nl, new_link(buf, "dmm1"));
}

static int make_link(struct rig *rig)
{
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	int r;

	if (!nl)
		return -errno;
	r = mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0 ? -errno : make_veth(nl);
	mnl_socket_close(nl);
	rig->ifindex = if_nametoindex("dmm0");
	return r;
}

/* --- both ends --- */
static int open_packet(struct rig *rig)
{
	struct sockaddr_ll addr = { .sll_family = AF_PACKET,
				    .sll_protocol = htons(PROTO),
				    .sll_ifindex = if_nametoindex("dmm1") };

	rig->packet_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(PROTO));
	if (rig->packet_fd < 0 || bind(rig->packet_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	return 0;
}

/* To the AF_XDP socket of the queue it came by, else on to the kernel. */
static int load_redirect(struct rig *rig)
{
	rig->map_fd = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "dmm_doctor", 4, 4, 1, NULL);
	if (rig->map_fd < 0)
		return -errno;

	const struct bpf_insn insns[] = {
		INSN(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1,
		     offsetof(struct xdp_md, rx_queue_index), 0),
		LOAD_MAP(BPF_REG_1, rig->map_fd),
		MOV_IMM(BPF_REG_3, XDP_PASS),
		CALL(BPF_FUNC_redirect_map),
		END(),
	};

	rig->prog_fd = load_program(BPF_PROG_TYPE_XDP, BPF_XDP, insns, DMM_ARRAY_SIZE(insns),
				    rig->log, sizeof(rig->log));
	return rig->prog_fd < 0 ? rig->prog_fd : 0;
}

static int attach_redirect(struct rig *rig)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);

	rig->link_fd = bpf_link_create(rig->prog_fd, rig->ifindex, BPF_XDP, &opts);
	rig->native = rig->link_fd >= 0;
	if (rig->native)
		return 0;
	opts.flags = XDP_FLAGS_SKB_MODE;
	rig->link_fd = bpf_link_create(rig->prog_fd, rig->ifindex, BPF_XDP, &opts);
	return rig->link_fd < 0 ? -errno : 0;
}

static int open_xsk(struct rig *rig)
{
	const struct dmm_xsk_request request = { .ifindex = rig->ifindex,
						 .n_queues = 1,
						 .zerocopy = DMM_ZC_AUTO,
						 .frame_size = FRAME_SIZE,
						 .frames_per_queue = FRAMES };
	struct dmm_handover_xsk desc;
	struct dmm_xsk_open args = { .frame_size = FRAME_SIZE,
				     .n_frames = FRAMES,
				     .n_queues = 1,
				     .ifindex = rig->ifindex,
				     .mtu = 1500,
				     .descs = &desc };
	uint32_t queue = 0;
	int fd, r;

	r = dmm_xsk_create(&request, &args.umem_fd, &args.umem_size, &fd, &desc);
	if (r < 0)
		return r;
	if (bpf_map_update_elem(rig->map_fd, &queue, &fd, BPF_ANY) < 0)
		return -errno;
	args.xsk_fds = &fd;
	return dmm_xsk_open(&args, &rig->io);
}

/* --- the round trip --- */
struct test_frame {
	struct ethhdr eth;
	char text[46];
};

static int send_frame(struct rig *rig)
{
	struct test_frame frame = { .eth = { .h_dest = { 255, 255, 255, 255, 255, 255 },
					     .h_source = { 2, 0, 0, 0, 0, 1 },
					     .h_proto = htons(PROTO) },
				    .text = "dmmctl doctor" };

	return send(rig->packet_fd, &frame, sizeof(frame), 0) < 0 ? -errno : 0;
}

/* The kernel may have things of its own to say on a new link: what is not ours is given back. */
static int echo_frame(struct rig *rig)
{
	const struct dmm_pktio_ops *ops = rig->io->ops;
	struct pollfd pfd = { .events = POLLIN };

	if (ops->wait_fds(rig->io, &pfd.fd, 1) < 1)
		return -EBADF;
	while (poll(&pfd, 1, PATIENCE) > 0) {
		struct dmm_frame frame;

		if (ops->rx_burst(rig->io, &frame, 1) == 0)
			continue;
		if (frame.len >= sizeof(struct ethhdr) &&
		    ((struct ethhdr *)frame.data)->h_proto == htons(PROTO)) {
			if (ops->tx_burst(rig->io, &frame, 1) != 1)
				return -ENOBUFS;
			ops->flush(rig->io);
			return 0;
		}
		ops->free(rig->io, &frame, 1);
	}
	return -ETIMEDOUT;
}

static int receive_frame(struct rig *rig)
{
	struct pollfd pfd = { .fd = rig->packet_fd, .events = POLLIN };
	struct test_frame frame = { 0 };

	if (poll(&pfd, 1, PATIENCE) <= 0)
		return -ETIMEDOUT;
	if (recv(rig->packet_fd, &frame, sizeof(frame), 0) < 0)
		return -errno;
	return dmm_streq(frame.text, "dmmctl doctor") ? 0 : -EBADMSG;
}

static int make_namespace(struct rig *rig)
{
	(void)rig;
	return unshare(CLONE_NEWNET) < 0 ? -errno : 0;
}

static void run_steps(void *ctx, void *ret)
{
	static const struct {
		const char *what;
		int (*run)(struct rig *rig);
	} steps[] = {
		{ "making a network namespace", make_namespace },
		{ "making a veth pair", make_link },
		{ "opening a packet socket", open_packet },
		{ "loading an XDP program", load_redirect },
		{ "attaching it", attach_redirect },
		{ "making an AF_XDP socket", open_xsk },
		{ "sending to it", send_frame },
		{ "receiving by AF_XDP", echo_frame },
		{ "sending by AF_XDP", receive_frame },
	};
	struct outcome *outcome = ret;
	struct dmm_pktio_caps caps;
	struct rig rig = { 0 };

	(void)ctx;
	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(steps) && outcome->err == 0; i++) {
		outcome->err = steps[i].run(&rig);
		snprintf(outcome->step, sizeof(outcome->step), "%s", steps[i].what);
	}
	memcpy(outcome->log, rig.log, sizeof(outcome->log));
	if (outcome->err == 0) {
		rig.io->ops->caps(rig.io, &caps);
		outcome->native = rig.native;
		snprintf(outcome->copy, sizeof(outcome->copy), "%s", caps.copy);
	}
}

void doctor_xsk(struct doctor *doctor)
{
	static const char check[] = "AF_XDP receives and sends on a veth pair";
	struct outcome outcome = { 0 };
	int r = run_in_child(run_steps, NULL, &outcome, sizeof(outcome));

	if (r < 0)
		diagnose(doctor, HEALTH_ERROR, check, NULL, "the trial itself: %s", strerror(-r));
	else if (outcome.err < 0)
		diagnose(doctor, HEALTH_ERROR, check,
			 "the kernel needs CONFIG_XDP_SOCKETS and CONFIG_VETH; root needs "
			 "CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF",
			 "%s: %s%s%s", outcome.step, strerror(-outcome.err),
			 *outcome.log ? ": " : "", outcome.log);
	else
		diagnose(doctor, HEALTH_OK, check, NULL, "%s, %s",
			 outcome.native ? "native" : "generic", outcome.copy);
}
