"""The JSON of `kata-runtime kata-network`, both ways, as commands take and print it, and the words of `kata-ipvs cleanup`.

An interface is read as `add-iface` takes and prints it (`IPAddresses`, `hwAddr`) and as `list-ifaces` prints it (`ip`,
`mac`), provided that it says the host's `device`, which `list-ifaces` leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from reconciler.model.address import (
    DEFAULT_IPV4,
    DEFAULT_IPV6,
    family_name,
    is_ipv6,
    is_unicast,
    network,
    parse_address,
    parse_mac,
    parse_prefix,
)
from reconciler.model.interface import Address, Interface
from reconciler.model.route import IPV6_DEFAULT_METRIC, TABLE_MAIN, NextHop, Route
from reconciler.wording import suggest

MTU_MIN, MTU_MAX = 46, 9600
QUEUES_MAX = 256
# linux/un.h: sun_path holds 108 bytes with its NUL; the 128 of the interface list cannot be connected to.
SOCKET_PATH_MAX = 107
# AF_INET and AF_INET6 as Linux numbers them: what `Family` says.
_FAMILIES = {False: 2, True: 10}
# What the original answers where it has not looked.
_UNKNOWN = 0
_CLEANUP = {"-d": "--orig-dst", "-p": "--protonum"}
# What the original lets one clean up.
_CLEANUP_PROTOCOLS = ("tcp", "udp")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
_SOCKET = re.compile(r"(?:/[A-Za-z0-9_.-]+)+")

_INTERFACE = ("device", "name", "IPAddresses", "hwAddr", "mtu", "vhostUserSocket", "queues")
# `list-ifaces` has other names for two fields.
_LISTED = {"ip": "IPAddresses", "mac": "hwAddr"}
# What `add-iface` and `del-iface` print of an interface and nobody can ask for.
_PRINTED_ONLY = ("pciAddr", "linkType")
_ROUTE = ("dest", "gateway", "device")


class FieldError(ValueError):
    """A field of a document is wrong: which, and why. The field is empty if it is the document as a whole."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field, self.message = field, message


def is_route(data: Any) -> bool:
    """Tell a route from an interface."""
    return isinstance(data, Mapping) and "dest" in data


def read_interface(data: Any) -> Interface:
    """Read an interface. FieldError if it is none."""
    _check_fields(data, (*_INTERFACE, *_LISTED, *_PRINTED_ONLY))
    if "device" not in data and _LISTED.keys() & data.keys():
        raise FieldError("device", "missing; list-ifaces does not say which device of the host it is, so add it")
    return Interface(
        device=_read_name(data, "device"),
        name=_read_name(data, "name"),
        hw_addr=_read_mac(data),
        mtu=_read_number(data, "mtu", MTU_MIN, MTU_MAX),
        addresses=_read_addresses(data),
        queues=_read_number(data, "queues", 0, QUEUES_MAX) if "queues" in data else 0,
        vhost_user_socket=_read_socket(data),
    )


def _check_fields(data: Any, known: tuple[str, ...]) -> None:
    for field in _object(data):
        if field not in known:
            raise FieldError(field, f"unknown field; {suggest(field, known)}")
    for listed, field in _LISTED.items():
        if listed in data and field in data:
            raise FieldError(listed, f"{listed} and {field} exclude each other")


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _read_text(data: Mapping[str, Any], field: str) -> str:
    if field not in data:
        raise FieldError(field, "missing")
    if not isinstance(data[field], str):
        raise FieldError(field, f"{_shown(data[field])} is not a text")
    return str(data[field])


def _read_name(data: Mapping[str, Any], field: str) -> str:
    name = _read_text(data, field)
    if not _NAME.fullmatch(name):
        expected = "1 to 15 letters, digits, '_', '-' and '.', the first a letter"
        raise FieldError(field, f"{_shown(name)} is no name of an interface; expected {expected}")
    return name


def _read_number(data: Mapping[str, Any], field: str, low: int, high: int) -> int:
    if field not in data:
        raise FieldError(field, f"missing; expected a number from {low} to {high}")
    value = data[field]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise FieldError(field, f"{_shown(value)}: expected a number from {low} to {high}")
    return value


def _read_mac(data: Mapping[str, Any]) -> str:
    field = "mac" if "mac" in data else "hwAddr"
    try:
        return parse_mac(_read_text(data, field))
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
        raise FieldError(field, f"{_shown(items)} is not a list")
    try:
        return tuple([Address(address=_read_prefix(item) if field == "ip" else _read_pair(item)) for item in items])
    except ValueError as error:
        raise FieldError(field, str(error)) from None


def _read_prefix(item: Any) -> str:
    if not isinstance(item, str) or "/" not in item:
        raise ValueError(f"{_shown(item)} is not an address with a length, such as 172.16.0.3/16")
    return parse_prefix(item)


def _read_pair(item: Any) -> str:
    """Read `{"address", "mask"}`, or as it is printed: `{"Family", "Address", "Mask"}`; the address tells the family."""
    fields = {field.lower(): value for field, value in item.items()} if isinstance(item, Mapping) else {}
    address, mask = fields.get("address"), fields.get("mask")
    complete = isinstance(address, str) and isinstance(mask, str | int) and not isinstance(mask, bool)
    if not complete:
        raise ValueError(f'{_shown(item)} is not an address such as {{"address": "172.16.0.3", "mask": "16"}}')
    if unknown := fields.keys() - {"address", "mask", "family"}:
        raise ValueError(f"an address has no {min(unknown)}")
    if "/" in str(address):
        raise ValueError(f"{_shown(address)} has a length; that belongs in mask")
    return parse_prefix(f"{address}/{mask}")


def _read_socket(data: Mapping[str, Any]) -> str | None:
    if not data.get("vhostUserSocket"):
        return None
    path = _read_text(data, "vhostUserSocket")
    if len(path) > SOCKET_PATH_MAX or not _SOCKET.fullmatch(path):
        expected = f"an absolute path of at most {SOCKET_PATH_MAX} letters, digits, '_', '-', '.' and '/'"
        raise FieldError("vhostUserSocket", f"{_shown(path)}: expected {expected}")
    return path


def write_interface(interface: Interface, pci_addr: str = "") -> dict[str, Any]:
    """Write an interface as `add-iface` prints it, with the place that it got on the PCI bus (`01.0/00`) if it is known."""
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


def write_wish(interface: Interface) -> dict[str, Any]:
    """Write an interface as `add-iface` takes it."""
    parts = (each.address.partition("/") for each in interface.addresses)
    return write_interface(interface) | {
        "IPAddresses": [{"address": address, "mask": mask} for address, _, mask in parts]
    }


def read_listed(data: Any) -> Interface:
    """Read an interface as `list-ifaces` writes it, which does not say its device. FieldError if it cannot be read."""
    name = _read_name(_object(data), "name")
    addresses = data.get("ip") or []
    if not isinstance(addresses, list) or not all(isinstance(each, str) for each in addresses):
        raise FieldError("ip", "expected a list of texts")
    return Interface(
        name=name,
        device=f"?{name}",
        hw_addr=_read_mac({"mac": data.get("mac")}),
        mtu=_read_number(data, "mtu", 0, 65535),
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


def read_route(data: Any) -> Route:
    """Read a route: host bits of `dest` are cleared, an empty one is `default`, an empty `gateway` is none.

    FieldError if it is no route.
    """
    _check_fields(data, _ROUTE)
    gateway = _read_gateway(data)
    dest = _read_dest(data, gateway)
    if gateway and is_ipv6(gateway) != is_ipv6(dest):
        raise FieldError("gateway", f"{gateway} is {family_name(gateway)}, and the destination is {family_name(dest)}")
    return Route(
        dest=dest,
        nexthops=(NextHop(device=_read_name(data, "device"), gateway=gateway),),
        metric=IPV6_DEFAULT_METRIC if is_ipv6(dest) else 0,
    )


def _read_gateway(data: Mapping[str, Any]) -> str | None:
    if not data.get("gateway"):
        return None
    text = _read_text(data, "gateway")
    try:
        address = parse_address(text)
    except ValueError as error:
        raise FieldError("gateway", str(error)) from None
    if not is_unicast(address):
        raise FieldError("gateway", f"{text} is not a unicast address")
    return address


def _read_dest(data: Mapping[str, Any], gateway: str | None) -> str:
    text = _read_text(data, "dest")
    if text in ("", "default"):
        if gateway is None:
            raise FieldError("gateway", "missing; a default route needs the IP address of a gateway")
        return DEFAULT_IPV6 if is_ipv6(gateway) else DEFAULT_IPV4
    try:
        return network(text)
    except ValueError as error:
        raise FieldError("dest", str(error)) from None


def write_route(route: Route) -> list[dict[str, str]]:
    """Write a route as `add-route` and `list-routes` print it: an object for each of its next hops, or one without any."""
    return [_write_hop(route.dest, hop) for hop in route.nexthops or (NextHop(device=""),)]


def _write_hop(dest: str, hop: NextHop) -> dict[str, str]:
    default = dest in (DEFAULT_IPV4, DEFAULT_IPV6) and hop.gateway is not None
    return {"dest": "default" if default else dest, "gateway": hop.gateway or "", "device": hop.device}


def read_name(data: Any) -> str:
    """Read the name of an interface, and nothing else of it. FieldError if it cannot be read."""
    return _read_name(_object(data), "name")


def write_kept(data: Any) -> Mapping[str, Any] | None:
    """Write what `del-iface` was asked for as it answers where it failed; None if nothing can be said of it."""
    if not isinstance(data, dict):
        return None
    said = {field: data[field] for field in ("device", "name", "IPAddresses", "mtu", "hwAddr") if field in data}
    addresses = said.get("IPAddresses")
    if isinstance(addresses, list):
        said["IPAddresses"] = [_write_unknown(each) for each in addresses if isinstance(each, dict)]
    return said | {"linkType": "tap"} if "device" in said else said


def _write_unknown(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"Family": _UNKNOWN, "Address": item.get("address"), "Mask": item.get("mask")}


class Match(NamedTuple):
    """What `del-route` selects by: a destination, of `default` that of each family, and what else is given."""

    dests: tuple[str, ...]
    gateway: str | None
    device: str | None

    def covers(self, route: Route) -> bool:
        """Tell whether a route is meant; those of other tables never are."""
        if route.table != TABLE_MAIN or route.dest not in self.dests:
            return False
        return self[1:] == (None, None) or any(self._is_through(hop) for hop in route.nexthops)

    def _is_through(self, hop: NextHop) -> bool:
        return self.gateway in (None, hop.gateway) and self.device in (None, hop.device)


def read_match(data: Any) -> Match:
    """Read what selects routes to delete. FieldError if it cannot be read."""
    _check_fields(data, _ROUTE)
    device = _read_name(data, "device") if data.get("device") else None
    return Match(dests=_destinations(data), gateway=_read_gateway(data), device=device)


def _destinations(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Read a destination; of `default` there is one for each family."""
    text = _read_text(data, "dest")
    if text == "default":
        return DEFAULT_IPV4, DEFAULT_IPV6
    try:
        return (network(text),)
    except ValueError as error:
        raise FieldError("dest", str(error)) from None


def read_cleanup(text: str) -> tuple[str, str]:
    """Read `--orig-dst IP --protonum tcp|udp`, in any order: the address, and the protocol. ValueError otherwise."""
    words = text.replace("=", " ").split()
    given: dict[str, str] = {}
    for option, value in zip(words[::2], [*words[1::2], ""], strict=False):
        name = _CLEANUP.get(option, option)
        if name not in _CLEANUP.values() or name in given or not value:
            raise ValueError(f"{option}: expected --orig-dst IP --protonum tcp|udp, each once and with its value")
        given[name] = value
    missing = [name for name in _CLEANUP.values() if name not in given]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    protocol = given["--protonum"]
    if protocol not in _CLEANUP_PROTOCOLS:
        raise ValueError(f"--protonum {protocol}: expected tcp or udp")
    try:
        return parse_address(given["--orig-dst"]), protocol
    except ValueError as error:
        raise ValueError(f"--orig-dst: {error}") from None


def _object(data: Any) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise FieldError("", "expected an object")
    return data
