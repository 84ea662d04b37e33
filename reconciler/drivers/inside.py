"""What the drivers for namespaces and machines share: they read and change one kernel namespace, over any channel."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, assert_never

from reconciler.model.address import is_of_ipv4, link_local
from reconciler.model.attribute import Attributes, named, unusual
from reconciler.model.interface import LOOPBACK, Interface, LinkState, Origin
from reconciler.model.made import KINDS, Made, is_made_key, made_key
from reconciler.model.mark import made_name, without_mark
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.model.sysctl import IP_FORWARD, IP_FORWARD6, Sysctls
from reconciler.netlink import made as made_links
from reconciler.netlink import sysctl as sysctls
from reconciler.netlink import turn
from reconciler.netlink.channel import ROUTE, Kernel
from reconciler.netlink.engine import Engine
from reconciler.netlink.interface import Link, LinkAddress
from reconciler.netlink.sections import TABLES, is_ipvs_only
from reconciler.operations.segment import Network, Settings, Table
from reconciler.plan.derived import Derived
from reconciler.values import NamedTuple, replace

if TYPE_CHECKING:
    from reconciler.model.cost import Traffic
    from reconciler.model.ipvs import Ipvs, Service
    from reconciler.netlink.facts import Snapshot
    from reconciler.netlink.ipvs_engine import IpvsEngine
    from reconciler.operations.outcome import Outcome

# Seconds until the kernel has completed a new IPv6 address, even under load; usually it takes a millisecond.
_SETTLE_TIMEOUT = 1.0
_POLL = 0.01
_MAC_LENGTH = len("02:00:00:00:00:01")


class OwnedLink(NamedTuple):
    """A link that is ours, with what only the host knows of it: its queues and its vhost-user socket."""

    link: Link
    queues: int = 0
    socket: str | None = None


class Inside:
    """The links, addresses, routes and IPVS table of one namespace of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        """Open a channel to the kernel."""
        self._kernel = kernel
        self._channel = kernel.open(ROUTE)
        self.engine = Engine(self._channel)
        self._ipvs_engine: IpvsEngine | None = None

    def close(self) -> None:
        """Close the channels to the kernel."""
        if self._ipvs_engine:
            self._ipvs_engine.close()
        self._channel.close()

    @property
    def ipvs(self) -> IpvsEngine:
        """Return the engine of the IPVS table. HostError if the kernel has none."""
        if self._ipvs_engine is None:
            # Most manifests have no IPVS section.
            from reconciler.netlink.ipvs_engine import IpvsEngine

            self._ipvs_engine = IpvsEngine(self._kernel)
        return self._ipvs_engine

    def snapshot(self, devices: Collection[str]) -> Snapshot:
        """Read everything of the namespace, and these devices of the host, as `Driver.snapshot` says."""
        # Only an apply pays for the import.
        from reconciler.netlink.facts import snapshot

        return snapshot(self.engine, devices)

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Read sysctls of the namespace, without those that its kernel does not have."""
        return self._kernel.read_sysctls(names)

    def traffic(self) -> Traffic:
        """Read the connections of the namespace, as `Driver.traffic` says."""
        # Only a plan that can cut connections pays for the import.
        from reconciler.netlink import connections

        return connections.read(self._kernel, self.engine)

    def shield(self, services: Sequence[Service]) -> int:
        """Drop what would reach the own TCP of the machine at services while they are gone; () ends it.

        Return how many are protected. HostError if the kernel has no nf_tables. See `netlink.shield`.
        """
        from reconciler.netlink import shield

        channel = self.ipvs.conntrack
        if not services:
            shield.remove(channel, self.ipvs.next_sequence)
            return 0
        local = {each.address.partition("/")[0] for each in self.engine.addresses()}
        return shield.install(channel, services, local, self.ipvs.next_sequence)

    def ipvs_listing(self) -> str:
        """Return the kernel's own listing of its IPVS table. HostError if the kernel has no IPVS."""
        # Opening the engine loads the module.
        return self.ipvs.kernel.ipvs_listing() or ""

    def observe(
        self, desired: Sandbox, links: list[Link], ours: Mapping[str, OwnedLink], *, quick: bool = False
    ) -> Observed:
        """Read the sandbox. `links` are all links in it; `ours` are those of the host that are ours, by their devices.

        Links that are made in it and to be adopted are among `ours`, by their keys.

        The kernel completes a new IPv6 address a moment after it has added it: wait for that.
        """
        ours = {**ours, **_made_here(links, ours, desired)}
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        # Of an IPVS table, warnings about its services need them.
        needs_addresses = not is_ipvs_only(desired) or bool(desired.ipvs and desired.ipvs.services)
        while True:
            addresses = self.engine.addresses() if needs_addresses else None
            observed = self._look(desired, links, ours, addresses)
            incomplete = desired.interfaces is not None and Derived((), observed).is_incomplete()
            if not incomplete or time.monotonic() > deadline:
                break
            turn.sleep(_POLL)
        return observed if desired.ipvs is None else self._with_ipvs(observed, desired.ipvs, quick=quick)

    def _look(
        self, desired: Sandbox, links: list[Link], ours: Mapping[str, OwnedLink], found: list[LinkAddress] | None
    ) -> Observed:
        addresses = found or []
        indexes = {link.name: link.index for link in links}
        wanted = [table for table in TABLES if table.is_wanted(desired)]
        tables = {table.name: table.observe(self.engine, indexes, desired) for table in wanted}
        ours_of: dict[str, Any] = {name: each.ours for name, each in tables.items()}
        foreign_of: dict[str, Any] = {name: each.foreign for name, each in tables.items()}
        around_of: dict[str, Any] = {name: value for each in tables.values() for name, value in each.around.items()}
        tuned = sysctls.observe(
            self._kernel, desired, {device: owned.link.name for device, owned in ours.items()}, indexes
        )
        wishes = {wish.device: wish for wish in desired.interfaces or ()}
        place = _Place({link.index: link for link in links}, frozenset(each.link.index for each in ours.values()))
        by_link: dict[int, list[LinkAddress]] = {}
        for address in addresses:
            by_link.setdefault(address.index, []).append(address)
        nics = {
            device: _Nic.of(owned, by_link.get(owned.link.index, []), wishes.get(device), place)
            for device, owned in ours.items()
        }
        return Observed(
            sandbox=Sandbox(
                id=desired.id,
                driver=desired.driver,
                sysctls=tuned.of_sandbox,
                interfaces=tuple(nic.to_model(device, tuned.of_nics.get(device, ())) for device, nic in nics.items()),
                **ours_of,
            ),
            around=_around(
                links,
                nics,
                found,
                sysctls=tuned.along,
                lacking=self._lacking(desired, ours),
                **around_of,
                **foreign_of,
            ),
        )

    def _lacking(self, desired: Sandbox, ours: Mapping[str, OwnedLink]) -> frozenset[str]:
        """Return the kinds of links that are to be made and that the kernel does not have, even as a module."""
        kinds = {each.made.kind for each in desired.interfaces or () if each.made and each.device not in ours}
        return frozenset(kind for kind in kinds if self.engine.lacks(kind))

    def _with_ipvs(self, observed: Observed, desired: Ipvs, *, quick: bool) -> Observed:
        if desired == type(desired)() and not self._kernel.read_sysctls(["net.ipv4.vs.conntrack"]):
            # The section asks for nothing in particular, and a look would load the module.
            return observed
        table = self.ipvs.observe(desired, quick=quick)
        forwarding = self._kernel.read_sysctls([IP_FORWARD, IP_FORWARD6])
        around = replace(
            observed.around,
            services=tuple(table.foreign),
            connections=table.connections,
            ipvs_listing=table.listing,
            expiring=table.expiring,
            now=table.now,
            forwarding=forwarding.get(IP_FORWARD) != "0",
            forwarding6=forwarding.get(IP_FORWARD6) != "0",
        )
        return Observed(sandbox=replace(observed.sandbox, ipvs=table.ipvs), around=around)

    def execute(self, segment: Network | Settings | Table) -> Iterator[list[Outcome]]:
        """Execute a segment within the namespace; yield the outcomes batch by batch.

        In a segment of the network, nothing is executed after a batch with a failure.
        A segment of the IPVS table goes on.
        """
        # Only an apply pays for the imports.
        match segment:
            case Table():
                from reconciler.netlink import ipvs_execute

                return ipvs_execute.execute(self.ipvs, segment.operations)
            case Network():
                from reconciler.netlink import execute

                indexes = {link.name: link.index for link in self.engine.links()}
                return execute.execute(self.engine, segment.operations, indexes)
            case Settings():
                return sysctls.execute(self._kernel, segment.operations)
            case _:
                assert_never(segment)


class _Place(NamedTuple):
    """All links of the sandbox by their index, and which of them are ours."""

    links: Mapping[int, Link]
    own: frozenset[int]


def _made_here(links: list[Link], ours: Mapping[str, OwnedLink], desired: Sandbox) -> dict[str, OwnedLink]:
    """Return the links that we made in the sandbox, by their keys, and those that an undo leaves to their owners."""
    given = {each.link.index for each in ours.values()}
    left = {each.key for each in desired.interfaces or () if not each.marked}
    found: dict[str, OwnedLink] = {}
    for link in links:
        name = made_name(link.altnames) or (link.name if made_key(link.kind, link.name) in left else "")
        if name and link.kind in KINDS and link.index not in given:
            found[made_key(link.kind, name)] = OwnedLink(link)
    return found


class _Nic(NamedTuple):
    """A link that is ours, its addresses, what a manifest wishes for, and the labels of the addresses in that."""

    owned: OwnedLink
    addresses: list[LinkAddress]
    wish: Interface | None
    labels: Mapping[str, str | None]
    place: _Place

    @classmethod
    def of(cls, owned: OwnedLink, addresses: list[LinkAddress], wish: Interface | None, place: _Place) -> Self:
        """Return a link of ours."""
        return cls(owned, addresses, wish, {each.key: each.label for each in wish.addresses} if wish else {}, place)

    def is_managed(self, address: LinkAddress) -> bool:
        """Return whether the kernel manages an address: link-local, from a router advertisement, or leased.

        A desired address is ours even if it was given a lifetime: it would go with its end.
        """
        if address.from_kernel or address.address == self._link_local():
            return True
        of_sit = self.owned.link.kind == "sit" and is_of_ipv4(address.address)
        return (of_sit or not address.permanent) and address.key not in self.labels

    def _link_local(self) -> str:
        """Return the link-local address that the kernel makes of the MAC address; a person may have added it again."""
        hw_addr = self.owned.link.hw_addr
        return link_local(hw_addr) if len(hw_addr) == _MAC_LENGTH else ""

    def managed(self) -> list[LinkAddress]:
        """Return the addresses that the kernel manages."""
        return [each for each in self.addresses if self.is_managed(each)]

    def tentative(self) -> list[LinkAddress]:
        """Return our addresses whose duplicate address detection will end, as the link has a carrier."""
        return [
            each
            for each in self.addresses
            if each.tentative and not each.dad_failed and self.owned.link.carrier and not self.is_managed(each)
        ]

    def state(self) -> LinkState:
        """Return the state of the link, with what its addresses and the link that it is a port of tell."""
        link, master = self.owned.link, self._master()
        is_port_of_vrf = bool(master and master.kind == "vrf")
        routed = master if is_port_of_vrf else link if link.kind == "vrf" else None
        return link.state._replace(
            # The kernel gives a VRF neither a link-local address nor a route to multicast (net/ipv6/addrconf.c).
            ipv6=link.state.ipv6 and link.kind != "vrf",
            master=master.name if master and master.index not in self.place.own else "",
            vrf=is_port_of_vrf and not (master and master.index in self.place.own),
            table=int(dict(_made(routed, "").options).get("table", 0)) if routed else 0,
            hw_addr=link.hw_addr,
            attributes=link.attributes,
            altnames=without_mark(link.altnames),
            unsettled=frozenset(each.address for each in self.addresses if each.tentative or each.dad_failed),
        )

    def to_model(self, device: str, tuned: Sysctls) -> Interface:
        """Return the interface as a manifest would describe it. What that leaves to the kernel is left out."""
        link, wish = self.owned.link, self.wish
        is_made = is_made_key(device)
        below = self.place.links.get(link.link) if link.peer_namespace is None else None
        return Interface(
            name=link.name,
            device=device,
            hw_addr="" if is_made and wish and not wish.hw_addr else link.hw_addr,
            mtu=0 if is_made and wish and not wish.mtu else link.mtu,
            made=_made(link, below.name if below else "") if is_made else None,
            master=self._port_of(),
            marked=not is_made or bool(made_name(link.altnames)),
            up=link.up,
            queues=self.owned.queues,
            vhost_user_socket=self.owned.socket,
            sysctls=tuned,
            attributes=named(link.attributes, dict(wish.attributes)) if wish else _unusual(link),
            altnames=self._altnames(),
            addresses=tuple(each.to_model(link, self.labels) for each in self.addresses if not self.is_managed(each)),
        )

    def _altnames(self) -> tuple[str, ...] | None:
        """Return the alternative names, if a manifest wants some, or if none has the link."""
        found = without_mark(self.owned.link.altnames)
        return found if (self.wish.altnames is not None if self.wish else found) else None

    def _master(self) -> Link | None:
        return self.place.links.get(self.owned.link.master)

    def _port_of(self) -> str:
        """Return the name of the link that it is a port of, if that is ours, or if it should be another one."""
        master = self._master()
        if master is None or not (master.index in self.place.own or (self.wish and self.wish.master)):
            return ""
        return master.name


def _unusual(link: Link) -> Attributes:
    """Return the unusual attributes of a link that no manifest wants, without an alias of ours."""
    is_ours = Origin.from_alias(link.alias) is not None
    # No ARP is unusual only where there are MAC addresses to ask for.
    left_out = [*["alias"] * is_ours, *["arp"] * (not link.ethernet)]
    return tuple(each for each in unusual(link.attributes) if each[0] not in left_out)


def _made(link: Link, below: str) -> Made:
    return made_links.decode(link.kind, link.data, below if KINDS[link.kind].on_link else "")


def _around(
    links: list[Link], nics: Mapping[str, _Nic], addresses: list[LinkAddress] | None, **others: Any
) -> Surroundings:
    """Return what is known from links and addresses about foreign objects and about the kernel, and `others`."""
    own = {nic.owned.link.index for nic in nics.values()}
    names = [(nic.owned.link.name, nic) for nic in nics.values()]
    return Surroundings(
        links=frozenset(link.name for link in links if link.index not in own),
        addresses=frozenset((name, each.address) for name, nic in names for each in nic.managed()),
        tentative=frozenset((name, each.key) for name, nic in names for each in nic.tentative()),
        dad_failed=frozenset((name, each.key) for name, nic in names for each in nic.addresses if each.dad_failed),
        local=None if addresses is None else frozenset(a.address.partition("/")[0] for a in addresses),
        loopback=all(link.up for link in links if link.name == LOOPBACK),
        no_carrier=frozenset(d for d, nic in nics.items() if nic.owned.link.up and not nic.owned.link.carrier),
        kinds={device: nic.owned.link.kind for device, nic in nics.items()},
        states={device: nic.state() for device, nic in nics.items()},
        hw_addrs=frozenset(link.hw_addr for link in links if link.index not in own),
        **others,
    )
