#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""dmmctl without a daemon and without privileges: its tables, its exit codes, what it prints where."""

import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CTL = os.path.join(ROOT, os.environ.get("O", ".output"), "dmmctl")
EXAMPLES = os.path.join(ROOT, "policy/examples")
FAILED, USAGE, UNREACHABLE, BAD_POLICY = 1, 2, 3, 5

POLICY = """apiVersion: dmm/v1alpha1
kind: Policy
metadata: {name: p}
spec:
  rules:
    - {name: one, match: {remote: {cidr: [10.1.2.3/8]}}, action: {stack: %s}}
  default: {stack: kernel}
"""

tests = []
folder = tempfile.TemporaryDirectory(prefix="dmm-test-ctl-")
# whatever runs on this machine must not answer
ENV = {**{k: v for k, v in os.environ.items() if not k.startswith("DMM_")},
       "DMM_RUN_DIR": folder.name, "DMM_BPFFS": folder.name + "/none"}


def test(fn):
    tests.append(fn)
    return fn


def ctl(*args, stdin=None, env=None):
    return subprocess.run([CTL, *args], input=stdin, capture_output=True, text=True,
                          env={**ENV, **(env or {})}, timeout=60)


def policy_file(name, text):
    path = os.path.join(folder.name, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def expect(p, code):
    assert p.returncode == code, f"exit {p.returncode}, not {code}\n{p.stdout}{p.stderr}"
    return p


def commands():
    lines = expect(ctl("help"), 0).stdout.splitlines()
    return [m[1].strip() for line in lines if (m := re.match(r"  (?=[a-z])(.{15}) \S", line))]


def options():
    text = "".join(expect(ctl("help", *c.split()), 0).stdout for c in commands())
    return set(re.findall(r"--[a-z-]{2,}", text + ctl("help").stdout))


@test
def man_page_has_every_command_and_option():
    with open(os.path.join(ROOT, "tools/dmmctl/dmmctl.8.scd")) as f:
        man = f.read()
    assert len(commands()) > 15, commands()
    for command in commands():
        assert re.search(rf"^\*{command}\b", man, re.M), f"no paragraph on {command}"
    for option in options():
        assert f"*{option}*" in man, f"no word about {option}"


@test
def dmmd_man_page_has_every_option():
    with open(os.path.join(ROOT, "tools/dmmctl/dmmd.8.scd")) as f:
        man = f.read()
    usage = subprocess.run([os.path.join(os.path.dirname(CTL), "dmmd"), "--help"],
                           capture_output=True, text=True, check=True).stdout
    found = set(re.findall(r"^ .{5}(--[a-z-]+)", usage, re.M))
    assert len(found) > 5, usage
    assert found == set(re.findall(r"^(?:\*-.\*, )?\*(--[a-z-]+)\*", man, re.M))


@test
def completion_knows_commands_and_options():
    script = expect(ctl("completion", "bash"), 0).stdout

    def complete(*words):
        code = f'{script}\nCOMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _dmmctl; ' \
               'echo "${COMPREPLY[@]}"'
        p = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return p.stdout.split()

    assert complete("dmmctl", "''") == list(dict.fromkeys(c.split()[0] for c in commands()))
    assert complete("dmmctl", "stacks", "r") == ["restart"]
    assert complete("dmmctl", "-j", "stacks", "''") == ["list", "restart", "drain"]
    assert set(complete("dmmctl", "status", "--")) == options()


@test
def usage_errors_exit_2():
    for args in (["nonsense"], ["stacks", "nonsense"], ["--nonsense"], ["status", "superfluous"],
                 ["check"], ["-o", "xml", "status"], ["status", "--timeout"],
                 ["status", "--timeout", "0"], ["status", "--pid", "1"], ["apply"], ["attach"], ["attach", "/fast"],
                 ["attach", "--pid", "1", "--cgroup", "/"], ["run"], ["completion", "csh"],
                 ["stacks", "drain"], ["explain", "udp", "connect", "1.2.3.4:5"]):
        p = expect(ctl(*args), USAGE)
        assert p.stdout == "" and "hint: " in p.stderr, (args, p)


@test
def addresses_are_read_as_people_write_them():
    for words in (["10.1.2.3:443"], ["10.1.2.3", "443"], ["[fd00::1]:443"], ["fd00::1", "443"],
                  ["[::ffff:10.1.2.3]:1"]):
        assert ctl("explain", "tcp", "connect", *words).returncode != USAGE, words
    for words in (["10.1.2.3"], ["10.1.2.3:0"], ["10.1.2.3:65536"], ["10.1.2:80"], ["fd00::1:443"],
                  ["10.1.2.3:80", "80"], ["[fd00::1]"], ["10.1.2.3:-1"], ["host:80"], [":80"],
                  ["[:80"], ["x" * 300 + ":80"]):
        expect(ctl("explain", "tcp", "connect", *words), USAGE)


@test
def without_a_daemon_exit_3():
    policy = policy_file("ok.yaml", POLICY % "kernel")
    for args in ([], ["status"], ["apply", policy], ["stacks"], ["stacks", "restart", "fast"],
                 ["get", "policy"], ["run", "true"]):
        p = expect(ctl(*args), UNREACHABLE)
        assert "ENOENT" in p.stderr and "hint: " in p.stderr and folder.name in p.stderr, p.stderr


@test
def errors_are_json_too():
    p = expect(ctl("status", "-j"), UNREACHABLE)
    error = json.loads(p.stderr)["error"]
    assert p.stdout == "" and error["errno"] == "ENOENT" and error["hint"] and error["text"]


@test
def options_stand_anywhere():
    policy = policy_file("ok.yaml", POLICY % "kernel")
    outs = {expect(ctl(*args), 0).stdout for args in (
        ["-j", "check", "--offline", policy], ["check", policy, "--offline", "-o", "json"],
        ["--output=json", "--offline", "check", policy], ["check", "-ojson", "--offline", "--", policy])}
    assert len(outs) == 1, outs


@test
def options_of_a_run_command_are_its_own():
    # -j is env's, not ours: the error is no JSON
    assert ctl("run", "env", "-j").stderr.startswith("dmmctl: ")
    assert ctl("run", "--cgroup", "/x", "--", "env", "-j").stderr.startswith("dmmctl: ")
    assert json.loads(ctl("run", "-j", "env").stderr)


@test
def check_accepts_the_examples():
    names = [os.path.join(EXAMPLES, n) for n in os.listdir(EXAMPLES) if n.endswith(".yaml")]
    names.append(os.path.join(ROOT, "tools/demo/demo.yaml"))
    p = expect(ctl("check", "--offline", "--strict", *names), 0)
    assert p.stdout.count(": OK, ") == len(names) > 1 and p.stderr == "", p


@test
def check_finds_and_exits_5():
    wrong, ok = policy_file("wrong.yaml", POLICY % "fast"), policy_file("ok.yaml", POLICY % "kernel")
    p = expect(ctl("check", "--offline", wrong, ok), BAD_POLICY)
    assert re.search(r"wrong.yaml:6:\d+: error\[E012\]: ", p.stderr) and "^~~~" in p.stderr, p.stderr
    assert "REJECTED, 1 error" in p.stdout and "ok.yaml: OK, 1 rule" in p.stdout, p.stdout
    expect(ctl("check", "--offline", ok), 0)
    expect(ctl("check", "--offline", "--strict", ok), BAD_POLICY)  # host bits are a warning
    expect(ctl("check", "--offline", "-", stdin=POLICY % "kernel"), 0)
    expect(ctl("check", "--offline", folder.name + "/none.yaml"), FAILED)


@test
def check_tells_places_in_json():
    wrong = policy_file("wrong.yaml", POLICY % "fast")
    p = expect(ctl("-j", "check", "--offline", wrong), BAD_POLICY)
    doc = json.loads(p.stdout)
    assert (doc["apiVersion"], doc["kind"]) == ("dmm/v1alpha1", "PolicyCheckList")
    item, = doc["items"]
    finding = [f for f in item["findings"] if f["code"] == "E012"][0]
    assert (item["errors"], finding["severity"], finding["line"]) == (1, "error", 6), item
    assert len(expect(ctl("-o", "jsonl", "check", "--offline", wrong, wrong), BAD_POLICY)
               .stdout.splitlines()) == 2


@test
def check_without_daemon_says_so_and_still_tells_warnings():
    p = expect(ctl("check", policy_file("ok.yaml", POLICY % "kernel")), 0)
    assert "dmmd is not running" in p.stderr and "W103" in p.stderr, p.stderr
    assert "dmmd" not in ctl("-q", "check", policy_file("ok.yaml", POLICY % "kernel")).stderr


@test
def version_needs_no_daemon():
    doc = json.loads(expect(ctl("version", "-j"), 0).stdout)
    assert doc["kind"] == "Version" and doc["dmmctl"] and doc["dmmd"] is None
    assert expect(ctl("version"), 0).stdout.startswith(f"dmmctl {doc['dmmctl']} / dmmd not running")


@test
def yaml_output_is_json_s_tree():
    policy = policy_file("ok.yaml", POLICY % "kernel")
    text = expect(ctl("-o", "yaml", "check", "--offline", policy), 0).stdout
    assert 'kind: "PolicyCheckList"' in text and "  rules: 1\n" in text, text


@test
def colours_only_on_a_terminal():
    policy = policy_file("ok.yaml", POLICY % "kernel")
    assert "\033" not in ctl("check", "--offline", policy).stdout
    for env, option, wanted in (({}, [], True), ({"NO_COLOR": "1"}, [], False),
                                ({}, ["--no-color"], False)):
        p = subprocess.run(["script", "-qec", " ".join([CTL, "check", "--offline", *option, policy]),
                            "/dev/null"], capture_output=True, text=True, env={**ENV, **env})
        assert ("\033[32m" in p.stdout) == wanted, (env, option, p.stdout)


@test
def schema_is_json():
    assert json.loads(expect(ctl("schema"), 0).stdout)["$schema"]


@test
def help_covers_an_object():
    said = expect(ctl("stacks", "--help"), 0).stdout
    assert said == expect(ctl("help", "stacks"), 0).stdout
    assert all(f"dmmctl [OPTIONS] stacks {verb}" in said for verb in ("list", "restart", "drain"))
    assert "stacks" not in expect(ctl("flows", "list", "--help"), 0).stdout


@test
def unknown_commands_get_a_hint():
    for words, hint in ((["stack", "list"], "did you mean 'stacks list'?"),
                        (["aply", "x"], "did you mean 'apply'?"), (["explian"], "did you mean 'explain'?"),
                        (["get"], "dmmctl get policy, dmmctl get rules"),
                        (["demo"], "dmmctl demo up"), (["frobnicate"], "`dmmctl help`")):
        said = expect(ctl(*words), USAGE).stderr
        assert f"no such command: {' '.join(words)}" in said, said
        assert hint in said, said


@test
def version_is_an_option_too():
    assert expect(ctl("--version"), 0).stdout == expect(ctl("version"), 0).stdout


@test
def impossible_filters_are_refused():
    for words, why in ((["state", "establshed"], "connecting, established"),
                       (["dport", "http"], "not a port"), (["pid", "curl"], "not a number"),
                       (["reason", "bogus"], "no reason"),
                       (["stack"], "needs a value"), (["colour", "red"], "unknown filter")):
        said = expect(ctl("flows", "list", *words), USAGE).stderr
        assert why in said, said


def main():
    print(f"1..{len(tests)}")
    failed = 0
    for i, t in enumerate(tests, 1):
        try:
            t()
            print(f"ok {i} - {t.__name__.replace('_', ' ')}")
        except Exception as e:
            failed += 1
            print(f"not ok {i} - {t.__name__.replace('_', ' ')}")
            print("\n".join("# " + line for line in f"{type(e).__name__}: {e}".splitlines()))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
