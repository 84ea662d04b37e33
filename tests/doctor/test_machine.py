"""The same in a machine: what is wrong between QEMU, the host's TAP and the guest, and with IPVS in it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from reconciler.guest.qmp import Monitor
from tests.doctor.ward import Said, Ward
from tests.host import Host

MACHINE = "m"
FOLDER = f"run/reconciler/sandboxes/{MACHINE}"
SETUP = """\
sysctl -qw net.ipv4.ip_forward=1
ip link add br0 type bridge
ip link set br0 up
ip address add 192.0.2.1/24 dev br0
ip tuntap add dev tap-m mode tap
ip link set tap-m master br0 up
"""
MANIFEST = """\
apiVersion: reconciler/v1
sandbox: m
driver: {vm: {name: m}}
sysctls: {net.ipv4.ip_forward: 1}
interfaces:
  - {name: eth0, device: tap-m, hwAddr: "02:00:00:00:00:31", mtu: 1500, addresses: [192.0.2.31/24, 192.0.2.80/32]}
routes:
  - {dest: default, gateway: 192.0.2.1, device: eth0}
ipvs:
  services:
    - {tcp: "192.0.2.80:80", scheduler: rr, servers: [{address: "192.0.2.11:80"}, {address: "203.0.113.9:80"}]}
"""
OTHER_SCHEDULER = MANIFEST.replace("scheduler: rr", "scheduler: twos")


@pytest.fixture(scope="module")
def machine(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("manifests")
    (folder / "m.yaml").write_text(MANIFEST)
    host.output("sh", "-ec", SETUP)
    host.start_machine(MACHINE)
    ward = Ward(host, str(folder))
    ward.apply()
    yield ward
    subprocess.run(["nsenter", f"--target={host.pid}", "--pid", "--mount", "pkill", "-9", "qemu"], check=False)


class Fault(NamedTuple):
    """What is broken: `host` there, or `guest` inside; the check; what ends it: None: the command that is printed."""

    host: str
    guest: str
    check: str
    mend: str | None = ""


FAULTS = [
    Fault("ip link set tap-m down", "", "device-down", None),
    Fault("ip link set tap-m nomaster", "", "no-bridge", "ip link set tap-m master br0"),
    Fault("ip link set tap-m mtu 1400", "", "mtu-smaller", None),
    Fault("ip link del tap-m", "", "tap-missing", "ip tuntap add dev tap-m mode tap; ip link set tap-m up master br0"),
    Fault("ip link del tap-m; ip tuntap add dev tap-m mode tap; ip link set tap-m up master br0", "", "nic-unplugged"),
    Fault("", "ip link set lo down", "loopback-down", None),
    Fault("", "ip link set eth0 down", "nic-down"),
    Fault("", "ip route del default", "server-unrouted"),
    Fault("", "ip address del 192.0.2.80/32 dev eth0", "vip-not-local"),
    Fault("", "ipvsadm -C", "drift"),
    Fault("", "echo 0 > /proc/sys/net/ipv4/ip_forward", "ipvs-forwarding"),
    Fault(
        "",
        "ipvsadm -e -t 192.0.2.80:80 -r 192.0.2.11:80 -m -w 0; ipvsadm -e -t 192.0.2.80:80 -r 203.0.113.9:80 -m -w 0",
        "service-idle",
    ),
    Fault("", "ip neighbour replace 192.0.2.11 dev eth0 nud failed", "server-silent", "ip link show"),
]


def inside(ward: Ward, script: str) -> str:
    return ward.host.within(MACHINE, "sh", "-ec", script)


def is_well(ward: Ward) -> None:
    said = ward.doctor()
    assert (said.data["findings"], said.data["unknown"], said.code) == ([], [], 0)


def test_a_machine_that_is_well_has_no_finding(machine: Ward) -> None:
    is_well(machine)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: (each.host or each.guest)[:50])
def test_a_fault_is_named_and_mended(machine: Ward, fault: Fault) -> None:
    if fault.host:
        machine.sh(fault.host)
    if fault.guest:
        inside(machine, fault.guest)
    said = machine.doctor()
    assert (fault.check, MACHINE) in said.found, said.data
    for command in said.commands(fault.check) if fault.mend is None else [fault.mend]:
        machine.sh(command or ":")
    if "neighbour" in fault.guest:
        inside(machine, "ip neighbour flush all")
    machine.apply()
    is_well(machine)


def test_services_of_others_and_full_tables(machine: Ward) -> None:
    inside(
        machine,
        "ipvsadm -A -t 192.0.2.80:81 -s rr; "
        "conntrack -I -s 192.0.2.31 -d 192.0.2.11 -p udp --sport 1 --dport 2 -t 600 2>/dev/null; "
        "cp /proc/sys/net/netfilter/nf_conntrack_max /tmp/most; echo 1 > /proc/sys/net/netfilter/nf_conntrack_max",
    )
    said = machine.doctor()
    assert said.found == {("service-empty", MACHINE), ("conntrack-full", MACHINE)}
    inside(machine, "ipvsadm -D -t 192.0.2.80:81; cat /tmp/most > /proc/sys/net/netfilter/nf_conntrack_max")
    is_well(machine)


def test_a_scheduler_that_the_kernel_lacks(machine: Ward, tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(OTHER_SCHEDULER)
    assert ("scheduler-missing", MACHINE) in machine.doctor(str(file)).found


def test_a_machine_is_found_by_its_name(machine: Ward) -> None:
    assert machine.doctor(MACHINE).data["sandboxes"] == 1


def test_a_machine_that_stands_still(machine: Ward) -> None:
    path = f"/proc/{machine.host.pid}/root/{FOLDER}/qmp2.sock"
    with Monitor(path) as monitor:
        monitor.execute("stop")
    said = machine.doctor()
    assert ("machine-stopped", MACHINE) in said.found
    assert said.code == 1
    with Monitor(path) as monitor:
        monitor.execute("cont")
    is_well(machine)


def test_a_machine_whose_process_is_stopped_and_killed(machine: Ward) -> None:
    pid = f'"$(cat /{FOLDER}/pid)"'
    machine.sh(f"kill -STOP {pid}")
    said = machine.doctor()
    assert ("machine-silent", MACHINE) in said.found, said.data
    (command,) = said.commands("machine-silent")
    machine.sh(command)
    is_well(machine)
    machine.sh(f"kill -KILL {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")
    said = machine.doctor()
    assert ("sandbox-missing", MACHINE) in said.found, said.data
    assert json.dumps(said.data).count(f"reconciler sandbox start {MACHINE}")


def test_nothing_is_said_of_what_could_not_be_looked_at(machine: Ward) -> None:
    said: Said = machine.doctor()
    assert [each["what"] for each in said.data["unknown"]] == ["the inside of the sandbox"]
