#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The style checks' own test: a clean little tree passes, and each planted fault is found."""

import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../..")
APACHE = "/* SPDX-License-Identifier: Apache-2.0 */\n"
KERNEL = "/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */\n"

CLEAN = {
    "include/dmm/abi/a.h": KERNEL + "#pragma once\n#include <linux/types.h>\n\n"
                           "struct a {\n\t__u32 x;\n};\n",
    "userspace/base/b.h": APACHE + "#pragma once\n\nint b(void);\n",
    "userspace/steer/s.h": APACHE + "#pragma once\n\nint s(void);\n",
    "userspace/base/t.h": APACHE + "/* Before the include define T. */\nstruct T;\n",
    "userspace/steer/s.c": APACHE + "#define T a\n#include \"base/t.h\"\n",
    "userspace/base/n.c": APACHE + "#include <net/if.h>\n",
    "userspace/preload/p.c": APACHE + "#include \"net/n.h\"\n",
    "bpf/x.bpf.c": KERNEL + "struct {\n\tint y;\n} fifteen_charact SEC(\".maps\");\n",
    "policy/a.json": "{}\n",
    "tests/net/test_a.py": "# SPDX-License-Identifier: Apache-2.0\n"
                           "import os\nimport subprocess\n\nsubprocess.run([\"curl\", \"x\"])\n",
}

# the rule that must fail, the file, its new contents, what must be said
FAULTS = [
    ("headers_alone", "userspace/base/b.h", APACHE + "#pragma once\n\nstruct c b(size_t n);\n",
     "userspace/base/b.h does not compile alone"),
    ("headers_alone", "userspace/base/b.h", APACHE + "/* Before the include define B. */\n",
     "nobody includes userspace/base/b.h"),
    ("abi_headers_for_bpf", "include/dmm/abi/a.h", KERNEL + "#pragma once\n#include <stdio.h>\n"
     "\nstruct a {\n\tFIL x;\n};\n", "include/dmm/abi/a.h does not compile alone"),
    ("clang_format", "userspace/base/b.h", APACHE + "int  b( void );\n", "userspace/base/b.h: "),
    ("includes_one_way", "userspace/base/b.h", APACHE + "#include \"steer/s.h\"\n",
     "userspace/base/b.h includes steer/s.h"),
    ("includes_one_way", "userspace/base/b.h", APACHE + "#include <steer/s.h>\n",
     "userspace/base/b.h includes steer/s.h"),
    ("includes_one_way", "userspace/base/b.h", APACHE + "#include \"../steer/s.h\"\n",
     "userspace/base/b.h includes ../steer/s.h"),
    ("includes_one_way", "userspace/preload/p.c", APACHE + "#include \"policy/s.h\"\n",
     "userspace/preload/p.c includes policy/s.h"),
    ("includes_one_way", "include/dmm/abi/a.h", KERNEL + "#include \"base/b.h\"\n",
     "include/dmm/abi/a.h includes base/b.h"),
    ("includes_one_way", "bpf/x.bpf.c", KERNEL + "#include <dmm/stack.h>\n",
     "bpf/x.bpf.c includes dmm/stack.h"),
    ("includes_one_way", "userspace/misc/m.c", APACHE, "not in a folder of the order"),
    ("spdx", "userspace/base/b.h", "#pragma once\n", "no SPDX"),
    ("spdx", "bpf/x.bpf.c", APACHE, "'Apache-2.0', not"),
    ("spdx", "tests/net/test_a.py", "# SPDX-License-Identifier: GPL-2.0-only\n",
     "'GPL-2.0-only', not"),
    ("map_names", "bpf/x.bpf.c", KERNEL +
     "struct {\n\tint y;\n} sixteen_characte SEC(\".maps\");\n",
     "sixteen_characte has 16"),
    ("file_length", "userspace/base/b.h", APACHE + "\n" * 1000, "1001 lines"),
    ("top_level", "docs/a.md", "<!-- SPDX-License-Identifier: Apache-2.0 -->\n", "docs"),
    ("packages", "userspace/steer/s.h", APACHE + "#include <lwip/lwip/init.h>\n", "liblwip-dev"),
    ("packages", "tests/net/test_a.py", "# SPDX-License-Identifier: Apache-2.0\n"
     "import subprocess\nsubprocess.run(['ip', 'netns', 'exec', 'a', 'nft', '-f'])\n", "nftables"),
    ("packages", "tests/net/a.sh", "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n"
     "x=1 iperf3 -s\n", "iperf3"),
]
# what the little tree's list of packages lacks, so that its use is a fault
UNLISTED = ("liblwip-dev", "nftables", "iperf3")


def write(folder, name, text):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


def plant(folder):
    for name, text in CLEAN.items():
        write(folder, name, text)
    for name in ("Makefile", ".clang-format", "LICENSE"):
        shutil.copy(os.path.join(ROOT, name), folder)
    for name in ("tools/build", "tools/check"):
        shutil.copytree(os.path.join(ROOT, name), os.path.join(folder, name),
                        ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    path = os.path.join(folder, "tools/build/packages")
    with open(path) as f:
        lines = [line for line in f if not any(" %s " % p in line for p in UNLISTED)]
    with open(path, "w") as f:
        f.writelines(lines)


def check(folder, *rules):
    env = {k: v for k, v in os.environ.items()
           if k not in ("O", "SAN", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    p = subprocess.run([os.path.join(HERE, "run"), "--root", folder, *rules], env=env,
                       capture_output=True, text=True)
    return p.returncode, p.stdout + p.stderr


def fault_missed(rule, name, text, said):
    with tempfile.TemporaryDirectory() as folder:
        plant(folder)
        write(folder, name, text)
        status, out = check(folder, rule)
    return None if status == 1 and "not ok 1" in out and said in out else out


def clean_fails():
    with tempfile.TemporaryDirectory() as folder:
        plant(folder)
        status, out = check(folder)
    return None if status == 0 and "not ok" not in out else out


def main():
    failed = 0
    tests = [("clean tree", clean_fails)]
    tests += [("%s: %s" % (f[0], f[3]), lambda f=f: fault_missed(*f)) for f in FAULTS]
    print("1..%d" % len(tests))
    for number, (name, wrong_of) in enumerate(tests, 1):
        wrong = wrong_of()
        failed += wrong is not None
        print("%s %d - %s" % ("ok" if wrong is None else "not ok", number, name), flush=True)
        if wrong is not None:
            print("# " + wrong.replace("\n", "\n# "))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
