"""A kernel's IPVS in memory: netlink messages go in, answers and dumps come out.

Source: net/netfilter/ipvs/ip_vs_ctl.c.

Of what it tests it shares the framing only. Numbers are those of include/uapi/linux/ip_vs.h.
"""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from socket import AF_INET, AF_INET6, inet_pton

from reconciler.errors import ChannelError, HostError
from reconciler.model.ipvs import Server, Service
from reconciler.netlink import ipvs, message
from reconciler.netlink.channel import GENERIC
from reconciler.netlink.message import Message
from reconciler.operations.ipvs import ServerOperation, ServiceOperation, SetTimeouts
from reconciler.values import dataclass, field, replace
from tests.netlink.scripted import error

FAMILY = 31
CONTROLLER = 16
PERSISTENT, HASHED, ONE_PACKET, OUR_MARK = 0x1, 0x2, 0x4, 0x40000000
NEW_SERVICE, SET_SERVICE, DEL_SERVICE, GET_SERVICE, NEW_DEST, SET_DEST, DEL_DEST, GET_DEST = range(1, 9)
SET_CONFIG, GET_CONFIG = 12, 13
SCHEDULERS = {"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf"}
SYSCTLS = {"conntrack": "0", "expire_nodest_conn": "0", "expire_quiescent_template": "0", "conn_reuse_mode": "1"}

ServiceId = tuple[int, ...] | tuple[int, int, bytes, int]
ServerId = tuple[int, bytes, int]
Sent = ServiceOperation | ServerOperation | SetTimeouts


@dataclass
class KernelServer:
    """struct ip_vs_dest."""

    family: int
    address: bytes
    port: int
    method: int
    weight: int
    upper: int
    lower: int
    tun_type: int = 0
    tun_port: int = 0
    tun_flags: int = 0
    active: int = 0
    inactive: int = 0
    persistent: int = 0

    @property
    def id(self) -> ServerId:
        return (self.family, self.address, self.port)


@dataclass
class KernelService:
    """struct ip_vs_service; `fwmark` 0: it has an address."""

    family: int
    protocol: int
    address: bytes
    port: int
    fwmark: int
    scheduler: str
    flags: int
    timeout: int
    netmask: bytes
    engine: str = ""
    # The newest first, as a dump has them.
    servers: list[KernelServer] = field(default_factory=list)

    @property
    def id(self) -> ServiceId:
        if self.fwmark:
            return (self.family, self.fwmark)
        return (self.family, self.protocol, self.address, self.port)


def kernel_service(service: Service) -> KernelService:
    """What the kernel has of a service, without its servers."""
    is_ipv6 = ":" in service.address
    is_mark = service.protocol == "fwmark"
    named = {"sh": ("sh-fallback", "sh-port"), "mh": ("mh-fallback", "mh-port")}
    names = (*named.get(service.scheduler, ("flag-1", "flag-2")), "flag-3")
    flags = HASHED | sum(0x8 << names.index(name) for name in service.scheduler_flags)
    flags |= PERSISTENT * bool(service.persistent) | ONE_PACKET * service.one_packet | OUR_MARK * service.marked
    mask = struct.pack("=I", int(service.netmask or 128)) if is_ipv6 else ip(service.netmask or "255.255.255.255")[:4]
    return KernelService(
        family=AF_INET6 if is_ipv6 else AF_INET,
        protocol=0 if is_mark else {"tcp": 6, "udp": 17, "sctp": 132}[service.protocol],
        address=bytes(16) if is_mark else ip(service.address),
        port=0 if is_mark else service.port,
        fwmark=service.port if is_mark else 0,
        scheduler=service.scheduler,
        flags=flags,
        timeout=service.persistent,
        netmask=mask,
        engine=service.persistence_engine or "",
    )


def kernel_server(server: Server, active: int = 0, inactive: int = 0) -> KernelServer:
    """What the kernel has of a server."""
    return KernelServer(
        family=AF_INET6 if ":" in server.address else AF_INET,
        address=ip(server.address),
        port=server.port,
        method={"nat": 0, "tunnel": 2, "dr": 3}[server.forward],
        weight=server.weight,
        upper=server.upper_threshold,
        lower=server.lower_threshold,
        tun_type=["ipip", "gue", "gre"].index(server.tun_type),
        tun_port=server.tun_port,
        tun_flags=["none", "csum", "remcsum"].index(server.tun_checksum),
        active=active,
        inactive=inactive,
    )


def ip(address: str) -> bytes:
    """union nf_inet_addr."""
    packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    return packed + bytes(16 - len(packed))


def listed_place(family: int, address: bytes, port: int) -> str:
    """%pI6 or %08X, and %04X."""
    if family == AF_INET:
        return f"{int.from_bytes(address[:4], 'big'):08X}:{port:04X}"
    groups = struct.unpack("!8H", address)
    return "[" + ":".join(f"{group:04x}" for group in groups) + f"]:{port:04X}"


def u8(kind: int, value: int) -> bytes:
    return message.attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    return message.attribute(kind, struct.pack("=H", value))


def be16(kind: int, value: int) -> bytes:
    return message.attribute(kind, struct.pack("!H", value))


def u32(kind: int, value: int) -> bytes:
    return message.attribute(kind, struct.pack("=I", value))


def stats(kind: int, form: str) -> bytes:
    """IPVS_*_ATTR_STATS, of 32 bits and of 64."""
    return message.attribute(kind, b"".join(message.attribute(n, struct.pack(form, n)) for n in range(1, 11)))


def head(command: int) -> bytes:
    return struct.pack("=BBH", command, 1, 0)


def dumped_service(service: KernelService) -> list[bytes]:
    """The attributes of a service in the order of ip_vs_genl_fill_service."""
    if service.fwmark:
        identity = [u32(5, service.fwmark)]
    else:
        identity = [u16(2, service.protocol), message.attribute(3, service.address), be16(4, service.port)]
    return [
        u16(1, service.family),
        *identity,
        message.attribute(6, service.scheduler.encode() + b"\0"),
        *([message.attribute(11, service.engine.encode() + b"\0")] if service.engine else []),
        message.attribute(7, struct.pack("=II", service.flags, 0xFFFFFFFF)),
        u32(8, service.timeout),
        message.attribute(9, service.netmask),
        stats(10, "=I"),
        stats(12, "=Q"),
    ]


def dumped_server(server: KernelServer) -> list[bytes]:
    """The attributes of a server in the order of ip_vs_genl_fill_dest."""
    return [
        message.attribute(1, server.address),
        be16(2, server.port),
        u32(3, server.method),
        u32(4, server.weight),
        u8(13, server.tun_type),
        be16(14, server.tun_port),
        u16(15, server.tun_flags),
        u32(5, server.upper),
        u32(6, server.lower),
        u32(7, server.active),
        u32(8, server.inactive),
        u32(9, server.persistent),
        u16(11, server.family),
        stats(10, "=I"),
        stats(12, "=Q"),
    ]


def service_payload(attributes: Iterable[bytes]) -> bytes:
    return head(NEW_SERVICE) + message.attribute(1, b"".join(attributes))


def server_payload(attributes: Iterable[bytes]) -> bytes:
    return head(NEW_DEST) + message.attribute(2, b"".join(attributes))


class RefusalError(Exception):
    """The kernel answers with an errno."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class FakeKernel:
    """The Kernel of `netlink.channel`, of one namespace. `keeps_marks`: it heeds flags that it gives no meaning."""

    keeps_marks: bool = True
    sysctls: dict[str, str] = field(default_factory=SYSCTLS.copy)
    timeouts: dict[int, int] = field(default_factory=lambda: {4: 900, 5: 120, 6: 300})
    services: dict[ServiceId, KernelService] = field(default_factory=dict)
    # What was asked of it to change, in order: messages, and settings as "name=value".
    changes: list[bytes | str] = field(default_factory=list)
    exchanges: int = 0
    open_channels: int = 0
    # What comes of a change, by its payload.
    refused: dict[bytes, int] = field(default_factory=dict)
    lost: dict[bytes, bool] = field(default_factory=dict)
    # Other attributes, or in another order.
    rewrite: Callable[[list[bytes]], list[bytes]] = lambda attributes: attributes

    def open(self, protocol: int) -> FakeChannel:
        self.open_channels += 1
        return FakeChannel(self, protocol)

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        found = {name: self.sysctls.get(name.removeprefix("net.ipv4.vs.")) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def set_sysctl(self, name: str, value: str) -> None:
        name = name.removeprefix("net.ipv4.vs.")
        self.changes.append(f"{name}={value}")
        if name not in self.sysctls:
            raise HostError(f"sysctl net.ipv4.vs.{name}={value}: No such file or directory")
        self.sysctls[name] = value

    def ipvs_servers(self) -> None:
        """The older interface is tested on a real kernel (tests/ipvs/test_legacy.py)."""

    def read_listing(self, name: str) -> str | None:
        raise AssertionError(name)

    def ipvs_listing(self) -> str:
        """What ip_vs_info_seq_show prints."""
        lines = ["IP Virtual Server version 1.2.1 (size=4096)", "Prot LocalAddress:Port Scheduler Flags"]
        lines.append("  -> RemoteAddress:Port Forward Weight ActiveConn InActConn")
        protocols = {6: "TCP", 17: "UDP", 132: "SCTP"}
        for each in self.dumped:
            of_mark = f"FWM  {each.fwmark:08X} {each.scheduler} "
            where = listed_place(each.family, each.address, each.port)
            lines.append(of_mark if each.fwmark else f"{protocols[each.protocol]}  {where} {each.scheduler} ")
            for server in each.servers:
                where = listed_place(server.family, server.address, server.port)
                forward = ("Masq", "Local", "Tunnel", "Route", "Bypass")[server.method]
                counts = f"{server.weight:<6} {server.active:<10} {server.inactive:<10}"
                lines.append(f"  -> {where}      {forward:<7} {counts}")
        return "\n".join(lines) + "\n"

    def add(
        self, service: Service, *, marked: bool = True, connections: Sequence[int] = (), flags: int = 0
    ) -> KernelService:
        """Put in a service and its servers, with so many active connections of each."""
        made = kernel_service(replace(service, marked=marked))
        made.flags |= flags
        counts = [*connections, *[0] * len(service.servers)]
        made.servers = [kernel_server(each, count) for each, count in zip(service.servers, counts, strict=False)][::-1]
        self.services[made.id] = made
        return made

    def refuse(self, operation: Sent, code: int) -> None:
        """Refuse an operation."""
        self.refused[_payload(operation)] = code

    def lose(self, operation: Sent, *, carried_out: bool) -> None:
        """Give no answer, once, to the send that has this operation; what is before it is carried out."""
        self.lost[_payload(operation)] = carried_out

    @property
    def dumped(self) -> list[KernelService]:
        """The services in the order of a dump, which is that of a hash."""
        return sorted(self.services.values(), key=lambda each: zlib.crc32(repr(each.id).encode()))

    def snapshot(self) -> object:
        """All that is in it, connections and order apart."""
        table = {
            id_: (replace(each, servers=[]), {server.id: server for server in each.servers})
            for id_, each in self.services.items()
        }
        return (table, dict(self.timeouts), dict(self.sysctls))

    def answer(self, request: Message) -> list[Message]:
        """Carry out a request."""
        if request.type == CONTROLLER:
            assert request.payload == b"\3\1\0\0" + message.attribute(2, b"IPVS\0")
            name = message.attribute(2, b"IPVS\0") + u16(1, FAMILY) + u32(3, 1) + u32(4, 0) + u32(5, 6)
            return [Message(CONTROLLER, 0, request.sequence, b"\1\2\0\0" + name), *_ack(request)]
        assert request.type == FAMILY
        assert request.payload[1:4] == b"\1\0\0"
        command = request.payload[0]
        found = dict(message.attributes(request.payload, 4))
        try:
            if command in {GET_SERVICE, GET_DEST}:
                assert request.flags & message.DUMP == message.DUMP
                return self._dump(request, found)
            if command == GET_CONFIG:
                told = b"".join(u32(kind, seconds) for kind, seconds in self.timeouts.items())
                return [Message(FAMILY, 0, request.sequence, head(SET_CONFIG) + told), *_ack(request)]
            self.changes.append(request.payload)
            self._change(request.payload, found)
        except RefusalError as refusal:
            return [error(request, refusal.code)]
        return _ack(request)

    def _dump(self, request: Message, found: dict[int, bytes]) -> list[Message]:
        if request.payload[0] == GET_SERVICE:
            payloads = [service_payload(self.rewrite(dumped_service(each))) for each in self.dumped]
        else:
            service = self.services.get(_service_id(dict(message.attributes(found[1]))))
            servers = service.servers if service else ()
            payloads = [server_payload(self.rewrite(dumped_server(each))) for each in servers]
        answers = [Message(FAMILY, 2, request.sequence, payload) for payload in payloads]
        return [*answers, Message(message.DONE, 2, request.sequence, bytes(4))]

    def _change(self, payload: bytes, found: dict[int, bytes]) -> None:
        if payload in self.refused:
            raise RefusalError(self.refused[payload])
        command = payload[0]
        if command == SET_CONFIG:
            for kind, value in found.items():
                self.timeouts[kind] = _int(value) or self.timeouts[kind]
            return
        told = dict(message.attributes(found[1]))
        id_ = _service_id(told)
        service = self.services.get(id_)
        if command == NEW_SERVICE:
            if service:
                raise RefusalError(errno.EEXIST)
            self.services[id_] = self._read_service(told, 0)
            return
        if service is None:
            raise RefusalError(errno.ESRCH)
        if command == SET_SERVICE:
            self.services[id_] = replace(self._read_service(told, service.flags), servers=service.servers)
        elif command == DEL_SERVICE:
            del self.services[id_]
        else:
            _change_server(service, command, dict(message.attributes(found[2])))

    def _read_service(self, told: dict[int, bytes], flags: int) -> KernelService:
        """ip_vs_genl_parse_service, ip_vs_add_service."""
        if told[6].removesuffix(b"\0").decode() not in SCHEDULERS:
            raise RefusalError(errno.ENOENT)
        given, mask = struct.unpack("=II", told[7])
        # The kernel would not hash it then, and leaves hashed what says so.
        assert not given & mask & HASHED
        flags = HASHED | (flags & ~mask) | (given & mask)
        (family,) = struct.unpack("=H", told[1])
        assert family == AF_INET or 1 <= _int(told[9]) <= 128
        if not self.keeps_marks:
            flags &= 0x3F
        return KernelService(
            family=family,
            protocol=_int(told.get(2, bytes(2))),
            address=told.get(3, bytes(16)),
            port=int.from_bytes(told.get(4, bytes(2))),
            fwmark=_int(told.get(5, bytes(4))),
            scheduler=told[6].removesuffix(b"\0").decode(),
            flags=flags,
            timeout=_int(told[8]),
            netmask=told[9],
            engine=told.get(11, b"").removesuffix(b"\0").decode(),
        )


@dataclass
class FakeChannel:
    """A channel to it. What is no generic netlink has nothing to show."""

    kernel: FakeKernel
    protocol: int

    def exchange(self, requests: bytes, last: int) -> list[Message]:
        self.kernel.exchanges += 1
        answers: list[Message] = []
        asked = message.messages(requests)
        assert asked[-1].sequence == last
        for request in asked:
            if self.protocol != GENERIC:
                return [Message(message.DONE, 2, request.sequence, bytes(4))]
            carried_out = self.kernel.lost.pop(request.payload, None)
            if carried_out is not False:
                answers += self.kernel.answer(request)
            if carried_out is not None:
                raise ChannelError("the kernel did not answer within 10 s")
        assert answers[-1].sequence == last
        return answers

    def exchanges(self, batches: Iterable[tuple[bytes, int]]) -> Iterator[list[Message]]:
        return (self.exchange(requests, last) for requests, last in batches)

    def dumps(self, requests: Sequence[bytes]) -> list[Message]:
        return [answer for each in requests for answer in self.exchange(each, message.sequence_of(each))]

    def close(self) -> None:
        self.kernel.open_channels -= 1


def _change_server(service: KernelService, command: int, told: dict[int, bytes]) -> None:
    """ip_vs_genl_parse_dest, ip_vs_add_dest, ip_vs_edit_dest, ip_vs_del_dest."""
    (family,) = struct.unpack("=H", told[11])
    id_ = (family, told[1], int.from_bytes(told[2]))
    place = next((place for place, each in enumerate(service.servers) if each.id == id_), None)
    if command == NEW_DEST and place is not None:
        raise RefusalError(errno.EEXIST)
    if command != NEW_DEST and place is None:
        raise RefusalError(errno.ENOENT)
    if command == DEL_DEST:
        del service.servers[place or 0]
        return
    made = KernelServer(
        *id_,
        method=_int(told[3]),
        weight=_int(told[4]),
        upper=_int(told[5]),
        lower=_int(told[6]),
        tun_type=told[13][0],
        tun_port=int.from_bytes(told[14]),
        tun_flags=_int(told[15]),
    )
    if made.lower > made.upper:
        raise RefusalError(errno.ERANGE)
    if made.family != service.family and made.method != 2:
        raise RefusalError(errno.EINVAL)
    if place is None:
        service.servers.insert(0, made)
    else:
        old = service.servers[place]
        service.servers[place] = replace(made, active=old.active, inactive=old.inactive)


def _payload(operation: Sent) -> bytes:
    (built,) = message.messages(ipvs.encode(operation, FAMILY, 0))
    return built.payload


def _service_id(told: dict[int, bytes]) -> ServiceId:
    (family,) = struct.unpack("=H", told[1])
    if 5 in told:
        return (family, _int(told[5]))
    return (family, _int(told[2]), told[3], int.from_bytes(told[4]))


def _int(value: bytes) -> int:
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")


def _ack(request: Message) -> list[Message]:
    return [error(request, 0)] if request.flags & message.ACK else []
