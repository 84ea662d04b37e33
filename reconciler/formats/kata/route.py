"""The JSON of a route, and of a selection of routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.formats.kata import fields
from reconciler.formats.kata.fields import FieldError
from reconciler.model.address import (
    DEFAULT_IPV4,
    DEFAULT_IPV6,
    family_name,
    is_ipv6,
    is_unicast,
    network,
    parse_address,
)
from reconciler.model.route import IPV6_DEFAULT_METRIC, TABLE_MAIN, NextHop, Route
from reconciler.values import NamedTuple

_ROUTE = ("dest", "gateway", "device")


def is_route(data: Any) -> bool:
    """Return whether data is a route and not an interface."""
    return isinstance(data, Mapping) and "dest" in data


def read_route(data: Any) -> Route:
    """Read a route. Host bits of `dest` are cleared; an empty `dest` is `default`; an empty `gateway` is None.

    FieldError if it is wrong.
    """
    fields.check_names(data, _ROUTE)
    gateway = _read_gateway(data)
    dest = _read_dest(data, gateway)
    if gateway and is_ipv6(gateway) != is_ipv6(dest):
        raise FieldError("gateway", f"{gateway} is {family_name(gateway)}, and the destination is {family_name(dest)}")
    return Route(
        dest=dest,
        nexthops=(NextHop(device=fields.name(data, "device"), gateway=gateway),),
        metric=IPV6_DEFAULT_METRIC if is_ipv6(dest) else 0,
    )


def _read_gateway(data: Mapping[str, Any]) -> str | None:
    if not data.get("gateway"):
        return None
    text = fields.text(data, "gateway")
    try:
        address = parse_address(text)
    except ValueError as error:
        raise FieldError("gateway", str(error)) from None
    if not is_unicast(address):
        raise FieldError("gateway", f"{text} is not a unicast address")
    return address


def _read_dest(data: Mapping[str, Any], gateway: str | None) -> str:
    text = fields.text(data, "dest")
    if text in ("", "default"):
        if gateway is None:
            raise FieldError("gateway", "missing; a default route needs the IP address of a gateway")
        return DEFAULT_IPV6 if is_ipv6(gateway) else DEFAULT_IPV4
    try:
        return network(text)
    except ValueError as error:
        raise FieldError("dest", str(error)) from None


def write_route(route: Route) -> list[dict[str, str]]:
    """Write a route as `add-route` and `list-routes` print it: an object for each next hop, or one if it has none."""
    return [_write_hop(route.dest, hop) for hop in route.nexthops or (NextHop(device=""),)]


def _write_hop(dest: str, hop: NextHop) -> dict[str, str]:
    default = dest in (DEFAULT_IPV4, DEFAULT_IPV6) and hop.gateway is not None
    return {"dest": "default" if default else dest, "gateway": hop.gateway or "", "device": hop.device}


class RouteSelector(NamedTuple):
    """The routes that a `del-route` means: those to the destinations, and with the gateway and device unless None.

    `default` is a destination of each family.
    """

    dests: tuple[str, ...]
    gateway: str | None
    device: str | None

    def selects(self, route: Route) -> bool:
        """Return whether a route is selected. Only routes of the main table can be."""
        if route.table != TABLE_MAIN or route.dest not in self.dests:
            return False
        return self[1:] == (None, None) or any(self._is_through(hop) for hop in route.nexthops)

    def _is_through(self, hop: NextHop) -> bool:
        return self.gateway in (None, hop.gateway) and self.device in (None, hop.device)


def read_selector(data: Any) -> RouteSelector:
    """Read which routes to delete. FieldError if it is wrong."""
    fields.check_names(data, _ROUTE)
    device = fields.name(data, "device") if data.get("device") else None
    return RouteSelector(dests=_destinations(data), gateway=_read_gateway(data), device=device)


def _destinations(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Read a destination; `default` is one of each family."""
    text = fields.text(data, "dest")
    if text == "default":
        return DEFAULT_IPV4, DEFAULT_IPV6
    try:
        return (network(text),)
    except ValueError as error:
        raise FieldError("dest", str(error)) from None
