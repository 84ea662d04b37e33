"""NICs that another program plugged: which of them can be adopted.

The guest chooses the names of its links, and QEMU says which TAP a NIC has. That has to be the one of the manifest: no
name or address that a guest claims leads to another device of the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from reconciler.drivers.adopting import not_adopted
from reconciler.drivers.vm.nics import came_with
from reconciler.drivers.vm.outside import OtherNic
from reconciler.model.machine import Other
from reconciler.model.sandbox import Sandbox
from reconciler.netlink.interface import Link


def choose(desired: Sandbox, links: Mapping[str, Link], nics: Sequence[OtherNic]) -> dict[str, Other]:
    """Return the NICs of other programs that have the names of desired ones, by the device that each is to be.

    `links`: those of other owners in the guest. RefusedError if QEMU knows another TAP of one, or no ID.
    """
    taken = {}
    for index, wish in enumerate(desired.interfaces or ()):
        link = None if wish.made else links.get(wish.name)
        if link is None:
            continue
        found = [each for each in nics if not link.kind and each.hw_addr == came_with(link)]
        fits = [each for each in found if each.tap == wish.device]
        if not fits:
            taps = ", ".join(sorted(filter(None, (each.tap for each in found))))
            reason = f"QEMU has it on {taps}, not on {wish.device}" if taps else _objection(link, found)
            raise not_adopted(index, wish, reason)
        taken[wish.device] = fits[0].ids
    return taken


def sort(links: Iterable[Link], nics: Sequence[OtherNic]) -> tuple[dict[str, Other], dict[str, str]]:
    """Return the NICs of other programs that a manifest can have, by their TAPs, and why it cannot have other links.

    `links`: those of other owners that are not made in the guest.
    """
    taken: dict[str, Other] = {}
    left: dict[str, str] = {}
    for link in links:
        found = [each for each in nics if not link.kind and each.hw_addr == came_with(link)]
        tap = found[0].tap if len(found) == 1 else ""
        if not tap or tap in taken:
            left[link.name] = _objection(link, found)
        else:
            taken[tap] = found[0].ids
    return taken, left


def _objection(link: Link, found: Sequence[OtherNic]) -> str:
    if link.kind:
        return f"it is no NIC of the machine, but of kind {link.kind}"
    if len(found) > 1:
        return f"several NICs of QEMU have its MAC address, {came_with(link)}"
    if found:
        return "QEMU names no TAP of the host that it is connected to"
    return f"no virtio NIC of QEMU with an ID has its MAC address, {came_with(link)}; QEMU unplugs only what has an ID"
