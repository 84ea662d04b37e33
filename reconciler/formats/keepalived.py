"""The virtual servers of a keepalived.conf → services. Whatever else is in it is named and left out.

Defaults are those of keepalived 2.3: scheduler wlc, NAT, weight 1, and UDP where no protocol is given. What keepalived
reports and then ignores is refused here, unless it says that there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from reconciler.formats.ipvsadm.read import to_number
from reconciler.formats.statements import Blocks, Include, Leave, Place, Reader, Statement, StatementError
from reconciler.formats.virtual_server import PERSISTENT, Entry, Expansion, Forward, Mark, Range, Real, Refuse, Virtual
from reconciler.model.address import pack, parse_address, parse_network, split_prefix
from reconciler.model.ipvs import (
    FWMARK,
    FWMARK_MAX,
    NAMED_SCHEDULER_FLAGS,
    PERSISTENCE_ENGINES,
    PERSISTENT_MAX,
    PORT_MAX,
    PROTOCOLS,
    RULES_MAX,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    THRESHOLD_MAX,
    TUN_TYPES,
    WEIGHT_MAX,
    Service,
    threshold_problems,
    tunnel_problems,
)
from reconciler.wording import suggest

_T = TypeVar("_T")

_METHODS = {"NAT": "nat", "DR": "dr", "TUN": "tunnel"}
_FAMILIES = ("inet", "inet6")


def parse(file: str, text: str, include: Include, refuse: Refuse, leave: Leave) -> list[tuple[Place, Service]]:
    """Read a text and what it includes: its services in their order, each with the place of its virtual server.

    What is wrong is told to `refuse`, what is not taken over to `leave`; a block that is left out is told once.
    """
    # A group is expanded more than once.
    refuse, leave = _once(refuse), _once(leave)
    reading = _Reading(refuse, leave)
    try:
        reading.read(Blocks(Reader(include, leave).read(file, text)))
    except StatementError as error:
        refuse(error.place, str(error))
        return []
    return list(reading.services())


def _once(tell: Callable[[Place, str], None]) -> Callable[[Place, str], None]:
    told: set[tuple[Place, str]] = set()

    def tell_once(place: Place, message: str) -> None:
        if (place, message) not in told:
            told.add((place, message))
            tell(place, message)

    return tell_once


class _Reading:
    """What has been read so far. A group may come after the virtual servers that name it."""

    def __init__(self, refuse: Refuse, leave: Leave) -> None:
        self._refuse, self._leave = refuse, leave
        self._groups: dict[str, tuple[Statement, list[Entry]]] = {}
        self._virtuals: list[Virtual] = []

    def read(self, blocks: Blocks) -> None:
        """Read a whole text."""
        for each in blocks.top():
            if each.words[0] == "virtual_server":
                self._read_virtual(each, blocks)
            elif each.words[0] == "virtual_server_group":
                self._read_group(each, blocks)
            else:
                self._skip(each, blocks)

    def _skip(self, statement: Statement, blocks: Blocks) -> None:
        unknown = ": a definition that is not known here" if _is_open(statement) else ""
        self._leave(statement.place, f"{statement}{unknown}: not taken over")
        blocks.skip(statement)

    def _read_group(self, statement: Statement, blocks: Blocks) -> None:
        if _is_open(statement):
            self._skip(statement, blocks)
            return
        name = statement.words[1] if len(statement.words) > 1 else ""
        first, entries = self._groups.setdefault(name, (statement, []))
        if not name or first is not statement:
            reason = f"this group is there already, at {first.place}" if name else "a group needs a name"
            self._refuse(statement.place, f"{statement}: {reason}")
        for each in blocks.body(statement):
            if _is_open(each):
                self._skip(each, blocks)
                continue
            try:
                entries.append(_read_entry(each))
            except ValueError as error:
                self._refuse(each.place, str(error))

    def _read_virtual(self, statement: Statement, blocks: Blocks) -> None:
        if _is_open(statement):
            self._skip(statement, blocks)
            return
        virtual = Virtual(statement)
        try:
            _read_head(virtual)
            self._virtuals.append(virtual)
        except ValueError as error:
            self._refuse(statement.place, f"{statement}: {error}")
        for each in blocks.body(statement):
            if each.words[0] == "real_server" and not _is_open(each):
                self._read_real(each, virtual, blocks)
            else:
                self._read_setting(each, virtual, _VIRTUAL_SETTINGS, blocks)

    def _read_real(self, statement: Statement, virtual: Virtual, blocks: Blocks) -> None:
        real = Real(statement)
        try:
            real.address, real.port = _read_endpoint(statement.words[1:])
            virtual.servers.append(real)
        except ValueError as error:
            self._refuse(statement.place, f"{statement}: {error}")
        for each in blocks.body(statement):
            self._read_setting(each, real, _REAL_SETTINGS, blocks)
        for problem in threshold_problems(real.upper, real.lower):
            self._refuse(statement.place, f"{statement}: {problem.message}")

    def _read_setting(
        self, statement: Statement, of: _T, settings: dict[str, Callable[[_T, Statement], str | None]], blocks: Blocks
    ) -> None:
        setting = settings.get(statement.words[0])
        if setting is None or _is_open(statement):
            self._skip(statement, blocks)
            return
        try:
            reason = setting(of, statement)
        except ValueError as error:
            self._refuse(statement.place, str(error))
        else:
            if reason:
                self._leave(statement.place, f"{statement}: {reason}")

    def services(self) -> Iterator[tuple[Place, Service]]:
        """Give the services of the virtual servers, which have been read without an error."""
        rules = 0
        for virtual in self._virtuals:
            if not virtual.servers:
                self._leave(virtual.place, f"{virtual.statement}: no real server, so keepalived ignores it")
                continue
            entries = self._entries(virtual)
            rules += sum(each.number for each in entries) * (1 + len(virtual.servers))
            if rules > RULES_MAX:
                count = f"{rules:,} services and servers up to here; at most {RULES_MAX:,} are allowed"
                self._refuse(virtual.place, f"{virtual.statement}: {count}")
                return
            for service in Expansion(virtual, entries, self._refuse, self._leave).services():
                yield virtual.place, service
        named = {each.group for each in self._virtuals}
        for name, (statement, _) in self._groups.items():
            if name not in named:
                self._leave(statement.place, f"{statement}: no virtual_server names it, not taken over")

    def _entries(self, virtual: Virtual) -> tuple[Entry, ...]:
        if not virtual.group:
            return virtual.entries
        if virtual.group not in self._groups:
            self._refuse(virtual.place, f"{virtual.statement}: there is no such virtual_server_group")
            return ()
        return tuple(self._groups[virtual.group][1])


def _is_open(statement: Statement) -> bool:
    """Tell whether a statement has a name in it that no definition has replaced."""
    return any(word.startswith("$") or "${" in word for word in statement.words)


def _read_head(virtual: Virtual) -> None:
    """Read what a virtual server listens on, after its keyword."""
    statement = virtual.statement
    kind = _value(statement)
    if kind == "group":
        virtual.group = _value(statement, 2)
    elif kind == FWMARK:
        virtual.entries = (Mark(statement.place, to_number(FWMARK, _value(statement, 2), 1, FWMARK_MAX)),)
    else:
        address, port = _read_endpoint(statement.words[1:])
        packed = pack(address)
        number = int.from_bytes(packed, "big")
        virtual.entries = (Range(statement.place, len(packed), number, number, port),)


def _read_endpoint(words: list[str]) -> tuple[str, int]:
    """Read an address, and a port, which may be missing."""
    if not words:
        raise ValueError("no address")
    return parse_address(words[0]), _read_port(words)


def _read_port(words: list[str]) -> int:
    return to_number("port", words[1], 0, PORT_MAX) if len(words) > 1 else 0


def _read_entry(statement: Statement) -> Entry:
    """Read a line of a group."""
    words = statement.words
    if words[0] == FWMARK:
        mark = to_number(FWMARK, _value(statement), 1, FWMARK_MAX)
        return Mark(statement.place, mark, _choice(statement, _FAMILIES, 2) if len(words) > 2 else "")
    size, first, last = _read_range(words[0])
    entry = Range(statement.place, size, first, last, _read_port(words))
    if last < first:
        raise ValueError(f"{words[0]}: the end is before the beginning")
    if entry.number > RULES_MAX:
        raise ValueError(f"{words[0]}: {entry.number:,} addresses; at most {RULES_MAX:,} services are allowed")
    return entry


def _read_range(text: str) -> tuple[int, int, int]:
    """Read an address, `10.0.0.1-20`, `10.0.0.1-10.0.1.20` or `10.0.0.0/29`: bytes of an address, first and last."""
    if "/" in text:
        packed, length = split_prefix(parse_network(text))
        first = int.from_bytes(packed, "big")
        return len(packed), first, first | ((1 << (len(packed) * 8 - length)) - 1)
    start, dash, end = text.partition("-")
    packed = pack(start)
    first = int.from_bytes(packed, "big")
    if not dash:
        return len(packed), first, first
    if "." not in end and ":" not in end:
        return len(packed), first, _last_of_range(text, first, end, ipv6=len(packed) == 16)
    other = pack(end)
    if len(other) != len(packed):
        raise ValueError(f"{text}: both ends must be of one family")
    return len(packed), first, int.from_bytes(other, "big")


def _last_of_range(text: str, first: int, end: str, *, ipv6: bool) -> int:
    """Put the end of a range in place of the last part of its first address: 8 bits, or 16 in hexadecimal for IPv6."""
    bits, base = (16, 16) if ipv6 else (8, 10)
    digits = "0123456789abcdefABCDEF"[: 22 if ipv6 else 10]
    if not end or len(end) > 4 or end.strip(digits) or int(end, base) >> bits:
        raise ValueError(f'{text}: "{end}" is not the last part of an address')
    return first >> bits << bits | int(end, base)


def _value(statement: Statement, index: int = 1) -> str:
    if len(statement.words) <= index:
        raise ValueError(f"{statement} lacks its value")
    return statement.words[index]


def _choice(statement: Statement, known: tuple[str, ...], index: int = 1) -> str:
    value = _value(statement, index)
    if value not in known:
        raise ValueError(f"{statement}: unknown; {suggest(value, known)}")
    return value


def _number(statement: Statement, low: int, high: int) -> int:
    return to_number(statement.words[0], _value(statement), low, high)


def _read_forward(statement: Statement) -> Forward:
    """Read a way of forwarding: `NAT`, `DR`, or `TUN` with `type`, `port` and a checksum in any order."""
    method = _METHODS[_choice(statement, tuple(_METHODS))]
    kind, port, checksum = "ipip", 0, "none"
    words = iter(statement.words[2:] if method == "tunnel" else ())
    for word in words:
        match word:
            case "type":
                kind = next(words, "")
            case "port":
                port = to_number("port", next(words, ""), 1, PORT_MAX)
            case "nocsum" | "csum" | "remcsum":
                checksum = "none" if word == "nocsum" else word
            case _:
                raise ValueError(f'{statement}: unexpected "{word}"')
    if kind not in TUN_TYPES:
        raise ValueError(f"{statement}: unknown type; {suggest(kind, TUN_TYPES)}")
    for problem in tunnel_problems(method, kind, port, checksum):
        raise ValueError(f"{statement}: {problem.message}")
    return Forward(method, kind, port, checksum)


# What a statement sets. Each gives the reason if there is nothing to take over; ValueError if it is wrong.


def _set_scheduler(virtual: Virtual, statement: Statement) -> None:
    virtual.scheduler = _choice(statement, SCHEDULERS)


def _set_flag(virtual: Virtual, statement: Statement) -> str | None:
    name = statement.words[0]
    known = SCHEDULER_FLAGS if name in SCHEDULER_FLAGS else NAMED_SCHEDULER_FLAGS.get(virtual.scheduler, ())
    if name not in known:
        return f"the scheduler is not {name[:2]} up to here, so keepalived ignores it"
    virtual.flags.add(known.index(name))
    return None


def _set_ops(virtual: Virtual, statement: Statement) -> None:
    virtual.ops = statement


def _set_default_forward(virtual: Virtual, statement: Statement) -> None:
    virtual.forward = _read_forward(statement)


def _set_protocol(virtual: Virtual, statement: Statement) -> None:
    value = _value(statement).lower()
    if value not in PROTOCOLS:
        raise ValueError(f"{statement}: unknown; {suggest(value, PROTOCOLS)}")
    virtual.protocol = value


def _set_persistent(virtual: Virtual, statement: Statement) -> str | None:
    if len(statement.words) == 1:
        virtual.persistent = PERSISTENT
        return None
    seconds = _number(statement, 0, PERSISTENT_MAX)
    if not seconds:
        return "keepalived ignores 0"
    virtual.persistent = seconds
    return None


def _set_netmask(virtual: Virtual, statement: Statement) -> None:
    _value(statement)
    virtual.netmask = statement
    virtual.persistent = virtual.persistent or PERSISTENT


def _set_engine(virtual: Virtual, statement: Statement) -> None:
    _choice(statement, PERSISTENCE_ENGINES)
    virtual.engine = statement


def _set_family(virtual: Virtual, statement: Statement) -> None:
    virtual.family = _choice(statement, _FAMILIES)


def _set_default_weight(virtual: Virtual, statement: Statement) -> None:
    virtual.weight = _number(statement, 1, WEIGHT_MAX)


def _set_weight(real: Real, statement: Statement) -> None:
    real.weight = _number(statement, 0, WEIGHT_MAX)


def _set_forward(real: Real, statement: Statement) -> None:
    real.forward = _read_forward(statement)


def _set_upper(real: Real, statement: Statement) -> None:
    real.upper = _number(statement, 0, THRESHOLD_MAX)


def _set_lower(real: Real, statement: Statement) -> None:
    real.lower = _number(statement, 0, THRESHOLD_MAX)


_VIRTUAL_SETTINGS: dict[str, Callable[[Virtual, Statement], str | None]] = {
    "lb_algo": _set_scheduler,
    "lvs_sched": _set_scheduler,
    "lb_kind": _set_default_forward,
    "lvs_method": _set_default_forward,
    "protocol": _set_protocol,
    "persistence_timeout": _set_persistent,
    "persistence_granularity": _set_netmask,
    "persistence_engine": _set_engine,
    "ops": _set_ops,
    "ip_family": _set_family,
    "weight": _set_default_weight,
    **dict.fromkeys(
        (*SCHEDULER_FLAGS, *(name for names in NAMED_SCHEDULER_FLAGS.values() for name in names)), _set_flag
    ),
}
_REAL_SETTINGS: dict[str, Callable[[Real, Statement], str | None]] = {
    "weight": _set_weight,
    "lvs_method": _set_forward,
    "uthreshold": _set_upper,
    "lthreshold": _set_lower,
}
