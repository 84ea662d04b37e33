"""A stock Debian that has nothing of ours: the agent is pushed into it, and its network managers leave our NICs alone.

All but the last tests use one machine, one after the other, as its operator would. What is true in it is read through
its guest agent, by a client that shares nothing with ours (`Stock.output`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.drivers.vm import channel
from reconciler.guest import push
from reconciler.guest.guest_agent import GuestAgent
from reconciler.guest.qmp import Monitor
from reconciler.model.sandbox import VmAddress
from tests import stock
from tests.allowed import write_policy
from tests.conftest import Kernel, ip
from tests.stock import Stock

MAC = "02:42:20:6f:a3:71"
_UNIT = "systemctl show -p ActiveState -p MainPID -p FragmentPath reconciler-agent.service"
_FILES = "ls /run/systemd/network /run/NetworkManager/conf.d /run/systemd/transient 2>/dev/null"


class Box:
    """A machine, and a manifest of it."""

    def __init__(self, machine: Stock, folder: Path, tap: str) -> None:
        self.machine, self.tap = machine, tap
        self.policy = write_policy(folder / "policy.yaml", pushAgent=["web-*"])
        self._file = folder / "web-9.yaml"

    def manifest(self, driver: str = "agent: AGENT, ", *, interfaces: bool = True) -> str:
        words = driver.replace("AGENT", self.machine.agent)
        nic = f"{{name: eth-test, device: {self.tap}, hwAddr: '{MAC}', mtu: 1500, addresses: [192.0.2.2/24]}}"
        self._file.write_text(
            "apiVersion: reconciler/v1\nsandbox: web-9\n"
            f"driver: {{vm: {{qmp: {self.machine.qmp}, {words}guestAgent: {self.machine.guest_agent}}}}}\n"
            f"interfaces: [{nic if interfaces else ''}]\n"
            + ("routes: [{dest: default, gateway: 192.0.2.1, device: eth-test}]\n" if interfaces else "routes: []\n")
        )
        return str(self._file)

    def run(self, command: str, *words: str) -> int:
        return main([command, self._file.as_posix(), "--policy", self.policy, *words])

    def agent(self, action: str, *words: str) -> int:
        return main(["agent", action, "web-9", "--manifests", str(self._file), "--policy", self.policy, *words])


@pytest.fixture(scope="module")
def machine(root: None) -> Iterator[Stock]:
    with stock.started() as made:
        yield made


@pytest.fixture(scope="module")
def tap(root: None) -> Iterator[str]:
    made = Kernel()
    name = made.tap()
    ip("link", "set", name, "up")
    yield name
    made.remove()


@pytest.fixture(scope="module")
def box(machine: Stock, tap: str, tmp_path_factory: pytest.TempPathFactory) -> Box:
    made = Box(machine, tmp_path_factory.mktemp("stock"), tap)
    made.manifest()
    return made


def test_nothing_is_pushed_unless_the_operator_allows_it(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.manifest()
    assert main(["apply", box.manifest(), "--policy", write_policy(box.policy + ".none", drivers=["vm"])]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.partition("guestAgent: ")[2] == (
        "reconciler's agent, which is root there, may not be pushed into the machine of sandbox web-9; to allow it, "
        f"add to {box.policy}.none: pushAgent: [web-9]"
    )
    for command in ("show", "diff", "apply"):
        assert box.run(command, "--no-push") == 2
        assert (
            f"no agent of reconciler answers in the machine ({box.machine.agent}), and this command pushes none; "
            "`reconciler agent push`, or `reconciler apply` without --no-push, does" in capsys.readouterr().err
        )
    assert box.agent("status", "-o", "json") == 1
    agent = {"active": False, "current": False, "source": None}
    assert json.loads(capsys.readouterr().out) == {
        "sandbox": "web-9",
        "python": "3.11",
        "systemd": True,
        "agent": agent,
        "unit": None,
    }
    assert box.machine.output(_FILES) == "/run/systemd/network:\n"


def test_the_first_command_pushes_the_agent_and_says_so(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    assert box.run("show") == 0
    shown = capsys.readouterr()
    said = "web-9: no agent of reconciler answers in the machine; pushing one into it, as root, through its guest agent"
    assert shown.err == f"{said} ({box.machine.guest_agent})\n"
    assert "guestAgent: " in shown.out
    # As systemd has it: no file, but the transient unit itself.
    unit = dict(line.split("=", 1) for line in box.machine.output(_UNIT).splitlines())
    assert unit["ActiveState"] == "active"
    assert unit["FragmentPath"] == "/run/systemd/transient/reconciler-agent.service"
    status = box.machine.output(f"cat /proc/{unit['MainPID']}/status")
    # CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_MODULE, and none besides.
    assert re.findall(r"(CapBnd|NoNewPrivs):\s+(\w+)", status) == [("CapBnd", "0000000000013000"), ("NoNewPrivs", "1")]
    assert box.agent("status") == 0
    assert box.run("diff") == 1
    assert capsys.readouterr().err == ""


def test_network_managers_leave_our_nics_alone(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    assert box.run("apply") == 0, capsys.readouterr().err
    assert _addresses(box.machine) == ["192.0.2.2/24"]
    for change in (
        "systemctl restart systemd-networkd; networkctl reconfigure eth-test",
        "systemctl start NetworkManager; nm-online -s -t 10; networkctl reload; systemctl stop NetworkManager",
    ):
        box.machine.output(change)
        assert box.run("diff") == 0, capsys.readouterr().out
        assert _addresses(box.machine) == ["192.0.2.2/24"]
    # udev would name it by its slot, and did not.
    (link,) = json.loads(box.machine.output("udevadm settle; ip -j link show dev eth-test"))
    assert "altnames" not in link, link
    listed = box.machine.output("networkctl --no-pager --no-legend")
    assert re.search(r"eth-test\s+ether\s+\w+\s+unmanaged", listed), listed


def test_what_managers_were_told_is_observed_and_repaired(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    for damage in ("rm", "sed -i s/a3:71/a3:72/", "sed -i '$d'"):
        box.machine.output(f"{damage} /run/systemd/network/00-reconciler.network")
        capsys.readouterr()
        assert box.run("diff") == 1
        (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("  ")]
        assert line.startswith(f"  ~ printf '%s\\n' '[Match]' PermanentMACAddress={MAC} '[Link]' Unmanaged=yes >/run/")
        assert box.run("apply") == 0
        assert box.machine.output("cat /run/systemd/network/00-reconciler.network") == (
            f"[Match]\nPermanentMACAddress={MAC}\n\n[Link]\nUnmanaged=yes\n"
        )
    box.machine.output("rm /run/systemd/network/00-reconciler.link")
    assert box.run("diff") == 1
    assert "; udevadm control --reload" in capsys.readouterr().out
    assert box.run("apply") == 0
    assert box.machine.output("cat /run/systemd/network/00-reconciler.link") == (
        f"[Match]\nPermanentMACAddress={MAC}\n\n[Link]\nNamePolicy=\n"
    )
    assert box.run("diff") == 0


def test_a_manager_that_cannot_be_told_is_a_warning(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.machine.output(
        "cp /bin/sleep /usr/local/bin/connmand; systemd-run -q -p Type=exec --unit=rival /usr/local/bin/connmand 1000"
    )
    box.run("diff")
    assert (
        "connmand configures NICs in the guest by itself, and cannot be told to leave these alone: what it changes is "
        "a fight; stop it there, or exclude these NICs" in capsys.readouterr().err
    )
    box.machine.output("systemctl stop rival; rm /usr/local/bin/connmand")
    box.run("diff")
    assert "connmand" not in capsys.readouterr().err


def test_the_agent_outlives_the_guest_agent(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    before = box.machine.output(_UNIT)
    box.machine.restart_guest_agent()
    # It is not needed while ours answers.
    assert box.run("diff") == 0
    box.machine.await_answer()
    assert box.machine.output(_UNIT) == before
    assert box.agent("push") == 0
    assert capsys.readouterr().out.endswith("web-9: this agent runs already\n")


def test_an_agent_of_another_version_is_replaced(
    box: Box, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    older = push.source().replace(b"\nVERSION = ", b"\nVERSION = 1")
    with monkeypatch.context() as patched, GuestAgent(box.machine.guest_agent) as guest:
        patched.setattr(push, "source", lambda: older)
        patched.setattr(push, "digest", lambda: "0123456789ab")
        push.push(guest)
    with Monitor(box.machine.qmp) as monitor:
        while channel.is_closed(monitor, box.machine.agent):
            time.sleep(0.05)
    assert box.agent("status") == 1
    assert "another agent (0123456789ab, this one is " in capsys.readouterr().out
    assert box.run("diff") == 0
    assert re.search(r"an agent of version 1\d+ answers in the machine; pushing one", capsys.readouterr().err)
    assert box.agent("status") == 0


def test_nothing_is_left_after_removal(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.manifest(interfaces=False)
    assert box.run("apply", "--allow-delete", "all") == 0, capsys.readouterr().err
    assert box.machine.output("ls /run/systemd/network /run/NetworkManager/conf.d") == (
        "/run/NetworkManager/conf.d:\n\n/run/systemd/network:\n"
    )
    assert box.agent("remove") == 0
    assert box.agent("remove") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "web-9: removed the agent",
        "web-9: no agent was pushed; there is none to remove",
    ]
    assert "ActiveState=inactive" in box.machine.output(_UNIT)
    left = box.machine.output("ls /run/systemd/transient; ls -d /run/reconciler*; grep -l reconciler /proc/*/comm")
    assert left == "ls: cannot access '/run/reconciler*': No such file or directory\n"


def test_a_channel_is_plugged_in_where_there_is_none(
    box: Box, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Monitor(box.machine.qmp) as monitor:
        monitor.execute("device_del", id="agent-port")
    box.manifest(driver="")
    before = box.machine.output("ls /dev/vport*")
    assert box.run("apply", "--no-push") == 2
    assert "the machine has no channel for an agent of reconciler" in capsys.readouterr().err
    with Monitor(box.machine.qmp) as monitor, monkeypatch.context() as patched:
        # As if a run was killed between its two commands.
        patched.setattr(channel, "complete", lambda _: None)
        channel.plug(monitor, VmAddress(qmp=box.machine.qmp).file)
    assert box.run("apply") == 0, capsys.readouterr().err
    assert _addresses(box.machine) == ["192.0.2.2/24"]
    assert box.run("diff") == 0
    box.manifest(driver="", interfaces=False)
    assert box.run("apply", "--allow-delete", "all") == 0
    assert box.agent("remove") == 0
    assert box.machine.output("ls /dev/vport*") == before
    with Monitor(box.machine.qmp) as monitor:
        assert "rcagent" not in {each["label"] for each in monitor.execute("query-chardev")}


# What makes a push impossible in a guest, and what is said of it.
_ADVICE = "put the agent into the image instead: `reconciler agent cloud-init`, or `reconciler agent unit`"
_AWAY = "mv /usr/bin/python3 /usr/bin/python3.away"
_OLD = "printf '#!/bin/sh\\necho 3.8\\n' >/usr/bin/python3; chmod +x /usr/bin/python3"
_OWN = "/etc/systemd/system/reconciler-agent.service"
_OWN_UNIT = f"printf '[Service]\\nExecStart=/bin/sleep 9\\n' >{_OWN}; systemctl daemon-reload"
_HAS_UNIT = (
    f"the guest has a unit reconciler-agent.service of its own ({_OWN}), and no agent of this version answers; see "
    "`systemctl status reconciler-agent` in the guest, and replace its agent (`reconciler agent cloud-init`)"
)
_REFUSALS = [
    (
        _AWAY,
        "mv /usr/bin/python3.away /usr/bin/python3",
        f"the guest has no python3, which the agent needs (3.9 or later); {_ADVICE}",
    ),
    (
        f"{_AWAY}; {_OLD}",
        "mv /usr/bin/python3.away /usr/bin/python3",
        "the guest has Python 3.8, and the agent needs 3.9 or later; install that in the guest",
    ),
    (
        "mv /run/systemd/system /run/systemd/away",
        "mv /run/systemd/away /run/systemd/system",
        f"the guest is not run by systemd, which runs an agent that is pushed; {_ADVICE}",
    ),
    (_OWN_UNIT, "true", _HAS_UNIT),
]


def test_a_guest_that_cannot_have_it_says_why(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.manifest(driver="")
    # A program takes seconds in this machine. What is left in the end does not matter to the last test.
    undone = "true"
    for before, after, words in _REFUSALS:
        box.machine.output(f"{undone}; {before}")
        assert box.agent("push") == 2
        assert capsys.readouterr().err == f"reconciler: {words}\n"
        undone = after


def test_a_guest_agent_that_may_not_execute_says_so(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    """The last one: nothing runs in the machine afterwards."""
    box.manifest(driver="")
    file = "/etc/qemu/qemu-ga.conf"
    box.machine.output(f"mkdir -p /etc/qemu; printf '[general]\\nblock-rpcs=guest-exec\\n' >{file}")
    box.machine.restart_guest_agent()
    deadline = time.monotonic() + 180
    while box.agent("push") != 2 or "is disabled" not in (said := capsys.readouterr().err):
        assert time.monotonic() < deadline, said
        time.sleep(0.5)
    assert said == (
        "reconciler: the guest agent of this guest may not execute programs (guest-exec is disabled); allow it in the "
        "guest (block-rpcs or allow-rpcs of qemu-ga, in /etc/qemu/qemu-ga.conf or /etc/sysconfig/qemu-ga), or "
        f"{_ADVICE}\n"
    )


def _addresses(machine: Stock) -> list[str]:
    """Give the IPv4 addresses of our NIC, as iproute2 in the guest reads them."""
    listed: list[dict[str, Any]] = json.loads(machine.output("ip -j -4 address show dev eth-test"))
    return [f"{each['local']}/{each['prefixlen']}" for link in listed for each in link.get("addr_info", [])]
