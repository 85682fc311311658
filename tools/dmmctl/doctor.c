/* SPDX-License-Identifier: Apache-2.0 */
/* doctor: what DMM needs of this host, tried rather than guessed. */
#include "doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/wait.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#define NAME_WIDTH 46

static const char *const words[HEALTH_COUNT] = { "ok", "no", "warn", "error" };

static void print_line(const struct doctor *doctor, enum health health, const char *check,
		       const char *detail, const char *hint)
{
	static const enum color colors[HEALTH_COUNT] = { COLOR_GOOD, COLOR_DIM, COLOR_WARN,
							 COLOR_BAD };
	static const char dots[] = "..............................................";
	int fill = NAME_WIDTH - (int)strlen(check);

	printf("%s %.*s %s%s%s\n", check, DMM_MAX(fill, 2), dots,
	       paint(doctor->ctl, colors[health], words[health]), *detail ? "  " : "", detail);
	if (hint && *hint)
		printf("    %s %s\n", health == HEALTH_LIMIT ? "so:" : "hint:", hint);
}

void diagnose(struct doctor *doctor, enum health health, const char *check, const char *hint,
	      const char *format, ...)
{
	struct json_object *item = json_object_new_object();
	char detail[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(detail, sizeof(detail), format, ap);
	va_end(ap);
	doctor->count[health]++;
	dmm_json_set_text(item, "check", check);
	dmm_json_set_text(item, "status", words[health]);
	dmm_json_set_text(item, "detail", detail);
	if (hint && *hint)
		dmm_json_set_text(item, "hint", hint);
	json_object_array_add(doctor->items, item);
	if (!is_json(doctor->ctl)) {
		print_line(doctor, health, check, detail, hint);
		fflush(stdout); /* some checks take a while */
	}
}

int load_program(enum bpf_prog_type type, enum bpf_attach_type attach, const struct bpf_insn *insns,
		 size_t n, char *log, size_t log_size)
{
	char buf[4096] = "";
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = attach, .log_buf = buf,
		    .log_size = sizeof(buf), .log_level = 0);
	int fd = bpf_prog_load(type, "dmm_doctor", "GPL", insns, n, &opts);
	size_t len;

	if (fd >= 0)
		return fd;
	fd = -errno;
	buf[strcspn(buf, "\n")] = '\0';
	len = strlen(buf);
	snprintf(log, log_size, "%s", buf + (len < log_size ? 0 : len - log_size + 1));
	return fd;
}

int run_in_child(void (*fn)(void *ctx, void *ret), void *ctx, void *ret, size_t size)
{
	int pipes[2], status;
	ssize_t n = -1;
	pid_t pid;

	if (pipe(pipes) < 0)
		return -errno;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		fn(ctx, ret);
		_exit(write(pipes[1], ret, size) == (ssize_t)size ? 0 : 1);
	}
	close(pipes[1]);
	if (pid > 0) {
		n = read(pipes[0], ret, size);
		waitpid(pid, &status, 0);
	}
	close(pipes[0]);
	return n == (ssize_t)size ? 0 : -ECHILD;
}

/* "2 limits, 1 warning", "" when all is well */
static void summarise(const struct doctor *doctor, char *buf, size_t size)
{
	static const char *const names[HEALTH_COUNT] = { NULL, "limit", "warning", "error" };
	size_t len = 0;

	buf[0] = '\0';
	for (int i = HEALTH_COUNT - 1; i > HEALTH_OK; i--) {
		unsigned int n = doctor->count[i];

		if (n)
			len += snprintf(buf + len, size - len, "%s%u %s%s", len ? ", " : "", n,
					names[i], n == 1 ? "" : "s");
	}
}

int cmd_doctor(struct ctl *ctl)
{
	struct doctor doctor = { .ctl = ctl, .items = json_object_new_array() };
	struct json_object *doc;
	char summary[96];
	bool ready;

	if (geteuid() != 0) {
		json_object_put(doctor.items);
		return fail(ctl, CTL_NOT_PERMITTED, -EPERM, NULL,
			    "doctor loads programs and makes sockets that only root may");
	}
	libbpf_set_print(NULL); /* what fails is reported below, with the kernel's own words */
	doctor_host(&doctor);
	doctor_hook(&doctor);
	doctor_steer(&doctor);
	doctor_xsk(&doctor);
	doctor_network(&doctor);

	ready = doctor.count[HEALTH_ERROR] == 0;
	summarise(&doctor, summary, sizeof(summary));
	doc = list_document("DoctorReport", doctor.items);
	dmm_json_set_text(doc, "result", ready ? "ready" : "not-ready");
	dmm_json_set_u64(doc, "errors", doctor.count[HEALTH_ERROR]);
	dmm_json_set_u64(doc, "warnings", doctor.count[HEALTH_WARNING]);
	dmm_json_set_u64(doc, "limits", doctor.count[HEALTH_LIMIT]);
	if (!is_json(ctl))
		printf("result: %s%s%s%s%s\n",
		       ready ? paint(ctl, COLOR_GOOD, "READY") : paint(ctl, COLOR_BAD, "NOT READY"),
		       *summary ? " (" : "", summary, *summary ? ")" : "",
		       ready ? ".  next: sudo dmmctl demo up" : "");
	print_document(ctl, doc);
	return ready ? CTL_OK : CTL_FAILED;
}
