"""What `diff --prove` says of a plan is what `apply` then finds, and nothing is left of the copy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import converge
from reconciler.cli.main import main
from reconciler.drivers.netns import NetnsDriver
from reconciler.errors import ApplyError, HostError, RefusedError, VerifyError
from reconciler.guest.throwaway import Throwaways
from reconciler.model.sandbox import Sandbox
from reconciler.preview import captured, preview, rehearsed
from reconciler.safety import Allowance
from reconciler.values import replace
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.system.box import Box, nic
from tests.system.test_random import DEVICES, PAIRS, SLOW, boxes, of

# What others may have done to a sandbox, after which the kernel refuses some changes.
FAULTS = {
    "nothing": [],
    "lo down": ["link set dev lo down"],
    "a foreign route": ["route add 198.51.100.0/24 dev lo", "route add blackhole 10.0.0.0/8 metric 7"],
    "a foreign rule": ["rule add priority 150 from 10.1.0.0/16 prohibit", "-6 rule add priority 150 table 99"],
    "a foreign link": ["link add foreign0 type veth peer name foreign1", "link set foreign0 up mtu 1300"],
    "a bridge": ["link add bridge0 type bridge", "address add 10.99.0.1/24 dev bridge0", "link set bridge0 up"],
    "no rule for main": ["rule del priority 32766"],
}
# These take IPv6 away, so what needs it is refused.
SETTINGS = ("", "", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv6.conf.all.disable_ipv6=1")


def spoil(box: Box, fault: str, setting: str) -> None:
    for line in FAULTS[fault]:
        subprocess.run(["ip", "-n", box.namespace, *line.split()], check=False, capture_output=True)
    if setting:
        subprocess.run(["ip", "netns", "exec", box.namespace, "sysctl", "-qw", setting], check=True)


@pytest.mark.usefixtures("root")
@SLOW
@given(pair=PAIRS, fault=st.sampled_from(list(FAULTS)), setting=st.sampled_from(SETTINGS), source=st.booleans())
def test_it_is_proven_exactly_if_apply_succeeds(
    tmp_path: Path, pair: tuple[Sandbox, Sandbox], fault: str, setting: str, source: bool
) -> None:
    first, second = pair
    if source and second.routes:
        # No NIC has it, so the kernel refuses the route.
        routes = tuple(replace(each, source=None if each.is_ipv6 else "192.0.2.77") for each in second.routes)
        second = replace(second, routes=routes)
    with boxes(tmp_path) as (box, _):
        driver = NetnsDriver(box.address, POLICY)
        try:
            converge.apply(driver, of(box, first), allowance=Allowance())
            spoil(box, fault, setting)
            before = box.state()
            try:
                found = preview(driver, of(box, second))
            except (HostError, RefusedError):
                return
            proven = rehearsed(found, captured(found, driver), Throwaways()).rehearsal
            assert box.state() == before
            assert set(DEVICES) <= {link["ifname"] for link in json.loads(ip("-j", "link"))} | {
                each.device for each in first.interfaces or ()
            }
            if proven is None:
                assert not found.plan.operations
                return
            succeeds, reason = True, ""
            try:
                converge.apply(driver, of(box, second), allowance=Allowance())
            except (ApplyError, VerifyError) as error:
                succeeds, reason = False, str(error)
            assert (proven.proven, proven.untried) == (succeeds, ()), (reason, proven)
        finally:
            driver.close()


def leftovers() -> set[str]:
    """Return the links of this host that a copy could leave."""
    return {link["ifname"] for link in json.loads(ip("-j", "link")) if link["ifname"].startswith("end")}


COMMAND = [sys.executable, "-m", "reconciler", "diff", "--prove"]


def test_killed_at_any_point_it_leaves_nothing(box: Box, kernel: Kernel, repeats: Callable[[int], int]) -> None:
    """The namespaces of the copy have no name, so they end with the process."""
    device = box.device(carrier=True)
    box.apply(interfaces=[nic(device)], routes=[])
    path = box.write(
        interfaces=[nic(device, mtu=1400), nic(kernel.tap(), "eth1", 1)],
        routes=[{"dest": f"192.168.{each}.0/24", "gateway": "10.0.0.1", "device": "eth0"} for each in range(200)],
    )
    before, state = leftovers(), box.state()
    begin = time.monotonic()
    ran = subprocess.run([*COMMAND, path], capture_output=True, text=True, check=False)
    took = time.monotonic() - begin
    assert ran.returncode == 1, ran
    assert f"  # proven: kernel {os.uname().release} has carried out " in ran.stdout
    count = repeats(20)
    for number in range(count):
        with subprocess.Popen([*COMMAND, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(took * (number + 0.5) / count)
            process.send_signal(signal.SIGKILL)
        assert leftovers() == before
        assert box.state() == state


def test_it_says_what_the_kernel_said_and_where(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    device = box.device(carrier=True)
    box.apply(interfaces=[nic(device)], routes=[])
    routes = [{"dest": "192.168.0.0/16", "gateway": "10.0.0.1", "device": "eth0", "source": "192.0.2.77"}]
    path = box.write(interfaces=[nic(device)], routes=routes)
    before = box.state()
    assert main(["diff", "--prove", path]) == 2
    out, err = capsys.readouterr()
    command = "ip route add 192.168.0.0/16 via 10.0.0.1 dev eth0 src 192.0.2.77 proto 200"
    assert f"  # NOT possible: {command}: the kernel: Invalid argument" in out
    first, second, third = err.splitlines()[-3:]
    assert [first, second] == [
        f"box: apply would fail: {command}",
        "  the kernel: Invalid argument: Invalid prefsrc address",
    ]
    assert third.startswith(f"  from {path}:")
    assert third.endswith(", routes[0]")
    assert box.state() == before
    assert main(["diff", "--prove", "-o", "json", path]) == 2
    (sandbox,) = json.loads(capsys.readouterr().out)["sandboxes"]
    expected = {"command": command, "reason": "the kernel: Invalid argument: Invalid prefsrc address"}
    assert (sandbox["proof"]["proven"], sandbox["proof"]["failed"]) == (False, [expected])
    assert main(["apply", path]) == 2
    assert command in capsys.readouterr().err


def test_what_the_copy_cannot_have_is_named(box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """A TAP is stood in by a veth: what its own driver refuses is not seen."""
    device = kernel.tap()
    path = box.write(interfaces=[nic(device)])
    assert main(["diff", "--prove", path]) == 1
    out = capsys.readouterr().out
    assert f"  # {device} is a veth in the copy: what its own driver refuses is not seen\n" in out
    assert main(["diff", "--prove", "--since", "1h", path]) == 2
    assert capsys.readouterr().err.startswith("reconciler: --prove copies the sandbox itself")
