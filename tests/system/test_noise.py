"""While others change the namespace all the time, nothing is planned, and nothing of theirs is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.drivers.netns import NetnsDriver
from reconciler.manifest.load import load
from reconciler.preview import preview
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.system.box import Box, nic
from tests.watch.running import until

# Adds and deletes routes and addresses of its own, several thousand a second; it runs in the namespace.
NOISE = """
import itertools, socket, time
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

link = socket.if_nametoindex("noise")

def request(message, kind, flags, fields):
    for name, value in fields.items():
        message[name] = value
    message["header"] = {"type": kind, "flags": flags, "sequence_number": 0, "pid": 0}
    message.encode()
    return bytes(message.data)

def changes(third):
    route = {"family": 2, "dst_len": 24, "table": 254, "proto": 4, "type": 1, "scope": 253}
    route["attrs"] = [("RTA_DST", f"198.18.{third}.0"), ("RTA_OIF", link)]
    address = {"family": 2, "prefixlen": 24, "index": link, "attrs": [("IFA_LOCAL", f"198.19.{third}.1")]}
    yield request(rtmsg(), 24, 0x601, route)
    yield request(ifaddrmsg(), 20, 0x601, address)
    yield request(rtmsg(), 25, 1, route)
    yield request(ifaddrmsg(), 21, 1, address)

batches = [list(changes(third)) for third in range(250)]
kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
print("ready", flush=True)
for number in itertools.count(1):
    for batch in batches[number % 250]:
        kernel.send(batch)
    time.sleep(0.001)
    if number % 100 == 0:
        print(number * 4, flush=True)
"""


@contextmanager
def noise(namespace: str, log: Path) -> Iterator[Callable[[], int]]:
    """Change a namespace all the time during the block; yield what tells how many changes there have been."""
    ip("tuntap", "add", "dev", "noise", "mode", "tap", namespace=namespace)
    ip("link", "set", "dev", "noise", "up", namespace=namespace)
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", NOISE]
    with log.open("wb") as stream, subprocess.Popen(command, stdout=stream) as process:

        def changes() -> int:
            assert process.poll() is None
            return int(["0", *log.read_text().rpartition("\n")[0].splitlines()[1:]][-1])

        try:
            until(lambda: log.read_text().startswith("ready\n"), "the noise begins")
            yield changes
        finally:
            process.kill()


def test_1000_diffs_under_changes_plan_nothing(box: Box, kernel: Kernel, tmp_path: Path) -> None:
    routes: list[dict[str, Any]] = [
        {"dest": f"10.9.{n}.0/24", "gateway": "10.0.0.1", "device": "eth0"} for n in range(200)
    ]
    routes += [{"dest": f"fd09:{n:x}::/32", "gateway": "fd00::1", "device": "eth0"} for n in range(1, 200)]
    box.apply(interfaces=[nic(kernel.tap(), addresses=["10.0.0.2/16", "fd00::2/64"])], routes=routes)
    (manifest,) = load([str(box.file)])
    with noise(box.namespace, tmp_path / "noise") as changes:
        diffs = 0
        # A noise that was too quiet would show nothing: each diff meets several changes.
        while diffs < 1000 or changes() <= 4000:
            diffs += 1
            driver = NetnsDriver(box.address, POLICY)
            try:
                assert preview(driver, manifest.sandbox).plan.operations == ()
            finally:
                driver.close()


def test_nothing_is_held_after_a_run(box: Box, kernel: Kernel) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    box.apply(interfaces=[nic(kernel.tap())])
    assert box.diff(interfaces=[]) != []
    # What the kernel takes long to close is closed by a thread.
    until(lambda: sorted(os.listdir("/proc/self/fd")) == before)
