/* SPDX-License-Identifier: Apache-2.0 */
/* What can be wrong with a policy: one list. Numbers are never reused or changed (scripts match
 * them): below 100 are errors, from 100 on warnings. policy/wrong has a file for each. */
#pragma once

/* X(name, number, one sentence) */
#define DMM_POLICY_CODES(X)                                                                        \
	X(SYNTAX, 1, "not well-formed YAML")                                                       \
	X(UNKNOWN_FIELD, 2, "a field the language does not have")                                  \
	X(DUPLICATE_KEY, 3, "the same key twice in one mapping")                                   \
	X(MISSING_FIELD, 4, "a required field is not there")                                       \
	X(WRONG_TYPE, 5, "a mapping, list or plain value where another is wanted")                 \
	X(UNKNOWN_WORD, 6, "a value that is none of the field's words")                            \
	X(LATER, 7, "a field or value of the language that this version does not carry out")       \
	X(API_VERSION, 8, "an apiVersion this version does not know")                              \
	X(KIND, 9, "a kind other than Policy")                                                     \
	X(NAME, 10, "not a name: 1-63 of a-z 0-9 and -, no - at either end")                       \
	X(DUPLICATE_NAME, 11, "two of a kind with one name")                                       \
	X(UNKNOWN_STACK, 12, "an action names a stack that spec.stacks does not list")             \
	X(RESERVED_NAME, 13, "a name that the language itself uses")                               \
	X(UNKNOWN_INTERFACE, 14, "a stack names an interface that spec.interfaces does not list")  \
	X(INTERFACE_NAME, 15, "not a name of a network interface")                                 \
	X(INTERFACE_TAKEN, 16, "two stacks on one interface")                                      \
	X(CGROUP, 18, "not an absolute path below the cgroup root")                                \
	X(COUNT, 19, "a list with too few or too many items")                                      \
	X(CIDR, 20, "not an address prefix")                                                       \
	X(PORTS_BACKWARDS, 21, "a port range that ends before it starts")                          \
	X(PORT, 22, "not a port or a port range, or out of bounds")                                \
	X(PORTS_OVERLAP, 23, "two stacks own the same local port")                                 \
	X(PORTS_EPHEMERAL, 24, "localPorts inside the range the kernel picks its own from")        \
	X(PORTS_TOO_MANY, 25, "more localPorts than one instance may own")                         \
	X(UDP_STACK, 26, "a rule for UDP only that names a stack")                                 \
	X(DIRECTION, 27, "a field of match that says nothing in the rule's direction")             \
	X(ACTION, 28, "an action that says both things, or neither")                               \
	X(MEMORY, 29, "not an amount of memory, or out of bounds")                                 \
	X(ALIAS, 30, "a YAML anchor or alias")                                                     \
	X(TAG, 31, "a YAML tag")                                                                   \
	X(DOCUMENTS, 32, "more than one YAML document")                                            \
	X(DEPTH, 33, "nested too deeply")                                                          \
	X(SIZE, 34, "the file is too large")                                                       \
	X(ENCODING, 35, "not UTF-8 text")                                                          \
	X(EMPTY, 36, "nothing in the file")                                                        \
	X(NUMBER, 37, "not a number, or out of bounds")                                            \
	X(USER, 38, "neither a user of this machine nor a number or range of users")               \
	X(COMM, 39, "not a name that a process can have")                                          \
	X(CALLERS, 41, "rules tell too many users or processes apart")                             \
	X(TABLES, 40, "the compiled tables would be over their budget")                            \
	X(NEVER_MATCHES, 101, "earlier rules cover a rule")                                        \
	X(MATCHES_NOTHING, 102, "a rule excepts all that it matches")                              \
	X(HOST_BITS, 103, "a prefix with bits set behind its length")                              \
	X(CGROUP_NORMALISED, 104, "a cgroup path with needless parts")                             \
	X(UNUSED_STACK, 105, "a stack that no rule names")                                         \
	X(MAPPED, 106, "an IPv4-mapped IPv6 prefix, taken as IPv4")                                \
	X(NO_EFFECT, 108, "something that changes nothing")                                        \
	X(UDP_REJECT, 109, "a reject that UDP does not get")                                       \
	X(COMM_ALONE, 110, "only the name of the process says whom a rule is for")

enum dmm_policy_code {
#define DMM_X(name, number, text) DMM_CODE_##name = (number),
	DMM_POLICY_CODES(DMM_X)
#undef DMM_X
};
