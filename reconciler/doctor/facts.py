"""What was looked at: values that checks compare. Nothing here reads anything.

None stands for what could not be looked at. Then `Unknown` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Any

from reconciler.manifest.load import Manifest
from reconciler.model.address import contains
from reconciler.model.interface import LOOPBACK, address_key
from reconciler.model.route import Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import DriverAddress, Observed, Sandbox
from reconciler.values import NamedTuple, dataclass, field

HOST, WATCHER = "host", "watcher"
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Unknown(NamedTuple):
    """What could not be looked at, and why. `beyond`: no run of reconciler can look at it there, whoever runs it."""

    about: str
    what: str
    why: str
    beyond: bool = False


class Port(NamedTuple):
    """A port of a bridge. `state` is that of STP (linux/if_bridge.h); `broadcasts`: whether it gets broadcasts.

    `multicasts` likewise. `locked`: it passes only senders that are listed. `isolated`: it passes nothing to its like.
    `vlans`: the VLANs that it passes; None if they were not listed. `untagged`: the VLAN of untagged packets, 0: none.
    """

    state: int = 3
    broadcasts: bool = True
    multicasts: bool = True
    locked: bool = False
    isolated: bool = False
    vlans: frozenset[int] | None = None
    untagged: int = 0


class Link(NamedTuple):
    """A link.

    `peer` is the index of its other end or of the link below it, and `peer_namespace` the number of its
    namespace as this namespace knows it; None: this one. `master` is the index of the bridge or bond that it is in.

    `qdisc` is the kind of its root queue. `xdp`: whether a program filters its packets. `held`: `protodown`.
    `vlan_filtering`: of a bridge. `port`: of a port of one. `physical`: whether there is hardware behind it.
    """

    number: int
    name: str
    kind: str = ""
    hw_addr: str = ""
    mtu: int = 1500
    up: bool = True
    carrier: bool = True
    arp: bool = True
    ethernet: bool = True
    held: bool = False
    master: int = 0
    peer: int = 0
    peer_namespace: int | None = None
    qdisc: str = ""
    xdp: bool = False
    vlan_filtering: bool = False
    port: Port | None = None
    physical: bool = False


class Address(NamedTuple):
    """An address with its prefix length, on the link of this name. IPv6: `dad_failed` if another host has it."""

    link: str
    address: str
    tentative: bool = False
    dad_failed: bool = False
    deprecated: bool = False
    peer: str | None = None

    @property
    def key(self) -> str:
        """Return it with its peer, in the words of ip(8)."""
        return address_key(self.address, self.peer)

    @property
    def host(self) -> str:
        """Return it without its prefix length."""
        return self.address.partition("/")[0]

    @property
    def length(self) -> int:
        """Return its prefix length."""
        return int(self.address.partition("/")[2])


class NeighbourState(Enum):
    """The states that say something, by NUD_* of linux/neighbour.h."""

    INCOMPLETE = 0x01
    REACHABLE = 0x02
    STALE = 0x04
    DELAY = 0x08
    PROBE = 0x10
    FAILED = 0x20
    NOARP = 0x40
    PERMANENT = 0x80


UNANSWERED = frozenset({NeighbourState.FAILED, NeighbourState.INCOMPLETE})


class Neighbour(NamedTuple):
    """An entry of a neighbour table."""

    link: str
    address: str
    hw_addr: str
    state: NeighbourState | None


class Forward(NamedTuple):
    """A static entry of a bridge: it sends packets to a MAC address to the port of this number."""

    hw_addr: str
    port: int


class Drop(NamedTuple):
    """A rule of nftables or iptables-nft that drops, or the policy of a base chain that does.

    `hook` is where packets meet it, such as `forward`. `always`: no condition stands before the verdict; of a policy,
    the chain accepts nothing. `mentions`: bytes that its conditions compare with, such as addresses and names.
    `packets`: how many it has dropped, if it counts them. `number`: the place of the rule in its chain, from 1 on.
    """

    family: str
    table: str
    chain: str
    hook: str
    always: bool
    is_policy: bool = False
    handle: int = 0
    mentions: tuple[bytes, ...] = ()
    packets: int = 0
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network of one namespace of a kernel. `settings`: sysctls, by their names.

    `firewall`: what drops packets; None if that could not be read.
    """

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    forwards: tuple[Forward, ...] = ()
    settings: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    firewall: tuple[Drop, ...] | None = None

    @cached_property
    def by_name(self) -> Mapping[str, Link]:
        """Return the links by their names."""
        return {each.name: each for each in self.links}

    @cached_property
    def by_index(self) -> Mapping[int, Link]:
        """Return the links by their indexes."""
        return {each.number: each for each in self.links}

    @cached_property
    def hosts(self) -> Mapping[str, Address]:
        """Return the addresses of its links, by their text without length. The first link with an address counts."""
        return {each.host: each for each in reversed(self.addresses)}

    @cached_property
    def ports(self) -> Mapping[int, tuple[Link, ...]]:
        """Return the ports of each bridge, by its index."""
        found: dict[int, list[Link]] = {}
        for each in self.links:
            if each.master:
                found.setdefault(each.master, []).append(each)
        return {bridge: tuple(each) for bridge, each in found.items()}

    @cached_property
    def uplinks(self) -> Mapping[int, tuple[Link, ...]]:
        """Return the ports of each bridge that are hardware, by its index."""
        return {bridge: tuple(each for each in ports if each.physical) for bridge, ports in self.ports.items()}

    @cached_property
    def _addresses_of(self) -> Mapping[str, list[Address]]:
        found: dict[str, list[Address]] = {}
        for each in self.addresses:
            found.setdefault(each.link, []).append(each)
        return found

    @cached_property
    def _entries(self) -> Mapping[tuple[str, str], Neighbour]:
        return {(each.link, each.address): each for each in self.neighbours}

    def of(self, link: str) -> Iterator[Address]:
        """Yield the addresses of a link."""
        return iter(self._addresses_of.get(link, ()))

    def facing(self, link: str, gateway: str) -> str:
        """Return the address that makes the other end of a link its gateway, in the words of ip(8)."""
        for each in self.of(link):
            if each.peer == gateway:
                return address_key(f"{gateway}/{each.length}", each.host)
            if contains(each.address, gateway):
                return f"{gateway}/{each.length}"
        return gateway

    def neighbour(self, link: str, address: str) -> Neighbour | None:
        """Return the entry of an address on a link; None if there is none."""
        return self._entries.get((link, address))

    def number(self, setting: str) -> int | None:
        """Return a sysctl as a number; None if it could not be read."""
        text = self.settings.get(setting, "")
        return int(text) if text.isdecimal() else None

    @property
    def nics(self) -> Iterator[Link]:
        """Yield the links without `lo`."""
        return (each for each in self.links if each.name != LOOPBACK)


class Usage(NamedTuple):
    """How much of something there is, and how much of it is used."""

    used: int
    most: int

    @property
    def share(self) -> float:
        """Return which share is used."""
        return self.used / self.most if self.most > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Host:
    """The host that this runs on; None for what is not known.

    `lacking`: the capabilities that root lacks here. `release`: major and minor of its kernel. `tun`, `kvm`, `qemu`:
    why these cannot be used, or "". `space`: of file systems, in bytes and in files. `instances`, `watches`: those of
    inotify that this user has. `descriptors`: the most that a process started like this one can have. `folder_mode`:
    that of our folder below /run. `files`, `processes`: of the whole host. `synchronised`: whether something keeps the
    clock right. `ipvs`: whether IPVS is loaded, or can be.
    """

    root: bool
    lacking: tuple[str, ...] = ()
    release: tuple[int, int]
    tun: str = ""
    kvm: str = ""
    qemu: str = ""
    network: Network = field(default_factory=Network)
    space: Mapping[str, tuple[Usage, Usage]] = field(default_factory=lambda: _NOTHING)
    instances: Usage | None = None
    watches: Usage | None = None
    descriptors: int | None = None
    folder_mode: int | None = None
    files: Usage | None = None
    processes: Usage | None = None
    conntrack: Usage | None = None
    synchronised: bool | None = None
    ipvs: bool | None = None
    unknown: tuple[Unknown, ...] = ()


class Running(Enum):
    """Whether a watcher runs on this host."""

    YES = "yes"
    NO = "no"
    # Its socket is there, and nobody serves it: it was killed.
    KILLED = "killed"
    # It does not answer.
    SILENT = "silent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """The watcher. `data` is what it says of itself (`Watcher.to_data`); `words` is why it says nothing.

    `enabled`: systemd would start it. `started`: Unix seconds; `policy_changed`: when the file of the operator's policy
    was changed, `installed` when the program was. `descriptors`: those that its processes have open, by their IDs.
    """

    running: Running
    words: str = ""
    data: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    enabled: bool = False
    pid: int = 0
    started: float = 0.0
    policy_changed: float = 0.0
    installed: float = 0.0
    descriptors: Mapping[int, Usage] = field(default_factory=dict)
    now: float = 0.0


class Trouble(Enum):
    """Why a sandbox could not be opened or read."""

    MISSING = "missing"
    BUSY = "busy"
    SILENT = "silent"
    REFUSED = "refused"
    # Of a domain: libvirt's binding is missing, libvirtd does not run, the agent has no channel, or can have none.
    NO_BINDING, NO_LIBVIRT = "no binding", "no libvirt"
    NO_CHANNEL, NO_CONTROLLER = "no channel", "no controller"
    FAILED = "failed"
    # This user may not look.
    HIDDEN = "hidden"


class Failure(NamedTuple):
    """Why something failed, in the words of the error."""

    trouble: Trouble
    words: str


@dataclass(frozen=True, kw_only=True)
class Box:
    """A sandbox. `network` is what is inside; None if that could not be read, for the reason in `failure`.

    `drift`: the commands with which `apply` would make it match its manifest; None if that could not be found out, for
    the reason in `no_plan`. `host_number`: the number by which the sandbox's namespace knows the host's.
    `state`: of a machine, as QEMU says. `ipvs`: whether its kernel has IPVS loaded. `modules`: those of its kernel that
    are loaded or could be; None: unknown.
    """

    sandbox: Sandbox
    manifest: Manifest | None = None
    network: Network | None = None
    failure: Failure | None = None
    observed: Observed | None = None
    drift: tuple[str, ...] | None = None
    no_plan: Failure | None = None
    host_number: int | None = None
    state: str = ""
    ipvs: bool | None = None
    modules: frozenset[str] | None = None
    conntrack: Usage | None = None
    unknown: tuple[Unknown, ...] = ()

    @property
    def id(self) -> str:
        """Return its ID."""
        return self.sandbox.id

    @property
    def driver(self) -> DriverAddress:
        """Return its address."""
        return self.sandbox.driver

    @property
    def file(self) -> str:
        """Return the file of its manifest; "" without one."""
        return self.manifest.file if self.manifest else ""


class Broken(NamedTuple):
    """A manifest that is wrong, in words. `readable`: its file could be read."""

    words: str
    file: str
    readable: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that was looked at. `policy`: what is wrong with the operator's policy, or ""."""

    host: Host
    watcher: Watcher
    boxes: tuple[Box, ...] = ()
    broken: tuple[Broken, ...] = ()
    policy: str = ""
