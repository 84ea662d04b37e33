"""Names that iproute2 prints for numbers, and the numbers that `ip -N` prints in their place."""

from __future__ import annotations

from reconciler.formats.entry import Entry
from reconciler.model.route import TABLE_MAIN

# linux/rtnetlink.h, and /etc/iproute2/rt_tables as every distribution has it.
TABLES = {"unspec": 0, "default": 253, "main": TABLE_MAIN, "local": 255}
_TYPES = (
    "unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit",
    "throw", "nat", "xresolve",
)  # fmt: skip
# rtm_protocol: those whose objects somebody else keeps up to date.
_KERNEL = {"kernel": "2", "redirect": "1"}
_DAEMONS = {
    "gated": "8", "ra": "9", "mrt": "10", "zebra": "11", "bird": "12", "dnrouted": "13", "xorp": "14", "ntk": "15",
    "dhcp": "16", "mrouted": "17", "keepalived": "18", "babel": "42", "openr": "99", "bgp": "186", "isis": "187",
    "ospf": "188", "rip": "189", "eigrp": "192",
}  # fmt: skip


def table(entry: Entry) -> int | None:
    """Read a table. None if it has a name that only the host knows: that is reported."""
    text = entry.text("table") or "main"
    if text in TABLES:
        return TABLES[text]
    if text.isascii() and text.isdecimal() and int(text) <= 0xFFFFFFFF:
        return int(text)
    entry.found.skip(entry.path, f'only its host knows which table "{text}" is; list it with `ip -N -j`')
    return None


def route_type(entry: Entry) -> str:
    """Read the type of a route."""
    text = entry.text("type") or "unicast"
    return _TYPES[int(text)] if text.isascii() and text.isdecimal() and int(text) < len(_TYPES) else text


def is_kernels(protocol: str) -> bool:
    """Return whether the kernel makes the objects of a protocol by itself."""
    return protocol in _KERNEL or protocol in _KERNEL.values()


def keeper(protocol: str) -> str:
    """Return why the objects of a protocol are left to the program that keeps them; empty if a person made them."""
    name = next((name for name, number in _DAEMONS.items() if protocol in (name, number)), "")
    if name in ("ra", "dhcp"):
        return f"proto {name}: it has a lifetime and is renewed"
    return f"proto {name}: a daemon keeps it" if name else ""
