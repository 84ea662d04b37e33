"""What a watch costs with nothing to do, how soon it repairs, and what lives through a flush that nobody attends to."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from reconciler.guest import launch
from reconciler.netlink.channel import LocalKernel
from reconciler.netlink.message import DELETE_ROUTE, NEW_ROUTE
from reconciler.values import dataclass
from tests.allowed import FILE
from tests.benchmarks.flush import CONNECTIONS, FLUSHER, PATIENCE, find_pace, table, write
from tests.benchmarks.ipvs import HEAD
from tests.benchmarks.measure import RECONCILER, Figure
from tests.conftest import Kernel, ip
from tests.machine import Guest
from tests.processes import of_machines
from tests.traffic.world import PACE, world

MANY, ROUNDS, IDLE_SECONDS = 2000, 15, 30.0
# Seconds in which so many converge after the start of a watch, if they are as they should be; how many of them are
# repaired, one after the other, and seconds for 99 of 100 repairs.
CONVERGED, REPAIRED, SOON = 5.0, 300, 0.02
# How many of them `ip` sets up.
SOME = 100
# RTMGRP_IPV4_ROUTE of linux/rtnetlink.h.
IPV4_ROUTES = 0x40
# Machines, and descriptors and threads of the watch for each.
MACHINES, DESCRIPTORS, THREADS = 50, 8, 1
# Seconds for all sandboxes to be looked at after a reload: without it a second change of one object would be a fight,
# and wait.
PEACE = 3.0
# Bytes of memory that so many may take.
MEMORY = 110 << 20
DEADLINE = 60.0
MANIFEST = """\
apiVersion: reconciler/v1
sandbox: {name}
driver: {{netns: {{name: {name}}}}}
interfaces:
  - {{name: eth0, device: {device}, hwAddr: "{hw_addr}", mtu: 1400, addresses: [10.1.0.2/16]}}
routes:
  - {{dest: 10.8.0.0/16, gateway: 10.1.0.1, device: eth0}}
"""
# The agent of a machine, in the namespace that this runs in, behind a socket: whoever connects last is its host.
AGENT = """
import socket, sys
from reconciler.guest.agent import Agent, Port, serve

class Connection(Port):
    may_return = False

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
serve(Agent(Connection(lambda: listener.accept()[0].detach())))
"""
OF_AGENT = """\
apiVersion: reconciler/v1
sandbox: {name}
driver: {{vm: {{agent: {agent}}}}}
routes:
  - {{dest: 10.8.0.0/16, type: blackhole}}
"""


@dataclass
class Watch:
    """A watcher that runs, since `begun` (Unix seconds)."""

    process: subprocess.Popen[bytes]
    log: Path
    begun: float

    def lines(self) -> list[dict[str, Any]]:
        """Return all events logged so far, without a line that is being written."""
        return [json.loads(line) for line in self.log.read_text().rpartition("\n")[0].splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [each for each in self.lines() if each["event"] == name]

    def await_events(self, name: str, count: int) -> dict[str, Any]:
        """Wait for so many events; give the last of them."""
        try:
            await_(lambda: len(self.events(name)) >= count)
        except RuntimeError:
            raise RuntimeError(f"{count} times {name}: {self.log.read_text()[-2000:]}") from None
        return self.events(name)[count - 1]

    def converged(self, count: int) -> float:
        """Wait until so many sandboxes have converged; give the seconds from the start of the watch to the last one."""
        await_(lambda: self.log.read_bytes().count(b'"event": "converged"') >= count, 0.1, 10 * DEADLINE)
        return float(self.events("converged")[count - 1]["time"]) - self.begun

    def idle(self) -> float:
        """Give the share of a core that it takes."""
        begin, at = self.cpu(), time.monotonic()
        time.sleep(IDLE_SECONDS)
        return (self.cpu() - begin) / (time.monotonic() - at)

    def count(self, kind: str) -> int:
        """Give how many entries its processes have in a folder of /proc: `fd` or `task`."""
        return sum(len(os.listdir(f"/proc/{each}/{kind}")) for each in self._processes())

    def cpu(self) -> float:
        """Seconds that it has computed, with the process of its machines."""
        fields = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in self._processes()]
        return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Bytes that are resident, with those of the process of its machines."""
        pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in self._processes()]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")

    def _processes(self) -> list[int]:
        return [self.process.pid, *of_machines(self.process.pid)]


@contextmanager
def watch(folder: Path, *options: str) -> Iterator[Watch]:
    log = folder.with_suffix(".log")
    with log.open("wb") as file:
        begun = time.time()
        process = subprocess.Popen([*RECONCILER, "watch", "--log", "json", *options, str(folder)], stderr=file)
    try:
        yield Watch(process, log, begun)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def await_(condition: Callable[[], bool], pause: float = 0.02, seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("what is waited for does not come")
        time.sleep(pause)


def run(kernel: Kernel, folder: Path) -> list[Figure]:
    return [
        *namespaces(kernel, folder / "namespaces"),
        *machines(kernel, folder / "machines"),
        *agents(kernel, folder / "agents"),
        *flush(folder / "flush"),
    ]


def namespaces(kernel: Kernel, folder: Path) -> list[Figure]:
    """Repairs with one sandbox and with many, and what many cost that are as they should be."""
    folder.mkdir()
    first = [add(kernel, folder) for _ in CHANGES]
    with watch(folder) as alone:
        alone.await_events("converged", len(first))
        one = repairs(alone, [first] * ROUNDS)
        edited = edits(folder / f"{first[0]}.yaml", first[0])
    moved = by_ip(kernel, folder.with_name("by-ip"))
    names = first + add_many(kernel, folder, MANY - len(first))
    with watch(folder) as applying:
        applied = applying.converged(MANY)
        cpu_of_apply = applying.cpu()
    with watch(folder) as many:
        converged = many.converged(MANY)
        cpu = many.cpu()
        # What follows from the start has happened.
        time.sleep(PEACE)
        share = many.idle()
        resident = many.resident()
        chosen = random.Random(23).sample(names[len(first) :], REPAIRED + ROUNDS * len(CHANGES))
        single = one_at_a_time(chosen[:REPAIRED])
        # Others each time: a reload would let all be looked at.
        among = repairs(many, [chosen[at : at + len(CHANGES)] for at in range(REPAIRED, len(chosen), len(CHANGES))])
        edited_among = edits(folder / f"{first[0]}.yaml", first[0])
    print(f"from a change to the repaired kernel, {ROUNDS} of each, p50 / p99:")
    for what, times in one.items():
        print(f"    {what}: {words(times)}, among {MANY}: {words(among[what])}")
    print(f"    manifest edited: {words(edited)}, among {MANY}: {words(edited_among)}")
    medians = [statistics.median(each for times in found.values() for each in times) for found in (one, among)]
    late = percentile(single, 0.99)
    return [
        Figure(
            name=f"{MANY} namespaces that get a NIC and a route, beside `ip -batch` for each",
            detail=f"{applied:.1f} s, {cpu_of_apply:.1f} s of a processor, and {moved:.1f} s, most of it in the kernel",
            ratio=applied / moved,
            bar=1.5,
            aim=1,
        ),
        Figure(
            name=f"{MANY} namespaces that are as they should be converge after a start: of {CONVERGED:.0f} s",
            detail=f"{converged:.1f} s, {cpu:.1f} s of a processor",
            ratio=converged / CONVERGED,
            bar=1,
            aim=0.6,
        ),
        Figure(
            name=f"one repaired among {MANY} namespaces, p99: of {SOON * 1000:.0f} ms",
            detail=f"{REPAIRED} routes, from the kernel's report of a deletion to that of the repair: {words(single)}",
            ratio=late / SOON,
            bar=1,
            aim=0.5,
        ),
        Figure(
            name=f"{MANY} namespaces with nothing to do: of one core",
            detail=f"{share * 100:.2f} % over {IDLE_SECONDS:.0f} s",
            ratio=share,
            bar=0.01,
            aim=0.005,
        ),
        Figure(
            name=f"{MANY} namespaces: memory, of {MEMORY >> 20} MiB",
            detail=f"{resident >> 20} MiB resident",
            ratio=resident / MEMORY,
            bar=1,
            aim=0.9,
        ),
        Figure(
            name=f"a repair among {MANY} namespaces, beside {len(first)}",
            detail=f"medians {medians[1] * 1000:.1f} ms and {medians[0] * 1000:.1f} ms",
            ratio=medians[1] / medians[0],
            bar=2,
            aim=1.2,
        ),
    ]


def add(kernel: Kernel, folder: Path) -> str:
    name = kernel.namespace()
    device = kernel.tap()
    write_manifest(folder, name, device, int(device.rpartition("t")[2]))
    return name


def by_ip(kernel: Kernel, folder: Path) -> float:
    """Give the seconds that `ip` takes for all that the manifests of so many say, from what it takes for some."""
    folder.mkdir()
    begin = 0.0
    names = add_many(kernel, folder, SOME, "by")
    for number, name in enumerate(names):
        begin = begin or time.perf_counter()
        ip("link", "set", f"{name}t", "netns", name, "name", "eth0")
        rest = f"link set eth0 address 02:00:00:00:ff:{number:02x} mtu 1400 up\naddress add 10.1.0.2/16 dev eth0\n"
        ip("-batch", "-", namespace=name, stdin=f"{rest}route add 10.8.0.0/16 via 10.1.0.1\n")
    return (time.perf_counter() - begin) * MANY / SOME


def add_many(kernel: Kernel, folder: Path, count: int, kind: str = "m") -> list[str]:
    """Add so many as `add` does, with one start of `ip`."""
    names = [f"{kernel.prefix}{kind}{each}" for each in range(count)]
    devices = [f"{each}t" for each in names]
    commands = [f"netns add {each}\n" for each in names] + [f"tuntap add dev {each} mode tap\n" for each in devices]
    ip("-batch", "-", stdin="".join(commands))
    kernel.adopt(*devices)
    for number, (name, device) in enumerate(zip(names, devices, strict=True)):
        kernel.adopt_namespace(name)
        write_manifest(folder, name, device, 0x1000 + number)
    return names


def write_manifest(folder: Path, name: str, device: str, number: int) -> None:
    hw_addr = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
    (folder / f"{name}.yaml").write_text(MANIFEST.format(name=name, device=device, hw_addr=hw_addr))


def one_at_a_time(names: list[str]) -> list[float]:
    """Delete a route in one namespace after the other; give the seconds to the kernel's report that it is back."""
    times = []
    for name in names:
        with open(f"/run/netns/{name}", "rb") as namespace:
            events = LocalKernel(namespace.fileno()).socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        events.bind((0, IPV4_ROUTES))
        events.settimeout(DEADLINE)
        with events, subprocess.Popen(["ip", "-n", name, "route", "del", "10.8.0.0/16"]):
            await_message(events, DELETE_ROUTE)
            begin = time.monotonic()
            await_message(events, NEW_ROUTE)
            times.append(time.monotonic() - begin)
    return times


def await_message(events: socket.socket, kind: int) -> None:
    while int.from_bytes(events.recv(1 << 16)[4:6], sys.byteorder) != kind:
        pass


# What is done to a sandbox, and what says that it is repaired.
CHANGES = {
    "route deleted": ("route del 10.8.0.0/16", "route", "10.8.0.0/16"),
    "addresses flushed": ("addr flush dev eth0", "route", "10.8.0.0/16"),
    "link down": ("link set eth0 down", "route", "10.8.0.0/16"),
    "MTU": ("link set eth0 mtu 1300", "link", "mtu 1400"),
    "name": ("link set eth0 name eth1", "link", " eth0:"),
}


def repairs(watcher: Watch, rounds: list[list[str]]) -> dict[str, list[float]]:
    """Time repairs of each kind, each in a sandbox of its own."""
    found: dict[str, list[float]] = {what: [] for what in CHANGES}
    for number, names in enumerate(rounds):
        ends = time.monotonic() + PEACE
        for name, (what, (change, shown, expected)) in zip(names, CHANGES.items(), strict=True):
            ip(*change.split(), namespace=name)
            begin = time.monotonic()
            await_(lambda name=name, shown=shown, expected=expected: expected in ip(shown, namespace=name), 0)  # type: ignore[misc]
            found[what].append(time.monotonic() - begin)
        if names == rounds[number - 1]:
            watcher.process.send_signal(signal.SIGHUP)
        time.sleep(max(PEACE / 2, ends - time.monotonic()))
    return found


def edits(file: Path, name: str) -> list[float]:
    """Time from an edit of a manifest to the kernel; it has to come to rest first."""
    text, times = file.read_text(), []
    for number in range(ROUNDS):
        file.write_text(f"{text}  - {{dest: 10.9.{number}.0/24, gateway: 10.1.0.1, device: eth0}}\n")
        begin = time.monotonic()
        await_(lambda number=number: f"10.9.{number}.0/24" in ip("route", namespace=name), 0)  # type: ignore[misc]
        times.append(time.monotonic() - begin)
    return times


def machines(kernel: Kernel, folder: Path) -> list[Figure]:
    """Repairs in two machines, from the command in the guest to the log line after the verification."""
    folder.mkdir()
    names = [f"watch-{os.getpid()}-{number}" for number in range(2)]
    guests = [Guest(launch.start(name, memory=256)) for name in names]
    try:
        for number, name in enumerate(names):
            device, hw_addr = kernel.tap(), f"02:00:00:00:ff:{number:02x}"
            ip("link", "set", device, "up")
            text = MANIFEST.format(name=name, device=device, hw_addr=hw_addr).replace("netns:", "vm:")
            (folder / f"{name}.yaml").write_text(text)
        with watch(folder) as watcher:
            watcher.await_events("converged", 2)
            print(f"in two machines, {ROUNDS} of each, the command in the guest included, p50 / p99:")
            for what, (change, _, _) in CHANGES.items():
                # Linux 6.1 renames no NIC that is up.
                before = "ip link set eth0 down; " if what == "name" else ""
                print(f"    {what}: {words(in_turn(watcher, guests, f'{before}ip {change}'))}")
    finally:
        for name in names:
            launch.stop(name)
    return []


def in_turn(watcher: Watch, guests: list[Guest], change: str) -> list[float]:
    times = []
    for number in range(ROUNDS):
        begin, before = time.time(), len(watcher.events("repaired"))
        guests[number % 2].run("sh", "-c", change)
        times.append(watcher.await_events("repaired", before + 1)["time"] - begin)
        # What is left of it, and then its peace.
        time.sleep(PEACE / 4)
        watcher.process.send_signal(signal.SIGHUP)
        time.sleep(PEACE / 4)
    return times


def agents(kernel: Kernel, folder: Path) -> list[Figure]:
    """Watch many agents of machines: real ones, each in a namespace of this host. There is no QEMU, and no monitor."""
    folder.mkdir()
    sockets = folder.with_name("sockets")
    sockets.mkdir()
    with ExitStack() as stack:
        for _ in range(MACHINES):
            name = kernel.namespace()
            agent = sockets / name
            process = subprocess.Popen(["ip", "netns", "exec", name, sys.executable, "-c", AGENT, str(agent)])
            stack.callback(process.wait)
            stack.callback(process.kill)
            await_(agent.exists)
            (folder / f"{name}.yaml").write_text(OF_AGENT.format(name=name, agent=agent))
        with watch(folder, "--policy", FILE) as watcher:
            converged = watcher.converged(MACHINES)
            time.sleep(PEACE)
            share = watcher.idle()
            descriptors, threads = watcher.count("fd"), watcher.count("task")
            resident = watcher.resident()
    what = f"{MACHINES} agents of machines"
    return [
        Figure(
            name=f"{what} with nothing to do: of one core",
            detail=f"{share * 100:.2f} % over {IDLE_SECONDS:.0f} s; all converged after {converged:.1f} s; "
            f"{resident >> 20} MiB resident",
            ratio=share,
            bar=0.02,
            aim=0.01,
        ),
        Figure(
            name=f"{what}: descriptors of the watch, of {DESCRIPTORS} for each",
            detail=f"{descriptors}",
            ratio=descriptors / (MACHINES * DESCRIPTORS),
            bar=1,
            aim=1,
        ),
        Figure(
            name=f"{what}: threads of the watch, beside {THREADS} for each",
            detail=f"{threads}",
            ratio=threads / (MACHINES * THREADS),
            bar=1.5,
            aim=1.3,
        ),
    ]


def words(times: list[float]) -> str:
    return f"{statistics.median(times) * 1000:.0f} / {percentile(times, 0.99) * 1000:.0f} ms"


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[int(len(times) * share)]


def flush(folder: Path) -> list[Figure]:
    """Flush 20,000 rules behind the back of a watch, with connections through them."""
    folder.mkdir()
    name = f"watch-{os.getpid()}"
    lines = table()
    text = f"{HEAD.format(name=name)}  rules: |\n" + "".join(f"    {line}\n" for line in lines)
    (folder / "flush.yaml").write_text(text)
    guest = Guest(launch.start(name))
    try:
        with world(guest) as clients, watch(folder) as watcher:
            watcher.await_events("converged", 1)
            begun = [
                clients.begin("ack", group, CONNECTIONS, 80, pace) for group, pace in (("idle", 0), ("active", PACE))
            ]
            if not all(fared.alive for fared in begun):
                raise RuntimeError(f"not all connections could be made: {begun}")
            pace = find_pace(clients)
            write(guest, "gone", [])
            write(guest, "first", [b"\x10\0\0\0" + bytes(12)])
            before, at = len(watcher.events("repaired")), time.time()
            guest.run("python3.11", "-I", "-S", "-", stdin=FLUSHER.encode())
            done = watcher.await_events("repaired", before + 1)["time"] - at
            idle, active = (clients.prove(group, seconds=PATIENCE) for group in ("idle", "active"))
            first = float(guest.output("cat", "/tmp/took"))
            clients.end_all()
    finally:
        launch.stop(name)
    lost = active.calls - active.answered
    return [
        Figure(
            name=f"active connections lost in a flush of {len(lines):,} rules under a watch",
            detail=f"{lost:,} of {active.calls:,} (a byte every {pace:.0f} ms), and {idle.calls - idle.answered:,} of "
            f"{idle.calls:,} idle ones; first service after {first * 1000:.0f} ms, all after {done:.1f} s",
            ratio=lost / active.calls,
            bar=0.1,
            aim=0,
        )
    ]
