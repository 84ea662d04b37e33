"""Statements → what is imported: virtual servers and timeouts. Everything else is noted as not imported.

What keepalived reports and then ignores is a problem here, unless keepalived ignores it because it has no effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

from reconciler.formats.ipvsadm.read import to_number
from reconciler.formats.keepalived.expansion import Expansion
from reconciler.formats.keepalived.listener import (
    FirewallMark,
    Group,
    Listener,
    address_range,
    has_ranges,
    read_listener,
)
from reconciler.formats.keepalived.settings import REAL_SETTINGS, VIRTUAL_SETTINGS, Settings
from reconciler.formats.keepalived.statements import UNDEFINED, Blocks, Position, Statement
from reconciler.formats.keepalived.value import family_of, parameter, read_endpoint
from reconciler.formats.keepalived.virtual_server import RealServerBlock, VirtualServer
from reconciler.model.address import family_name
from reconciler.model.ipvs import (
    FWMARK,
    FWMARK_MAX,
    LEAVE_TIMEOUTS,
    RULES_MAX,
    TIMEOUT_MAX,
    Service,
    Timeouts,
    threshold_problems,
)
from reconciler.values import NamedTuple, dataclass, field
from reconciler.wording import suggest

_T = TypeVar("_T")

# A name that no definition has replaced.
_NAME = re.compile(r"\$[A-Za-z_{]")
# The blocks that a real server may have: the health checkers.
_CHECKERS = {
    *("HTTP_GET", "SSL_GET", "TCP_CHECK", "UDP_CHECK", "SMTP_CHECK", "DNS_CHECK", "MISC_CHECK", "BFD_CHECK"),
    *("PING_CHECK", "FILE_CHECK"),
}

Message = tuple[Position, str]


class Imported(NamedTuple):
    """One virtual server: its services, and what was found on its lines."""

    statement: Statement
    services: tuple[Service, ...] = ()
    problems: tuple[Message, ...] = ()
    notes: tuple[Message, ...] = ()


@dataclass(slots=True)
class Configuration:
    """What a configuration is to one host: its virtual servers, timeouts, and what belongs to neither."""

    virtuals: list[Imported] = field(default_factory=list)
    timeouts: tuple[Position, Timeouts] | None = None
    problems: list[Message] = field(default_factory=list)
    notes: list[Message] = field(default_factory=list)


def _fault_of(statement: Statement, *, imported: bool) -> str:
    """Return why nobody knows here what keepalived would read for a statement that is (or is not) imported."""
    if statement.fault:
        return statement.fault
    keyword = statement.words[0]
    if keyword[:1] in ("@", "~"):
        return "is no line that keepalived evaluates"
    uses = any(_NAME.search(word) for word in statement.words)
    return UNDEFINED if uses and (imported or keyword.startswith("$")) else ""


def _unknown(statement: Statement, fault: str) -> str:
    return f"{statement} at {statement.position} {fault}"


class ConfigurationReader:
    """Reads statements into a configuration. A group may come after the virtual servers that name it."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._groups: dict[str, Group] = {}
        self._virtuals: list[VirtualServer] = []
        self._marks_packets = False

    def read(self, statements: Iterator[Statement]) -> None:
        """Read a whole text. StatementError if it has no statements."""
        blocks = Blocks(statements, lambda *message: self._configuration.problems.append(message))
        for each in blocks.top():
            if each.words[0] == "virtual_server":
                self._read_virtual(each, blocks)
            elif each.words[0] == "virtual_server_group":
                self._read_group(each, blocks)
            elif each.words[0] == "global_defs" and blocks.has_block():
                self._read_globals(each, blocks)
            else:
                self._leave_out(each, _fault_of(each, imported=True), blocks)
        self._expand()

    def _note(self, statement: Statement, message: str) -> None:
        self._configuration.notes.append((statement.position, f"{statement}: {message}"))

    def _problem(self, statement: Statement, message: str) -> None:
        self._configuration.problems.append((statement.position, f"{statement}: {message}"))

    def _leave_out(self, statement: Statement, fault: str, blocks: Blocks) -> None:
        """Note that a statement is not imported, nor a virtual server in its block."""
        self._note(statement, f"not imported because it {fault}" if fault else "not imported")
        if blocks.has_block():
            for each in blocks.inside(statement):
                if each.words[0] == "virtual_server":
                    self._note(each, f"not imported because it is in the block of {statement}")

    def _read_globals(self, statement: Statement, blocks: Blocks) -> None:
        rest = "not imported"
        for each in blocks.body(statement):
            if each.words[0] == "nftables_ipvs":
                self._marks_packets = True
            elif each.words[0] == "lvs_timeouts":
                rest = "not imported except for lvs_timeouts"
                self._read_timeouts(each)
            blocks.skip(each)
        self._note(statement, rest)

    def _read_timeouts(self, statement: Statement) -> None:
        if fault := _fault_of(statement, imported=True):
            self._note(statement, f"not imported because it {fault}")
            return
        try:
            timeouts = _timeouts(statement, self._configuration.timeouts)
        except ValueError as error:
            self._problem(statement, str(error))
            return
        self._configuration.timeouts = (statement.position, timeouts) if any(timeouts) else None

    def _read_group(self, statement: Statement, blocks: Blocks) -> None:
        if fault := _fault_of(statement, imported=True):
            self._leave_out(statement, fault, blocks)
            return
        name = statement.words[1] if len(statement.words) > 1 else ""
        group = self._groups.setdefault(name, Group(statement))
        if not name or group.statement is not statement:
            at = group.statement.position
            self._problem(statement, f"this group is already defined at {at}" if name else "a group needs a name")
        for each in blocks.body(statement):
            if fault := _fault_of(each, imported=True):
                group.fault = group.fault or _unknown(each, fault)
                continue
            try:
                group.listeners.append(read_listener(each))
            except ValueError as error:
                self._configuration.problems.append((each.position, str(error)))

    def _read_virtual(self, statement: Statement, blocks: Blocks) -> None:
        if fault := _fault_of(statement, imported=True):
            self._leave_out(statement, fault, blocks)
            return
        virtual = VirtualServer(statement)
        self._virtuals.append(virtual)
        try:
            _read_listeners(virtual)
        except ValueError as error:
            virtual.add_problem(statement.position, f"{statement}: {error}")
        for each in blocks.body(statement):
            if each.words[0] == "real_server":
                _read_real(each, virtual, blocks)
            else:
                _read_setting(each, virtual, virtual, VIRTUAL_SETTINGS, blocks)
        virtual.settle_family()

    def _expand(self) -> None:
        rules = 0
        for virtual in self._virtuals:
            listeners = self._listeners(virtual)
            rules += sum(each.services for each in listeners) * (1 + len(virtual.servers))
            if rules > RULES_MAX:
                count = f"{rules:,} services and servers up to here; at most {RULES_MAX:,} are allowed"
                self._problem(virtual.statement, count)
                break
            self._configuration.virtuals.append(self._imported(virtual, listeners))
        used = {each.group for each in self._virtuals}
        for name, group in self._groups.items():
            if name not in used:
                self._note(group.statement, "not imported because no virtual_server uses this group")

    def _listeners(self, virtual: VirtualServer) -> Sequence[Listener]:
        """Return what a virtual server listens on; nothing if keepalived ignores it, or if that is not known."""
        if not virtual.servers:
            virtual.ignored = "it has no real server, as in keepalived"
        elif reason := virtual.sorry_reason():
            virtual.leave_out(reason)
        if not virtual.group:
            return virtual.listeners
        group = self._groups.get(virtual.group)
        if group is None:
            message = f"{virtual.statement}: this virtual_server_group is not defined"
            virtual.add_problem(virtual.position, message)
            return ()
        if group.fault:
            virtual.leave_out(group.fault)
        elif reason := group.problem(virtual.family):
            virtual.ignored = f"keepalived ignores it: {reason}"
        elif self._marks_packets and has_ranges(group.listeners):
            virtual.leave_out("nftables_ipvs makes keepalived listen on a firewall mark of its own instead")
        if len(group.families) == 1 and not virtual.family:
            (virtual.family,) = group.families
        return group.listeners

    def _imported(self, virtual: VirtualServer, listeners: Sequence[Listener]) -> Imported:
        statement = virtual.statement
        services: tuple[Service, ...] = ()
        if not (virtual.fault or virtual.ignored):
            services = tuple(Expansion(virtual, listeners, virtual.family).services())
        # What is not known as a whole may look wrong.
        problems = () if virtual.fault else tuple(dict.fromkeys(virtual.problems))
        notes = tuple(dict.fromkeys(virtual.notes))
        if reason := virtual.fault or virtual.ignored:
            notes = ((statement.position, f"{statement}: not imported because {reason}"),)
        return Imported(statement, services, problems, notes)


def _timeouts(statement: Statement, before: tuple[Position, Timeouts] | None) -> Timeouts:
    """Read `tcp`, `tcpfin` and `udp`, each with its seconds. ValueError if they are wrong."""
    timeouts = before[1] if before else LEAVE_TIMEOUTS
    words = iter(statement.words[1:])
    if len(statement.words) < 3:
        raise ValueError("expected a timeout and its seconds, such as tcp 900")
    for word in words:
        if word not in Timeouts._fields:
            raise ValueError(f'unknown "{word}"; {suggest(word, Timeouts._fields)}')
        timeouts = timeouts._replace(**{word: to_number(word, next(words, ""), 0, TIMEOUT_MAX) or None})
    return timeouts


def _read_listeners(virtual: VirtualServer) -> None:
    """Read what a virtual server listens on from the words after its keyword. ValueError if they are wrong."""
    statement = virtual.statement
    kind = parameter(statement)
    if kind == "group":
        virtual.group = parameter(statement, 2)
    elif kind == FWMARK:
        mark = to_number(FWMARK, parameter(statement, 2), 1, FWMARK_MAX)
        virtual.listeners = (FirewallMark(statement.position, mark),)
    else:
        address, port = read_endpoint(statement.words[1:])
        virtual.listeners = (address_range(statement.position, address, port),)
        virtual.family = family_of(address)


def _read_real(statement: Statement, virtual: VirtualServer, blocks: Blocks) -> None:
    real = RealServerBlock(statement, forwarding=virtual.forwarding)
    if fault := _fault_of(statement, imported=True):
        virtual.leave_out(_unknown(statement, fault))
    else:
        try:
            real.address, real.port = read_endpoint(statement.words[1:])
            virtual.servers.append(real)
        except ValueError as error:
            virtual.add_problem(statement.position, f"{statement}: {error}")
    for each in blocks.body(statement):
        if each.words[0] in _CHECKERS:
            virtual.add_note(each.position, f"{each}: not imported")
            for inner in blocks.inside(each):
                if inner.fault:
                    virtual.leave_out(_unknown(inner, inner.fault))
        else:
            _read_setting(each, real, virtual, REAL_SETTINGS, blocks)
    for problem in threshold_problems(real.upper_threshold, real.lower_threshold):
        virtual.add_problem(statement.position, f"{statement}: {problem.message}")
    if real.address and not real.is_tunnel:
        _settle_family(real, virtual)


def _settle_family(real: RealServerBlock, virtual: VirtualServer) -> None:
    """Give a virtual server the family of its first server, as keepalived does where a server's block ends."""
    virtual.family = virtual.family or real.family
    if virtual.family != real.family:
        other = family_name("::" if virtual.family == "inet6" else "0.0.0.0")
        families = f"{real.address} is {family_name(real.address)} and the service is {other}"
        message = f"{real.statement}: {families}; only a tunnel (TUN) can reach it"
        virtual.add_problem(real.position, message)
        virtual.servers.pop()


def _read_setting(
    statement: Statement, owner: _T, virtual: VirtualServer, settings: Settings[_T], blocks: Blocks
) -> None:
    """Read a setting of a virtual server, or of a real server of it."""
    setting = settings.get(statement.words[0])
    if fault := _fault_of(statement, imported=setting is not None):
        virtual.leave_out(_unknown(statement, fault))
    elif blocks.has_block():
        # keepalived would read its lines as those of the block around it, and end that with its brace.
        virtual.leave_out(_unknown(statement, "has a block, and keepalived knows no such block"))
    elif setting is None:
        virtual.add_note(statement.position, f"{statement}: not imported")
    else:
        try:
            reason = setting(owner, statement)
        except ValueError as error:
            virtual.add_problem(statement.position, str(error))
        else:
            if reason:
                virtual.add_note(statement.position, f"{statement}: {reason}")
    blocks.skip(statement)
