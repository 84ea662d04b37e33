"""Configurations of keepalived that say the same in two ways: written out, and with all that repeats and chooses lines.

Each is a function of its `random`, so that a property test and a real keepalived have the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import NamedTuple

from reconciler.model.ipvs import FWMARK, NAMED_SCHEDULER_FLAGS, SCHEDULER_FLAGS, Server, Service
from reconciler.values import replace
from tests.formats.strategies import KNOWN_SCHEDULERS, THRESHOLDS, TUNNELS

METHODS = {"nat": "NAT", "dr": "DR", "tunnel": "TUN"}
CONFIG_ID, OTHER_ID = "lb1", "lb2"
# A virtual server of a real configuration has a few of them.
SERVERS_MAX = 5


class Configuration(NamedTuple):
    """The text of the main file, and those that it includes by their names."""

    text: str
    files: dict[str, str]


def services(random: Random, most: int = 4) -> list[Service]:
    """Return services that keepalived can set up, of different keys, each with a server."""
    keys = random.sample(range(1, 100), random.randint(1, most))
    return [_service(random, key) for key in keys]


def _service(random: Random, number: int) -> Service:
    ipv6 = random.random() < 0.3
    protocol = random.choice(("tcp", "tcp", "udp", "sctp", FWMARK))
    address = f"fd00:10::{number:x}" if ipv6 else f"198.51.100.{number}"
    port = random.choice((80, 443, 53))
    if protocol == FWMARK:
        address, port = ("::" if ipv6 else "0.0.0.0"), number
    scheduler = random.choice(KNOWN_SCHEDULERS)
    named = NAMED_SCHEDULER_FLAGS.get(scheduler, ())
    flags = named + SCHEDULER_FLAGS[len(named) :]
    persistent = random.choice((0, 0, 300))
    servers = [server for _ in range(random.randint(1, 2)) for server in _servers(random, protocol, port, ipv6=ipv6)]
    return Service(
        protocol=protocol,
        address=address,
        port=port,
        scheduler=scheduler,
        scheduler_flags=tuple(flag for flag in flags if random.random() < 0.2),
        persistent=persistent,
        netmask=random.choice((None, "64" if ipv6 else "255.255.255.0")) if persistent else None,
        one_packet=protocol in {"udp", FWMARK} and random.random() < 0.3,
        servers=tuple({server.key: server for server in servers}.values()),
    )


def _servers(random: Random, protocol: str, port: int, *, ipv6: bool) -> list[Server]:
    """Return servers that differ in the last part of their address, by the same step."""
    forward = random.choice(tuple(METHODS))
    tun_type, tun_port, checksum = random.choice(TUNNELS) if forward == "tunnel" else TUNNELS[0]
    upper, lower = random.choice(THRESHOLDS)
    own = 0 if protocol == FWMARK else port
    first = Server(
        address="",
        port=random.choice((8080, own)) if forward == "nat" else own,
        forward=forward,
        weight=random.choice((0, 1, 1, 5, 65535)),
        upper_threshold=upper,
        lower_threshold=lower,
        tun_type=tun_type,
        tun_port=tun_port,
        tun_checksum=checksum,
    )
    start, step, network = random.randint(1, 20), random.randint(1, 9), random.randint(1, 3)
    numbers = range(start, start + step * random.randint(1, SERVERS_MAX), step)
    return [
        replace(first, address=f"fd00:16::{network}:{number:x}" if ipv6 else f"192.0.{network}.{number}")
        for number in numbers
    ]


def written(service: Service) -> Iterator[str]:
    """Yield the lines of a service as a keepalived.conf would say it."""
    head = f"fwmark {service.port}" if service.protocol == FWMARK else f"{service.address} {service.port}"
    yield f"virtual_server {head} {{"
    if service.protocol == FWMARK:
        yield f"ip_family {'inet6' if service.is_ipv6 else 'inet'}"
    else:
        yield f"protocol {service.protocol.upper()}"
    yield f"lvs_sched {service.scheduler}"
    yield from service.scheduler_flags
    if service.persistent:
        yield f"persistence_timeout {service.persistent}"
    if service.netmask:
        yield f"persistence_granularity {service.netmask}"
    if service.persistence_engine:
        yield f"persistence_engine {service.persistence_engine}"
    if service.one_packet:
        yield "ops"
    for server in service.servers:
        yield f"real_server {server.address} {server.port} {{"
        if server.weight != 1:
            yield f"weight {server.weight}"
        if server.upper_threshold:
            yield f"uthreshold {server.upper_threshold}"
        if server.lower_threshold:
            yield f"lthreshold {server.lower_threshold}"
        tunnel = f" type {server.tun_type}" if server.forward == "tunnel" else ""
        port = f" port {server.tun_port}" if server.tun_port else ""
        checksum = f" {server.tun_checksum}" if server.tun_checksum != "none" else ""
        if server.forward != "nat":
            yield f"lvs_method {METHODS[server.forward]}{tunnel}{port}{checksum}"
        yield "}"
    yield "}"


def plain(services: list[Service]) -> str:
    """Write services out."""
    return "\n".join(line for service in services for line in written(service))


def folded(random: Random, services: list[Service]) -> Configuration:
    """Write services for a host with CONFIG_ID, in fewer words."""
    fold = _Fold(random)
    lines = fold.repetitions([line for service in services for line in written(service)])
    for step in (fold.joins, fold.words, fold.conditions, fold.blocks, fold.conditions, fold.blocks):
        lines = step(lines)
    files = fold.includes(lines)
    return Configuration(
        "\n".join([*fold.definitions, *files.pop("")]), {name: "\n".join(files[name]) for name in files}
    )


_SERVER = re.compile(r"(real_server \S+?[.:])([0-9a-f]+) (\d+ \{)")


class _Fold:
    def __init__(self, random: Random) -> None:
        self._random = random
        self.definitions: list[str] = []
        self._names = 0

    def _name(self) -> str:
        self._names += 1
        return f"{self._random.choice('ABC')}_{self._names}"

    def _happens(self, chance: float) -> bool:
        return self._random.random() < chance

    def repetitions(self, lines: list[str]) -> list[str]:
        """Write servers that differ only in the last part of their address by ~SEQ, ~SEQx or ~LST."""
        folded, at = [], 0
        while at < len(lines):
            match = _SERVER.fullmatch(lines[at])
            if match is None or self._happens(0.3):
                folded.append(lines[at])
                at += 1
                continue
            end = lines.index("}", at) + 1
            block, numbers = lines[at + 1 : end], [match[2]]
            at = end
            while (other := _SERVER.fullmatch(lines[at])) and (other[1], other[3]) == (match[1], match[3]):
                end = lines.index("}", at) + 1
                if lines[at + 1 : end] != block:
                    break
                numbers.append(other[2])
                at = end
            folded.append(self._repetition(numbers, match[1], match[3], block))
        return folded

    def _repetition(self, numbers: list[str], head: str, port: str, block: list[str]) -> str:
        name = self._name()
        body = [f"{head}${{{name}}} {port}", *block]
        text = " ".join(body)
        # A statement ends with its line or at a brace.
        if len(block) > 2 or self._happens(0.4):
            several = self._name()
            self._define_lines(several, body)
            text = f"${several}" if self._happens(0.5) else f"${{{several}}}"
        base = 16 if head.endswith(":") else 10
        steps = {int(b, base) - int(a, base) for a, b in pairwise(numbers)} or {1}
        if len(steps) > 1 or self._happens(0.3):
            return f"~LST({name}, {', '.join(numbers)}) {text}"
        if self._happens(0.2):
            pairs = ",".join(f"{{{number},{port.split(maxsplit=1)[0]}}}" for number in numbers)
            return f"~LST({{{name}, P_{name}}}, {pairs}) {text}"
        (step,) = steps
        first, last = (int(number, base) for number in (numbers[0], numbers[-1]))
        return f"~SEQ{'x' if base == 16 else ''}({name}, {first}, {step}, {last}) {text}"

    def _define_lines(self, name: str, lines: list[str]) -> None:
        first, *rest = lines
        start = [f"${name}= \\", f"  {first} \\"] if self._happens(0.7) else [f"${name}={first} \\"]
        body = [f"    {line} \\" for line in rest]
        # The last line may end without a backslash, or an empty one may follow.
        if body and self._happens(0.5):
            self.definitions += [*start, *body[:-1], body[-1].removesuffix(" \\")]
        else:
            self.definitions += [*start, *body, ""]

    def joins(self, lines: list[str]) -> list[str]:
        """Write blocks on one line."""
        joined: list[str] = []
        for line in lines:
            if joined and joined[-1].endswith("{") and "virtual" not in joined[-1] and self._happens(0.4):
                joined[-1] += f" {line}"
            elif joined and line == "}" and self._happens(0.2) and "~" not in joined[-1] and "$" not in joined[-1]:
                joined[-1] += " }"
            else:
                joined.append(line)
        return joined

    def words(self, lines: list[str]) -> list[str]:
        """Define parts of words."""
        return [self._with_name(line) if self._happens(0.2) else line for line in lines]

    def _with_name(self, line: str) -> str:
        words = [match.span() for match in re.finditer(r"[^ {}$~(),]+", line)]
        if not words or line.startswith(("~", "$")):
            return line
        start, end = self._random.choice(words)
        whole = self._happens(0.5)
        if not whole:
            start = self._random.randint(start, end - 1)
        name = self._name()
        self.definitions.append(f"${name}={line[start:end]}")
        if whole and (end == len(line) or line[end] == " ") and self._happens(0.5):
            return f"{line[:start]}${name}{line[end:]}"
        return f"{line[:start]}${{{name}}}{line[end:]}"

    def conditions(self, lines: list[str]) -> list[str]:
        """Make lines conditional, and add lines for other hosts."""
        made = []
        for line in lines:
            if self._happens(0.1):
                junk = self._random.choice(("weight 77", "lb_kind DR", "}", "real_server 203.0.113.9 9 {", "$NO", line))
                made.append(self._random.choice((f"@{OTHER_ID} {junk}", f"@^{CONFIG_ID}  {junk}")))
            chosen = not line.startswith("@") and self._happens(0.1)
            made.append(self._random.choice((f"@{CONFIG_ID} {line}", f"@^{OTHER_ID}\t{line}")) if chosen else line)
        return made

    def blocks(self, lines: list[str]) -> list[str]:
        """Define runs of lines."""
        for _ in range(3):
            if len(lines) > 2 and self._happens(0.7):
                start = self._random.randrange(len(lines) - 1)
                end = self._random.randint(start + 1, min(len(lines), start + 8))
                # Versions differ over a condition or a repetition in the first line of a definition.
                if lines[start].startswith(("@", "~")):
                    continue
                name = self._name()
                self._define_lines(name, lines[start:end])
                lines = [*lines[:start], f"${name}", *lines[end:]]
        return lines

    def includes(self, lines: list[str]) -> dict[str, list[str]]:
        """Return the lines of the main file, "", and of files that it includes."""
        files: dict[str, list[str]] = {}
        for number in range(2):
            if len(lines) > 2 and self._happens(0.5):
                start = self._random.randrange(len(lines) - 1)
                end = self._random.randint(start + 1, len(lines))
                files[f"{number}.inc"] = lines[start:end]
                lines = [*lines[:start], f"include {number}.inc", *lines[end:]]
        return {**files, "": lines}
