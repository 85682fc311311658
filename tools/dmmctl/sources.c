/* SPDX-License-Identifier: Apache-2.0 */
/* Where answers come from: dmmd, or the pinned maps. Failures are told to the user here. */
#define _GNU_SOURCE
#include "dmmctl.h"

#include <errno.h>

#include "ctl/ctl.h"
#include "steer/view.h"

static int errno_of(const char *name)
{
	for (int i = 1; i < 134; i++)
		if (strerrorname_np(i) && dmm_streq(strerrorname_np(i), name))
			return -i;
	return 0;
}

/* dmmd said no: its findings as they are, its words as ours. */
static int report_refusal(const struct ctl *ctl, struct json_object *error)
{
	const char *hint = dmm_json_text(error, "hint"), *findings = get_text(error, "findings");
	int err = errno_of(get_text(error, "errno"));
	int code = get_u64(error, "exit");

	if (*findings && !is_json(ctl))
		fputs(findings, stderr);
	if (code < CTL_FAILED || code > CTL_BAD_POLICY)
		code = exit_of(err);
	return fail_found(ctl, code, err, hint, get_text(error, "text"),
			  dmm_json_array(error, "found"));
}

static int report_silence(const struct ctl *ctl, int r)
{
	switch (r) {
	case -EACCES:
	case -EPERM:
		return fail(ctl, CTL_NOT_PERMITTED, r,
			    "members of group dmm may read, root may do all", "control socket %s",
			    ctl->socket);
	case -ETIMEDOUT:
	case -EAGAIN:
		return fail(ctl, CTL_UNREACHABLE, -ETIMEDOUT, "--timeout SECONDS waits longer",
			    "dmmd at %s did not answer in time", ctl->socket);
	case -EPIPE:
	case -ECONNRESET:
		return fail(ctl, CTL_UNREACHABLE, r, "its log says why, if it still runs",
			    "dmmd at %s closed the connection", ctl->socket);
	default:
		return fail(
			ctl, CTL_UNREACHABLE, r,
			"is dmmd running? (--run-dir says where) without it steering goes on as it was",
			"dmmd cannot be reached at %s", ctl->socket);
	}
}

static int call(const struct ctl *ctl, const char *verb, struct json_object *args, bool quiet,
		struct json_object **ret, struct json_object **reterr)
{
	struct json_object *error = NULL;
	int r = dmm_ctl_call(ctl->socket, verb, args, ctl->timeout_ms, ret, &error), code;

	json_object_put(args);
	if (r == 0)
		return CTL_OK;
	if (r == -EREMOTEIO) {
		code = report_refusal(ctl, error);
		if (reterr)
			*reterr = error;
		else
			json_object_put(error);
		return code;
	}
	if (quiet && (r == -ENOENT || r == -ECONNREFUSED))
		return CTL_UNREACHABLE;
	return report_silence(ctl, r);
}

int ask_daemon(const struct ctl *ctl, const char *verb, struct json_object *args,
	       struct json_object **ret)
{
	return call(ctl, verb, args, false, ret, NULL);
}

int ask_daemon_if_there(const struct ctl *ctl, const char *verb, struct json_object *args,
			struct json_object **ret, struct json_object **reterr)
{
	return call(ctl, verb, args, true, ret, reterr);
}

int open_view(const struct ctl *ctl, struct dmm_view **ret)
{
	int r = dmm_view_open(ctl->bpffs, ret);

	switch (r) {
	case 0:
		return CTL_OK;
	case -ENOENT:
		return fail(ctl, CTL_FAILED, r,
			    "nothing is steered there; --bpffs DIR names another place",
			    "no pinned maps in %s", ctl->bpffs);
	case -ESTALE:
		return fail(ctl, CTL_FAILED, r, "`dmmctl teardown` of that version removes them",
			    "pins in %s are of another version of DMM", ctl->bpffs);
	default:
		return fail(ctl, exit_of(r), r, NULL, "pinned maps in %s", ctl->bpffs);
	}
}
