"""An interface in a manifest: checked data → model, and model → data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.manifest.compose import Path
from reconciler.manifest.schema import Finding
from reconciler.model.address import is_ipv6, is_unicast, network, parse_mac, parse_prefix, split_prefix
from reconciler.model.interface import IPV6_MIN_MTU, Address, Interface


def read(data: Mapping[str, Any], path: Path, findings: list[Finding]) -> Interface | None:
    """Read an interface that meets the schema. Return None if anything else is wrong, and add that to `findings`."""
    before = len(findings)
    hw_addr = data["hwAddr"]
    try:
        hw_addr = parse_mac(hw_addr)
    except ValueError as error:
        findings.append(Finding((*path, "hwAddr"), str(error)))
    addresses: dict[str, Address] = {}
    for index, item in enumerate(data.get("addresses", ())):
        where = (*path, "addresses", index)
        try:
            address = _read_address(item, data["mtu"])
        except ValueError as error:
            findings.append(Finding(where, str(error)))
            continue
        # A link can have an IPv6 address only once, whatever the prefix length.
        key = address.host if is_ipv6(address.address) else address.key
        if key in addresses:
            findings.append(Finding(where, f"{address.address} is listed twice"))
        addresses[key] = address
    if len(findings) > before:
        return None
    return Interface(
        name=data["name"],
        device=data["device"],
        hw_addr=hw_addr,
        mtu=data["mtu"],
        addresses=tuple(addresses.values()),
        queues=data.get("queues", 0),
        vhost_user_socket=data.get("vhostUserSocket"),
    )


def _read_address(item: str | Mapping[str, Any], mtu: int) -> Address:
    data: Mapping[str, Any] = {"address": item} if isinstance(item, str) else item
    text = data["address"]
    prefix = parse_prefix(text)
    if "/" not in text:
        raise ValueError(f"{text} has no prefix length; write {text}/{128 if is_ipv6(text) else 32} for a host address")
    packed, length = split_prefix(prefix)
    if not is_unicast(prefix.partition("/")[0]):
        raise ValueError(f"{text} is not a unicast address")
    if prefix.startswith("::1/"):
        raise ValueError(f"{text} is the loopback address, which only lo has")
    ipv6 = len(packed) == 16
    if not ipv6 and length < 31 and prefix == network(prefix):
        raise ValueError(f"{text} is the address of the network itself; a host needs one within it")
    if ipv6 and mtu < IPV6_MIN_MTU:
        raise ValueError(f"{text} needs an MTU of at least {IPV6_MIN_MTU} (RFC 8200); this interface has {mtu}")
    if not ipv6 and "dad" in data:
        raise ValueError(f"{text} is IPv4; duplicate address detection (dad) is IPv6 only")
    return Address(address=prefix, dad=data.get("dad", True))


def write(interface: Interface) -> dict[str, Any]:
    """Return an interface as the data of a manifest, without defaults."""
    data: dict[str, Any] = {
        "name": interface.name,
        "device": interface.device,
        "hwAddr": interface.hw_addr,
        "mtu": interface.mtu,
    }
    if interface.addresses:
        data["addresses"] = [a.address if a.dad else {"address": a.address, "dad": False} for a in interface.addresses]
    if interface.queues:
        data["queues"] = interface.queues
    if interface.vhost_user_socket is not None:
        data["vhostUserSocket"] = interface.vhost_user_socket
    return data
