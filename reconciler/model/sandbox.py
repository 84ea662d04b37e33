"""A sandbox: which one it is, what should be in it, and what was found in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from reconciler.model.attribute import BY_FIELD, Attributes
from reconciler.model.interface import Interface, LinkState, Origin
from reconciler.model.neighbour import Neighbour
from reconciler.model.release import series
from reconciler.model.route import Route
from reconciler.model.rule import Rule
from reconciler.model.sysctl import Sysctls
from reconciler.model.transport import Transport, UnixSocket, transport
from reconciler.values import NamedTuple, dataclass, field, replace

if TYPE_CHECKING:
    # Most manifests have no checks and no IPVS section.
    from reconciler.model.check import Check
    from reconciler.model.ipvs import Ipvs, Load, ServerKey, Service, ServiceKey
    from reconciler.model.machine import Machine


# Where each virtual machine of our own has a folder of sockets.
SANDBOXES = "/run/reconciler/sandboxes"
# Where sockets are of channels that we plug into machines.
CHANNELS = "/run/reconciler/channels"
NO_PROCESS = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class NetnsAddress:
    """A network namespace of this host: exactly one of name (below /run/netns), path and pid.

    `started`: when the process began that the pid means, in ticks since the boot of the host; NO_PROCESS if that
    process does not exist (any more); None if any process with this pid is meant.
    """

    name: str | None = None
    path: str | None = None
    pid: int | None = None
    started: int | None = None

    def __str__(self) -> str:
        return f"netns {self.name or self.path or f'of pid {self.pid}'}"

    @property
    def shell_word(self) -> str:
        """Return its name for iproute2, after `netns`."""
        return self.name or self.file

    @property
    def file(self) -> str:
        """Return the path of the namespace's file."""
        if self.pid is not None:
            return f"/proc/{self.pid}/ns/net"
        return self.path or f"/run/netns/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmAddress:
    """A virtual machine: one of our own by name, or anyone's by the agent in it.

    `qmp`: the path of the socket of its monitor, if it has one. `agent`: a path, or a URL of `model.transport`.
    `guest_agent`: the socket of QEMU's own agent in it, through which our agent is pushed into the machine where it
    does not answer. With `qmp` and without `agent`, its channel is plugged in as well.
    """

    name: str | None = None
    qmp: str | None = None
    agent: str | None = None
    guest_agent: str | None = None

    def __str__(self) -> str:
        return f"vm {self.name or self.agent or self.qmp}"

    @property
    def file(self) -> str:
        """Return the address of the agent: the path of its socket, or a URL."""
        return self.agent or self.channel or f"{SANDBOXES}/{self.name}/agent.sock"

    @property
    def channel(self) -> str | None:
        """Return the path of the agent's socket if we plug the channel in; None if the machine has one."""
        if self.agent is not None or self.qmp is None:
            return None
        # Few machines have no channel, and the path of their monitor can be as long as this path may be.
        from hashlib import sha256

        return f"{CHANNELS}/{sha256(self.qmp.encode()).hexdigest()[:16]}.sock"

    @property
    def monitor(self) -> str | None:
        """Return the path of the monitor's socket; None if no NIC can be plugged into the machine."""
        return f"{SANDBOXES}/{self.name}/qmp.sock" if self.name else self.qmp

    @property
    def transport(self) -> Transport:
        """Return how the agent is reached."""
        return transport(self.file)

    @property
    def sockets(self) -> tuple[str, ...]:
        """Return the paths of its sockets on this host, that of the agent first, without that of a channel of ours."""
        found = self.transport
        agent = found.path if isinstance(found, UnixSocket) and self.channel is None else None
        paths = (agent, self.monitor, self.guest_agent)
        return tuple(path for path in paths if path is not None)

    @property
    def named_sockets(self) -> dict[str, str]:
        """Return the paths of all sockets that a manifest names, by its fields."""
        if self.name is not None:
            return {"name": self.file}
        found = self.transport
        agent = found.path if isinstance(found, UnixSocket) and self.agent is not None else None
        named = {"qmp": self.qmp, "agent": agent, "guestAgent": self.guest_agent}
        return {field: path for field, path in named.items() if path is not None}

    def place(self, identity: Callable[[str], Hashable]) -> Hashable:
        """Return what all addresses of its agent have in common. `identity`: the same of the path of a socket."""
        found = self.transport
        if isinstance(found, UnixSocket):
            place = identity(found.path)
            return place if found.port is None else (place, found.port)
        return found


LIBVIRT_SYSTEM = "qemu:///system"
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtAddress:
    """A virtual machine of libvirt: a domain by its name or UUID. `uri`: the libvirt of this host that has it.

    `guest_agent`: whether our agent is pushed into it through QEMU's own agent, where it does not answer.
    """

    domain: str
    uri: str = LIBVIRT_SYSTEM
    guest_agent: bool = False

    def __str__(self) -> str:
        return f"libvirt {self.domain}"

    @property
    def uuid(self) -> str | None:
        """Return the UUID in lower case; None if the domain is named by its name."""
        return self.domain.lower() if _UUID.fullmatch(self.domain) else None


KATA_RUNTIME = "/usr/bin/kata-runtime"


@dataclass(frozen=True, slots=True, kw_only=True)
class KataAddress:
    """A container that only the commands of a runtime can reach. `runtime` is the absolute path of that program."""

    id: str
    runtime: str = KATA_RUNTIME

    def __str__(self) -> str:
        return f"kata {self.id}"


# Machines, which the agent in them reaches.
MachineAddress = VmAddress | LibvirtAddress
DriverAddress = NetnsAddress | MachineAddress | KataAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A sandbox and its sections. None: leave alone; (): delete all of ours. `paused`: why `watch` leaves it alone.

    `sysctls` are never deleted: what they do not name is left alone. `checks`: of each change.
    """

    id: str
    driver: DriverAddress
    sysctls: Sysctls | None = None
    interfaces: tuple[Interface, ...] | None = None
    neighbours: tuple[Neighbour, ...] | None = None
    routes: tuple[Route, ...] | None = None
    rules: tuple[Rule, ...] | None = None
    ipvs: Ipvs | None = None
    paused: str = ""
    checks: tuple[Check, ...] = ()


class AttachableDevice(NamedTuple):
    """A device of the host that can be attached: its current name, its queues, and what to restore when it returns.

    `kind`: of link (`tun`, `veth`, … or empty). `mtus`: the least and the largest MTU that it accepts; a largest of
    0: no limit. `physical`: whether there is hardware behind it.
    """

    name: str
    queues: int
    origin: Origin
    kind: str = ""
    mtus: tuple[int, int] = (0, 0)
    physical: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a plan has to respect although no manifest describes it: foreign objects, and properties of the kernel.

    `links`: the names of the sandbox's foreign links, including `lo`.
    `neighbours`, `routes`, `rules`: the foreign ones; empty if the section was not observed.
    `local_table`: the foreign routes of the table `local`. `in_front`: (foreign, ours) routes to one destination, of
    which the kernel takes the foreign one first.
    `addresses`: (NIC, address) that the kernel itself added to our NICs. `states`: device → what the kernel reports of
    the link; empty if that is not known.
    `devices`: the host's devices that can be attached: device → what it is now; None for a saved state.
    `elsewhere`: devices of the manifest that are in another sandbox → that namespace or machine, in words.
    `tentative`, `dad_failed`: (NIC, address) whose duplicate address detection is running, or has found a duplicate.
    `origins`: device → what our NICs were on the host. `kinds`: device → kind of link (`tun`, `veth`, … or empty).
    `mtus`: device → the least and the largest MTU that our NIC accepts; a largest of 0: no limit.
    `unrecorded`: devices of NICs that are adopted, and not recorded yet.
    `unproven`: NIC → what its alias claims that it was on the host, although no record proves that it was given.
    `release`: that of its kernel, as `uname -r` prints it; "" if it is not known.
    `services`: foreign IPVS services. `connections`: how many each server has that no manifest wants.
    `ipvs_listing`: the kernel's own listing of the IPVS table, or that of ipvsadm, if the look has read one.
    `expiring`: a killed run has left `expire_nodest_conn` switched on. `now`: Unix seconds of the look.
    `local`: every address of every link; None if nothing was observed. `forwarding`, `forwarding6`: whether IPv4 and
    IPv6 packets are forwarded; only if IPVS was observed.
    `lacking`: kinds of links that are to be made, and that the kernel does not have.
    `loopback`: whether `lo` is up. `no_carrier`: the devices of our NICs that are up and have no carrier.
    `machine`: what QEMU's monitor reports of a virtual machine. `hw_addrs`: MAC addresses of foreign links.
    `sysctls`: those that the kernel will change along with desired ones, by their names for sysctl(8).
    """

    links: frozenset[str] = frozenset()
    neighbours: tuple[Neighbour, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    local_table: tuple[Route, ...] = ()
    in_front: tuple[tuple[Route, Route], ...] = ()
    addresses: frozenset[tuple[str, str]] = frozenset()
    states: Mapping[str, LinkState] = field(default_factory=lambda: MappingProxyType({}))
    devices: Mapping[str, AttachableDevice] | None = None
    elsewhere: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tentative: frozenset[tuple[str, str]] = frozenset()
    dad_failed: frozenset[tuple[str, str]] = frozenset()
    origins: Mapping[str, Origin] = field(default_factory=lambda: MappingProxyType({}))
    kinds: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    mtus: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))
    unrecorded: frozenset[str] = frozenset()
    unproven: Mapping[str, Origin] = field(default_factory=lambda: MappingProxyType({}))
    release: str = ""
    services: tuple[Service, ...] = ()
    connections: Mapping[tuple[ServiceKey, ServerKey], Load] = field(default_factory=lambda: MappingProxyType({}))
    ipvs_listing: str = ""
    expiring: bool = False
    now: float = 0.0
    local: frozenset[str] | None = None
    forwarding: bool = True
    forwarding6: bool = True
    loopback: bool = True
    lacking: frozenset[str] = frozenset()
    no_carrier: frozenset[str] = frozenset()
    machine: Machine | None = None
    hw_addrs: frozenset[str] = frozenset()
    sysctls: Sysctls = ()

    @property
    def kernel(self) -> tuple[int, int] | None:
        """Return major and minor of the release of the kernel; None if it is not known."""
        return series(self.release) if self.release else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a driver observed: our objects, as a manifest would describe them, and their surroundings."""

    sandbox: Sandbox
    around: Surroundings = field(default_factory=Surroundings)

    def as_desired(self) -> Sandbox:
        """Return a sandbox to which an undo leads: as it was observed, with what changes along.

        NICs to adopt are left out: they are recorded last, and an undo takes that back first.
        """
        had = self.sandbox
        if self.around.unrecorded:
            kept = (each for each in had.interfaces or () if each.device not in self.around.unrecorded)
            had = replace(had, interfaces=tuple(kept))
        if had.interfaces and self.around.states:
            had = replace(had, interfaces=tuple(map(self._whole, had.interfaces)))
        if not self.around.sysctls:
            return had
        return replace(had, sysctls=(*(had.sysctls or ()), *self.around.sysctls))

    def _whole(self, nic: Interface) -> Interface:
        """Return a NIC with all that it has, also what its manifest leaves as it is: it may have to be made anew."""
        state = self.around.states.get(nic.device)
        if state is None:
            return nic
        hw_addr = state.hw_addr if nic.made and not nic.hw_addr else nic.hw_addr
        altnames = nic.altnames if state.altnames is None else state.altnames
        attributes = nic.attributes if state.attributes is None else _attributes(state.attributes)
        return replace(nic, hw_addr=hw_addr, altnames=altnames, attributes=attributes)


def _attributes(found: Attributes) -> Attributes:
    """Return those that a manifest can have, without an alias of ours."""
    return tuple(
        (field, value)
        for field, value in found
        if BY_FIELD[field].is_expressible(value) and not (field == "alias" and Origin.from_alias(str(value)))
    )
