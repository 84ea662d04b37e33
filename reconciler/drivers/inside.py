"""What all drivers do alike, once they are inside: read and change one kernel namespace, over any channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

from reconciler.model.interface import Address, Interface
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.netlink.channel import ROUTE, Kernel
from reconciler.netlink.engine import Engine
from reconciler.netlink.interface import Link, LinkAddress
from reconciler.netlink.sections import TABLES
from reconciler.operations.segment import Network, Table

if TYPE_CHECKING:
    from reconciler.model.ipvs import Ipvs
    from reconciler.netlink.ipvs_engine import IpvsEngine
    from reconciler.operations.outcome import Outcome


class Given(NamedTuple):
    """A link that is ours, and what of it only the host's side knows."""

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
        """Let the namespace go."""
        if self._ipvs_engine:
            self._ipvs_engine.close()
        self._channel.close()

    @property
    def ipvs(self) -> IpvsEngine:
        """The engine of the IPVS table. HostError if the kernel has none."""
        if self._ipvs_engine is None:
            # Most manifests say nothing of IPVS.
            from reconciler.netlink.ipvs_engine import IpvsEngine

            self._ipvs_engine = IpvsEngine(self._kernel)
        return self._ipvs_engine

    def ipvs_listing(self) -> str:
        """Give the kernel's own listing of its IPVS table; HostError if it has none."""
        # The engine has the module loaded.
        return self.ipvs.kernel.ipvs_listing() or ""

    def observe(
        self, desired: Sandbox, links: list[Link], ours: Mapping[str, Given], *, quick: bool = False
    ) -> Observed:
        """Read what there is. `links` are all that there are, `ours` those that are ours, by the host's device."""
        addresses = self.engine.addresses()
        indexes = {link.name: link.index for link in links}
        wanted = [table for table in TABLES if table.is_wanted(desired)]
        found = {table.name: table.observe(self.engine, indexes, desired) for table in wanted}
        ours_of: dict[str, Any] = {name: each.ours for name, each in found.items()}
        foreign_of: dict[str, Any] = {name: each.foreign for name, each in found.items()}
        interfaces = [_interface(device, given, addresses) for device, given in ours.items()]
        observed = Observed(
            sandbox=Sandbox(
                id=desired.id,
                driver=desired.driver,
                interfaces=tuple(interfaces),
                **ours_of,
            ),
            around=replace(_around(links, ours, addresses), **foreign_of),
        )
        local = frozenset(a.address.partition("/")[0] for a in addresses)
        return observed if desired.ipvs is None else self._with_ipvs(observed, desired.ipvs, local, quick=quick)

    def _with_ipvs(self, observed: Observed, desired: Ipvs, local: frozenset[str], *, quick: bool) -> Observed:
        if desired == type(desired)() and self._kernel.sysctl("net.ipv4.vs.conntrack") is None:
            # Nothing in particular is asked for, and a look would load the module.
            return observed
        table = self.ipvs.observe(desired, quick=quick)
        around = replace(
            observed.around,
            services=tuple(table.foreign),
            connections=table.connections,
            expiring=table.expiring,
            now=table.now,
            local=local,
            forwarding=self._kernel.sysctl("net.ipv4.ip_forward") != "0",
        )
        return Observed(sandbox=replace(observed.sandbox, ipvs=table.ipvs), around=around)

    def execute(self, segment: Network | Table) -> Iterator[list[Outcome]]:
        """Execute a segment within the namespace; yield the outcomes batch by batch.

        A failure ends a segment of the network after its batch, and none of the table.
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
            case _:
                assert_never(segment)


def _around(links: list[Link], ours: Mapping[str, Given], addresses: list[LinkAddress]) -> Surroundings:
    """Return what links and addresses say of others, and of the kernel."""
    own = {given.link.index: given.link for given in ours.values()}
    return Surroundings(
        links=frozenset(link.name for link in links if link.index not in own),
        addresses=frozenset((own[a.index].name, a.address) for a in addresses if a.index in own and _is_given(a)),
        tentative=frozenset(
            (link.name, a.address)
            for a in addresses
            if a.tentative and not a.dad_failed and not _is_given(a)
            if (link := own.get(a.index)) and link.carrier
        ),
        dad_failed=frozenset((own[a.index].name, a.address) for a in addresses if a.dad_failed and a.index in own),
        kinds={device: given.link.kind for device, given in ours.items()},
        hw_addrs=frozenset(link.hw_addr for link in links if link.index not in own),
    )


def _is_given(address: LinkAddress) -> bool:
    """Tell whether the kernel manages an address: its own link-local ones, leases, router advertisements."""
    return address.from_kernel or not address.permanent


def _interface(device: str, given: Given, addresses: list[LinkAddress]) -> Interface:
    link = given.link
    return Interface(
        name=link.name,
        device=device,
        hw_addr=link.hw_addr,
        mtu=link.mtu,
        up=link.up,
        queues=given.queues,
        vhost_user_socket=given.socket,
        addresses=tuple(
            Address(address=a.address, dad=not a.nodad) for a in addresses if a.index == link.index and not _is_given(a)
        ),
    )


def release(text: str) -> tuple[int, int]:
    """Read major and minor of a kernel's release, such as 6.1.0-56-cloud-amd64."""
    major, minor, *_ = [*text.split("."), "0", "0"]
    digits = "".join(filter(str.isdecimal, minor[:4]))
    return int(major) if major.isdecimal() else 0, int(digits or 0)
