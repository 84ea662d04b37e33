"""The connections of a sandbox, as its kernel lists them, each with the routes that its packets take.

TCP sockets come from sock_diag, connections of IPVS from /proc/net/ip_vs_conn. The kernel itself looks up each route.
Source: include/uapi/linux/sock_diag.h, inet_diag.h (struct inet_diag_req_v2, inet_diag_msg), rtnetlink.h,
net/ipv4/tcp_states.h, net/netfilter/ipvs/ip_vs_conn.c (ip_vs_conn_seq_show), net/ipv4/proc.c, net/ipv6/proc.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from socket import AF_INET, AF_INET6, IPPROTO_TCP
from typing import TypeVar

from reconciler.errors import HostError, ProtocolError, ReconcilerError
from reconciler.model.address import pack, unpack
from reconciler.model.cost import End, Flow, Traffic
from reconciler.model.route import Route
from reconciler.netlink import message, route
from reconciler.netlink.channel import SOCK_DIAG, Channel, Kernel
from reconciler.netlink.engine import Engine, whole_dump
from reconciler.values import NamedTuple

_T = TypeVar("_T")
# SOCK_DIAG_BY_FAMILY; INET_DIAG_MARK.
BY_FAMILY, _MARK = 20, 15
# Bits of the states in which a connection can still carry data: ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2,
# CLOSE_WAIT, and NEW_SYN_RECV of requests.
_STATES = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 12))
# struct inet_diag_req_v2, of which all but these fields is empty; the head of inet_diag_msg; struct inet_diag_sockid,
# which ends in a cookie; and what follows it: expires, rqueue, wqueue, uid, inode.
_REQUEST = struct.Struct("=BBBxI48x")
_HEAD, _ID, _TAIL = struct.Struct("=BBBB"), struct.Struct("=2s2s16s16sI8x"), struct.Struct("=IIIII")
_FAMILIES: dict[int, int] = {AF_INET: 4, AF_INET6: 16}
_MAPPED = bytes(10) + b"\xff\xff"
# RTM_F_FIB_MATCH: answer with the route itself. RTA_UID, RTA_MARK.
_FIB_MATCH, _RTA_MARK, _RTA_UID = 0x2000, 16, 25
_U32 = struct.Struct("=I")
# Lookups in one send: each answer is a message of some 100 bytes.
_LOOKUPS = 500
# IPVS lists these as long as they are in use; a TCP connection in another state is closing.
_IPVS_ACTIVE = {"ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"}
_IPVS_PARTS = 8


class Question(NamedTuple):
    """What the kernel looks a route up by: 0 and "" are left out. `link`: the link that a socket is bound to."""

    address: str
    source: str = ""
    link: int = 0
    mark: int = 0
    uid: int = 0


class Socket(NamedTuple):
    """A TCP connection, of which the sandbox is the near end."""

    near: tuple[str, int]
    far: tuple[str, int]
    link: int
    mark: int
    uid: int


def read(kernel: Kernel, engine: Engine) -> Traffic:
    """Read all connections. What cannot be read is a reason in `unknown`."""
    unknown: list[str] = []
    sockets = _attempt("its TCP connections", unknown, partial(_sockets, kernel))
    entries = _attempt("its connections of IPVS", unknown, partial(_ipvs, kernel))
    questions = {_of_socket(each) for each in sockets} | {each for entry in entries for each in _of_entry(entry)}
    found = _attempt("the routes of its connections", unknown, partial(_lookups, engine, sorted(questions)))
    routes = dict(found)
    flows: dict[object, Flow] = {}
    for each in sockets:
        # Both ends of a connection within the sandbox are sockets.
        key = frozenset((each.near, each.far))
        flows.setdefault(key, Flow(key, each.near[0], (End(each.far[0], routes.get(_of_socket(each))),)))
    for entry in entries:
        client, server = (routes.get(question) for question in _of_entry(entry))
        ends = End(entry.client[0], client), End(entry.server[0], server)
        place = (entry.protocol, *entry.virtual, *entry.server)
        flows[entry] = Flow(entry, entry.virtual[0], ends, place)
    unknown += _attempt("what it forwards", unknown, partial(_forwarded, kernel))
    return Traffic(tuple(flows.values()), tuple(unknown))


def _attempt(what: str, unknown: list[str], act: Callable[[], Sequence[_T]]) -> Sequence[_T]:
    try:
        return act()
    except ReconcilerError as error:
        unknown.append(f"{what}: {error}")
        return ()


def _sockets(kernel: Kernel) -> list[Socket]:
    channel = kernel.open(SOCK_DIAG)
    try:
        numbers = iter(range(1, 1 << 30)).__next__
        return [each for family in _FAMILIES for each in _dump(channel, family, numbers)]
    finally:
        channel.close()


def _dump(channel: Channel, family: int, numbers: Callable[[], int]) -> Iterator[Socket]:
    answers = whole_dump(channel, partial(dump_request, family), numbers, "the connections change", _check_end)
    return (decode(each.payload) for each in answers if each.type == BY_FAMILY)


def _check_end(answers: Sequence[message.Message]) -> None:
    failed = message.failure(answers[-1]) if answers else None
    if failed:
        raise HostError(f"its kernel cannot list them ({failed}); does it have the module tcp_diag?")


def dump_request(family: int, sequence: int) -> bytes:
    """Build a request for the TCP connections of a family that can still carry data."""
    body = _REQUEST.pack(family, IPPROTO_TCP, 0, _STATES)
    return message.pack(BY_FAMILY, message.REQUEST | message.DUMP, sequence, body)


def decode(payload: bytes) -> Socket:
    """Read a dumped connection. ProtocolError for malformed bytes."""
    start = _HEAD.size + _ID.size
    if len(payload) < start + _TAIL.size:
        raise ProtocolError(f"TCP connection of {len(payload)} bytes")
    size = _FAMILIES.get(payload[0])
    if size is None:
        raise ProtocolError(f"TCP connection of the address family {payload[0]}")
    near_port, far_port, near, far, index = _ID.unpack_from(payload, _HEAD.size)
    found: dict[int, bytes] = dict(message.attributes(payload, start + _TAIL.size))
    mark = found.get(_MARK, bytes(4))
    if len(mark) != _U32.size:
        raise ProtocolError(f"mark of a TCP connection of {len(mark)} bytes")
    return Socket(
        near=(_address(near[:size]), int.from_bytes(near_port)),
        far=(_address(far[:size]), int.from_bytes(far_port)),
        link=index,
        mark=_U32.unpack(mark)[0],
        uid=_TAIL.unpack_from(payload, start)[3],
    )


def _address(packed: bytes) -> str:
    return unpack(packed[12:] if packed.startswith(_MAPPED) else packed)


class Entry(NamedTuple):
    """A connection of IPVS."""

    protocol: str
    client: tuple[str, int]
    virtual: tuple[str, int]
    server: tuple[str, int]


def _ipvs(kernel: Kernel) -> list[Entry]:
    if not kernel.read_sysctls(["net.ipv4.vs.conntrack"]):
        return []
    text = kernel.read_listing("ip_vs_conn")
    if text is None:
        raise HostError("its kernel has no /proc/net/ip_vs_conn")
    return list(entries(text))


def entries(listing: str) -> Iterator[Entry]:
    """Yield the connections of a listing that are in use. ProtocolError for a line of another shape."""
    for line in listing.splitlines()[1:]:
        words = line.split()
        try:
            protocol, *places, state = words[:_IPVS_PARTS]
            client, virtual, server = (
                (_listed(places[at]), int(places[at + 1], 16)) for at in range(0, len(places), 2)
            )
        except ValueError as error:
            raise ProtocolError(f"a line of /proc/net/ip_vs_conn cannot be read: {error}") from None
        # What keeps a client at its server is listed as well, without a port of the client.
        if client[1] and (protocol == "UDP" or state in _IPVS_ACTIVE):
            yield Entry(protocol.lower(), client, virtual, server)


def _listed(word: str) -> str:
    return unpack(pack(word)) if ":" in word else unpack(bytes.fromhex(word))


def _of_socket(each: Socket) -> Question:
    return Question(each.far[0], each.near[0], each.link, each.mark, each.uid)


def _of_entry(entry: Entry) -> tuple[Question, Question]:
    """Return the questions for the routes to the client and to the server."""
    return Question(entry.client[0], entry.virtual[0]), Question(entry.server[0])


def _lookups(engine: Engine, questions: Sequence[Question]) -> list[tuple[Question, Route | None]]:
    names = {link.index: link.name for link in engine.links()} if questions else {}
    return [
        found
        for start in range(0, len(questions), _LOOKUPS)
        for found in _looked_up(engine, questions[start : start + _LOOKUPS], names)
    ]


def _looked_up(
    engine: Engine, questions: Sequence[Question], names: Mapping[int, str]
) -> Iterator[tuple[Question, Route | None]]:
    asked = {engine.next_sequence(): each for each in questions}
    requests = [_lookup_request(each, sequence) for sequence, each in asked.items()]
    requests[-1] = message.with_ack(requests[-1])
    answers = engine.channel.exchange(b"".join(requests), message.sequence_of(requests[-1]))
    for answer in answers:
        if answer.type == message.NEW_ROUTE and answer.sequence in asked:
            yield asked[answer.sequence], route.decode(answer.payload, names)


def _lookup_request(question: Question, sequence: int) -> bytes:
    numbers = ((route.OIF, question.link), (_RTA_MARK, question.mark), (_RTA_UID, question.uid))
    given = [(kind, value) for kind, value in numbers if value]
    return route.lookup_request(question.address, sequence, source=question.source, flags=_FIB_MATCH, numbers=given)


def _forwarded(kernel: Kernel) -> list[str]:
    """Return the reason why there may be others: packets that go through the sandbox, whose connections nobody lists.

    The kernel counts them from the beginning of the namespace on.
    """
    if not any(_counts(kernel.read_listing("snmp") or "", kernel.read_listing("snmp6") or "")):
        return []
    return ["it has forwarded packets, and the connections of others that go through it are not listed"]


def _counts(snmp: str, snmp6: str) -> Iterator[int]:
    rows: Iterable[list[str]] = (line.split() for line in snmp.splitlines() if line.startswith("Ip:"))
    for names, values in zip(*[iter(rows)] * 2, strict=False):
        yield from (_number(value) for name, value in zip(names, values, strict=False) if name == "ForwDatagrams")
    for words in map(str.split, snmp6.splitlines()):
        if words[:1] == ["Ip6OutForwDatagrams"] and len(words) > 1:
            yield _number(words[1])


def _number(word: str) -> int:
    if not word.isascii() or not word.isdecimal() or len(word) > 20:
        raise ProtocolError(f"{word[:20]!r} is no count of packets")
    return int(word)
