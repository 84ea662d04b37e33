"""An entry of a neighbour table in the JSON of `ip -j neigh`."""

from __future__ import annotations

from reconciler.formats.entry import Entry
from reconciler.formats.ip_json import names
from reconciler.model.neighbour import Neighbour

# NUD states of what the kernel keeps by itself.
_LEARNED = frozenset({"INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "FAILED", "NONE", "NOARP"})
# What another program has put there, or what is no entry of ARP or NDP.
_ELSEWHERE = ("extern_learn", "offload", "managed", "vlan", "vni", "via")
_STATE = ("protocol", "used", "confirmed", "updated", "refcnt", "probes", "used_cache", "flags", "state")


def read(entry: Entry) -> None:
    """Read an entry."""
    found, proxy, router = entry.found, entry.has("proxy"), entry.has("router")
    address, device = entry.address("dst"), entry.text("dev")
    if not proxy and not _LEARNED.isdisjoint(entry.texts("state")):
        found.count("neighbours that the kernel has learned")
        return
    if address is None or device is None:
        if device is None:
            found.fault(entry.at("dev"), "missing; expected the name of a link")
        return
    keeper = names.keeper(entry.text("protocol") or "")
    if keeper or any(map(entry.has, _ELSEWHERE)):
        found.skip(entry.path, f"{address}: {keeper or 'another program keeps it'}")
        return
    hw_addr = "" if proxy else entry.mac("lladdr")
    if hw_addr is None:
        if not entry.has("lladdr"):
            found.skip(entry.path, f"{address}: it has no MAC address")
        return
    entry.drop((*_STATE, "lladdr", "proxy", "router"))
    entry.rest()
    found.add(entry.path, Neighbour(address=address, device=device, hw_addr=hw_addr, proxy=proxy, router=router))
