"""While others change the namespace all the time, nothing is planned, and nothing of theirs is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reconciler.drivers.netns import NetnsDriver
from reconciler.manifest.load import load
from reconciler.preview import preview
from tests.conftest import Kernel, ip
from tests.system.box import Box, nic

# Adds and deletes routes, addresses and links of its own, without a pause; its argument is the namespace.
NOISE = """
import itertools, sys
from pyroute2 import NetNS
changes = 0
with NetNS(sys.argv[1]) as kernel:
    link = kernel.link_lookup(ifname="noise")[0]
    print("ready", flush=True)
    for number in itertools.count():
        third = number % 250
        for verb in ("add", "del"):
            kernel.route(verb, dst=f"198.18.{third}.0/24", oif=link, proto=4)
            kernel.addr(verb, index=link, address=f"198.19.{third}.1", prefixlen=24)
            changes += 2
        if number % 50 == 0:
            print(changes, flush=True)
"""


@contextmanager
def noise(namespace: str) -> Iterator[subprocess.Popen[str]]:
    ip("tuntap", "add", "dev", "noise", "mode", "tap", namespace=namespace)
    ip("link", "set", "dev", "noise", "up", namespace=namespace)
    with subprocess.Popen([sys.executable, "-c", NOISE, namespace], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_1000_diffs_under_changes_plan_nothing(box: Box, kernel: Kernel) -> None:
    routes: list[dict[str, Any]] = [
        {"dest": f"10.9.{n}.0/24", "gateway": "10.0.0.1", "device": "eth0"} for n in range(200)
    ]
    routes += [{"dest": f"fd09:{n:x}::/32", "gateway": "fd00::1", "device": "eth0"} for n in range(1, 200)]
    box.apply(interfaces=[nic(kernel.tap(), addresses=["10.0.0.2/16", "fd00::2/64"])], routes=routes)
    (manifest,) = load([str(box.file)])
    with noise(box.namespace) as process:
        begin = time.monotonic()
        for _ in range(1000):
            driver = NetnsDriver(box.address)
            try:
                assert preview(driver, manifest.sandbox).plan.operations == ()
            finally:
                driver.close()
        seconds = time.monotonic() - begin
        process.send_signal(signal.SIGKILL)
        changes = int(process.communicate()[0].split()[-1])
    # A noise that was too quiet would show nothing.
    assert changes / seconds > 1000, f"{changes} changes in {seconds:.1f} s"


def test_nothing_is_held_after_a_run(box: Box, kernel: Kernel) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    box.apply(interfaces=[nic(kernel.tap())])
    assert box.diff(interfaces=[]) != []
    assert sorted(os.listdir("/proc/self/fd")) == before
