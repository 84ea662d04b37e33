"""What drivers share when they adopt NICs: only one that equals a desired one becomes ours, as nothing is changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from reconciler.drivers.provenance import doubt
from reconciler.errors import RefusedError
from reconciler.model.identity import HostDevice, Nic, NicAddress
from reconciler.model.interface import LOOPBACK, Interface
from reconciler.model.made import KINDS, made_key
from reconciler.model.mark import made_name
from reconciler.model.sandbox import Observed, Sandbox
from reconciler.netlink.channel import Channel
from reconciler.netlink.interface import Link
from reconciler.plan.address import wrong_primaries
from reconciler.remaining import remaining
from reconciler.values import replace


def not_adopted(index: int, wish: Interface, reason: str) -> RefusedError:
    """Return the error that a NIC of another owner has the name of a desired one, and is not adopted."""
    return RefusedError(
        f"the interface {wish.name} in the sandbox is not ours, and --adopt does not take it over: {reason}",
        about=Nic(wish.name),
        path=("interfaces", index, "name"),
    )


def choose(desired: Sandbox, ours: Collection[str], others: Mapping[str, Link], channel: Channel) -> dict[str, Link]:
    """Return the links of other owners that have the names of desired NICs, by the device that each is to be.

    `ours`: the devices that are there by record. `others`: by name. `channel`: one to the routing family of the
    namespace. RefusedError if nothing proves that a link is a device of the host.
    """
    taken = {}
    for index, wish in enumerate(desired.interfaces or ()):
        link = None if wish.made or wish.device in ours else others.get(wish.name)
        if link is None:
            continue
        if reason := doubt(link, channel):
            raise not_adopted(index, wish, f"nothing proves that it is a device of this host: {reason}")
        taken[wish.device] = link
    return taken


def others(links: Iterable[Link], ours: Iterable[Link]) -> dict[str, Link]:
    """Return the links of other owners by their names: without `lo`, without `ours`, and without those that we made."""
    known = {link.index for link in ours}
    return {
        link.name: link
        for link in links
        if link.index not in known and link.name != LOOPBACK and not made_name(link.altnames)
    }


def made_by_others(links: Mapping[str, Link]) -> dict[str, Link]:
    """Return the links of other owners that are made in the sandbox and that a manifest can have, by their keys.

    Nothing has to prove where they came from: they never leave the sandbox.
    """
    return {
        made_key(link.kind, link.name): link
        for link in links.values()
        if link.kind in KINDS and link.peer_namespace is None
    }


def choose_made(desired: Sandbox, links: Mapping[str, Link]) -> dict[str, Link]:
    """Return the links of other owners that have the names of desired ones that are made in the sandbox, by their keys.

    RefusedError if one is of another kind.
    """
    known = made_by_others(links)
    taken = {}
    for index, wish in enumerate(desired.interfaces or ()):
        link = links.get(wish.name) if wish.made else None
        if wish.made is None or link is None:
            continue
        if wish.device not in known:
            raise not_adopted(index, wish, f"it is no {wish.made.kind} that is made there")
        taken[wish.device] = link
    return taken


def check_alike(desired: Sandbox, observed: Observed) -> None:
    """Raise RefusedError if a NIC that is to be adopted differs from the desired one, or its device is taken."""
    around = observed.around
    had = {each.device: each for each in observed.sandbox.interfaces or ()}
    for index, wish in enumerate(desired.interfaces or ()):
        if wish.device not in around.unrecorded and had.get(wish.device, wish).marked:
            continue
        if wish.device in (around.devices or ()):
            advice = "choose another `device`: the name that this one gets on the host when it leaves the sandbox"
            raise not_adopted(index, wish, f"the host has another device named {wish.device}; {advice}")
        if place := around.elsewhere.get(wish.device):
            raise not_adopted(index, wish, f"{wish.device} is in another sandbox, {place}")
        words = _differences(desired, observed, wish, had[wish.device])
        if words:
            advice = "write in the manifest what is there, and change it once the interface is ours"
            raise not_adopted(index, wish, f"it differs ({'; '.join(words)}); {advice}")


def _differences(desired: Sandbox, observed: Observed, wish: Interface, found: Interface) -> list[str]:
    """Return what differs of a NIC and its addresses, in words. Sysctls have no owner."""
    alone = replace(desired, interfaces=(wish,), sysctls=None, neighbours=None, routes=None, rules=None, ipvs=None)
    words = [
        each.words.removeprefix("interfaces: ")
        for each in remaining(alone, observed)
        if any(
            subject == HostDevice(wish.device) or (isinstance(subject, NicAddress) and subject.nic == wish.name)
            for subject in each.about
        )
    ]
    if not words and wrong_primaries(found.addresses, wish.addresses):
        words.append("the addresses of a subnet are in another order, and the first one is the source of packets")
    return words
