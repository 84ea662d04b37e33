"""A virtual server of a keepalived.conf as far as it has been read."""

from __future__ import annotations

from reconciler.formats.keepalived.listener import Listener
from reconciler.formats.keepalived.statements import Position, Statement
from reconciler.formats.keepalived.value import INET, family_of
from reconciler.values import NamedTuple, dataclass, field


class Forwarding(NamedTuple):
    """How packets reach a server: `nat`, `dr`, or a tunnel with its type, port and checksum."""

    method: str = "nat"
    tun_type: str = "ipip"
    tun_port: int = 0
    tun_checksum: str = "none"


@dataclass(slots=True)
class RealServerBlock:
    """A real server as far as it has been read.

    A `port` of 0, and a `weight` and `forwarding` of None, stand for those of the virtual server.
    """

    statement: Statement
    address: str = ""
    port: int = 0
    weight: int | None = None
    upper_threshold: int = 0
    lower_threshold: int = 0
    forwarding: Forwarding | None = None

    @property
    def position(self) -> Position:
        """Return where it begins."""
        return self.statement.position

    @property
    def family(self) -> str:
        """Return `inet` or `inet6`."""
        return family_of(self.address)

    @property
    def is_tunnel(self) -> bool:
        """Return whether it is known by now that a tunnel leads to it. It may then have another family."""
        return self.forwarding is not None and self.forwarding.method == "tunnel"


@dataclass(slots=True)
class VirtualServer:
    """A virtual server as far as it has been read. It has `listeners`, or the name of a `group` that has them.

    `scheduler_flags` are bits. `forwarding` is None and `family` is "" until a line sets them. `netmask`, `engine` and
    `ops` are the statements that set them. `keeps_sorry`: the sorry server stays, with weight 0. `problems` and `notes`
    are about lines of it. `fault`: why nobody knows here what it is. `ignored`: why keepalived ignores it.
    """

    statement: Statement
    listeners: tuple[Listener, ...] = ()
    group: str = ""
    protocol: str = ""
    scheduler: str = ""
    scheduler_flags: set[int] = field(default_factory=set)
    forwarding: Forwarding | None = None
    persistent: int = 0
    netmask: Statement | None = None
    engine: Statement | None = None
    ops: Statement | None = None
    family: str = ""
    weight: int = 1
    servers: list[RealServerBlock] = field(default_factory=list)
    sorry: RealServerBlock | None = None
    keeps_sorry: bool = False
    quorum: int = 1
    hysteresis: int = 0
    fault: str = ""
    ignored: str = ""
    problems: list[tuple[Position, str]] = field(default_factory=list)
    notes: list[tuple[Position, str]] = field(default_factory=list)

    @property
    def position(self) -> Position:
        """Return where it begins."""
        return self.statement.position

    def add_problem(self, position: Position, message: str) -> None:
        """Add what is wrong on a line."""
        self.problems.append((position, message))

    def add_note(self, position: Position, message: str) -> None:
        """Add what is not imported, or what keepalived makes of something."""
        self.notes.append((position, message))

    def leave_out(self, fault: str) -> None:
        """Note why it cannot be imported. The first reason stays."""
        self.fault = self.fault or fault

    def settle_family(self) -> None:
        """Choose the family that keepalived chooses at the end of the block, if no line has set one."""
        if self.family:
            return
        if self.sorry and not self.sorry.is_tunnel:
            self.family = self.sorry.family
        elif not self.group:
            families = {each.family for each in (self.sorry, *self.servers) if each}
            self.family = families.pop() if len(families) == 1 else INET

    def sorry_reason(self) -> str:
        """Return why keepalived has the sorry server in the table although all servers are up; "" if it has not."""
        if self.sorry is None:
            return ""
        if self.keeps_sorry:
            return "sorry_server_inhibit keeps its sorry_server in the table"
        weight = sum(self.weight if each.weight is None else each.weight for each in self.servers)
        quorum = min(self.quorum, weight)
        if quorum and weight >= quorum + min(self.hysteresis, quorum - 1):
            return ""
        return f"all its servers have a weight of {weight} and so no quorum, and keepalived takes its sorry_server"
