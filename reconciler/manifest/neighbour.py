"""A static neighbour in a manifest: checked data → model, and model → data."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from reconciler.manifest import interface
from reconciler.manifest.finding import Finding, Path
from reconciler.manifest.section import Draft, ListSection, iproute2_words, refused_by_kata
from reconciler.model.address import is_ipv6, is_unicast, parse_address, parse_mac
from reconciler.model.interface import IPV6_MIN_MTU
from reconciler.model.neighbour import Neighbour


def read(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> Neighbour | None:
    """Read an entry that meets the schema. What else is wrong with it is added to `findings`; then there is none."""
    before = len(findings)
    address = hw_addr = ""
    proxy, router = data.get("proxy", False), data.get("router", False)
    try:
        address = parse_address(data["address"])
    except ValueError as error:
        findings.append(Finding((*path, "address"), str(error)))
    if address and not is_unicast(address):
        findings.append(Finding((*path, "address"), f"{data['address']} is not a unicast address"))
    if proxy and "hwAddr" in data:
        message = "is of another host; with proxy: true the NIC answers with its own address"
        findings.append(Finding((*path, "hwAddr"), message, at_key=True))
    elif not proxy and "hwAddr" not in data:
        findings.append(
            Finding((*path, "hwAddr"), "missing; expected the MAC address of the neighbour, or proxy: true")
        )
    elif not proxy:
        try:
            hw_addr = parse_mac(data["hwAddr"])
        except ValueError as error:
            findings.append(Finding((*path, "hwAddr"), str(error)))
    if router and address and not is_ipv6(address):
        findings.append(Finding((*path, "router"), f"{address} is IPv4; only IPv6 marks its routers"))
    if len(findings) > before:
        return None
    return Neighbour(address=address, device=data["device"], hw_addr=hw_addr, proxy=proxy, router=router)


def write(neighbour: Neighbour) -> dict[str, Any]:
    """Return the data of an entry, without defaults."""
    data: dict[str, Any] = {"address": neighbour.address, "device": neighbour.device}
    if neighbour.hw_addr:
        data["hwAddr"] = neighbour.hw_addr
    if neighbour.proxy:
        data["proxy"] = True
    if neighbour.router:
        data["router"] = True
    return data


def _check(draft: Draft) -> Iterator[Finding]:
    """Check entries against each other and against the interfaces."""
    first: dict[Hashable, int] = {}
    stated = draft.sections.get(interface.SECTION.name) is not None
    names = {each.name: each for each in draft.items(interface.SECTION) if each}
    unread = None in draft.items(interface.SECTION)
    for index, entry in enumerate(draft.items(SECTION)):
        if entry is None:
            continue
        path = (SECTION.name, index)
        if first.setdefault(entry.key, index) != index:
            message = f"neighbours[{first[entry.key]}] has this address on this device already"
            yield Finding((*path, "address"), message)
        nic = names.get(entry.device)
        if stated and nic is None and not unread:
            yield Finding((*path, "device"), interface.unknown_name(entry.device, names.values()))
        elif nic and entry.hw_addr and not nic.has_mac:
            message = f"{nic.name} has no hwAddr, so no neighbour there has one"
            yield Finding((*path, "device"), message)
        elif nic and entry.is_ipv6 and not nic.fits(IPV6_MIN_MTU):
            message = f"{nic.name} has an MTU of {nic.mtu}; IPv6 needs {IPV6_MIN_MTU} (RFC 8200)"
            yield Finding((*path, "address"), message)


SECTION = ListSection(
    name=Neighbour.section,
    read_item=read,
    write_item=write,
    words=iproute2_words,
    checks=_check,
    kata_checks=refused_by_kata(Neighbour.section, "kata-runtime has no commands for neighbours"),
)
