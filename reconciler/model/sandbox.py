"""A sandbox: which one it is, what should be in it, and what was found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from reconciler.model.interface import Interface, Origin
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import Route
from reconciler.model.rule import Rule

if TYPE_CHECKING:
    # Most manifests say nothing of IPVS.
    from reconciler.model.ipvs import Ipvs, ServerKey, Service, ServiceKey
    from reconciler.model.machine import Machine


# Where each virtual machine of our own has a folder of sockets.
SANDBOXES = "/run/reconciler/sandboxes"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetnsAddress:
    """A network namespace of this host: exactly one of name (below /run/netns), path and pid."""

    name: str | None = None
    path: str | None = None
    pid: int | None = None

    def __str__(self) -> str:
        return f"netns {self.name or self.path or f'of pid {self.pid}'}"

    @property
    def shell_word(self) -> str:
        """How iproute2 names it after `netns`."""
        return self.name or self.file

    @property
    def file(self) -> str:
        """The namespace's file."""
        if self.pid is not None:
            return f"/proc/{self.pid}/ns/net"
        return self.path or f"/run/netns/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmAddress:
    """A virtual machine: one of our own by name, or anyone's by the sockets of its monitor (QMP) and of the agent in it."""

    name: str | None = None
    qmp: str | None = None
    agent: str | None = None

    def __str__(self) -> str:
        return f"vm {self.name or self.agent}"

    @property
    def file(self) -> str:
        """The socket of the agent."""
        return self.agent or f"{SANDBOXES}/{self.name}/agent.sock"

    @property
    def monitor(self) -> str:
        """The socket of its monitor."""
        return self.qmp or f"{SANDBOXES}/{self.name}/qmp.sock"


KATA_RUNTIME = "/usr/bin/kata-runtime"


@dataclass(frozen=True, slots=True, kw_only=True)
class KataAddress:
    """A container that is only reached by commands of a runtime, a program by its absolute path."""

    id: str
    runtime: str = KATA_RUNTIME

    def __str__(self) -> str:
        return f"kata {self.id}"


DriverAddress = NetnsAddress | VmAddress | KataAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A sandbox and its sections. None: leave alone; (): none of ours. `paused`: why `watch` leaves it alone."""

    id: str
    driver: DriverAddress
    interfaces: tuple[Interface, ...] | None = None
    neighbours: tuple[Neighbour, ...] | None = None
    routes: tuple[Route, ...] | None = None
    rules: tuple[Rule, ...] | None = None
    ipvs: Ipvs | None = None
    paused: str = ""


class HostDevice(NamedTuple):
    """A device of the host that a sandbox may be given: its current name, its queues, and what to give back."""

    name: str
    queues: int
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a plan has to respect and no manifest says: what others own, and what the kernel can do.

    `links`: the names of the sandbox's other links, `lo` among them. `neighbours`, `routes`, `rules`: those of other
    protocols; of a section that was not observed, none.
    `addresses`: (NIC, address) that the kernel gave our NICs itself.
    `devices`: the host's devices that may be given: device → what it is now; None where only a saved state is known.
    `tentative`, `dad_failed`: (NIC, address) whose duplicate address detection goes on, or found a duplicate.
    `origins`: device → what our NICs were on the host. `kinds`: device → kind of link (`tun`, `veth`, … or empty).
    `kernel`: its release, major and minor, if known.
    `services`: IPVS services of others. `connections`: of servers that no manifest wants, how many there are.
    `expiring`: a run that was killed has left the kernel expiring connections. `now`: Unix seconds of the look.
    `local`: every address of every link, `forwarding`: whether IPv4 packets are forwarded; both only where IPVS is
    looked at.
    `machine`: what its monitor says of a virtual machine. `hw_addrs`: MAC addresses of links that are not ours.
    """

    links: frozenset[str] = frozenset()
    neighbours: tuple[Neighbour, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    addresses: frozenset[tuple[str, str]] = frozenset()
    devices: Mapping[str, HostDevice] | None = None
    tentative: frozenset[tuple[str, str]] = frozenset()
    dad_failed: frozenset[tuple[str, str]] = frozenset()
    origins: Mapping[str, Origin] = field(default_factory=lambda: MappingProxyType({}))
    kinds: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    kernel: tuple[int, int] | None = None
    services: tuple[Service, ...] = ()
    connections: Mapping[tuple[ServiceKey, ServerKey], int] = field(default_factory=lambda: MappingProxyType({}))
    expiring: bool = False
    now: float = 0.0
    local: frozenset[str] | None = None
    forwarding: bool = True
    machine: Machine | None = None
    hw_addrs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a driver found: our part of the sandbox as a manifest would say it, and what surrounds it."""

    sandbox: Sandbox
    around: Surroundings = field(default_factory=Surroundings)
