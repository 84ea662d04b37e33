"""The file of a policy is anything: it is read as what it says or refused, in time, and its answers are right."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from reconciler.errors import HostError, ManifestError, RefusedError
from reconciler.manifest import policy
from reconciler.manifest.allow import refusals, write
from reconciler.manifest.dump import dump
from reconciler.model.interface import Interface
from reconciler.model.policy import Policy
from reconciler.model.sandbox import DriverAddress, KataAddress, LibvirtAddress, NetnsAddress, Sandbox, VmAddress

TEXT = """\
# what manifests may name
drivers: [netns, "vm", kata]
namespaces:
  folders: [/run/netns, '/srv/ns of web']  # more
  processes: true
sockets: &run [/run]
runtimes:
  - /usr/bin/kata-runtime
  - "/opt/kata/bin/kata-runtime"
libvirtUris: ["qemu:///system"]
libvirtDomains: {"web-*": [web-*]}
devices: {"web-*": [tap-*, "eth[01]"], '*': ["veth?"]}
physicalDevices:
  edge-1:
    - eth1
rulesFiles: *run
"""
PIECES = [
    *"[]{}:,'\"#|>\t\n\\/*?~\0é😀\u2028\ufeff",
    *("- ", "  ", "&a ", "*a", "!!x ", "---\n", "...\n", "null", "true", "1e3", "../..", "<<: *a\n", "? ", "%YAML"),
    *("drivers", "devices: {}\n", "namespaces: []\n", "runtimes: [/]\n", "sockets: [//]\n", "- - - - "),
    *("a" * 5000, "[" * 200),
]
PATHS = ["/run/netns/a", "/var/run/x/y", "/srv/ns of web/a", "/a", "/opt/ü/: [b]", "//run/./a/../b", "/proc/7/ns/net"]
# Seconds for one file, on a busy host.
LONGEST = 5.0


def mutated(random: Random) -> bytes:
    """Return a text, changed in some places."""
    text = TEXT
    for _ in range(random.choice([1, 1, 2, 3, 8])):
        at, size = random.randrange(len(text) + 1), random.choice([0, 0, 1, 2, 20, 200])
        text = text[:at] + random.choice([*PIECES, text[at : at + 40], ""]) + text[at + size :]
    data = bytearray(text.encode())
    if random.random() < 0.1 and data:
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data)


def some(random: Random, values: list[Any]) -> list[Any]:
    return random.sample(values, random.randrange(len(values)))


def chosen(random: Random) -> dict[str, Any]:
    """Return the data of a policy."""
    names = ["web-1", "*", "web-*", "[a-z]*", "6e7", "?"]
    devices = {sandbox: some(random, ["tap0", "*", "eth?", "[", "tap[!0]"]) for sandbox in some(random, names)}
    fields: dict[str, Any] = {
        "drivers": some(random, ["netns", "vm", "libvirt", "kata"]),
        "namespaces": {"folders": some(random, PATHS), "processes": random.random() < 0.5},
        "sockets": some(random, PATHS),
        "runtimes": some(random, ["/usr/bin/kata-runtime", "/opt/a b", "/o\"'#: "]),
        "libvirtUris": some(random, ["qemu:///system", "qemu+unix:///system?socket=/srv/a"]),
        "libvirtDomains": {name: some(random, ["web-1", "*", "ü: [b]", "["]) for name in some(random, names)},
        "devices": devices,
        "rulesFiles": some(random, PATHS),
    }
    return {name: fields[name] for name in some(random, [*fields, "devices", "devices"])}


def sandbox(random: Random) -> Sandbox:
    addresses: list[DriverAddress] = [
        NetnsAddress(name="a"),
        NetnsAddress(path=random.choice(PATHS)),
        NetnsAddress(pid=7),
        VmAddress(name="web-1"),
        VmAddress(qmp=random.choice(PATHS), agent=random.choice(PATHS)),
        LibvirtAddress(domain=random.choice(["web-1", "ü: [b]", "4711"])),
        LibvirtAddress(domain="web-1", uri="qemu+unix:///system?socket=/srv/a"),
        LibvirtAddress(domain="web-1", guest_agent=True),
        KataAddress(id="a"),
        KataAddress(id="a", runtime=random.choice(["/opt/a b", "/o\"'#: ", "/usr/bin/x"])),
    ]
    nics = tuple(
        Interface(
            name=f"e{number}",
            device=random.choice(["tap0", "eth1", "no"]),
            hw_addr="02:00:00:00:00:01",
            mtu=1500,
            vhost_user_socket=random.choice([None, *PATHS]),
        )
        for number in range(random.randrange(3))
    )
    name = random.choice(["web-1", "6e7", "null", "1e3", "x"])
    return Sandbox(id=name, driver=random.choice(addresses), interfaces=nics)


def read(file: Path) -> Policy | None:
    """Read a policy; None if it is refused in words of ours."""
    begin = time.monotonic()
    found: Policy | str
    try:
        found = policy.read(str(file), [])
    except (HostError, ManifestError, RefusedError) as error:
        found = str(error)
    assert time.monotonic() - begin < LONGEST
    if isinstance(found, Policy):
        return found
    assert found.startswith(str(file))
    return None


def test_whatever_is_in_the_file(tmp_path: Path, repeats: Callable[[int], int]) -> None:
    file = tmp_path / "policy"
    accepted = 0
    for number in range(repeats(2000)):
        file.write_bytes(mutated(Random(number)))
        found = read(file)
        if found is not None:
            accepted += 1
            refusals(sandbox(Random(number)), found)
    assert accepted
    print(
        f"{repeats(2000):,} files, {accepted:,} accepted, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB"
    )


def test_lines_allow_what_they_name_and_no_more(tmp_path: Path, repeats: Callable[[int], int]) -> None:
    """What is refused is allowed once the lines are written; what they do not name stays as it was."""
    file = tmp_path / "policy"
    refused = 0
    for number in range(repeats(2000)):
        random = Random(number)
        fields, wanted = chosen(random), sandbox(random)
        file.write_text(dump([fields]) if fields else "rulesFiles: []\n")
        before = read(file)
        assert before is not None, file.read_text()
        found = refusals(wanted, before)
        if not found:
            continue
        refused += 1
        lines = {each.message.rpartition(f" {file}")[2].partition(": ")[2] for each in found}
        named = {line.partition(":")[0] for line in lines}
        kept = {name: value for name, value in fields.items() if name not in named}
        file.write_text((dump([kept]) if kept else "") + "".join(f"{line}\n" for line in sorted(lines)))
        after = read(file)
        assert after is not None, file.read_text()
        assert refusals(wanted, after) == [], (fields, wanted, file.read_text())
        unchanged = write(before).keys() - named
        assert {name: write(after)[name] for name in unchanged} == {name: write(before)[name] for name in unchanged}
    assert refused


def test_the_largest_files_are_read_in_time(tmp_path: Path) -> None:
    file = tmp_path / "policy"
    for text in (
        "sockets:\n" + "- /run\n" * 300_000,
        "devices: {" + "a: [b], " * 100_000 + "}\n",
        "devices: {" + ", ".join(f"a{n}: [b]" for n in range(100_000)) + "}\n",
        "a: &a [" + "x, " * 1000 + "]\n" + "".join(f"b{n}: *a\n" for n in range(5000)),
        "x" * (32 << 20),
        "[" * 100_000,
        "# c\n" * 1_000_000,
    ):
        file.write_text(text)
        assert read(file) is None
    assert os.path.getsize(file)
