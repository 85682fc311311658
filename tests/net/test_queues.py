#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An instance binds every queue of its interface: flows work whichever queue their packets take."""

import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import World, main, test

ECHO = 8401
FLOWS = 64


class QueuesWorld(World):
    queues = 2

    def __init__(self):
        super().__init__()
        self.serve(echo, ECHO)
        # one queue per transmitting CPU: the server's packets arrive on both
        for queue in range(2):
            with_sysfs = f"mount -t sysfs none /sys && echo {1 << queue} > " \
                         f"/sys/class/net/s0/queues/tx-{queue}/xps_cpus"
            self.run("unshare", "-m", "sh", "-c", with_sysfs, host="server")
        self.up(unavailable="reject")


def echo(c):
    """Answers from one CPU and then from another."""
    for cpu in (0, 1):
        os.sched_setaffinity(0, {cpu % os.cpu_count()})
        c.sendall(c.recv(1000))


def talk(addr):
    for _ in range(FLOWS):
        with socket.socket() as s:
            s.settimeout(20)
            s.connect((addr, ECHO))
            for text in (b"one", b"two"):
                s.sendall(text)
                assert s.recv(10) == text


def queue_packets(w):
    """Packets that arrived on each queue of the steered interface."""
    stats = dict(line.split(":") for line in
                 w.run("ethtool", "-S", "c0").stdout.replace(" ", "").splitlines() if ":" in line)
    return [int(stats[f"rx_queue_{q}_xdp_packets"]) for q in range(2)]


@test
def flows_work_on_every_queue(w):
    assert w.instance()["queues"] == 2, w.instance()
    before = queue_packets(w)
    w.call(talk, w.server4, cgroup="/fast")
    used = [b - a for a, b in zip(before, queue_packets(w))]
    print(f"# packets by queue: {used}")
    assert all(n >= FLOWS for n in used), f"not both queues were used: {used}"


@test
def all_of_it_went_through_the_stack(w):
    w.all_was_steered()


if __name__ == "__main__":
    main(QueuesWorld)
