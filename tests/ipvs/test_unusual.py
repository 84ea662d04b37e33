"""Whatever the kernel can hold, by raw netlink: shown by name or number in every output, and no command fails at it.

The values are those of the kernel's attributes, named or not. What a kernel refuses is counted and left out. The
truth is what was sent; nothing of our encoder takes part.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterable, Iterator
from socket import AF_INET, AF_INET6
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.guest.client import AgentClient
from reconciler.guest.kernel import GuestKernel
from reconciler.manifest.compose import compose
from reconciler.netlink import message
from reconciler.netlink.ipvs_engine import IpvsEngine
from reconciler.values import dataclass, field, replace
from tests.examples import examples
from tests.ipvs.place import Vm
from tests.netlink import ipvs_kernel as raw
from tests.netlink.ipvs_kernel import HASHED, KernelServer, KernelService, dumped_server, dumped_service, ip
from tests.uml import Ran

OURS = HASHED | raw.OUR_MARK
FORWARDS = {0: "-m", 1: "(forward localnode)", 2: "-i", 3: "-g", 4: "(forward bypass)"}
TUNNELS = {0: "ipip", 1: "gue", 2: "gre"}
CHECKSUMS = {0: "none", 1: "csum", 2: "remcsum"}
OPTIONS = {6: "-t", 17: "-u", 132: "--sctp-service"}

METHODS = (*range(8),)
TYPES, PORTS, CHECKS = (0, 1, 2, 3, 255), (0, 1, 65535), (0, 1, 2, 3, 0x8001)
WEIGHTS = (0, 1, 65535, 65536, 2**31 - 1)
UPPERS = (0, 1, 2**30 - 1, 2**31 - 1, 2**32 - 1)
PROTOCOLS = (0, 1, 6, 17, 47, 58, 132, 255, 999, 65535)
SCHEDULERS = ("none", "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf")
TIMEOUTS = (0, 1, 2678400, 2678401, 4294967)
NETMASKS = (b"\xff" * 4, bytes(4), b"\xff\0\xff\0", b"\xff\xff\xff\0")


@dataclass
class Filled:
    """What a kernel has taken of a table: services with their servers; and how much of how much that was."""

    services: list[KernelService] = field(default_factory=list)
    sent: int = 0

    @property
    def taken(self) -> int:
        return sum(1 + len(service.servers) for service in self.services)


def servers_of(numbers: Iterable[tuple[int, ...]], first: int = 0) -> list[KernelServer]:
    """Give servers with these numbers, each at an address of its own."""
    made = []
    for index, (method, weight, upper, lower, tun_type, tun_port, tun_flags) in enumerate(numbers, first):
        address = ip(f"10.9.{index // 250}.{index % 250 + 1}")
        made.append(KernelServer(AF_INET, address, 80, method, weight, upper, lower, tun_type, tun_port, tun_flags))
    return made


def web(number: int, **fields: Any) -> KernelService:
    address = ip(f"10.1.{number // 250}.{number % 250 + 1}")
    bare = KernelService(AF_INET, 6, address, 80, 0, "rr", OURS, 0, NETMASKS[0])
    return replace(bare, **fields)


def every_value() -> list[KernelService]:
    """Give a table in which each attribute has each of its values, beside usual ones."""
    numbers = [
        *((method, 7, 0, 0, 0, 0, 0) for method in METHODS),
        *((method, 7, 0, 0, *tunnel) for method in (0, 2, 4) for tunnel in itertools.product(TYPES, PORTS, CHECKS)),
        *((0, weight, 0, 0, 0, 0, 0) for weight in WEIGHTS),
        *((0, 1, upper, lower, 0, 0, 0) for upper in UPPERS for lower in {0, upper // 2, upper}),
        *((0, 0, upper, 0, 0, 0, 0) for upper in (1, 2**29)),
    ]
    services = [web(0, servers=servers_of(numbers))]
    others: list[dict[str, Any]] = [
        *({"protocol": number} for number in PROTOCOLS),
        *({"scheduler": name} for name in SCHEDULERS),
        *({"flags": OURS | 1 << bit} for bit in range(32)),
        *({"flags": OURS | 0x38, "scheduler": name} for name in ("sh", "mh", "dh")),
        *({"flags": OURS | raw.PERSISTENT, "timeout": seconds} for seconds in TIMEOUTS),
        *({"flags": OURS | raw.PERSISTENT, "timeout": 60, "netmask": mask} for mask in NETMASKS),
        *({"netmask": mask} for mask in NETMASKS),
        *({"engine": "sip", "protocol": number, "flags": OURS | p} for number in (6, 17) for p in (0, raw.PERSISTENT)),
        {"port": 0},
        {"flags": OURS | raw.ONE_PACKET},
        *({"fwmark": mark, "family": family} for mark in (1, 2**31, 2**32 - 1) for family in (AF_INET, AF_INET6)),
        *({"family": family} for family in (0, 1, 28, 255)),
    ]
    for number, fields in enumerate(others, 1):
        mask = {"netmask": struct.pack("=I", 128)} if fields.get("family") == AF_INET6 else {}
        one = servers_of([(2, 1, 0, 0, 0, 0, 0)])
        services.append(web(number, **{"servers": one} | mask | fields))
    # Servers of the other family, and at another port than their service's.
    other = KernelServer(AF_INET6, ip("fd00:9::1"), 80, 2, 1, 0, 0)
    moved = [replace(each, port=81) for each in servers_of((method, 1, 0, 0, 0, 0, 0) for method in METHODS)]
    return [*services, web(200, servers=[other]), web(201, servers=moved)]


def fill(client: AgentClient, table: list[KernelService]) -> Filled:
    """Add a table by raw netlink; give what the kernel has taken."""
    filled = Filled()
    engine = IpvsEngine(GuestKernel(client))

    def taken(command: int, body: bytes) -> bool:
        sequence = engine.next_sequence()
        data = message.pack(engine.family, message.REQUEST | message.ACK, sequence, raw.head(command) + body)
        (answer,) = engine.channel.exchange(data, sequence)
        filled.sent += 1
        return message.failure(answer) is None

    for service in table:
        # The last two are counters.
        attributes = dumped_service(service)[:-2]
        if not taken(raw.NEW_SERVICE, message.attribute(1, b"".join(attributes))):
            filled.sent += len(service.servers)
            continue
        identity = message.attribute(1, b"".join(attributes[: 2 if service.fwmark else 4]))
        kept = [
            each
            for each in service.servers
            if taken(raw.NEW_DEST, identity + message.attribute(2, b"".join(dumped_server(each)[:-2])))
        ]
        filled.services.append(replace(service, servers=kept))
    engine.close()
    return filled


def endpoint(address: bytes, port: int) -> str:
    if address[4:] != bytes(12):
        return f"[fd00:9::1]:{port}"
    return f"{'.'.join(map(str, address[:4]))}:{port}"


def key_words(service: KernelService) -> str:
    if service.fwmark:
        return f"-f {service.fwmark}" + " -6" * (service.family == AF_INET6)
    option = OPTIONS.get(service.protocol, f"(protocol {service.protocol})")
    return f"{option} {endpoint(service.address, service.port)}"


def setting_words(service: KernelService) -> Iterator[str]:
    """Say what a line about a service must contain."""
    yield f"-s {service.scheduler}"
    if service.flags & raw.PERSISTENT:
        yield f"-p {service.timeout}" if service.timeout else "(persistent 0)"
    if service.flags & raw.ONE_PACKET:
        yield " -o"
    if service.engine:
        yield f"--pe {service.engine}"
    names = {"sh": ("sh-fallback", "sh-port"), "mh": ("mh-fallback", "mh-port")}
    flags = (*names.get(service.scheduler, ("flag-1", "flag-2")), "flag-3")
    yield from (name for bit, name in enumerate(flags) if service.flags & 0x8 << bit)
    if others := service.flags & ~(OURS | 0x3D | 0x20000000):
        yield f"(flags {others:#x})"


def server_words(server: KernelServer) -> Iterator[str]:
    """Say what a line about a server must contain."""
    yield f"-r {endpoint(server.address, server.port)}"
    yield FORWARDS.get(server.method, f"(forward {server.method})")
    yield f"-w {server.weight}"
    if server.upper and not drains(server):
        yield f"-x {server.upper}"
    if server.lower:
        yield f"-y {server.lower}"
    if server.tun_type:
        name = TUNNELS.get(server.tun_type, str(server.tun_type))
        yield f"type {name}" if server.method != 2 or server.tun_type not in TUNNELS else f"--tun-type {name}"
    if server.tun_port:
        yield f"port {server.tun_port}"
    if server.tun_flags:
        yield CHECKSUMS.get(server.tun_flags, str(server.tun_flags))


def drains(server: KernelServer) -> bool:
    """Say whether it is one that we drain: its threshold is a deadline, and no manifest has it."""
    return server.weight == 0 and 1 << 30 <= server.upper < 1 << 31


def told(filled: Filled) -> Iterator[list[str]]:
    """Give all that one line must contain, for each service and server."""
    for service in filled.services:
        yield [f"-A {key_words(service)} ", *setting_words(service)]
        for server in service.servers:
            yield [f"-a {key_words(service)} ", *server_words(server)]


def missing(filled: Filled, text: str) -> list[list[str]]:
    """Give what no line of a text says whole."""
    lines = text.splitlines()
    return [words for words in told(filled) if not any(all(word in line for word in words) for line in lines)]


def run(vm: Vm, *words: str, status: int = 0) -> Ran:
    ran = vm.reconciler(*words)
    assert (ran.status, "Traceback" in ran.stderr) == (status, False), (words, ran.status, ran.stderr[-2000:])
    return ran


def check_every_output(vm: Vm, filled: Filled) -> None:
    """Run every command that shows a table, and look for each object with all its values."""
    name, bare = vm.guest.sandbox.name, vm.manifest()
    assert missing(filled, run(vm, "show", "-o", "text", bare).stdout) == []
    assert missing(filled, run(vm, "kata-ipvs", "ipvsadm", "--parameters", "-S", name).stdout) == []
    listing = run(vm, "kata-ipvs", "ipvsadm", "--parameters", "-L -n", name).stdout
    servers = [server for service in filled.services for server in service.servers]
    assert [each for each in servers if endpoint(each.address, each.port) not in listing] == []

    # A manifest, which is valid, and what it leaves out.
    shown = run(vm, "show", bare)
    path = vm.file("shown.yaml", shown.stdout)
    run(vm, "validate", path)
    left = shown.stderr
    assert all(f"# {line}" in shown.stdout.splitlines() for line in left.splitlines())
    as_json = json.loads(run(vm, "show", "-o", "json", bare).stdout)
    assert as_json == compose(shown.stdout)[0]
    for service in filled.services:
        keys = [each for each in as_json["ipvs"]["services"] if key_of(each) == key_words(service)]
        if not keys:
            assert any(
                endpoint(service.address, service.port) in line or str(service.fwmark) in line
                for line in left.splitlines()
            )
            continue
        there = {each["address"] for each in keys[0].get("servers", ())}
        kept = [each for each in service.servers if not drains(each)]
        gone = [e for s in kept if not {e := endpoint(s.address, s.port), e.rsplit(":", 1)[0]} & there]
        assert [each for each in gone if each not in left] == []

    # Edits: what was there is told, and what the manifest says is there afterwards.
    for form in ("text", "json", "yaml"):
        ran = run(vm, "diff", "-v", "-o", form, "--adopt", wishes(vm), status=1)
        assert ran.stdout
    ran = vm.reconciler("apply", "-v", "--adopt", "--allow-delete", "all", wishes(vm))
    assert (ran.status, "Traceback" in ran.stderr) == (0, False), ran.stderr[-2000:]
    assert "verified" in ran.stdout
    assert sorted(vm.saved()) == ["-A -t 10.1.0.1:80 -s rr", "-a -t 10.1.0.1:80 -r 10.9.0.1:80 -m -w 1"]


def wishes(vm: Vm) -> str:
    return vm.manifest(services=[{"tcp": "10.1.0.1:80", "scheduler": "rr", "servers": [{"address": "10.9.0.1"}]}])


def key_of(data: dict[str, Any]) -> str:
    """Give the key of a service in a manifest as `key_words` does."""
    if "fwmark" in data:
        return f"-f {data['fwmark']}" + " -6" * (data.get("family") == "ipv6")
    option = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}
    return next(f"{option[each]} {data[each]}" for each in option if each in data)


def test_each_value_is_shown_in_every_output(vm: Vm) -> None:
    with AgentClient(vm.guest.sandbox.agent) as client:
        filled = fill(client, every_value())
    print(f"the kernel took {filled.taken} of {filled.sent} services and servers")
    assert filled.taken > 200
    check_every_output(vm, filled)


any_server = st.tuples(*map(st.sampled_from, (METHODS, WEIGHTS, UPPERS, (0, 1), TYPES, PORTS, CHECKS)))
any_service = st.fixed_dictionaries(
    {
        "protocol": st.sampled_from(PROTOCOLS),
        "scheduler": st.sampled_from(SCHEDULERS),
        "flags": st.integers(0, 2**32 - 1).map(lambda bits: bits | OURS),
        "timeout": st.sampled_from(TIMEOUTS),
        "netmask": st.sampled_from(NETMASKS),
        "engine": st.sampled_from(("", "sip")),
        "servers": st.lists(any_server, max_size=4),
    }
)


@settings(max_examples=examples(8), suppress_health_check=list(HealthCheck))
@given(st.lists(any_service, min_size=8, max_size=16))
def test_any_mixture_of_values_is_shown_in_every_output(vm: Vm, table: list[dict[str, Any]]) -> None:
    services = [
        web(number, **fields | {"servers": servers_of(fields["servers"], number * 4)})
        for number, fields in enumerate(table)
    ]
    with AgentClient(vm.guest.sandbox.agent) as client:
        filled = fill(client, services)
    check_every_output(vm, filled)
    vm.clear()
