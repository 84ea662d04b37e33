"""The JSON of an interface.

It is read in two forms: that of `add-iface` (`IPAddresses`, `hwAddr`), and that of `list-ifaces` (`ip`, `mac`) with the
host's `device` added, which `list-ifaces` does not print.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reconciler.formats.kata import fields
from reconciler.formats.kata.fields import FieldError
from reconciler.model.address import is_ipv6, parse_mac, parse_prefix
from reconciler.model.interface import Address, Interface
from reconciler.model.machine import SOCKET_PATH_MAX
from reconciler.wording import shown

MTU_MIN, MTU_MAX = 46, 9600
QUEUES_MAX = 256
# The values of `Family`: AF_INET and AF_INET6 of Linux.
_FAMILIES = {False: 2, True: 10}
# The `Family` that kata-runtime prints if it does not know it.
_FAMILY_UNKNOWN = 0

_SOCKET = re.compile(r"(?:/[A-Za-z0-9_.-]+)+")

_INTERFACE = ("device", "name", "IPAddresses", "hwAddr", "mtu", "vhostUserSocket", "queues")
# `list-ifaces` has other names for these two fields.
_LISTED = {"ip": "IPAddresses", "mac": "hwAddr"}
# `add-iface` and `del-iface` print these fields, but no request can set them.
_PRINTED_ONLY = ("pciAddr", "linkType")


def read_interface(data: Any) -> Interface:
    """Read an interface in either form. FieldError if it is wrong."""
    fields.check_names(data, (*_INTERFACE, *_LISTED, *_PRINTED_ONLY))
    for listed, field in _LISTED.items():
        if listed in data and field in data:
            raise FieldError(listed, f"{listed} and {field} exclude each other")
    if "device" not in data and _LISTED.keys() & data.keys():
        raise FieldError("device", "missing; list-ifaces does not print the device of the host, so add it")
    return Interface(
        device=fields.name(data, "device"),
        name=fields.name(data, "name"),
        hw_addr=_read_mac(data),
        mtu=fields.number(data, "mtu", MTU_MIN, MTU_MAX),
        addresses=_read_addresses(data),
        queues=fields.number(data, "queues", 0, QUEUES_MAX) if "queues" in data else 0,
        vhost_user_socket=_read_socket(data),
    )


def _read_mac(data: Mapping[str, Any]) -> str:
    field = "mac" if "mac" in data else "hwAddr"
    try:
        return parse_mac(fields.text(data, field))
    except FieldError:
        raise
    except ValueError as error:
        raise FieldError(field, str(error)) from None


def _read_addresses(data: Mapping[str, Any]) -> tuple[Address, ...]:
    field = "ip" if "ip" in data else "IPAddresses"
    items = data.get(field)
    if items is None:
        return ()
    if not isinstance(items, list):
        raise FieldError(field, f"{shown(items)} is not a list")
    try:
        return tuple([Address(address=_read_prefix(item) if field == "ip" else _read_pair(item)) for item in items])
    except ValueError as error:
        raise FieldError(field, str(error)) from None


def _read_prefix(item: Any) -> str:
    if not isinstance(item, str) or "/" not in item:
        raise ValueError(f"{shown(item)} is not an address with a length, such as 172.16.0.3/16")
    return parse_prefix(item)


def _read_pair(item: Any) -> str:
    """Read `{"address", "mask"}`, or as printed: `{"Family", "Address", "Mask"}`. The address decides the family."""
    given = {field.lower(): value for field, value in item.items()} if isinstance(item, Mapping) else {}
    address, mask = given.get("address"), given.get("mask")
    complete = isinstance(address, str) and isinstance(mask, str | int) and not isinstance(mask, bool)
    if not complete:
        raise ValueError(f'{shown(item)} is not an address such as {{"address": "172.16.0.3", "mask": "16"}}')
    if unknown := given.keys() - {"address", "mask", "family"}:
        raise ValueError(f"an address has no field {min(unknown)}")
    if "/" in str(address):
        raise ValueError(f"{shown(address)} has a length; write it in mask")
    return parse_prefix(f"{address}/{mask}")


def _read_socket(data: Mapping[str, Any]) -> str | None:
    if not data.get("vhostUserSocket"):
        return None
    path = fields.text(data, "vhostUserSocket")
    if len(path) > SOCKET_PATH_MAX or not _SOCKET.fullmatch(path):
        expected = f"an absolute path of at most {SOCKET_PATH_MAX} letters, digits, '_', '-', '.' and '/'"
        raise FieldError("vhostUserSocket", f"{shown(path)}: expected {expected}")
    return path


def write_interface(interface: Interface, pci_addr: str = "") -> dict[str, Any]:
    """Write an interface as `add-iface` prints it, with its address on the PCI bus (`01.0/00`) if that is known."""
    data: dict[str, Any] = {
        "device": interface.device,
        "name": interface.name,
        "IPAddresses": [_write_pair(each.address) for each in interface.addresses],
        "mtu": interface.mtu,
        "hwAddr": interface.hw_addr,
    }
    if interface.vhost_user_socket is not None:
        data["vhostUserSocket"] = interface.vhost_user_socket
    if interface.queues:
        data["queues"] = interface.queues
    if pci_addr:
        data["pciAddr"] = pci_addr
    return data


def _write_pair(prefix: str) -> dict[str, Any]:
    address, _, mask = prefix.partition("/")
    return {"Family": _FAMILIES[is_ipv6(address)], "Address": address, "Mask": mask}


def write_request(interface: Interface) -> dict[str, Any]:
    """Write an interface as `add-iface` reads it."""
    parts = (each.address.partition("/") for each in interface.addresses)
    return write_interface(interface) | {
        "IPAddresses": [{"address": address, "mask": mask} for address, _, mask in parts]
    }


def read_listed(data: Any) -> Interface:
    """Read an interface as `list-ifaces` prints it, without its device (here `?NAME`). FieldError if it is wrong."""
    name = fields.name(fields.check_object(data), "name")
    addresses = data.get("ip") or []
    if not isinstance(addresses, list) or not all(isinstance(each, str) for each in addresses):
        raise FieldError("ip", "expected a list of texts")
    return Interface(
        name=name,
        device=f"?{name}",
        hw_addr=_read_mac({"mac": data.get("mac")}),
        mtu=fields.number(data, "mtu", 0, 65535),
        addresses=tuple(Address(address=parse_prefix(each)) for each in addresses),
    )


def write_listed(interface: Interface) -> dict[str, Any]:
    """Write an interface as `list-ifaces` prints it."""
    return {
        "name": interface.name,
        "mac": interface.hw_addr,
        "ip": [each.address for each in interface.addresses],
        "mtu": interface.mtu,
    }


def read_name(data: Any) -> str:
    """Read only the name of an interface. FieldError if it is missing or wrong."""
    return fields.name(fields.check_object(data), "name")


def write_failed(data: Any) -> Mapping[str, Any] | None:
    """Write the request of a `del-iface` that failed, as its answer repeats it; None if the request was no object."""
    if not isinstance(data, dict):
        return None
    answer = {field: data[field] for field in ("device", "name", "IPAddresses", "mtu", "hwAddr") if field in data}
    addresses = answer.get("IPAddresses")
    if isinstance(addresses, list):
        answer["IPAddresses"] = [_write_unknown(each) for each in addresses if isinstance(each, dict)]
    return answer | {"linkType": "tap"} if "device" in answer else answer


def _write_unknown(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"Family": _FAMILY_UNKNOWN, "Address": item.get("address"), "Mask": item.get("mask")}
