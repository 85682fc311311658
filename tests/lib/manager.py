# SPDX-License-Identifier: Apache-2.0
"""A world whose instances a service manager starts: systemd's own socket activation, each instance as
nobody and in an empty network namespace."""

import os
import shutil

from dmmtest import OUT, World, wait_for

NOBODY = 65534


class ManagedWorld(World):
    def __init__(self):
        super().__init__()
        os.makedirs(f"{self.dir}/stacks")
        shutil.copy(f"{OUT}/stacks/{self.plugin}.so", f"{self.dir}/stacks/{self.plugin}.so")
        self.socket_path = os.path.join(self.dir, "stack.sock")
        self.manager = None

    def start_dmmd(self):
        self.dmmd("--stack-socket", self.socket_path, "--stacks-dir", f"{self.dir}/stacks")

    def manage(self, **env):
        """As dmm-stack.socket and dmm-stack@.service do, as far as this goes without systemd as init."""
        with open(os.path.join(self.dir, "manager.log"), "ab") as log:
            self.manager = self.spawn(
                "unshare", "--net", "systemd-socket-activate", "--seqpacket", "--accept", "-l",
                self.socket_path, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
                "--inh-caps=-all,+sys_chroot", "--ambient-caps=+sys_chroot",
                "--bounding-set=-all,+sys_chroot", "env", "-i",
                *(f"{name}={value}" for name, value in env.items()), *self.program("dmm-stack"),
                "--handover", "3", stderr=log, stdout=log)
        wait_for("the manager listens", lambda: os.path.exists(self.socket_path))

    def unmanage(self):
        self.manager.terminate()
        self.manager.wait()
        os.unlink(self.socket_path)

    def instances_left(self):
        with open(f"/proc/{self.manager.pid}/task/{self.manager.pid}/children") as f:
            return [int(pid) for pid in f.read().split()]
