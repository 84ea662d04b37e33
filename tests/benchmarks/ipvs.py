"""20,000 IPVS rules in one guest: restore and no-op diff beside ipvsadm, and the manifest beside a bare YAML load."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from reconciler.formats.ipvsadm.rules import parse_rules
from reconciler.guest import launch
from reconciler.netlink import ipvs
from reconciler.operations.ipvs import AddServer, AddService
from tests.benchmarks.measure import RECONCILER, Figure, best, memory, seconds
from tests.benchmarks.routes import bare_load
from tests.conftest import Kernel
from tests.machine import Guest

SERVICES, SERVERS = 5_000, 3
COUNT = SERVICES * (1 + SERVERS)
ROUNDS = 3
HEAD = "apiVersion: reconciler/v1\nsandbox: bench\ndriver: {{vm: {{name: {name}}}}}\nipvs:\n"
# What the kernel takes by itself: messages that are encoded already, in a namespace without any table yet.
FLOOR = """
import socket, sys, time
from reconciler.guest import agent
data = open("/tmp/floor", "rb").read()
family = agent.find_ipvs()
messages, at = [], 0
while at < len(data):
    size = int.from_bytes(data[at:at + 4], "little")
    messages.append(data[at:at + 4] + family.to_bytes(2, "little") + data[at + 6:at + size])
    at += size
batches = [b"".join(messages[i:i + 500]) for i in range(0, len(messages), 500)]
channel = agent.open_netlink(agent.GENERIC)
begin = time.monotonic()
for batch in batches:
    channel.send(batch)
print(time.monotonic() - begin)
"""


def rules() -> Iterator[str]:
    """Write the rules: every service has servers of its own port, on 750 machines."""
    for number in range(SERVICES):
        service = f"10.{10 + number // 2500}.{number // 250 % 10}.{number % 250 + 1}:80"
        yield f"-A -t {service} -s rr -p 300"
        for server in range(SERVERS):
            yield f"-a -t {service} -r 172.16.{server}.{number % 250 + 1}:8080 -m -w {server + 1}"


def write_manifests(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Write the same table as rules, in YAML, and in YAML with one other weight."""
    head = HEAD.format(name=name)
    text, form, changed = folder / "rules.yaml", folder / "services.yaml", folder / "changed.yaml"
    text.write_text(f"{head}  rules: |\n" + "".join(f"    {rule}\n" for rule in rules()))
    lines = ["  services:\n"]
    for service in parse_rules("\n".join(rules()), lambda *_: None):
        lines.append(
            f"    - tcp: {service.address}:{service.port}\n      scheduler: rr\n      persistent: 300\n      servers:\n"
        )
        lines += [f"        - {{address: {s.address}:{s.port}, weight: {s.weight}}}\n" for s in service.servers]
    form.write_text(head + "".join(lines))
    changed.write_text(text.read_text().replace("-m -w 3\n", "-m -w 9\n", 1))
    return text, form, changed


def floor(guest: Guest) -> float:
    """Time the kernel alone, in a fresh namespace."""
    parts = []
    for service in parse_rules("\n".join(rules()), lambda *_: None):
        parts.append(ipvs.encode(AddService(service=service), 0, 0))
        parts += [ipvs.encode(AddServer(service=service.key, server=server), 0, 0) for server in service.servers]
    guest.run("dd", "of=/tmp/floor", "bs=64k", stdin=b"".join(parts))
    return float(guest.run("sh", "-c", f"{FRESH} python3.11 -I -S -", stdin=FLOOR.encode()).stdout)


FRESH = "ip netns del f 2>/dev/null; ip netns add f; ip -n f link set lo up; exec ip netns exec f"


def timed(guest: Guest, command: str, stdin: bytes = b"") -> float:
    """Time a command by the guest's own clock."""
    script = f"t() {{ cut -d ' ' -f 1 /proc/uptime; }}; a=$(t); {command}; b=$(t); echo $a $b >&2"
    begin, end = guest.run("sh", "-c", script, stdin=stdin).stderr.split()[-2:]
    return float(end) - float(begin)


def run(_: Kernel, folder: Path) -> list[Figure]:
    name = f"bench-{os.getpid()}"
    text, form, changed = write_manifests(folder, name)
    small = folder / "small.yaml"
    small.write_text(HEAD.format(name=name) + "  timeouts: {}\n")
    guest = Guest(launch.start(name))
    try:
        guest.run("ip", "address", "add", "10.9.9.9/32", "dev", "lo")
        start = best(lambda: seconds([*RECONCILER, "diff", str(small)]), 3)
        return [*table(guest, text, changed, start), *manifest(text, form, start)]
    finally:
        launch.stop(name)


def table(guest: Guest, text: Path, changed: Path, start: float) -> list[Figure]:
    lines = "".join(f"{rule}\n" for rule in rules()).encode()
    apply = [*RECONCILER, "apply", str(text)]
    fresh, resident = memory(apply)
    by_ipvsadm = timed(guest, f"({FRESH} ipvsadm -R)", lines)
    # One table from now on: the kernel counts for the statistics of each.
    guest.run("ip", "netns", "delete", "f")
    saving = best(lambda: timed(guest, "ipvsadm -Sn >/tmp/saved"), ROUNDS)
    look = best(lambda: seconds([*RECONCILER, "diff", str(text)]), ROUNDS)
    guest.run("ipvsadm", "-C")
    flushed = seconds(apply)
    guest.run("ipvsadm", "-C")
    flushed_by_ipvsadm = timed(guest, "ipvsadm -R </tmp/saved")
    # It has lost the marks.
    seconds(apply)
    edit = seconds([*RECONCILER, "apply", str(changed)])
    print(
        f"the kernel's floor for {COUNT:,} rules: {floor(guest):.2f} s; start-up {start:.2f} s; "
        f"memory {resident >> 10} MiB"
    )
    print(f"one changed weight: one operation of {COUNT:,}, whole apply {edit:.2f} s")
    return [
        Figure(
            name=f"restore of {COUNT:,} rules from empty, beside `ipvsadm -R`",
            detail=f"apply {fresh:.2f} s, `ipvsadm -R` {by_ipvsadm:.2f} s",
            ratio=(fresh - start) / by_ipvsadm,
            bar=0.15,
            aim=0.12,
        ),
        Figure(
            name="the same right after `ipvsadm -C`, beside `ipvsadm -R` of the table's own `ipvsadm -Sn`",
            detail=f"apply {flushed:.2f} s, `ipvsadm -R` {flushed_by_ipvsadm:.2f} s",
            ratio=(flushed - start) / flushed_by_ipvsadm,
            bar=0.1,
            aim=0.08,
        ),
        Figure(
            name=f"no-op diff of {COUNT:,} rules, beside `ipvsadm -Sn`",
            detail=f"diff {look:.2f} s, `ipvsadm -Sn` {saving:.2f} s",
            ratio=look / saving,
            bar=0.2,
            aim=0.12,
        ),
    ]


def manifest(text: Path, form: Path, _: float) -> list[Figure]:
    bare = best(lambda: bare_load(form), ROUNDS)
    begin = best(lambda: seconds([*RECONCILER, "validate", str(form.with_name("small.yaml"))]), ROUNDS)
    figures = []
    for path, what, bar, aim in ((form, "`services:`", 0.5, 0.5), (text, "`rules:`", 0.12, 0.12)):
        taken = best(lambda path=path: seconds([*RECONCILER, "validate", str(path)]), ROUNDS)  # type: ignore[misc]
        figures.append(
            Figure(
                name=f"{COUNT:,} rules as {what}: load and validate, beside a bare load of the `services:` form",
                detail=f"validate {taken:.2f} s, less {begin:.2f} s of a small one; bare load {bare:.2f} s",
                ratio=(taken - begin) / bare,
                bar=bar,
                aim=aim,
            )
        )
    return figures
