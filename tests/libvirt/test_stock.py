"""A stock Debian as a domain of libvirt: the agent is pushed through its guest agent, and leaves nothing behind.

All tests use one machine, one after the other, as its operator would. What is true in it is read through `virsh`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli.main import main
from tests.allowed import write_policy
from tests.conftest import Kernel, ip
from tests.libvirt import stock
from tests.libvirt.daemon import Daemon, virsh
from tests.watch.running import Running, until, watching

MAC = "02:42:20:6f:a3:72"
_UNIT = "systemctl show -P ActiveState reconciler-agent.service"
_FILES = (
    "ls -d /run/systemd/network/* /run/NetworkManager/conf.d/* /run/systemd/transient/reconciler* 2>/dev/null; true"
)


class Box:
    """The machine, and a manifest of it."""

    def __init__(self, machine: stock.Domain, folder: Path, tap: str) -> None:
        self.machine, self.tap = machine, tap
        self.policy = write_policy(folder / "policy.yaml", pushAgent=["web-*"])
        self.manifests = folder / "manifests"
        self.manifests.mkdir()
        self.file = self.manifests / "web-8.yaml"
        self.manifest()

    def manifest(self, *, interfaces: bool = True) -> None:
        nic = f"{{name: eth-test, device: {self.tap}, hwAddr: '{MAC}', mtu: 1500, addresses: [192.0.2.2/24]}}"
        route = "{dest: default, gateway: 192.0.2.1, device: eth-test}"
        self.file.write_text(
            "apiVersion: reconciler/v1\nsandbox: web-8\n"
            f"driver: {{libvirt: {{domain: {stock.NAME}, guestAgent: true}}}}\n"
            f"interfaces: [{nic if interfaces else ''}]\nroutes: [{route if interfaces else ''}]\n"
        )

    def run(self, command: str, *words: str) -> int:
        return main([command, str(self.file), "--policy", self.policy, *words])

    def agent(self, action: str, *words: str) -> int:
        return main(["agent", action, "web-8", "--manifests", str(self.file), "--policy", self.policy, *words])

    def addresses(self) -> list[str]:
        """Give the IPv4 addresses of our NIC, as iproute2 in the guest reads them; nothing if there is none."""
        listed = self.machine.output("ip -j -4 address show dev eth-test 2>/dev/null")
        return [each["local"] for link in json.loads(listed or "[]") for each in link.get("addr_info", [])]

    def left(self) -> tuple[str, str, str]:
        """Say what is there of ours: the unit, files and ports in the guest, and what libvirt has plugged in."""
        inside = self.machine.output(
            f"{_UNIT}; {_FILES}; cat /sys/class/virtio-ports/*/name; ls /sys/fs/cgroup/system.slice | grep reconciler"
        )
        domain = virsh("dumpxml", stock.NAME)
        return (
            inside,
            "".join(re.findall("reconciler|ua-rc", domain)),
            self.machine.output("ls /run /etc /usr/local/lib"),
        )


@pytest.fixture(scope="module")
def box(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Start the machine; all tests of this file run in the namespace of libvirtd from then on."""
    kernel = Kernel()
    tap = kernel.tap()
    ip("link", "set", tap, "up")
    folder = tmp_path_factory.mktemp("stock")
    with daemon.entered(), stock.started(folder) as machine:
        yield Box(machine, folder, tap)
    kernel.remove()


@pytest.fixture(scope="module")
def before(box: Box) -> tuple[str, str, str]:
    return box.left()


def test_nothing_is_pushed_unless_the_operator_allows_it(
    box: Box, before: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    policy = write_policy(f"{box.policy}.none", drivers=["libvirt"])
    assert main(["diff", str(box.file), "--policy", policy]) == 3
    assert capsys.readouterr().err.splitlines()[0].partition("driver.libvirt.guestAgent: ")[2] == (
        "reconciler's agent, which is root there, may not be pushed into the machine of sandbox web-8; to allow it, "
        f"add to {policy}: pushAgent: [web-8]"
    )
    assert box.run("diff", "--no-push") == 2
    assert capsys.readouterr().err.partition("driver: ")[2].splitlines()[0] == (
        "the domain stock has no channel for the agent of reconciler, and this command plugs none in; "
        "`reconciler apply` without --no-push does"
    )
    assert box.agent("status") == 1
    assert capsys.readouterr().out == ("web-8: Python 3.11, systemd runs in the guest\nweb-8: no agent was pushed\n")
    assert box.left() == before


def test_the_first_command_pushes_the_agent_and_says_so(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    assert box.run("show") == 0
    shown = capsys.readouterr()
    assert shown.err == (
        "web-8: plugging a channel for the agent of reconciler into the running domain\n"
        "web-8: no agent of reconciler answers in the machine; pushing one into it, as root, through its guest agent "
        "(libvirt, stock)\n"
    )
    assert "libvirt: {domain: stock, guestAgent: true}\n" in shown.out
    assert box.agent("status") == 0
    assert main(["history", "web-8", "-o", "json"]) == 0
    assert "pushing one into it, as root, through its guest agent" in capsys.readouterr().out


def test_the_first_apply_holds(box: Box, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert box.run("apply") == 0, capsys.readouterr().err
    assert box.addresses() == ["192.0.2.2"]
    for change in ("systemctl restart systemd-networkd; networkctl reconfigure eth-test", "networkctl reload"):
        box.machine.output(change)
        assert box.run("diff") == 0, capsys.readouterr()
        assert box.addresses() == ["192.0.2.2"]
    unit = box.machine.output("systemctl show -P MainPID reconciler-agent")
    box.machine.restart_guest_agent()
    assert box.run("diff") == 0
    box.machine.await_answer()
    daemon.stop()
    daemon.start()
    assert box.run("diff") == 0
    box.machine.await_answer()
    assert box.machine.output("systemctl show -P MainPID reconciler-agent") == unit
    assert box.agent("push") == 0
    assert capsys.readouterr().out.endswith("web-8: this agent runs already\n")


def test_nothing_is_left_after_removal(
    box: Box, before: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    box.manifest(interfaces=False)
    assert box.run("apply", "--allow-delete", "all") == 0, capsys.readouterr().err
    assert box.agent("remove") == 0
    assert capsys.readouterr().out.endswith("web-8: removed the agent\n")
    assert box.left() == before


def test_a_watch_pushes_again_and_its_prune_leaves_nothing(box: Box, before: tuple[str, str, str]) -> None:
    box.manifest()
    # That a folder is empty is taken for a mistake.
    (box.manifests / "web-7.yaml").write_text(
        "apiVersion: reconciler/v1\nsandbox: web-7\ndriver: {netns: {name: no-such}}\nroutes: []\n"
    )
    with watching(box.manifests, "--prune", "--policy", box.policy) as watch:
        watch.await_state("converged", "web-8")
        assert box.addresses() == ["192.0.2.2"]
        assert len(watch.events("pushed")) == 2
        # As after a reboot: the unit is gone, the port is there.
        box.machine.output("systemctl stop reconciler-agent")
        _await_pushed(watch, 3)
        watch.await_state("converged", "web-8")
        box.file.rename(box.file.with_suffix(".away"))
        watch.await_event("pruned", sandbox="web-8")
        until(lambda: box.left() == before, "nothing is left", more=lambda: f"{before}\n{box.left()}")
    box.file.with_suffix(".away").rename(box.file)


def _await_pushed(watch: Running, count: int) -> None:
    watch.until(lambda: len(watch.events("pushed")) >= count, "the agent is pushed again")
