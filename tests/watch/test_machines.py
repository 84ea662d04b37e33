"""A watch of virtual machines: two at once, changes behind its back, flushes, restarts, and kills of either side."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.drivers import connect
from reconciler.errors import SandboxGoneError
from reconciler.guest import launch
from reconciler.guest.qmp import TIMEOUT, Monitor
from reconciler.history.reader import read
from reconciler.manifest.dump import dump
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Sandbox, VmAddress
from reconciler.watch import pause
from reconciler.watch.pause import Pause
from tests import resumed
from tests.conftest import Kernel, ip
from tests.ipvs.rules import rules
from tests.replug import unplugged
from tests.system.box import MACS
from tests.watch.running import DEADLINE, Running, put, reconciler, until, watching

# What a guest lists takes it a millisecond each.
LINES = [*rules(50), "-A -t [fd00::1]:80 -s rr", "-a -t [fd00::1]:80 -r [fd00::9]:80 -m -w 1"]


# What is not there yet is told on stderr. Each program in a guest takes a while.
_SHOW = """
exec 2>&1
ip -o -force -batch - <<END
addr show eth0
link show eth0
route show 10.8.0.0/16
rule
neigh show 10.0.0.1
END
ipvsadm -Sn
read forward </proc/sys/net/ipv4/ip_forward
read accept </proc/sys/net/ipv6/conf/eth0/accept_ra
echo ip_forward=$forward accept_ra=$accept
"""


# Seconds between what is measured here and the clock of a guest's host; and those that a server has to drain, in which
# a busy machine looks at it.
DRIFT, DRAIN = 5.0, 20
# In the guest: a look from outside would come too late.
_AWAIT_RULES = """
while True:
    try:
        with open("/proc/net/ip_vs") as file:
            if len(file.read(2000)) > 1000:
                break
    except FileNotFoundError:
        pass
"""


class Machine:
    """A machine of our own that runs, the TAP for it, and its manifest."""

    def __init__(self, kernel: Kernel, folder: Path, number: int) -> None:
        self.name = f"watched-{os.getpid()}-{number}"
        self.device = kernel.tap()
        self.file = folder / f"{self.name}.yaml"
        nic = {"name": "eth0", "device": self.device, "hwAddr": MACS[number], "mtu": 1500, "addresses": ["10.0.0.2/16"]}
        self.sections: dict[str, Any] = {
            "sysctls": {"net.ipv4.ip_forward": 1},
            "interfaces": [nic | {"sysctls": {"accept_ra": 0}}],
            "neighbours": [{"address": "10.0.0.1", "device": "eth0", "hwAddr": "02:42:20:6f:a3:f1"}],
            "routes": [{"dest": "10.8.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}],
            "rules": [{"priority": 100, "from": "10.1.0.0/16", "table": 100}],
            "ipvs": {"rules": "\n".join(LINES) + "\n"},
        }
        ip("link", "set", self.device, "up")
        self.start()
        self.write()

    def start(self) -> None:
        self.guest = resumed.start(self.name)

    def write(self, **sections: Any) -> None:
        self.sections |= sections
        head = {"apiVersion": "reconciler/v1", "sandbox": self.name, "driver": {"vm": {"name": self.name}}}
        put(self.file, dump([head | self.sections]))

    def run(self, command: str) -> str:
        """Do something in the guest behind the back of the watch."""
        return self.guest.output("sh", "-c", command)

    def replug(self) -> None:
        """Unplug the agent's port, and plug it again."""
        with Monitor(f"{self.guest.sandbox.folder}/qmp2.sock") as monitor, unplugged(monitor):
            pass

    def rules(self) -> list[str]:
        return sorted(self.run("ipvsadm -Sn").splitlines())

    def is_as_written(self) -> bool:
        """Return whether the kernel has what the manifest says at first."""
        shown = self.run(_SHOW)
        expected = (
            "mtu 1500",
            "inet 10.0.0.2/16",
            "via 10.0.0.1",
            "lookup 100",
            "a3:f1 PERMANENT",
            "ip_forward=1",
            "accept_ra=0",
        )
        rules = sorted(line for line in shown.splitlines() if line.startswith("-"))
        return rules == sorted(LINES) and all(each in shown for each in expected)


Machines = Callable[[int], list[Machine]]


@pytest.fixture
def machines(kernel: Kernel, tmp_path: Path) -> Iterator[Machines]:
    """Start so many machines."""
    (tmp_path / "manifests").mkdir()
    found: list[Machine] = []

    def start(count: int) -> list[Machine]:
        for number in range(count):
            found.append(Machine(kernel, tmp_path / "manifests", number))
        return found

    try:
        yield start
    finally:
        for each in found:
            with suppress(SandboxGoneError):
                launch.stop(each.name)


@contextmanager
def keeping(machines: list[Machine]) -> Iterator[Running]:
    """Watch machines, which are as their manifests say when this begins."""
    with watching(machines[0].file.parent, "--look", "1s", "--metrics", "0") as running:
        running.await_state("converged", *(each.name for each in machines))
        yield running


@pytest.fixture
def one(machines: Machines) -> Machine:
    return machines(1)[0]


@pytest.fixture
def running(one: Machine) -> Iterator[Running]:
    with keeping([one]) as found:
        yield found


def test_machines_are_kept_as_their_manifests_say(machines: Machines) -> None:
    pair = machines(2)
    with keeping(pair) as running:
        keep(pair[0], pair[1], running)


def keep(one: Machine, other: Machine, running: Running) -> None:
    assert one.is_as_written()
    assert other.is_as_written()
    expected = sorted(LINES)
    assert one.rules() == expected
    # An edit reaches the kernel of one machine.
    changed = [LINES[0].replace("-p 300", "-p 600"), *LINES[1:]]
    one.write(ipvs={"rules": "\n".join(changed) + "\n"})
    until(lambda: one.rules() == sorted(changed), "edit")
    assert other.rules() == expected
    one.write(ipvs={"rules": "\n".join(LINES) + "\n"})
    until(lambda: one.rules() == expected, "edit back")
    # What is done behind its back is undone. Not twice the same: that might wait.
    for change in (
        "ip route del 10.8.0.0/16",
        "ip addr flush dev eth0",
        "ip link set eth0 mtu 1400",
        "ip rule del priority 100",
        "ip neigh replace 10.0.0.1 lladdr 02:42:20:6f:a3:f9 dev eth0 nud permanent",
        # One right after the other: the watch is quick.
        "printf 'link set eth0 down\\nlink set eth0 name foo\\n' | ip -batch -",
        "sysctl -w net.ipv4.ip_forward=0",
        "sysctl -w net.ipv6.conf.eth0.accept_ra=1",
        f"ipvsadm -e {LINES[1].removeprefix('-a ').replace('-w 1', '-w 9')}",
    ):
        other.run(change)
        until(other.is_as_written, what=change)
    # The agent has a new port, and knows nothing of a subscription and a guard.
    other.replug()
    other.run("ip route del 10.8.0.0/16")
    until(other.is_as_written, what="after the agent's port was plugged again")
    # The first services are put back in the guest, unless a look happens to come before that.
    for _ in range(5):
        other.run("ipvsadm -C")
        until(lambda: other.rules() == expected, "flush")
        if running.events("flush", sandbox=other.name):
            break
    assert running.events("flush", sandbox=other.name)
    until(lambda: any(each.event == "flush" for each in read([other.name])), "the flush is recorded")
    repaired = [each for each in read([other.name]) if (each.cause, each.result) == ("drift", "verified")]
    assert any(step.command.startswith("ip route add 10.8.0.0/16 ") for each in repaired for step in each.steps)
    assert {each.driver for each in repaired} == {f"vm {other.name}"}
    assert running.metric("guard_flushes_total", other.name) >= 1
    assert running.metric("guard_flushes_total", one.name) == 0
    # A NIC that the guest has lost.
    one.run("echo 1 >/sys/class/net/eth0/device/driver/unbind 2>/dev/null; true")
    one.run("for each in /sys/class/net/eth0/device; do echo 1 >$(readlink -f $each)/../remove; done; true")
    until(one.is_as_written, what="NIC")
    running.await_state("converged", one.name, other.name)


def test_a_machine_that_is_watched_is_lent(one: Machine, running: Running) -> None:
    begin = time.monotonic()
    for command in ("diff", "apply"):
        ran = reconciler(command, str(one.file))
        assert ran.returncode == 0, ran
        assert "in sync" in ran.stdout
    assert "10.8.0.0/16" in reconciler("show", str(one.file)).stdout
    # It takes no longer than the look that the watch is at.
    assert time.monotonic() - begin < DEADLINE
    route = one.file.with_name("route.json")
    route.write_text(json.dumps({"dest": "10.7.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}))
    ran = reconciler("kata-network", "add-route", one.name, str(route))
    assert ran.returncode == 0, ran
    assert f"`reconciler watch` will revert whatever differs from {one.file}" in ran.stderr
    until(lambda: "10.7.0.0" not in one.run("ip route"), "a route that no manifest has goes")
    assert len(running.events("lent", sandbox=one.name)) == 4
    assert not running.events("failed")
    reconciler("pause", one.name, "--for", "60s", "--reason", "a look")
    running.await_state("paused", one.name)
    ran = reconciler("kata-ipvs", "ipvsadm", "--parameters", "--add-service -t 10.9.9.9:99", one.name)
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    assert "-A -t 10.9.9.9:99 -s wlc" in one.rules()
    until(lambda: running.about(one.name)["lent"] == 0, "it is given back")
    sandbox = Sandbox(id=one.name, driver=VmAddress(name=one.name))
    begin = time.time()
    with connect(sandbox, Policy()):
        until(lambda: begin - 1 <= running.about(one.name)["lent"] <= time.time() + 1, "status says since when")
    assert reconciler("pause", one.name, "--end").returncode == 0
    until(lambda: one.rules() == sorted(LINES), "the pause is over")


def test_a_machine_that_restarts_is_restored_and_one_that_is_frozen_delays_no_other(machines: Machines) -> None:
    pair = machines(2)
    with keeping(pair) as running:
        freeze_and_restart(pair[0], pair[1], running)


def freeze_and_restart(one: Machine, other: Machine, running: Running) -> None:
    pid = one.guest.sandbox.pid()
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        took: list[float] = []
        # Had each waited for the frozen one, none could be quicker than QEMU's deadline. On a busy host, some are not.
        while min(took, default=TIMEOUT) >= TIMEOUT:
            assert len(took) < 20, took
            begin = time.monotonic()
            other.run(f"ip addr add 10.1.{len(took)}.1/24 dev eth0")
            until(lambda: "10.1." not in other.run("ip addr show eth0"), "address deleted")
            took.append(time.monotonic() - begin)
        running.await_state("failed", one.name)
    finally:
        os.kill(pid, signal.SIGCONT)
    running.await_state("converged", one.name)
    os.kill(pid, signal.SIGKILL)
    running.await_state("waiting", one.name)
    one.start()
    until(one.is_as_written, "restored")
    assert one.rules() == sorted(LINES)


def test_a_watch_that_is_killed_in_a_bulk_restore_is_finished_by_the_next(machines: Machines, tmp_path: Path) -> None:
    one, other = pair = machines(2)
    lines = rules(5000)
    for each in pair:
        each.write(ipvs={"rules": "\n".join(lines) + "\n"})
    with watching(tmp_path / "manifests") as running:
        one.guest.output("python3.11", "-I", "-S", "-c", _AWAIT_RULES)
        running.kill()
    # A line for each rule, after three. While one gets its rules, the other one does.
    assert min(int(each.run("wc -l </proc/net/ip_vs")) - 3 for each in pair) < len(lines)
    with watching(tmp_path / "manifests") as running:
        running.await_state("converged", one.name, other.name)
        assert [each.rules() for each in pair] == [sorted(lines)] * 2


def test_pauses_hold_for_the_guard_as_well(one: Machine, running: Running) -> None:
    one.write(paused="maintenance")
    running.await_state("paused", one.name)
    one.run("ipvsadm -C")
    time.sleep(2.5)
    assert one.rules() == []
    del one.sections["paused"]
    one.write()
    until(lambda: one.rules() == sorted(LINES), "rules back")


# Which families (NFPROTO_IPV4, _IPV6) have a table of nftables of our name: NFT_MSG_GETTABLE, with an acknowledgement.
_TABLES = """
import struct
from reconciler.guest import agent
found = []
for family in (2, 10):
    with agent.open_netlink(agent.NETFILTER) as channel:
        name = struct.pack("=HH11sx", 15, 1, b"reconciler")
        channel.send(struct.pack("=IHHIIBBH", 20 + len(name), 0xA01, 5, 1, 0, family, 0, 0) + name)
        if struct.unpack_from("=4xH", channel.recv(4096))[0] == 0xA00:
            found.append(family)
print(*found)
"""


def tables(one: Machine) -> list[str]:
    return one.guest.run("python3.11", "-c", _TABLES).stdout.decode().split()


def test_a_guarded_machine_has_a_table_of_nftables_as_long_as_it_is_guarded(one: Machine, running: Running) -> None:
    protected = len([line for line in LINES if line.startswith("-A -t")])
    running.await_event("shield", services=protected)
    until(lambda: tables(one) == ["2", "10"], "tables")
    one.write(paused="maintenance")
    running.await_state("paused", one.name)
    assert tables(one) == []
    del one.sections["paused"]
    one.write()
    until(lambda: tables(one) == ["2", "10"], "tables back")
    ipvs = one.sections["ipvs"]
    one.write(ipvs=ipvs | {"guard": "services"})
    until(lambda: tables(one) == [], "tables gone")
    one.write(ipvs=ipvs | {"guard": "nft"})
    until(lambda: tables(one) == ["2", "10"], "tables back")
    # Nothing of it outlives the watcher.
    running.kill()
    until(lambda: tables(one) == [], "tables gone with the watcher")


def test_a_pause_ends_the_guard_although_notifications_were_lost(one: Machine, running: Running) -> None:
    # The guard is a child of the agent. Other processes may end meanwhile.
    agent = one.run("grep -slE 'guest/agent[.]pyc' /proc/[0-9]*/cmdline | cut -d/ -f3 | sort -n | head -1").strip()
    one.run(f"kill -STOP {agent}")
    one.run("seq 1000 5999 | sed 's/^/link set lo mtu 1/' | ip -batch -")
    pause.write(one.name, Pause(4e9, "maintenance"))
    try:
        one.run(f"kill -CONT {agent}")
        running.await_state("paused", one.name)
        one.run("ipvsadm -C")
        time.sleep(2.5)
        assert one.rules() == []
        assert running.state(one.name) == "paused"
    finally:
        pause.end(one.name)
    until(lambda: one.rules() == sorted(LINES), "rules back")


def test_a_fight_over_rules_is_named_and_all_else_goes_on(one: Machine, running: Running) -> None:
    server = LINES[1].removeprefix("-a ").partition(" -m")[0]
    fight = f"while [ ! -e /tmp/stop ]; do ipvsadm -d {server} 2>/dev/null; sleep 0.3; done"
    one.run(f"setsid sh -c '{fight}' </dev/null >/dev/null 2>&1 &")
    until(lambda: running.state(one.name) == "fighting", "fight")
    one.run("ip route del 10.8.0.0/16")
    until(lambda: "via" in one.run("ip route show 10.8.0.0/16"), "route back")
    one.run("touch /tmp/stop")


def test_a_fallback_is_on_while_a_server_drains_and_off_afterwards(one: Machine, running: Running) -> None:
    head = "-A -t 10.0.0.2:80 -s mh"
    servers = {f"10.8.0.{number}:80": f"-a -t 10.0.0.2:80 -r 10.8.0.{number}:80 -m -w 1" for number in range(1, 5)}

    def write(*lines: str) -> None:
        one.write(ipvs={"rules": "\n".join([*LINES, head, *lines]) + "\n", "drain": DRAIN})

    def has(*lines: str) -> bool:
        return [line for line in one.rules() if " 10.0.0.2:80 " in line] == sorted(lines)

    write(*servers.values())
    until(lambda: has(head, *servers.values()), "rules")
    # A client of whom the server never hears: the kernel remembers it for a minute.
    program = "import socket; client = socket.socket(); client.settimeout(1); client.connect_ex(('10.0.0.2', 80))"
    one.run(f'python3.11 -I -S -c "{program}"')
    counted = [line.split() for line in one.run("ipvsadm -Ln").splitlines() if "-> 10.8." in line]
    (leaving,) = (words[1] for words in counted if "1" in words[-2:])
    kept = [line for address, line in servers.items() if address != leaving]
    begin = time.time()
    write(*kept)
    draining: list[dict[str, Any]] = []

    def drains() -> bool:
        # One look for both, as on a busy host the drain may have ended before the next one.
        about = running.about(one.name)
        draining[:] = about["ipvs"]["draining"]
        return bool(draining) and about["state"] == "draining"

    until(drains, "a server that drains")
    (drain,) = draining
    latest = time.time() + DRAIN + DRIFT
    assert begin + DRAIN - DRIFT <= (deadline := drain.pop("deadline")) <= latest
    assert drain == {"service": "tcp 10.0.0.2:80", "server": leaving, "connections": 1}
    # They are counted a moment after the status says so.
    until(lambda: (running.metric("draining_servers", one.name), running.metric("drains_total")) == (1, 1), "metrics")
    # To the second, as the kernel has it.
    assert running.metric("drain_deadline_timestamp_seconds", one.name) == pytest.approx(deadline, abs=DRIFT)
    assert has(f"{head} -b mh-fallback", servers[leaving].replace("-w 1", "-w 0"), *kept)
    shown = reconciler("show", str(one.file)).stdout
    assert ("fallback" in shown, leaving in shown) == (False, False)
    # A look reads how many connections there are, as ipvsadm does. On a busy host the next one comes late.
    until(
        lambda: connections(running.about(one.name)["ipvs"]) == listed(one),
        "connections",
        more=lambda: f"{running.about(one.name)}\n{listed(one)}",
    )
    one.replug()
    running.await_state("converged", one.name)
    # The look after that which deleted it.
    until(lambda: running.metric("draining_servers", one.name) == 0, "no server that drains")
    assert running.metric("drain_deadline_timestamp_seconds", one.name) == 0
    assert has(head, *kept)
    assert running.about(one.name)["ipvs"]["draining"] == []


def connections(ipvs: dict[str, Any]) -> list[tuple[str, int, int]]:
    servers = (server for service in ipvs["services"] for server in service["servers"])
    return sorted((each["server"], each["active"], each["inactive"]) for each in servers)


def listed(machine: Machine) -> list[tuple[str, int, int]]:
    lines = [line.split() for line in machine.run("ipvsadm -Ln").splitlines()]
    return sorted(
        (words[1], int(words[4]), int(words[5])) for words in lines if words[0] == "->" and words[5].isdecimal()
    )
