"""Hostile manifests: what takes the most time, memory and words to refuse, by kind; and a search for worse ones.

`python -m tests.fuzz.manifests SECONDS` mutates the worst so far, keeps what takes longer, and prints the worst of all.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.measure import RECONCILER, measure

MAX_BYTES = 1 << 20
HEAD = "apiVersion: reconciler/v1\nsandbox: w\ndriver: {netns: {name: nowhere-w}}\n"


class Cost(NamedTuple):
    """What one command took: seconds of a processor, MiB, bytes on both streams; and its exit code."""

    seconds: float
    memory: int
    output: int
    code: int
    text: str


def filled(before: str, unit: str, after: str = "") -> str:
    """Repeat a unit until the text has MAX_BYTES."""
    left = MAX_BYTES - len((before + after).encode())
    return before + unit * (left // len(unit.encode())) + after


def counted(before: str, unit: Callable[[int], str], after: str = "", most: int = MAX_BYTES) -> str:
    """The same with units that differ by their number."""
    parts, left, number = [before], most - len((before + after).encode()), 0
    while (left := left - len((part := unit(number)).encode())) > 0:
        parts.append(part)
        number += 1
    return "".join((*parts, after))


def _ip(number: int, first: int = 10) -> str:
    return f"{first}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


_NICS = "interfaces:\n" + "".join(
    f"- {{name: e{n}, device: t{n}, hwAddr: '02:00:00:00:00:{n:02x}', mtu: 1500, addresses: [10.{n}.0.1/16]}}\n"
    for n in range(250)
)
_LISTS = ("interfaces", "neighbours", "routes", "rules")
_ITEMS = ("1", "{}", "[]", "''", "abc", "{a: 1}", "null", "{dest: 1}", "'" + "x" * 40 + "'")


def cases() -> Iterator[tuple[str, str]]:
    """Yield a name and a manifest of about MAX_BYTES each."""
    for name in _LISTS:
        for item in _ITEMS:
            yield f"{name} of {item[:8]}", filled(f"{HEAD}{name}: [", f"{item},", "]\n")
    for item in _ITEMS:
        yield f"services of {item[:8]}", filled(f"{HEAD}ipvs: {{services: [", f"{item},", "]}\n")
        servers = f"{HEAD}ipvs: {{services: [{{tcp: '10.0.0.9:80', servers: ["
        yield f"servers of {item[:8]}", filled(servers, f"{item},", "]}]}\n")
    yield from _checks()
    yield from _services()
    yield from _texts()
    yield from _shapes()


def _checks() -> Iterator[tuple[str, str]]:
    """Yield manifests whose objects are valid one by one, and wrong together."""
    routes = f"{HEAD}{_NICS}routes:\n"

    def hop(n: int) -> str:
        gateway = f", gateway: {_ip(n, 12)}" if n % 2 else ""
        return f"- {{dest: {_ip(n, 10 + n % 2)}/32, device: e0{gateway}}}\n"

    yield "gateways beside direct routes", counted(routes, hop)
    yield "devices that are nearly there", counted(routes, lambda n: f"- {{dest: {_ip(n)}, device: f{n}}}\n")
    yield "routes of one key", filled(routes, "- {dest: 10.0.0.0/8, device: e0}\n")
    yield "routes that are valid", counted(routes, lambda n: f"- {{dest: {_ip(n)}, device: e0}}\n")
    yield "rules of one key", filled(f"{HEAD}rules:\n", "- {priority: 1, table: 100}\n")
    yield (
        "neighbours of one key",
        filled(f"{HEAD}neighbours:\n", "- {address: 10.0.0.1, device: e, hwAddr: '02:00:00:00:00:01'}\n"),
    )
    nic = "{name: e, device: t, hwAddr: '02:00:00:00:00:01', mtu: 1500},"
    yield "interfaces of one key", HEAD + "interfaces: [" + nic * 256 + "]\n"
    many = "{name: e, device: t, hwAddr: '02:00:00:00:00:01', mtu: 1500, addresses: ["
    yield "addresses", counted(f"{HEAD}interfaces: [{many}", lambda n: f"{_ip(n)}/8,", "]}]\n")


def _services() -> Iterator[tuple[str, str]]:
    services = f"{HEAD}ipvs: {{services: ["
    yield "services of one key", filled(services, "{tcp: '10.0.0.1:80'},", "]}\n")
    yield "services of many keys", filled(services, "{tcp: '1', udp: '2', a: 1},", "]}\n")
    networks = ", ".join([*(f"{n}.0.0.0/8" for n in range(1, 100)), *(f"fd{n:02x}::/{n}" for n in range(8, 128, 8))])
    excluded = f"{HEAD}ipvs: {{exclude: [{networks}], services: ["
    yield "services that are excluded", counted(excluded, lambda n: f"{{tcp: '{_ip(n)}:80'}},", "]}\n", 400_000)
    one = f"{HEAD}ipvs: {{services: [{{tcp: '10.0.0.9:80', servers: ["
    yield "servers of one key", filled(one, "{address: 10.0.0.1},", "]}]}\n")
    yield "servers that are wrong", counted(one, lambda n: f"{{address: 1{n}}},", "]}]}\n")
    rules = f"{HEAD}ipvs:\n  rules: |\n"
    for line in ("-A", "-A -f 1", "a b c d e f", "-a -t 1.1.1.1:80 -r 2.2.2.2 -m", "-A -t x -s rr", "#"):
        yield f"rules of {line[:8]}", filled(rules, f"    {line}\n")
    yield "rules of many marks", counted(rules, lambda n: f"    -A -f {n + 1}\n")
    yield "servers in rules without a service", counted(rules, lambda n: f"    -a -t {_ip(n)}:80 -r 2.2.2.2 -m\n")
    yield "a rule of many options", filled(f"{rules}    -A ", "-t ", "\n")
    yield "a rule of a long word", filled(f"{rules}    -A -t ", "9", "\n")


def _texts() -> Iterator[tuple[str, str]]:
    yield "a long key", filled(f"{HEAD}? ", "k", "\n: 1\n")
    for what in ("w", "\u6771", "\\x1b", "1", " ", "\\u202e"):
        yield f"a long value of {what!r}", filled(HEAD.replace("sandbox: w", 'sandbox: "'), what, '"\n')
    yield "a long comment", filled(HEAD, "#\n", "routes: 1\n")
    yield "a comment before it", filled("", "#\n", f"{HEAD}routes: 1\n")
    yield "empty lines", filled(HEAD, "\n", "routes: 1\n")
    yield "quotes", filled(f"{HEAD}routes: [", '"",', "]\n")
    yield "an error at the end", filled(f"{HEAD}routes:\n", "- 1\n", "]\n")
    yield "known mistakes", filled(f"{HEAD}routes:\n", "- {a: fd00::, b: 1}\n", "- {a: fd00::, b: ]\n")
    yield "known mistakes in a line", filled(f"{HEAD}routes: [", "a:1, ", "}\n")
    yield "blanks in a line", filled(f"{HEAD}routes: [", "a:1 fd00:: ", "\n")


def _shapes() -> Iterator[tuple[str, str]]:
    yield "unknown fields", counted(HEAD, lambda n: f"key{n}: 1\n")
    yield "fields that are nearly known", counted(HEAD, lambda n: f"interfaces{n}: \n")
    yield "fields of one mapping", counted(f"{HEAD}routes: [{{", lambda n: f"k{n}: 1, ", "}]\n")
    yield "sysctls", counted(f"{HEAD}sysctls:\n", lambda n: f"  net.ipv4.conf.e{n}.x: 1\n")
    for document in ("", "a\n", "{}\n", HEAD):
        yield f"documents of {document[:8]!r}", filled(HEAD, f"---\n{document}")
    for driver in ("kata: {id: k%d}", "netns: {name: nowhere-%d}", "netns: {pid: 419%04d}"):
        head = "apiVersion: reconciler/v1\nsandbox: s%d\ndriver: {"
        parts = ("---\n" + (head + driver + "}\n") % (n, n) for n in range(500))
        yield f"manifests of {driver[:8]}", "".join(parts)
    yield "brackets", filled(f"{HEAD}routes: ", "[")
    yield "dashes", filled(f"{HEAD}routes:\n", "- ", "\n")
    yield "nested lists", filled(f"{HEAD}routes: [", "[" * 24 + "]" * 24 + ",", "]\n")
    yield "anchors", counted(f"{HEAD}routes: [", lambda n: f"&a{n} 1,", "]\n")
    yield "aliases", filled(f"{HEAD}paused: &a x\nroutes:\n", "- *a\n")
    yield "aliases of a long text", filled(f"{HEAD}paused: &a {'x' * 500_000}\nroutes:\n", "- *a\n")
    yield (
        "aliases of a mapping",
        (HEAD + "x: &m {" + ",".join(f"k{n}: 1" for n in range(20_000)) + "}\nroutes: [" + "*m," * 90 + "]\n"),
    )
    bomb = "".join(f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 10) + "]\n" for n in range(1, 6))
    yield "aliases of aliases", f"{HEAD}a0: &a0 [{'1,' * 10}]\n{bomb}routes: *a4\n"
    routes = [{"dest": n} for n in range(60_000)]
    yield "JSON", json.dumps({"apiVersion": "reconciler/v1", "sandbox": "w", "routes": routes})


def cost(text: str, *command: str) -> Cost:
    """Run a command on a manifest, and return what that took."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        file = Path(folder, "w.yaml")
        file.write_bytes(text.encode(errors="replace"))
        used = measure([*RECONCILER, *command, str(file)], output.fileno(), output.fileno())
        output.seek(0)
        printed = output.read().decode(errors="replace")
    return Cost(used.processor, used.memory >> 10, len(printed), used.code, printed)


def mutated(text: str, chance: random.Random) -> str:
    """Return a text with some of its parts doubled, moved, replaced or taken out, at most MAX_BYTES of it."""
    for _ in range(chance.randint(1, 4)):
        begin = chance.randrange(len(text) + 1)
        part = text[begin : begin + chance.choice((1, 8, 64, 4096, 65536))]
        at = chance.randrange(len(text) + 1)
        match chance.randrange(4):
            case 0:
                text = text[:at] + part * chance.choice((1, 2, 50)) + text[at:]
            case 1:
                text = text[:begin] + text[begin + len(part) :]
            case 2:
                text = text[:at] + chance.choice("[]{},:-&*!|>'\"%@`#?\n\t \x00\x7f\u202e\ud800") * 9 + text[at:]
            case _:
                text = (
                    text[:at]
                    + chance.choice(("*a ", "&a ", "- ", "{", "---\n", "null", "1e3", "0x1f", "<<: "))
                    + text[at:]
                )
    return text[:MAX_BYTES]


def search(seconds: float) -> None:
    """Look for manifests that take longer, from the slowest of the cases on; print the worst in each respect."""
    chance = random.Random(os.urandom(8))
    tried = sorted(((cost(text, "validate"), name, text) for name, text in cases()), reverse=True)
    for found, name, _ in tried:
        print(f"{found.seconds:5.2f} s {found.memory:4} MiB {found.output:7,} B  {name}")
    count, pool, end = len(tried), tried[:10], time.monotonic() + seconds
    while time.monotonic() < end:
        _, name, text = chance.choice(pool)
        changed = mutated(text, chance)
        found = cost(changed, "validate")
        count += 1
        if found.code not in {0, 2} or "Traceback" in found.text:
            Path(tempfile.gettempdir(), f"reconciler-found-{count}.yaml").write_bytes(changed.encode(errors="replace"))
            print(f"exit code {found.code}: {found.text[-300:]}")
        tried.append((found, name, ""))
        pool = sorted([*pool, (found, f"{name.removesuffix(' changed')} changed", changed)], reverse=True)[:10]
    worst = [max(tried, key=lambda each: each[0][respect]) for respect in range(3)]
    print(f"{count} manifests; the worst by seconds, memory and output:")
    for found, name, _ in worst:
        print(f"{found.seconds:5.2f} s {found.memory:4} MiB {found.output:7,} B  {name}")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    search(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
