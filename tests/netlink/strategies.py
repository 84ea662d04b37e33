"""What the kernel could send: routes, rules, neighbours and the bytes of messages, right and spoiled."""

from __future__ import annotations

from collections.abc import Sequence
from socket import AF_INET, AF_INET6, inet_ntop

from hypothesis import strategies as st

from reconciler.model.address import is_unicast
from reconciler.model.metric import CONGESTION_CONTROLS, METRICS, Metrics, ordered
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import (
    DIRECT_TYPES,
    REJECT_TYPES,
    SCOPES,
    TABLE_MAIN,
    NextHop,
    Route,
    canonical_hops,
    usual_scope,
)
from reconciler.model.rule import ALL_BITS, NO_SUPPRESSION, REJECT_ACTIONS, Rule
from reconciler.netlink import message

INDEXES = {"lo": 1, "eth0": 2, "eth1": 3, "tap-9": 70000}
NAMES = {index: name for name, index in INDEXES.items()}

_U32_MAX = 0xFFFFFFFF


def addresses(size: int) -> st.SearchStrategy[str]:
    """Any address of 4 or 16 bytes in canonical text."""
    family = AF_INET if size == 4 else AF_INET6
    return st.binary(min_size=size, max_size=size).map(lambda packed: inet_ntop(family, packed))


@st.composite
def networks(draw: st.DrawFn, size: int) -> str:
    length = draw(st.integers(0, size * 8))
    number = draw(st.integers(0, (1 << length) - 1)) << (size * 8 - length)
    return f"{inet_ntop(AF_INET if size == 4 else AF_INET6, number.to_bytes(size, 'big'))}/{length}"


@st.composite
def next_hops(draw: st.DrawFn, size: int, *, weighted: bool) -> NextHop:
    gateway = draw(st.none() | addresses(size) | (addresses(16) if size == 4 else st.nothing()))
    return NextHop(
        device=draw(st.sampled_from(sorted(INDEXES))),
        gateway=gateway,
        weight=draw(st.integers(1, 256)) if weighted else 1,
        on_link=gateway is not None and draw(st.booleans()),
    )


@st.composite
def metrics(draw: st.DrawFn) -> Metrics:
    """Any metrics that a manifest can say."""
    values: dict[str, st.SearchStrategy[int | str]] = {
        "number": st.integers(1, 255),
        "milliseconds": st.integers(1, _U32_MAX),
        "switch": st.just(1),
        "features": st.just(1),
        "name": st.sampled_from(CONGESTION_CONTROLS),
    }
    chosen = draw(st.lists(st.sampled_from(METRICS), max_size=len(METRICS), unique=True))
    return ordered((each.field, draw(values[each.kind])) for each in chosen)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """Any route that a manifest can say, and the kernel's metric 0 of no IPv6 route."""
    size = draw(st.sampled_from((4, 16)))
    kind = draw(st.sampled_from(("unicast", "unicast", "unicast", *DIRECT_TYPES, *REJECT_TYPES)))
    hops: Sequence[NextHop] = ()
    if kind in DIRECT_TYPES:
        hops = (NextHop(device=draw(st.sampled_from(sorted(INDEXES)))),)
    elif kind == "unicast":
        hops = draw(
            st.tuples(next_hops(size, weighted=False))
            | st.lists(
                next_hops(size, weighted=True), min_size=2, max_size=6, unique_by=lambda hop: (hop.device, hop.gateway)
            )
        )
    unset = st.just(0)
    mtu = draw(unset | st.integers(68, 65520)) if hops else 0
    scopes = [None, *(each for each in SCOPES if each != usual_scope(kind, hops, ipv6=size == 16))]
    return Route(
        dest=draw(networks(size)),
        type=kind,
        nexthops=canonical_hops(hops),
        table=draw(st.just(TABLE_MAIN) | st.integers(1, 254) | st.integers(256, _U32_MAX)),
        metric=draw(st.integers(1 if size == 16 else 0, _U32_MAX)),
        source=draw(st.none() | addresses(size)) if hops else None,
        mtu=mtu,
        mtu_lock=bool(mtu) and draw(st.booleans()),
        metrics=draw(metrics()) if hops else (),
        scope=draw(st.sampled_from(scopes)) if hops and size == 4 else None,
        pref=draw(st.sampled_from(("medium", "low", "high"))) if hops and size == 16 else "medium",
        tos=draw(st.integers(0, 63)) * 4 if size == 4 else 0,
    )


def _ranges(first: int, last: int) -> st.SearchStrategy[tuple[int, int] | None]:
    numbers = st.integers(first, last)
    return st.none() | st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Any rule that a manifest can say."""
    size = draw(st.sampled_from((4, 16)))
    selected = st.none() | networks(size).filter(lambda network: not network.endswith("/0"))
    names = st.none() | st.sampled_from(sorted(INDEXES))
    mask = draw(st.sampled_from((0, 0, 1, 0xFF, ALL_BITS)))
    priority = draw(st.integers(0, _U32_MAX - 1))
    action = draw(st.sampled_from(("table", "table", "l3mdev", "goto", *REJECT_ACTIONS)))
    looks_up = action in {"table", "l3mdev"}
    return Rule(
        family="ipv4" if size == 4 else "ipv6",
        priority=priority,
        from_=draw(selected),
        to=draw(selected),
        iif=draw(names),
        oif=draw(names),
        fwmark=draw(st.integers(0, _U32_MAX)) & mask,
        fwmask=mask,
        ipproto=draw(st.just(0) | st.integers(0, 255)),
        sport=draw(_ranges(1, 0xFFFF)),
        dport=draw(_ranges(1, 0xFFFF)),
        uidrange=draw(_ranges(0, _U32_MAX - 1)),
        tos=draw(st.integers(0, 63)) * 4,
        suppress_prefixlength=draw(st.just(NO_SUPPRESSION) | st.integers(0, size * 8)) if looks_up else NO_SUPPRESSION,
        l3mdev=action == "l3mdev",
        invert=draw(st.booleans()),
        action="table" if looks_up else action,
        table=draw(st.integers(1, _U32_MAX)) if action == "table" else 0,
        goto=draw(st.integers(priority + 1, _U32_MAX)) if action == "goto" else 0,
    )


@st.composite
def neighbours(draw: st.DrawFn) -> Neighbour:
    """Any entry that a manifest can say."""
    size = draw(st.sampled_from((4, 16)))
    proxy = draw(st.booleans())
    first = draw(st.integers(0, 127)) * 2
    mac = bytes((first, *draw(st.binary(min_size=5, max_size=5)))) if not proxy else b""
    return Neighbour(
        address=draw(addresses(size).filter(is_unicast)),
        device=draw(st.sampled_from(sorted(INDEXES))),
        hw_addr=(mac if any(mac) else mac[:-1] + b"\1" if mac else mac).hex(":"),
        proxy=proxy,
        router=size == 16 and draw(st.booleans()),
    )


def attribute_lists() -> st.SearchStrategy[list[tuple[int, bytes]]]:
    return st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8)


def attribute_bytes() -> st.SearchStrategy[bytes]:
    """Well-formed attributes, of low kinds above all: those are the ones that decoders know."""
    kinds = st.integers(0, 40) | st.integers(0, 0xFFFF)
    leaves = st.lists(st.tuples(kinds, st.binary(max_size=20) | st.sampled_from((bytes(4), bytes(8), bytes(16)))))
    return st.recursive(leaves.map(_pack), lambda inner: st.lists(st.tuples(kinds, inner), max_size=4).map(_pack))


def _pack(values: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(message.attribute(kind, value) for kind, value in values)


@st.composite
def spoiled(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Valid bytes with a few of them changed, cut off, doubled or put in."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("set", "set", "cut", "insert", "remove"))):
            case "set" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at:]
            case "insert":
                data[at:at] = draw(st.binary(max_size=8))
            case _:
                del data[at : at + draw(st.integers(1, 8))]
    return bytes(data)
