"""A tenant with rights in its namespace tries to get a device of its own to the host, or into another sandbox."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.drivers import given
from reconciler.model.interface import Origin
from reconciler.netlink import interface
from tests.conftest import Kernel, ip
from tests.system.box import Box, errors, make_box, nic
from tests.watch.running import until

MAC = "02:42:20:6f:a3:01"
_marks = itertools.count()


@pytest.fixture
def victim(kernel: Kernel, tmp_path: Path) -> Box:
    """Return a second sandbox, beside the attacker's."""
    folder = tmp_path / "victim"
    folder.mkdir()
    return make_box(kernel, folder)


@contextmanager
def heard_on_host() -> Iterator[Callable[[], set[str]]]:
    """Yield what returns each name that a link of the host had meanwhile, those of other tests as well."""
    command = ["ip", "-o", "monitor", "link"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        text: list[str] = []
        reader = threading.Thread(target=lambda: text.extend(iter(process.stdout.readline, "")), daemon=True)  # type: ignore[union-attr]
        reader.start()

        def is_told(mark: str) -> bool:
            """Make a link and delete it; return whether the monitor has said so."""
            ip("tuntap", "add", "dev", mark, "mode", "tap")
            ip("link", "del", mark)
            return any(f": {mark}:" in each for each in text)

        def heard() -> set[str]:
            # What is told of this one comes after all that happened before, and the first one tells that it listens.
            mark = f"rm{os.getpid()}x{next(_marks)}"
            until(lambda: is_told(mark), "the monitor")
            return {each.removeprefix("Deleted ").split(": ")[1].partition("@")[0] for each in text if ": " in each}

        heard()

        yield heard
        process.terminate()
        # It ends with the output, which must not be closed before.
        reader.join(10)


def index(box: Box, name: str) -> int:
    return int(json.loads(box.ip("-j", "link", "show", "dev", name))[0]["ifindex"])


def on_host(device: str) -> bool:
    return Path("/sys/class/net", device).exists()


def in_tenant(box: Box, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script with rights in the namespace and none on the host: of another user, with CAP_NET_ADMIN there."""
    words = ["setpriv", "--bounding-set", "-all,+net_admin", "--inh-caps", "-all", "sh", "-c", script]
    return subprocess.run(
        ["ip", "netns", "exec", box.namespace, *words], check=False, capture_output=True, text=True, timeout=60
    )


def test_a_lure_is_neither_brought_home_nor_handed_to_another_sandbox(
    box: Box, victim: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    """The attack: the victim's traffic would run through the attacker's pair."""
    gate, uplink = kernel.veth()
    ip("address", "add", "10.0.0.1/16", "dev", uplink)
    ip("link", "set", "dev", uplink, "up")
    victim.apply(interfaces=[nic(gate)])
    box.apply(interfaces=[])
    for alias in (gate, f"{gate}x"):
        claim = Origin(device=alias, hw_addr=MAC, mtu=1500).to_alias()
        ran = in_tenant(
            box, f"ip link add lure type veth peer name tap0; ip link set lure alias '{claim}'; ip link set tap0 up"
        )
        assert ran.returncode == 0, ran.stderr
        with heard_on_host() as heard:
            for interfaces in ([], [nic(alias)], [nic(f"{gate}x", "lure")]):
                assert main(["apply", "--allow-delete", "all", box.write(interfaces=interfaces)]) in {2, 3}
            assert main(["apply", victim.write(interfaces=[nic(gate)])]) == 0
            assert heard().isdisjoint({"lure", alias, f"{gate}x"})
        # The victim does not take it for its device, and is told nothing that the tenant wrote.
        capsys.readouterr()
        assert main(["apply", victim.write(interfaces=[nic(gate), nic(f"{gate}x", "eth1", 1)])]) == 2
        assert f"{gate}x: no such device on this host" in errors(capsys)
        victim.write(interfaces=[nic(gate)])
        box.ip("link", "del", "lure")
    ping = ["ip", "netns", "exec", victim.namespace, "ping", "-c1", "-W2", "10.0.0.1"]
    assert subprocess.run(ping, check=False, capture_output=True).returncode == 0
    assert set(box.state()["links"]) == {"lo"}


@pytest.mark.parametrize("kind", ["veth", "tap"])
def test_a_device_that_was_replaced_by_its_like_is_not_the_one_that_was_given(
    box: Box, kernel: Kernel, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tenant deletes the device, and makes another of the same kind, index, name, MAC address and alias."""
    device = kernel.tap() if kind == "tap" else kernel.veth()[0]
    box.apply(interfaces=[nic(device)])
    number = index(box, "eth0")
    alias = json.loads(box.ip("-j", "link", "show", "dev", "eth0"))[0]["ifalias"]
    make = {
        "veth": f"ip link add eth0 index {number} address {MAC} type veth peer name eth1",
        # `ip tuntap` chooses no index; the ioctl TUNSETIFINDEX does.
        "tap": f"""python3 -c '
import fcntl, struct
file = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(file, 0x400454da, struct.pack("I", {number}))
fcntl.ioctl(file, 0x400454ca, struct.pack("16sH22x", b"eth0", 0x1002))
fcntl.ioctl(file, 0x400454cb, 1)'""",
    }[kind]
    ran = in_tenant(
        box, f"set -e; ip link del eth0; {make}; ip link set eth0 address {MAC} up; ip link set eth0 alias '{alias}'"
    )
    assert ran.returncode == 0, ran.stderr
    assert index(box, "eth0") == number
    capsys.readouterr()
    with heard_on_host() as heard:
        for interfaces in ([], [nic(device)]):
            assert main(["apply", "--allow-delete", "all", box.write(interfaces=interfaces)]) == 3
            assert "but no record proves that" in errors(capsys)
        assert device not in heard()
    assert not on_host(device)
    # Without the claim it is a foreign link, and the device is missing.
    box.ip("link", "set", "eth0", "alias", "")
    assert main(["apply", box.write(interfaces=[nic(device, "eth7")])]) == 2
    assert "no such device on this host" in errors(capsys)


@pytest.mark.parametrize("name", ["free", "taken", "rcl"])
def test_a_name_that_a_tenant_chose_never_appears_on_the_host(box: Box, kernel: Kernel, name: str) -> None:
    device, other = kernel.tap(), kernel.tap()
    name = {"free": f"{kernel.prefix}free", "taken": other, "rcl": f"rcl{os.getpid()}"}[name]
    ip("link", "set", "dev", device, "mtu", "1234", "up")
    before = ip("-o", "link", "show", "dev", device)
    box.apply(interfaces=[nic(device)])
    in_tenant(box, f"ip link set eth0 down; ip link set eth0 name {name}; ip link set {name} address {MAC} up")
    with heard_on_host() as heard:
        box.apply(interfaces=[])
        named = heard()
    assert ip("-o", "link", "show", "dev", device).partition(": ")[2] == before.partition(": ")[2]
    assert device in named
    assert name not in named


def test_a_name_of_the_host_that_is_taken_leaves_the_device_as_it_was(
    box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    device = kernel.tap()
    box.apply(interfaces=[nic(device)])
    ip("tuntap", "add", "dev", device, "mode", "tap")
    before = box.state()
    assert main(["apply", "--allow-delete", "all", box.write(interfaces=[])]) == 2
    assert f"the host has another device named {device} now; rename that" in errors(capsys)
    assert box.state() == before
    ip("link", "del", device)
    box.apply(interfaces=[])
    assert on_host(device)


def replaced_meanwhile(box: Box, number: int) -> Callable[..., Any]:
    """Return a `find` after which the tenant replaces the device: as late as nobody can be."""
    find = given.GivenDevices.find

    def find_and_replace(*arguments: Any) -> Any:
        found = find(*arguments)
        box.ip("link", "del", "eth0")
        box.ip("link", "add", "eth0", "index", str(number), "type", "veth", "peer", "name", "eth1")
        return found

    return find_and_replace


def test_a_device_that_is_replaced_while_it_moves_is_sent_back(
    box: Box, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device, _ = kernel.veth()
    box.apply(interfaces=[nic(device)])
    monkeypatch.setattr(given.GivenDevices, "find", replaced_meanwhile(box, index(box, "eth0")))
    assert main(["apply", box.write(interfaces=[])]) == 2
    assert "eth0 was replaced by another device while it moved" in capsys.readouterr().err
    assert not on_host(device)
    assert set(box.state()["links"]) == {"lo", "eth0", "eth1"}


@pytest.mark.parametrize("step", ["encode_move", "encode_restore"])
@pytest.mark.parametrize("interfaces", [True, False], ids=["wanted again", "not wanted"])
def test_a_return_that_was_killed_half_way_is_finished(
    box: Box, kernel: Kernel, step: str, monkeypatch: pytest.MonkeyPatch, *, interfaces: bool
) -> None:
    device = kernel.tap()
    ip("link", "set", "dev", device, "mtu", "1234", "alias", "uplink of rack 7", "up")
    before = ip("-o", "link", "show", "dev", device)
    box.apply(interfaces=[nic(device)])
    pid = os.fork()
    if pid == 0:
        try:
            monkeypatch.setattr(interface, step, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            main(["apply", box.write(interfaces=[])])
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    if interfaces:
        box.apply(interfaces=[nic(device)])
        assert set(box.state()["links"]) == {"lo", "eth0"}
    box.apply(interfaces=[])
    assert ip("-o", "link", "show", "dev", device).partition(": ")[2] == before.partition(": ")[2]


def test_what_an_alias_says_of_a_device_of_the_host_is_not_restored(box: Box, kernel: Kernel) -> None:
    """A physical device comes home with the alias that the tenant wrote when its namespace dies."""
    device = kernel.tap()
    (before,) = json.loads(ip("-j", "link", "show", "dev", device))
    claim = Origin(device=device, hw_addr="02:66:66:66:66:66", mtu=666, alias="forged").to_alias()
    ip("link", "set", "dev", device, "alias", claim)
    box.apply(interfaces=[nic(device)])
    box.apply(interfaces=[])
    (after,) = json.loads(ip("-j", "link", "show", "dev", device))
    assert (after["address"], after["mtu"]) == (before["address"], before["mtu"])
    other = kernel.tap()
    ip("link", "set", "dev", other, "alias", claim.replace(device, f"{device}x"))
    assert main(["apply", box.write(interfaces=[nic(f"{device}x")])]) == 2
    assert on_host(other)
