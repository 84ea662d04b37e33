"""NICs as the guest has them, found by the MAC address that they were plugged with."""

from __future__ import annotations

from reconciler.netlink.interface import Link


def find(links: list[Link], hw_addr: str) -> Link | None:
    """Return a plugged NIC of the guest by the address it came with, as its address may have changed since.

    A bond, bridge or VLAN above it may have the same address, but has a kind.
    """
    return next((link for link in links if not link.kind and hw_addr == came_with(link)), None)


def came_with(link: Link) -> str:
    """Return the MAC address that a NIC came with."""
    return link.permanent or link.hw_addr
