/* SPDX-License-Identifier: Apache-2.0 */
/* The flow door on interfaces: native and generic, taken hooks, MTU, vanished interfaces. */
#include <errno.h>
#include <net/if.h>
#include <setjmp.h>
#include <stdarg.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>

#include <cmocka.h>

#include "base/util.h"
#include "steerrig.h"

static struct dmm_steer *steer;

static int open_steer(void **state)
{
	(void)state;
	steer = steerrig_open();
	return 0;
}

static int close_steer(void **state)
{
	(void)state;
	dmm_steer_close(steer);
	return dmm_steer_teardown(RIG_BPFFS, NULL, NULL);
}

static int add_veth(void **state)
{
	(void)state;
	steerrig_sh("ip link add v0 type veth peer name v1");
	steerrig_sh("ip link set v0 up && ip link set v1 up");
	return 0;
}

static int del_veth(void **state)
{
	(void)state;
	steerrig_sh_ok("ip link del v0");
	return steerrig_repair(steer) < 0 ? -1 : 0;
}

static void assert_reason(const char *part)
{
	if (!strstr(dmm_steer_reason(), part))
		fail_msg("'%s' does not say '%s'", dmm_steer_reason(), part);
}

static const char *pin_of(uint32_t ifindex)
{
	static char name[64];

	snprintf(name, sizeof(name), "links/xdp-%u", ifindex);
	return name;
}

static int attach_mode(uint32_t ifindex)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);

	assert_int_equal(bpf_xdp_query(ifindex, 0, &opts), 0);
	return opts.attach_mode;
}

static void native_on_veth(void **state)
{
	uint32_t v0 = if_nametoindex("v0");
	struct dmm_xdp_got got = {};

	(void)state;
	assert_int_equal(dmm_steer_attach_interface(steer, v0, DMM_XDP_NATIVE, &got), 0);
	assert_true(got.native);
	assert_int_not_equal(got.prog_id, 0);
	assert_int_equal(attach_mode(v0), XDP_ATTACHED_DRV);
	assert_string_equal(dmm_steer_reason(), "");
	assert_true(steerrig_has_pin(pin_of(v0)));
	assert_int_equal(dmm_steer_attach_interface(steer, v0, DMM_XDP_AUTO, &got), 0);
	assert_true(got.native);
	assert_int_equal(dmm_steer_detach_interface(steer, v0), 0);
	assert_int_equal(attach_mode(v0), XDP_ATTACHED_NONE);
	assert_false(steerrig_has_pin(pin_of(v0)));
	assert_int_equal(steerrig_repair(steer), 0);
	assert_int_equal(attach_mode(v0), XDP_ATTACHED_NONE);
}

static void mode_can_be_changed(void **state)
{
	uint32_t v0 = if_nametoindex("v0");
	struct dmm_xdp_got got;

	(void)state;
	assert_int_equal(dmm_steer_attach_interface(steer, v0, DMM_XDP_GENERIC, &got), 0);
	assert_false(got.native);
	assert_int_equal(attach_mode(v0), XDP_ATTACHED_SKB);
	assert_int_equal(dmm_steer_attach_interface(steer, v0, DMM_XDP_NATIVE, &got), 0);
	assert_true(got.native);
	assert_int_equal(attach_mode(v0), XDP_ATTACHED_DRV);
}

static void falls_back_and_says_why(void **state)
{
	uint32_t lo = if_nametoindex("lo"); /* its driver has no XDP */
	struct dmm_xdp_got got;

	(void)state;
	assert_int_equal(dmm_steer_attach_interface(steer, lo, DMM_XDP_NATIVE, &got), -EOPNOTSUPP);
	assert_reason("lo cannot do native XDP");
	assert_int_equal(dmm_steer_attach_interface(steer, lo, DMM_XDP_AUTO, &got), 0);
	assert_false(got.native);
	assert_reason("lo cannot do native XDP");
	assert_int_equal(dmm_steer_detach_interface(steer, lo), 0);
}

static void large_mtu_is_named(void **state)
{
	uint32_t v0 = if_nametoindex("v0");
	struct dmm_xdp_got got;

	(void)state;
	steerrig_sh("ip link set v0 mtu 9000 && ip link set v1 mtu 9000");
	assert_true(dmm_steer_attach_interface(steer, v0, DMM_XDP_NATIVE, &got) < 0);
	assert_reason("9000");
	assert_reason("mtu 3400");
	assert_int_equal(attach_mode(v0), XDP_ATTACHED_NONE);
	assert_false(steerrig_has_pin(pin_of(v0)));
	steerrig_sh("ip link set v0 mtu 3400 && ip link set v1 mtu 3400");
	assert_int_equal(dmm_steer_attach_interface(steer, v0, DMM_XDP_NATIVE, &got), 0);
}

/* A link as libxdp or cilium would hold it, and a program as `ip link set xdp` attaches it. */
static void holder_is_named(void **state)
{
	int prog = steerrig_tiny_prog(BPF_PROG_TYPE_XDP, BPF_XDP, "squatter", XDP_PASS);
	uint32_t v0 = if_nametoindex("v0");
	struct dmm_xdp_got got;
	int link, mode;

	(void)state;
	link = bpf_link_create(prog, v0, BPF_XDP, NULL);
	assert_true(link >= 0);
	for (mode = DMM_XDP_AUTO; mode <= DMM_XDP_GENERIC; mode++) {
		assert_int_equal(dmm_steer_attach_interface(steer, v0, mode, &got), -EBUSY);
		assert_reason("'squatter'");
		assert_reason("v0");
	}
	close(link);
	assert_int_equal(bpf_xdp_attach(v0, prog, XDP_FLAGS_SKB_MODE, NULL), 0);
	assert_int_equal(dmm_steer_attach_interface(steer, v0, DMM_XDP_AUTO, &got), -EBUSY);
	assert_reason("'squatter'");
	assert_int_equal(bpf_xdp_detach(v0, XDP_FLAGS_SKB_MODE, NULL), 0);
	close(prog);
	assert_int_equal(dmm_steer_attach_interface(steer, v0, DMM_XDP_AUTO, &got), 0);
	assert_true(got.native);
}

static void missing_interface(void **state)
{
	struct dmm_xdp_got got;

	(void)state;
	assert_int_equal(dmm_steer_attach_interface(steer, 4242, DMM_XDP_AUTO, &got), -ENODEV);
	assert_reason("4242");
}

static void repair_follows_interfaces(void **state)
{
	uint32_t v0 = if_nametoindex("v0");
	struct dmm_xdp_got got;
	int link;

	(void)state;
	assert_int_equal(dmm_steer_attach_interface(steer, v0, DMM_XDP_AUTO, &got), 0);
	link = steerrig_pin(pin_of(v0));
	assert_int_equal(bpf_link_detach(link), 0);
	close(link);
	assert_int_equal(steerrig_repair(steer), 1);
	assert_int_equal(attach_mode(v0), XDP_ATTACHED_DRV);
	assert_int_equal(steerrig_repair(steer), 0);
	steerrig_sh("ip link del v0");
	assert_int_equal(steerrig_repair(steer), 0);
	assert_false(steerrig_has_pin(pin_of(v0)));
}

static void next_dmmd_adopts(void **state)
{
	uint32_t v0 = if_nametoindex("v0");
	struct dmm_xdp_got before, after;

	assert_int_equal(dmm_steer_attach_interface(steer, v0, DMM_XDP_NATIVE, &before), 0);
	dmm_steer_close(steer);
	assert_int_equal(attach_mode(v0), XDP_ATTACHED_DRV);
	open_steer(state);
	assert_int_equal(dmm_steer_attach_interface(steer, v0, DMM_XDP_NATIVE, &after), 0);
	assert_int_not_equal(before.prog_id, after.prog_id);
	assert_int_equal(steerrig_link_prog(pin_of(v0)), after.prog_id);
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(native_on_veth, add_veth, del_veth),
		cmocka_unit_test_setup_teardown(mode_can_be_changed, add_veth, del_veth),
		cmocka_unit_test(falls_back_and_says_why),
		cmocka_unit_test_setup_teardown(large_mtu_is_named, add_veth, del_veth),
		cmocka_unit_test_setup_teardown(holder_is_named, add_veth, del_veth),
		cmocka_unit_test(missing_interface),
		cmocka_unit_test_setup_teardown(repair_follows_interfaces, add_veth, del_veth),
		cmocka_unit_test_setup_teardown(next_dmmd_adopts, add_veth, del_veth),
	};

	return cmocka_run_group_tests(tests, open_steer, close_steer);
}

int main(void)
{
	return steerrig_main(run);
}
