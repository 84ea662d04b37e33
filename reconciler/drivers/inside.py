"""What the drivers for namespaces and machines share: they read and change one kernel namespace, over any channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

from reconciler.model.interface import LOOPBACK, Address, Interface
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.model.sysctl import IP_FORWARD, IP_FORWARD6, Sysctls
from reconciler.netlink import sysctl as sysctls
from reconciler.netlink.channel import ROUTE, Kernel
from reconciler.netlink.engine import Engine
from reconciler.netlink.interface import Link, LinkAddress
from reconciler.netlink.sections import TABLES
from reconciler.operations.segment import Network, Settings, Table

if TYPE_CHECKING:
    from reconciler.model.ipvs import Ipvs
    from reconciler.netlink.ipvs_engine import IpvsEngine
    from reconciler.operations.outcome import Outcome


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

    def ipvs_listing(self) -> str:
        """Return the kernel's own listing of its IPVS table. HostError if the kernel has no IPVS."""
        # Opening the engine loads the module.
        return self.ipvs.kernel.ipvs_listing() or ""

    def observe(
        self, desired: Sandbox, links: list[Link], ours: Mapping[str, OwnedLink], *, quick: bool = False
    ) -> Observed:
        """Read the sandbox. `links` are all links in it; `ours` are those that are ours, by the host's device."""
        addresses = self.engine.addresses()
        indexes = {link.name: link.index for link in links}
        wanted = [table for table in TABLES if table.is_wanted(desired)]
        found = {table.name: table.observe(self.engine, indexes, desired) for table in wanted}
        ours_of: dict[str, Any] = {name: each.ours for name, each in found.items()}
        foreign_of: dict[str, Any] = {name: each.foreign for name, each in found.items()}
        tuned = sysctls.observe(
            self._kernel, desired, {device: owned.link.name for device, owned in ours.items()}, indexes
        )
        interfaces = [
            _interface(device, owned, addresses, tuned.of_nics.get(device, ())) for device, owned in ours.items()
        ]
        observed = Observed(
            sandbox=Sandbox(
                id=desired.id,
                driver=desired.driver,
                sysctls=tuned.of_sandbox,
                interfaces=tuple(interfaces),
                **ours_of,
            ),
            around=replace(_around(links, ours, addresses), sysctls=tuned.along, **foreign_of),
        )
        return observed if desired.ipvs is None else self._with_ipvs(observed, desired.ipvs, quick=quick)

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


def _around(links: list[Link], ours: Mapping[str, OwnedLink], addresses: list[LinkAddress]) -> Surroundings:
    """Return what is known from links and addresses about foreign objects and about the kernel."""
    own = {owned.link.index: owned.link for owned in ours.values()}
    return Surroundings(
        links=frozenset(link.name for link in links if link.index not in own),
        addresses=frozenset((own[a.index].name, a.address) for a in addresses if a.index in own and _is_managed(a)),
        tentative=frozenset(
            (link.name, a.address)
            for a in addresses
            if a.tentative and not a.dad_failed and not _is_managed(a)
            if (link := own.get(a.index)) and link.carrier
        ),
        dad_failed=frozenset((own[a.index].name, a.address) for a in addresses if a.dad_failed and a.index in own),
        local=frozenset(a.address.partition("/")[0] for a in addresses),
        loopback=all(link.up for link in links if link.name == LOOPBACK),
        no_carrier=frozenset(d for d, owned in ours.items() if owned.link.up and not owned.link.carrier),
        kinds={device: owned.link.kind for device, owned in ours.items()},
        hw_addrs=frozenset(link.hw_addr for link in links if link.index not in own),
    )


def _is_managed(address: LinkAddress) -> bool:
    """Return whether the kernel manages an address: link-local, leased, or from a router advertisement."""
    return address.from_kernel or not address.permanent


def _interface(device: str, owned: OwnedLink, addresses: list[LinkAddress], tuned: Sysctls) -> Interface:
    link = owned.link
    return Interface(
        name=link.name,
        device=device,
        hw_addr=link.hw_addr,
        mtu=link.mtu,
        up=link.up,
        queues=owned.queues,
        vhost_user_socket=owned.socket,
        sysctls=tuned,
        addresses=tuple(
            Address(address=a.address, dad=not a.nodad)
            for a in addresses
            if a.index == link.index and not _is_managed(a)
        ),
    )


def release(text: str) -> tuple[int, int]:
    """Return major and minor of a kernel's release, such as (6, 1) of 6.1.0-56-cloud-amd64; 0 for what is no number."""
    major, minor, *_ = [*text.split("."), "0", "0"]
    digits = "".join(filter(str.isdecimal, minor[:4]))
    return int(major) if major.isdecimal() else 0, int(digits or 0)
