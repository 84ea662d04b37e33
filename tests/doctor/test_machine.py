"""What is wrong between QEMU, the host's TAP and a guest, and with IPVS in it. Several faults at once: TCG is slow."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.guest.qmp import Monitor
from reconciler.values import dataclass
from tests.conftest import Kernel, ip
from tests.doctor.ward import TIMER, Said
from tests.machine import Guest, freeze
from tests.watch.running import until

# The gateway is beyond the bridge: behind a veth whose other end is nobody's that is looked at.
MANIFEST = """\
apiVersion: reconciler/v1
sandbox: {name}
driver: {{vm: {{name: {name}}}}}
sysctls: {{net.ipv4.ip_forward: 1}}
interfaces:
  - name: eth7
    device: {tap}
    hwAddr: "02:00:00:00:00:31"
    mtu: 1500
    addresses: [198.51.100.31/24, 198.51.100.80/32]
routes:
  - {{dest: default, gateway: 198.51.100.254, device: eth7}}
ipvs:
  services:
    - tcp: 198.51.100.80:80
      scheduler: {scheduler}
      servers: [{{address: "198.51.100.11:80"}}, {{address: "203.0.113.9:80"}}]
"""
EMPTY = """\
apiVersion: reconciler/v1
sandbox: {name}
driver: {{vm: {{name: {name}}}}}
interfaces: []
routes: []
ipvs: {{services: []}}
"""


@dataclass
class Patient:
    """The machine, with what it needs on the host, and its manifest."""

    guest: Guest
    tap: str
    bridge: str
    file: str

    @property
    def name(self) -> str:
        return self.guest.sandbox.name

    def doctor(self, *words: str) -> Said:
        with redirect_stdout(io.StringIO()) as printed:
            code = main(["doctor", "-o", "json", *(words or (self.file,))])
        return Said(code, json.loads(printed.getvalue()))

    def found(self, *words: str) -> set[str]:
        """Give the checks that found something of this machine: others use this host as well."""
        return {check for check, about in self.doctor(*words).found if about == self.name}

    def apply(self) -> None:
        assert main(["apply", self.file]) == 0

    def inside(self, script: str) -> None:
        ran = self.guest.run("sh", "-ec", script)
        assert (ran.status, ran.stderr) == (0, b""), ran

    def is_well(self) -> None:
        """Wait until nothing is found: what goes on again, or was mended, is so a moment later."""

        def doubts() -> list[dict[str, Any]]:
            data = self.doctor().data
            # Nobody sees the firewall of a machine from here.
            unknown = [each for each in data["unknown"] if not each.get("beyond")]
            return [each for each in (*data["findings"], *unknown) if each["about"] == self.name]

        until(lambda: not doubts(), "all is well", more=lambda: str(doubts()))


@pytest.fixture(scope="module")
def patient(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    kernel = Kernel()
    try:
        yield from _treated(guest, kernel, tmp_path_factory.mktemp("manifests"))
    finally:
        kernel.remove()


def _treated(guest: Guest, kernel: Kernel, folder: Path) -> Iterator[Patient]:
    tap, bridge, name = kernel.tap(), kernel.device("type", "bridge"), guest.sandbox.name
    one, other = kernel.veth()
    elsewhere = kernel.namespace()
    ip("link", "set", one, "netns", elsewhere, "up")
    for device in (tap, other):
        ip("link", "set", device, "master", bridge, "up")
    ip("link", "set", bridge, "up")
    file = folder / "m.yaml"
    file.write_text(MANIFEST.format(name=name, tap=tap, scheduler="rr"))
    made = Patient(guest, tap, bridge, str(file))
    made.apply()
    yield made
    file.write_text(EMPTY.format(name=name))
    assert main(["apply", "--allow-delete", "all", str(file)]) == 0
    made.inside("echo 0 > /proc/sys/net/ipv4/ip_forward")


def test_faults_of_a_machine_are_named(patient: Patient, tmp_path: Path) -> None:
    patient.is_well()
    assert patient.found(patient.name) == set()

    # On the host.
    ip("link", "set", patient.tap, "down", "nomaster", "mtu", "1400")
    said = patient.doctor()
    assert {(each, patient.name) for each in ("device-down", "no-bridge", "mtu-smaller")} <= said.found
    assert f"ip link set dev {patient.tap} up" in said.commands("device-down")
    ip("link", "del", patient.tap)
    assert "tap-missing" in patient.found()
    ip("tuntap", "add", "dev", patient.tap, "mode", "tap")
    ip("link", "set", patient.tap, "up", "master", patient.bridge)
    assert "nic-unplugged" in patient.found()
    patient.apply()

    # In the guest.
    patient.inside(
        "ip link set lo down; ip route del default; ip address del 198.51.100.80/32 dev eth7; "
        "echo 0 > /proc/sys/net/ipv4/ip_forward; ipvsadm -A -t 198.51.100.31:81 -s rr; "
        "ipvsadm -e -t 198.51.100.80:80 -r 198.51.100.11:80 -m -w 0; "
        "ipvsadm -e -t 198.51.100.80:80 -r 203.0.113.9:80 -m -w 0; "
        "ip neighbour replace 198.51.100.11 dev eth7 nud failed; "
        "conntrack -I -s 192.0.2.31 -d 192.0.2.11 -p udp --sport 1 --dport 2 -t 600 2>/dev/null; "
        "cp /proc/sys/net/netfilter/nf_conntrack_max /tmp/most; echo 1 > /proc/sys/net/netfilter/nf_conntrack_max"
    )
    expected = {"loopback-down", "default-lacking", "vip-not-local", "ipvs-forwarding", "service-empty", "service-idle"}
    expected |= {"server-unrouted", "server-silent", "conntrack-full", "drift", "address-lacking"}
    assert expected <= patient.found()
    patient.inside(
        "ip link set lo up; ipvsadm -D -t 198.51.100.31:81; ip neighbour flush all; conntrack -F 2>/dev/null; "
        "cat /tmp/most > /proc/sys/net/netfilter/nf_conntrack_max"
    )
    patient.apply()
    patient.is_well()

    # Linux 6.1 has no scheduler `twos`; others have it.
    if patient.guest.run("uname", "-r").stdout.startswith(b"6.1."):
        file = tmp_path / "twos.yaml"
        file.write_text(MANIFEST.format(name=patient.name, tap=patient.tap, scheduler="twos"))
        assert "scheduler-missing" in patient.found(str(file))


SEEN = "lsmod; for what in link address 'route show table all' '-6 route show table all' rule neighbour; do "
SEEN += "ip -d -j $what; done; ipvsadm -Sn; cat /proc/sys/net/ipv4/vs/* 2>/dev/null"


def test_nothing_changes_in_a_machine(patient: Patient) -> None:
    def everything() -> list[str]:
        with Monitor(patient.guest.sandbox.qmp.replace("qmp.sock", "qmp2.sock")) as monitor:
            asked = [monitor.human(f"info {what}") for what in ("network", "status", "chardev")]
        inside = patient.guest.run("sh", "-c", SEEN).stdout.decode().splitlines()
        return [*asked, *inside, TIMER.sub("", ip("-d", "-j", "link", "show", patient.tap))]

    # What a kernel finishes by itself: duplicate address detection, and the state of a link.
    settled = "ip link show dev eth7 | grep -q 'state UP' && ! ip -6 address | grep -q tentative"
    patient.inside(f"ip route del default; for i in $(seq 100); do {settled} && break; sleep 0.1; done")
    before = everything()
    assert "default-lacking" in patient.found()
    assert everything() == before

    # Without IPVS, and with a manifest that needs it, the module is not loaded either.
    patient.inside("ipvsadm -C; modprobe -r ip_vs_rr ip_vs || :")
    modules = patient.guest.run("lsmod").stdout
    assert b"ip_vs" not in modules
    assert "ipvs-unloaded" in patient.found()
    assert patient.guest.run("lsmod").stdout == modules
    patient.apply()


def test_a_machine_that_stands_still(patient: Patient) -> None:
    with Monitor(patient.guest.sandbox.qmp.replace("qmp.sock", "qmp2.sock")) as monitor:
        monitor.execute("stop")
        said = patient.doctor()
        monitor.execute("cont")
    assert (("machine-stopped", patient.name) in said.found, said.code) == (True, 1)
    pid = patient.guest.sandbox.pid()
    assert pid
    freeze(pid)
    try:
        said = patient.doctor()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ("machine-silent", patient.name) in said.found
    assert "kill -CONT" in said.commands("machine-silent")[0]
    assert [each["what"] for each in said.data["unknown"] if each["about"] == patient.name] == [
        "the inside of the sandbox"
    ]
    patient.is_well()


def test_sockets_that_nobody_serves(patient: Patient, tmp_path: Path) -> None:
    paths = {name: str(tmp_path / f"{name}.sock") for name in ("qmp", "agent")}
    for path in paths.values():
        with socket.socket(socket.AF_UNIX) as dead, suppress(OSError):
            dead.bind(path)
    file = tmp_path / "dead.yaml"
    driver = ", ".join(f"{name}: {path}" for name, path in paths.items())
    file.write_text(f"apiVersion: reconciler/v1\nsandbox: dead\ndriver: {{vm: {{{driver}}}}}\n")
    said = patient.doctor(str(file))
    assert ("sandbox-missing", "dead") in said.found, said.data
    assert said.code == 1
