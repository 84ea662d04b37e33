"""A network namespace of this host. Devices move into it from the host's namespace, and back.

The record of the devices that were given (`drivers.given`) proves which links in the namespace are ours, whatever their
names and aliases are. If the namespace dies, the kernel returns a physical device to the host, maybe under another
name; the record proves there as well which one it is.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from reconciler.drivers import elsewhere, home
from reconciler.drivers.given import GivenDevices
from reconciler.drivers.inside import Inside, OwnedLink
from reconciler.drivers.lock import SandboxLock, of_namespace, refuse_waiting
from reconciler.drivers.reach import open_namespace
from reconciler.manifest.allow import refuse_way_out
from reconciler.model.interface import Interface, Origin, given
from reconciler.model.policy import Policy
from reconciler.model.sandbox import NetnsAddress, Observed, Sandbox
from reconciler.netlink.budget import Budget
from reconciler.netlink.channel import LocalKernel
from reconciler.netlink.interface import Link
from reconciler.operations.segment import Segment
from reconciler.plan.device import about
from reconciler.plan.namespace import check_queues
from reconciler.values import replace

if TYPE_CHECKING:
    from reconciler.drivers.survey import Inventory
    from reconciler.guest.agent import Probe
    from reconciler.model.cost import Traffic
    from reconciler.netlink.facts import Snapshot
    from reconciler.operations.outcome import Outcome


_NONE: Mapping[str, Link] = MappingProxyType({})


class NetnsDriver:
    """One namespace, which stays open until `close`."""

    def __init__(self, address: NetnsAddress, policy: Policy) -> None:
        """Open the namespace. SandboxGoneError if it does not exist, RefusedError if the policy does not allow it."""
        self._address, self._policy = address, policy
        self._file = open_namespace(address, policy)
        try:
            found = os.fstat(self._file)
            self._place = found.st_dev, found.st_ino
            self._lock = SandboxLock(of_namespace(found.st_dev, found.st_ino), address)
            # Whoever has rights in the namespace decides how much there is to read.
            self._budget = Budget()
            self._kernel = LocalKernel(self._file, self._budget)
            self._given = GivenDevices(self._file, self._kernel)
            self._inside = Inside(self._kernel)
        except BaseException:
            os.close(self._file)
            raise

    @property
    def place(self) -> Hashable:
        """Return what all names of this namespace have in common."""
        return self._place

    def close(self) -> None:
        """Close the channels and the namespace."""
        self._inside.close()
        self._lock.close()
        os.close(self._file)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the namespace, by its device and inode: a second name of it has the same lock."""
        with self._lock.held(), self._given.locked():
            refuse_waiting(self.place)
            if self._given.moving():
                from reconciler.drivers import netns_execute

                netns_execute.settle(self._inside.engine, self._given)
            yield

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        """Read the namespace, and those devices of the host that will move into it."""
        with self._budget.step():
            return self._observe(desired, quick=quick)

    def adopt(self, desired: Sandbox) -> Observed:
        """Read the namespace, with NICs of other owners that are to be adopted among our own, as the protocol says."""
        # Few commands adopt.
        from reconciler.drivers import adopting

        with self._budget.step():
            ours, others = self._sorted()
            made = adopting.choose_made(desired, others)
            taken = adopting.choose(desired, ours, others, self._inside.engine.channel)
            observed = self._observe(desired, quick=False, taken=taken, made=made)
        adopting.check_alike(desired, observed)
        return observed

    def inventory(self, sandbox: Sandbox) -> Inventory:
        """Read all that is in the namespace, whoever made it; `sandbox` has all sections."""
        from reconciler.drivers import survey

        with self._budget.step():
            _, others = self._sorted()
            made, rest = survey.sort_made(others)
            taken, left = survey.sort(rest, sandbox.id, self._inside.engine.channel)
            return survey.Inventory(self._observe(sandbox, quick=False, taken=taken, made=made), left)

    def _sorted(self) -> tuple[Collection[str], dict[str, Link]]:
        """Return the devices that are here by record, and the links of other owners by name."""
        from reconciler.drivers import adopting

        links = self._inside.engine.links()
        ours = self._given.recognise(links).ours
        return ours.keys(), adopting.others(links, (link for link, _ in ours.values()))

    def _observe(
        self, desired: Sandbox, *, quick: bool, taken: Mapping[str, Link] = _NONE, made: Mapping[str, Link] = _NONE
    ) -> Observed:
        """Read the namespace. `taken`: the NICs of other owners that count as ours, by their devices.

        `made`: the same of links that are made in the namespace, by their keys.
        """
        links = self._inside.engine.links()
        ours, unproven = self._given.recognise(links)
        ours |= {device: (link, _origin(device, link)) for device, link in taken.items()}
        wanted = desired.interfaces or ()
        wishes = {wish.device: wish for wish in given(wanted)}
        owned = {device: _owned_link(link, wishes.get(device), wanted) for device, (link, _) in ours.items()}
        owned |= {key: OwnedLink(link) for key, link in made.items()}
        observed = self._inside.observe(desired, links, owned, quick=quick)
        devices = home.attachable([device for device in wishes if device not in ours or device in taken])
        for index, wish in enumerate(wanted):
            link, device = taken.get(wish.device), devices.get(wish.device)
            physical = bool((link and link.physical) or (device and device.physical))
            if physical or (link and not link.ethernet) or (device and not device.origin.hw_addr):
                refuse_way_out(self._policy, desired.id, index, wish.device, physical=physical)
        around = replace(
            observed.around,
            devices=devices,
            elsewhere=elsewhere.find_moved(
                (wishes.keys() - ours.keys() | taken.keys() & wishes.keys()) - devices.keys()
            )
            | elsewhere.find_plugged([device for device, found in devices.items() if found.name == device]),
            origins={device: origin for device, (_, origin) in ours.items()},
            unrecorded=frozenset(taken),
            unproven={name: origin for name, origin in unproven.items() if name not in _names(taken)},
            mtus={device: link.mtus for device, (link, _) in ours.items()},
            release=os.uname().release,
        )
        return Observed(sandbox=observed.sandbox, around=around)

    def snapshot(self, devices: Collection[str]) -> Snapshot:
        """Read everything of the sandbox, and these devices of the host, as the protocol says."""
        with self._budget.step():
            return self._inside.snapshot(devices)

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Read sysctls, as the protocol says."""
        with self._budget.step():
            return self._inside.read_sysctls(names)

    def find_modules(self, names: Sequence[str]) -> dict[str, bool]:
        """Find none: the kernel is this one, which tries a plan itself."""
        del names
        return {}

    def traffic(self) -> Traffic:
        """Read the connections, as the protocol says."""
        with self._budget.step():
            return self._inside.traffic()

    def attempt(self, probes: Sequence[Probe], seconds: float) -> list[str]:
        """Try to reach something, as the protocol says: only the sockets are in the namespace."""
        # Few manifests have checks.
        from reconciler.guest import agent

        return agent.attempt(list(probes), seconds, self._kernel.socket)

    def device_to(self, address: str) -> str:
        """Look a route up, as the protocol says."""
        with self._budget.step():
            return self._inside.engine.device_to(address)

    def ipvs_listing(self) -> str:
        """Return the kernel's own listing of its IPVS table."""
        return self._inside.ipvs_listing()

    def execute(self, segments: Sequence[Segment]) -> Iterator[list[Outcome]]:
        """Execute segments; devices move one at a time."""
        # Only an apply pays for the import.
        from reconciler.drivers import netns_execute

        yield from netns_execute.execute(self._inside, self._file, self._given, segments)


def _names(taken: Mapping[str, Link]) -> set[str]:
    return {link.name for link in taken.values()}


def _origin(device: str, link: Link) -> Origin:
    """Return what an adopted device becomes on the host: as it is here, and down."""
    alias = "" if Origin.from_alias(link.alias) else link.alias
    return link.to_origin(device, alias, up=False)


def _owned_link(link: Link, wish: Interface | None, wanted: Sequence[Interface]) -> OwnedLink:
    if wish is None:
        return OwnedLink(link)
    # The number of queues was fixed when the device was created. Only whether they suffice can be checked.
    with about(wish, wanted):
        check_queues(wish, link.queues)
    return OwnedLink(link, wish.queues)
