"""The virtual servers of a keepalived.conf → services. Everything else in the file is reported as not imported.

Defaults are those of keepalived 2.3: scheduler wlc, NAT, weight 1, and UDP where no protocol is given. What keepalived
reports and then ignores is a problem here, unless keepalived ignores it because it has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from reconciler.formats.ipvsadm.read import to_number
from reconciler.formats.statements import Blocks, FindIncluded, Position, Reader, Report, Statement, StatementError
from reconciler.formats.virtual_server import (
    AddressRange,
    Expansion,
    FirewallMark,
    Forwarding,
    Listener,
    RealServerBlock,
    VirtualServer,
)
from reconciler.model.address import pack, parse_address, parse_network, split_prefix
from reconciler.model.ipvs import (
    FWMARK,
    FWMARK_MAX,
    NAMED_SCHEDULER_FLAGS,
    PERSISTENCE_ENGINES,
    PERSISTENT_DEFAULT,
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


def parse(
    file: str, text: str, find_included: FindIncluded, on_problem: Report, on_skipped: Report
) -> list[tuple[Position, Service]]:
    """Read a text and what it includes. Return its services in order, each with the position of its virtual server.

    Problems are reported to `on_problem`. Parts that are not imported are reported to `on_skipped`, a whole block once.
    """
    # A group is expanded for each virtual server that names it.
    on_problem, on_skipped = _each_once(on_problem), _each_once(on_skipped)
    configuration = _Configuration(on_problem, on_skipped)
    try:
        configuration.read(Blocks(Reader(find_included, on_skipped).read(file, text)))
    except StatementError as error:
        on_problem(error.position, str(error))
        return []
    return list(configuration.services())


def _each_once(report: Report) -> Report:
    reported: set[tuple[Position, str]] = set()

    def report_once(position: Position, message: str) -> None:
        if (position, message) not in reported:
            reported.add((position, message))
            report(position, message)

    return report_once


class _Configuration:
    """What has been read so far. A group may come after the virtual servers that name it."""

    def __init__(self, on_problem: Report, on_skipped: Report) -> None:
        self._on_problem, self._on_skipped = on_problem, on_skipped
        self._groups: dict[str, tuple[Statement, list[Listener]]] = {}
        self._virtuals: list[VirtualServer] = []

    def read(self, blocks: Blocks) -> None:
        """Read a whole text. StatementError if its blocks are wrong."""
        for each in blocks.top():
            if each.words[0] == "virtual_server":
                self._read_virtual(each, blocks)
            elif each.words[0] == "virtual_server_group":
                self._read_group(each, blocks)
            else:
                self._skip(each, blocks)

    def _skip(self, statement: Statement, blocks: Blocks) -> None:
        reason = " because it uses an undefined name" if _uses_undefined(statement) else ""
        self._on_skipped(statement.position, f"{statement}: not imported{reason}")
        blocks.skip(statement)

    def _read_group(self, statement: Statement, blocks: Blocks) -> None:
        if _uses_undefined(statement):
            self._skip(statement, blocks)
            return
        name = statement.words[1] if len(statement.words) > 1 else ""
        first, listeners = self._groups.setdefault(name, (statement, []))
        if not name or first is not statement:
            reason = f"this group is already defined at {first.position}" if name else "a group needs a name"
            self._on_problem(statement.position, f"{statement}: {reason}")
        for each in blocks.body(statement):
            if _uses_undefined(each):
                self._skip(each, blocks)
                continue
            try:
                listeners.append(_read_listener(each))
            except ValueError as error:
                self._on_problem(each.position, str(error))

    def _read_virtual(self, statement: Statement, blocks: Blocks) -> None:
        if _uses_undefined(statement):
            self._skip(statement, blocks)
            return
        virtual = VirtualServer(statement)
        try:
            _read_listeners(virtual)
            self._virtuals.append(virtual)
        except ValueError as error:
            self._on_problem(statement.position, f"{statement}: {error}")
        for each in blocks.body(statement):
            if each.words[0] == "real_server" and not _uses_undefined(each):
                self._read_real(each, virtual, blocks)
            else:
                self._read_setting(each, virtual, _VIRTUAL_SETTINGS, blocks)

    def _read_real(self, statement: Statement, virtual: VirtualServer, blocks: Blocks) -> None:
        real = RealServerBlock(statement)
        try:
            real.address, real.port = _read_endpoint(statement.words[1:])
            virtual.servers.append(real)
        except ValueError as error:
            self._on_problem(statement.position, f"{statement}: {error}")
        for each in blocks.body(statement):
            self._read_setting(each, real, _REAL_SETTINGS, blocks)
        for problem in threshold_problems(real.upper_threshold, real.lower_threshold):
            self._on_problem(statement.position, f"{statement}: {problem.message}")

    def _read_setting(
        self,
        statement: Statement,
        owner: _T,
        settings: dict[str, Callable[[_T, Statement], str | None]],
        blocks: Blocks,
    ) -> None:
        setting = settings.get(statement.words[0])
        if setting is None or _uses_undefined(statement):
            self._skip(statement, blocks)
            return
        try:
            reason = setting(owner, statement)
        except ValueError as error:
            self._on_problem(statement.position, str(error))
        else:
            if reason:
                self._on_skipped(statement.position, f"{statement}: {reason}")

    def services(self) -> Iterator[tuple[Position, Service]]:
        """Yield the services of all virtual servers, each with the position of its virtual server."""
        rules = 0
        for virtual in self._virtuals:
            if not virtual.servers:
                message = f"{virtual.statement}: not imported because it has no real server, as in keepalived"
                self._on_skipped(virtual.position, message)
                continue
            listeners = self._listeners(virtual)
            rules += sum(each.services for each in listeners) * (1 + len(virtual.servers))
            if rules > RULES_MAX:
                count = f"{rules:,} services and servers up to here; at most {RULES_MAX:,} are allowed"
                self._on_problem(virtual.position, f"{virtual.statement}: {count}")
                return
            for service in Expansion(virtual, listeners, self._on_problem, self._on_skipped).services():
                yield virtual.position, service
        used = {each.group for each in self._virtuals}
        for name, (statement, _) in self._groups.items():
            if name not in used:
                message = f"{statement}: not imported because no virtual_server uses this group"
                self._on_skipped(statement.position, message)

    def _listeners(self, virtual: VirtualServer) -> tuple[Listener, ...]:
        if not virtual.group:
            return virtual.listeners
        if virtual.group not in self._groups:
            self._on_problem(virtual.position, f"{virtual.statement}: this virtual_server_group is not defined")
            return ()
        return tuple(self._groups[virtual.group][1])


def _uses_undefined(statement: Statement) -> bool:
    """Return whether a statement contains a name that no definition has replaced."""
    return any(word.startswith("$") or "${" in word for word in statement.words)


def _read_listeners(virtual: VirtualServer) -> None:
    """Read what a virtual server listens on from the words after its keyword. ValueError if they are wrong."""
    statement = virtual.statement
    kind = _value(statement)
    if kind == "group":
        virtual.group = _value(statement, 2)
    elif kind == FWMARK:
        mark = to_number(FWMARK, _value(statement, 2), 1, FWMARK_MAX)
        virtual.listeners = (FirewallMark(statement.position, mark),)
    else:
        address, port = _read_endpoint(statement.words[1:])
        packed = pack(address)
        number = int.from_bytes(packed, "big")
        virtual.listeners = (AddressRange(statement.position, len(packed), number, number, port),)


def _read_endpoint(words: list[str]) -> tuple[str, int]:
    """Read an address and a port. A missing port is 0. ValueError if one is wrong."""
    if not words:
        raise ValueError("an address is missing")
    return parse_address(words[0]), _read_port(words)


def _read_port(words: list[str]) -> int:
    return to_number("port", words[1], 0, PORT_MAX) if len(words) > 1 else 0


def _read_listener(statement: Statement) -> Listener:
    """Read a line of a group. ValueError if it is wrong."""
    words = statement.words
    if words[0] == FWMARK:
        mark = to_number(FWMARK, _value(statement), 1, FWMARK_MAX)
        return FirewallMark(statement.position, mark, _choice(statement, _FAMILIES, 2) if len(words) > 2 else "")
    size, first, last = _read_range(words[0])
    addresses = AddressRange(statement.position, size, first, last, _read_port(words))
    if last < first:
        raise ValueError(f"{words[0]}: the end is before the beginning")
    if addresses.services > RULES_MAX:
        raise ValueError(f"{words[0]}: {addresses.services:,} addresses; at most {RULES_MAX:,} services are allowed")
    return addresses


def _read_range(text: str) -> tuple[int, int, int]:
    """Read an address, `10.0.0.1-20`, `10.0.0.1-10.0.1.20` or `10.0.0.0/29`. ValueError if it is none of them.

    Return the number of bytes of an address, and the first and the last address as numbers.
    """
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
    """Return the first address with `end` in place of its last part: 8 bits, or 16 in hexadecimal for IPv6.

    ValueError if `end` is no such part.
    """
    bits, base = (16, 16) if ipv6 else (8, 10)
    digits = "0123456789abcdefABCDEF"[: 22 if ipv6 else 10]
    if not end or len(end) > 4 or end.strip(digits) or int(end, base) >> bits:
        raise ValueError(f'{text}: "{end}" is not the last part of an address')
    return first >> bits << bits | int(end, base)


def _value(statement: Statement, index: int = 1) -> str:
    if len(statement.words) <= index:
        raise ValueError(f"{statement} needs a value")
    return statement.words[index]


def _choice(statement: Statement, known: tuple[str, ...], index: int = 1) -> str:
    value = _value(statement, index)
    if value not in known:
        raise ValueError(f"{statement}: unknown; {suggest(value, known)}")
    return value


def _number(statement: Statement, low: int, high: int) -> int:
    return to_number(statement.words[0], _value(statement), low, high)


def _read_forwarding(statement: Statement) -> Forwarding:
    """Read `NAT`, `DR`, or `TUN` with `type`, `port` and a checksum in any order. ValueError if it is wrong."""
    method = _METHODS[_choice(statement, tuple(_METHODS))]
    tun_type, port, checksum = "ipip", 0, "none"
    words = iter(statement.words[2:] if method == "tunnel" else ())
    for word in words:
        match word:
            case "type":
                tun_type = next(words, "")
            case "port":
                port = to_number("port", next(words, ""), 1, PORT_MAX)
            case "nocsum" | "csum" | "remcsum":
                checksum = "none" if word == "nocsum" else word
            case _:
                raise ValueError(f'{statement}: unexpected "{word}"')
    if tun_type not in TUN_TYPES:
        raise ValueError(f"{statement}: unknown type; {suggest(tun_type, TUN_TYPES)}")
    for problem in tunnel_problems(method, tun_type, port, checksum):
        raise ValueError(f"{statement}: {problem.message}")
    return Forwarding(method, tun_type, port, checksum)


# Each of these applies one setting. It returns the reason if the setting is not imported. ValueError if it is wrong.


def _set_scheduler(virtual: VirtualServer, statement: Statement) -> None:
    virtual.scheduler = _choice(statement, SCHEDULERS)


def _set_flag(virtual: VirtualServer, statement: Statement) -> str | None:
    name = statement.words[0]
    known = SCHEDULER_FLAGS if name in SCHEDULER_FLAGS else NAMED_SCHEDULER_FLAGS.get(virtual.scheduler, ())
    if name not in known:
        return f"not imported because no line above sets the scheduler to {name[:2]}, as keepalived requires"
    virtual.scheduler_flags.add(known.index(name))
    return None


def _set_ops(virtual: VirtualServer, statement: Statement) -> None:
    virtual.ops = statement


def _set_default_forwarding(virtual: VirtualServer, statement: Statement) -> None:
    virtual.forwarding = _read_forwarding(statement)


def _set_protocol(virtual: VirtualServer, statement: Statement) -> None:
    value = _value(statement).lower()
    if value not in PROTOCOLS:
        raise ValueError(f"{statement}: unknown; {suggest(value, PROTOCOLS)}")
    virtual.protocol = value


def _set_persistent(virtual: VirtualServer, statement: Statement) -> str | None:
    if len(statement.words) == 1:
        virtual.persistent = PERSISTENT_DEFAULT
        return None
    seconds = _number(statement, 0, PERSISTENT_MAX)
    if not seconds:
        return "not imported because keepalived ignores 0"
    virtual.persistent = seconds
    return None


def _set_netmask(virtual: VirtualServer, statement: Statement) -> None:
    _value(statement)
    virtual.netmask = statement
    virtual.persistent = virtual.persistent or PERSISTENT_DEFAULT


def _set_engine(virtual: VirtualServer, statement: Statement) -> None:
    _choice(statement, PERSISTENCE_ENGINES)
    virtual.engine = statement


def _set_family(virtual: VirtualServer, statement: Statement) -> None:
    virtual.family = _choice(statement, _FAMILIES)


def _set_default_weight(virtual: VirtualServer, statement: Statement) -> None:
    virtual.weight = _number(statement, 1, WEIGHT_MAX)


def _set_weight(real: RealServerBlock, statement: Statement) -> None:
    real.weight = _number(statement, 0, WEIGHT_MAX)


def _set_forwarding(real: RealServerBlock, statement: Statement) -> None:
    real.forwarding = _read_forwarding(statement)


def _set_upper(real: RealServerBlock, statement: Statement) -> None:
    real.upper_threshold = _number(statement, 0, THRESHOLD_MAX)


def _set_lower(real: RealServerBlock, statement: Statement) -> None:
    real.lower_threshold = _number(statement, 0, THRESHOLD_MAX)


_VIRTUAL_SETTINGS: dict[str, Callable[[VirtualServer, Statement], str | None]] = {
    "lb_algo": _set_scheduler,
    "lvs_sched": _set_scheduler,
    "lb_kind": _set_default_forwarding,
    "lvs_method": _set_default_forwarding,
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
_REAL_SETTINGS: dict[str, Callable[[RealServerBlock, Statement], str | None]] = {
    "weight": _set_weight,
    "lvs_method": _set_forwarding,
    "uthreshold": _set_upper,
    "lthreshold": _set_lower,
}
