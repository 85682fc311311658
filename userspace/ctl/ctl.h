/* SPDX-License-Identifier: Apache-2.0 */
/* The control protocol between dmmctl (or socat) and dmmd: one JSON object per line over a unix
 * stream socket.
 *
 *   request   {"verb": "status", "args": {...}}
 *   answer    {"ok": true, "result": {...}}
 *             {"ok": false, "error": {"errno": "ENOENT", "text": "...", "hint": "...",
 *                                     "exit": 5, "findings": "text of dmm_findings_print"}}
 *
 * A policy travels in the request's "policy" member with "file" naming it. Lines are capped at
 * DMM_CTL_LINE_MAX for root and at 64 KiB for everyone else. Roles by SO_PEERCRED: uid 0 may do
 * everything; others who can open the socket (group dmm) may read. Of 64 clients at a time, the one that
 * has not moved for longest makes room for the next, or for answers that would fill the memory; who
 * stops within a request or an answer is sent away after 30 s. */
#pragma once

#include <json-c/json.h>
#include <stddef.h>

#define DMM_CTL_LINE_MAX	      (80u << 20)
#define DMM_CTL_LINE_MAX_UNPRIVILEGED (64u << 10)

/* Client side: sends one request, waits for its answer (@timeout_ms, -1: for ever). @args is
 * borrowed, may be NULL. 0: *ret_result is the caller's ("result"). -EREMOTEIO: dmmd said no,
 * *reterr_error is the "error" object. Other errno: no answer. */
int dmm_ctl_call(const char *socket_path, const char *verb, struct json_object *args,
		 int timeout_ms, struct json_object **ret_result,
		 struct json_object **reterr_error);
