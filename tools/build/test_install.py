#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""install stays below DESTDIR, uninstall leaves nothing, packages come without their services."""

import os
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.realpath(os.path.join(HERE, "../.."))

# a source, and what must be installed of it
EXPECTED = {
    "LICENSE": "share/doc/dmm/LICENSE",
    "include/dmm/stack.h": "include/dmm/stack.h",
    "include/dmm/abi/types.h": "include/dmm/abi/types.h",
    "userspace/dmmd/main.c": "sbin/dmmd",
    "userspace/instance/main.c": "libexec/dmm/dmm-stack",
    "include/dmm/pktio.h": "include/dmm/pktio.h",
    "userspace/dmmd/dmmd.service": "lib/systemd/system/dmmd.service",
    "userspace/instance/dmm-stack.socket": "lib/systemd/system/dmm-stack.socket",
    "userspace/instance/dmm-stack@.service": "lib/systemd/system/dmm-stack@.service",
    "userspace/stacks/lwip/stack.c": "lib/dmm/stacks/lwip.so",
    "tools/dmmctl/main.c": "bin/dmmctl",
    "tools/dmmctl/dmmctl.8.scd": "share/man/man8/dmmctl.8",
    "tools/dmmctl/dmmd.8.scd": "share/man/man8/dmmd.8",
    "policy/policy.schema.json": "share/dmm/policy.schema.json",
    "policy/examples": "share/dmm/examples",
}

# Stand-ins for Debian: what "is installed" is a file, apt-get notes what it was asked for. It
# starts (here: notes) a service unless the guard says 101, and enables it.
STUBS = {
    "id": "[ \"$1\" != -u ] || echo 0",
    "dpkg-query": "cat have 2>/dev/null",
    "apt-get": """
echo "apt-get $*" >>log
case "$*" in
*" update"*) mkdir -p lists; touch lists/x_Packages; exit 0;;
esac
[ ! -e broken ] || exit 100
guard && echo started >>log
mkdir -p units/multi-user.target.wants
ln -sf /lib/x.service units/multi-user.target.wants/x.service
""",
    "guard": "[ ! -x policy-rc.d ] || ./policy-rc.d",
}


def files_below(folder):
    return sorted(os.path.relpath(os.path.join(d, f), folder)
                  for d, _, names in os.walk(folder) for f in names)


def make(target, dest, *args):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    p = subprocess.run(["make", "-s", target, "DESTDIR=" + dest, *args], cwd=ROOT, env=env,
                       capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr


def install_and_uninstall(folder):
    """install, then uninstall, leaves nothing"""
    for args in ([], ["PREFIX=/usr"], ["PREFIX=/opt/dmm"]):
        prefix = (args or ["PREFIX=/usr/local"])[0].split("=")[1].lstrip("/")
        make("install", folder, *args)
        got = files_below(folder)
        assert all(f.startswith(prefix + "/") for f in got), got
        for source, want in EXPECTED.items():
            assert os.path.exists(os.path.join(ROOT, source)), source
            assert any(("%s/" % f).startswith("%s/%s/" % (prefix, want)) for f in got), want
        for f in got:
            mode = stat.S_IMODE(os.stat(os.path.join(folder, f)).st_mode)
            runs = not f.endswith((".yaml", ".service", ".socket")) and \
                any(d in f for d in ("/bin/", "/sbin/", "/libexec/", "/lib/"))
            assert mode == (0o755 if runs else 0o644), "%s: %o" % (f, mode)
        make("uninstall", folder, *args)
        assert os.listdir(folder) == [], files_below(folder) or os.listdir(folder)


def others_stay(folder):
    """uninstall leaves what is not ours"""
    other = os.path.join(folder, "usr/local/bin/other")
    make("install", folder)
    os.makedirs(os.path.dirname(other), exist_ok=True)
    open(other, "w").close()
    make("uninstall", folder)
    assert files_below(folder) == ["usr/local/bin/other"], files_below(folder)


def install_packages(folder, *groups, have=()):
    for name, body in STUBS.items():
        path = os.path.join(folder, "stub", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write("#!/bin/sh\n" + body + "\n")
        os.chmod(path, 0o755)
    with open(os.path.join(folder, "packages"), "w") as f:
        f.write("# list\nbuild  one    # why\ndemo,test two\nfetch three\n")
    with open(os.path.join(folder, "have"), "w") as f:
        f.writelines("installed %s\n" % p for p in have)
    env = {**os.environ, "PATH": os.path.join(folder, "stub") + ":" + os.environ["PATH"],
           "DMM_PACKAGES": "packages", "DMM_POLICY_RC": "./policy-rc.d", "DMM_APT_LISTS": "lists",
           "DMM_UNITS": "units"}
    p = subprocess.run([os.path.join(HERE, "install-packages"), *groups], cwd=folder, env=env,
                       capture_output=True, text=True)
    try:
        with open(os.path.join(folder, "log")) as f:
            return p.returncode, f.read()
    except FileNotFoundError:
        return p.returncode, ""


def packages_missing(folder):
    """missing packages are installed, after an update, and no service starts or stays enabled"""
    status, log = install_packages(folder, have=["one"])
    assert status == 0 and log.splitlines()[0].endswith(" update"), log
    assert log.endswith("--no-install-recommends two\n"), log
    assert not os.path.exists(os.path.join(folder, "policy-rc.d"))
    assert not files_below(os.path.join(folder, "units"))
    assert not os.listdir(os.path.join(folder, "units/multi-user.target.wants"))


def packages_present(folder):
    """nothing is done when all is there"""
    assert install_packages(folder, have=["one", "two"]) == (0, "")
    assert install_packages(folder, "build", have=["one"]) == (0, "")


def packages_broken(folder):
    """a failed install is tried again after an update, fails, and takes its guard away"""
    open(os.path.join(folder, "broken"), "w").close()
    status, log = install_packages(folder)
    assert status != 0 and log.count(" one two\n") == 2 and log.count(" update\n") == 2, log
    assert not os.path.exists(os.path.join(folder, "policy-rc.d"))


def packages_own_guard(folder):
    """an administrator's policy-rc.d stays as it is"""
    path = os.path.join(folder, "policy-rc.d")
    with open(path, "w") as f:
        f.write("#!/bin/sh\nexit 0\n")
    os.chmod(path, 0o755)
    status, log = install_packages(folder)
    assert status == 0 and "started" in log, log
    with open(path) as f:
        assert f.read() == "#!/bin/sh\nexit 0\n"


TESTS = [install_and_uninstall, others_stay, packages_missing, packages_present, packages_broken,
         packages_own_guard]


def main():
    failed = 0
    print("1..%d" % len(TESTS))
    for number, test in enumerate(TESTS, 1):
        with tempfile.TemporaryDirectory() as folder:
            try:
                test(folder)
                print("ok %d - %s" % (number, test.__doc__), flush=True)
            except AssertionError as e:
                failed += 1
                print("not ok %d - %s" % (number, test.__doc__), flush=True)
                print("# " + str(e).replace("\n", "\n# "))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
