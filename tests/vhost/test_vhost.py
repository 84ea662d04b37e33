"""A socket of a vhost-user backend becomes a NIC of the guest: packets pass, also after the backend was away."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.guest import qemu
from reconciler.guest.client import AgentClient
from reconciler.manifest.dump import dump
from tests import resumed
from tests.conftest import Kernel, ip
from tests.system.box import nic
from tests.vhost.backend import running
from tests.vm.vm import Vm

HOST, GUEST = "172.17.0.1", "172.17.0.3"
# A backend is found again within a second (`reconnect=1`), and the guest's link is up a moment later.
BACK_TIMEOUT = 90.0
BOOT_TIMEOUT = 90.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vhost.sock"


@pytest.fixture
def ends(kernel: Kernel) -> tuple[str, str]:
    """Give a pair of devices: one with an address on the host, and the one for a backend."""
    here, there = kernel.veth()
    for device in (here, there):
        ip("link", "set", "dev", device, "up")
    ip("address", "add", HOST, "peer", GUEST, "dev", here)
    return here, there


def interface(path: Path, **fields: Any) -> dict[str, Any]:
    return nic("vhost0", "eth0", 1, vhostUserSocket=str(path), addresses=[f"{GUEST}/24"], **fields)


def ping(device: str, count: int = 5) -> int:
    """Ping the guest from a device of the host; give how many answers came."""
    command = ["ping", "-q", "-n", "-c", f"{count}", "-i", "0.1", "-W", "10", "-I", device, GUEST]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    found = re.search(r"(\d+) received", done.stdout)
    assert found, (done.stdout, done.stderr)
    return int(found[1])


def wait_until(holds: Callable[[], bool], timeout: float = BACK_TIMEOUT) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def has_carrier(vm: Vm) -> bool:
    (link,) = json.loads(vm.guest.output("ip", "-j", "link", "show", "dev", "eth0"))
    return "LOWER_UP" in link["flags"]


def held(vm: Vm) -> dict[str, list[str]]:
    """Say what QEMU holds of ours: NICs, netdevs and chardevs."""
    peripherals = [each["name"] for each in vm.order("qom-list", path="/machine/peripheral")]
    chardevs = [each["label"] for each in vm.order("query-chardev")]
    network = vm.human("info network")
    return {
        "nics": [name for name in peripherals if name.startswith("reconciler-")],
        "netdevs": re.findall(r"^(?: \\ )?(reconciler-\S+): index=\d+,type=(?!nic)", network, re.MULTILINE),
        "chardevs": [label for label in chardevs if label.startswith("reconciler-")],
    }


NOTHING: dict[str, list[str]] = {"nics": [], "netdevs": [], "chardevs": []}


def plugged(queues: int = 1) -> dict[str, list[str]]:
    ours = "reconciler-vhost0"
    return {"nics": [ours], "netdevs": [ours] * queues, "chardevs": [ours]}


def test_packets_pass_and_a_backend_that_comes_back_is_found_again(
    vm: Vm, path: Path, ends: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = ends
    wish = interface(path)
    with running(path, there) as backend:
        vm.apply(interfaces=[wish])
        assert held(vm) == plugged()
        # On a busy host, the backend drops packets at first.
        wait_until(lambda: ping(here) == 5)
        capsys.readouterr()
        assert main(["diff", str(vm.file)]) == 0
        capsys.readouterr()
        assert main(["show", "-o", "json", str(vm.file)]) == 0
        assert json.loads(capsys.readouterr().out)["interfaces"] == [wish]
        index = vm.index("eth0")

        backend.kill()
        wait_until(lambda: not has_carrier(vm))
        # What is plugged is what is wanted: nothing is to be done, and nothing waits for the backend.
        started = time.monotonic()
        assert main(["diff", str(vm.file)]) == 0
        vm.apply(interfaces=[wish])
        assert time.monotonic() - started < 60

        backend.start()
        wait_until(lambda: has_carrier(vm) and ping(here) == 5)
        assert vm.index("eth0") == index
        # It goes while its backend is there, and leaves nothing.
        vm.apply(interfaces=[])
        assert held(vm) == NOTHING


def test_the_example(vm: Vm, path: Path, ends: tuple[str, str], repository: Path) -> None:
    here, there = ends
    text = (
        (repository / "examples" / "16-vhost-user.yaml").read_text().replace("/run/openvswitch/vhost-user1", str(path))
    )
    vm.file.write_text(text.replace("/run/vhost-user/", f"{vm.guest.sandbox.folder}/"))
    with running(path, there):
        assert main(["apply", str(vm.file)]) == 0
        assert main(["diff", str(vm.file)]) == 0
        assert held(vm) == plugged()
        wait_until(lambda: ping(here) == 5)


def test_a_nic_whose_backend_died_can_be_unplugged(vm: Vm, path: Path, ends: tuple[str, str]) -> None:
    with running(path, ends[1]):
        vm.apply(interfaces=[interface(path)])
    wait_until(lambda: not has_carrier(vm))
    vm.apply(interfaces=[])
    assert held(vm) == NOTHING
    vm.assert_is([])


def test_several_queues_and_another_number_of_them(
    vm: Vm, path: Path, ends: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = ends
    with running(path, there, queues=2) as backend:
        for queues in (2, 0, 2):
            vm.apply(interfaces=[interface(path, queues=queues)])
            assert held(vm) == plugged(max(queues, 1))
            assert vm.links()["eth0"]["queues"] == max(queues, 1)
            # What the backend has on its other queue would go to nobody, if there is one less here.
            if queues == 2:
                wait_until(lambda: ping(here) == 5)
        # Plugging anew needs a backend that is there: QEMU, and the guest with it, would wait for one.
        backend.kill()
        wait_until(lambda: not has_carrier(vm))
        index = vm.index("eth0")
        assert vm.run(interfaces=[interface(path)]) == 2
        assert f"eth0: {path}: Connection refused; is its backend running?" in capsys.readouterr().err
        assert vm.index("eth0") == index
        assert held(vm) == plugged(2)


def test_another_socket_is_another_nic(vm: Vm, tmp_path: Path, path: Path, ends: tuple[str, str]) -> None:
    here, there = ends
    with running(path, there):
        vm.apply(interfaces=[interface(path)])
        index = vm.index("eth0")
    other = tmp_path / "other.sock"
    with running(other, there):
        vm.apply(interfaces=[interface(other)])
        assert vm.index("eth0") != index
        assert held(vm) == plugged()
        wait_until(lambda: ping(here) == 5)


@pytest.mark.parametrize("commands", [1, 2], ids=["a chardev", "a netdev"])
def test_what_a_killed_run_left_is_cleared_away(vm: Vm, path: Path, ends: tuple[str, str], commands: int) -> None:
    ours = "reconciler-vhost0"
    address = {"type": "unix", "data": {"path": str(path)}}
    backend = {"type": "socket", "data": {"addr": address, "server": False, "reconnect": 1}}
    plug: list[tuple[str, dict[str, Any]]] = [
        ("chardev-add", {"id": ours, "backend": backend}),
        ("netdev_add", {"type": "vhost-user", "id": ours, "chardev": ours}),
    ]
    with running(path, ends[1]):
        for goal, found in (([interface(path)], plugged()), ([], NOTHING)):
            for command, arguments in plug[:commands]:
                vm.order(command, **arguments)
            vm.apply(interfaces=goal)
            assert held(vm) == found
            vm.apply(interfaces=[])


@pytest.mark.parametrize(
    ("listener", "problem"), [("none", "No such file or directory"), ("dead", "Connection refused")]
)
def test_without_a_listener_nothing_is_begun(
    vm: Vm, path: Path, listener: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if listener == "dead":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
    started = time.monotonic()
    assert vm.run(interfaces=[interface(path)]) == 2
    assert time.monotonic() - started < 60
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"{vm.name}: {vm.file}:")
    assert error.endswith(f": interfaces[0].vhostUserSocket: eth0: {path}: {problem}; is its backend running?")
    assert held(vm) == NOTHING


def test_without_shared_memory_nothing_is_begun(
    kernel: Kernel, tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All three commands of QEMU would succeed, and no packet would pass."""
    del kernel
    words = [word.replace("share=on", "share=off") for word in resumed.command_line(str(tmp_path))]
    assert any("share=off" in word for word in words)
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    try:
        address = {"qmp": f"{tmp_path}/qmp2.sock", "agent": f"{tmp_path}/agent.sock"}
        with AgentClient(address["agent"], BOOT_TIMEOUT) as client:
            client.kernel_release()
        file = tmp_path / "vm.yaml"
        data = {"apiVersion": "reconciler/v1", "sandbox": "unshared", "driver": {"vm": address}}
        file.write_text(dump([data | {"interfaces": [interface(path)]}]))
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            assert main(["apply", str(file)]) == 2
            server.settimeout(2)
            # Nobody but the probe was there.
            with server.accept()[0] as client:
                assert client.recv(1) == b""
            with pytest.raises(TimeoutError):
                server.accept()
        assert (
            capsys.readouterr()
            .err.strip()
            .endswith(
                ": interfaces[0].vhostUserSocket: eth0: a vhost-user backend cannot reach the memory of this machine, "
                "which is not shared; start QEMU with memory-backend-memfd,share=on"
            )
        )
    finally:
        os.kill(int(Path(qemu.pid_file(str(tmp_path))).read_text(encoding="ascii")), signal.SIGKILL)
