"""Texts of manifests: a right one, with fields replaced, added or left out."""

from __future__ import annotations

from collections.abc import Sequence

# What a table of bad manifests is made of: a name, a text, and all problems of it in a file `bad.yaml`.
Row = tuple[str, str | bytes, list[str]]

TOP = ("apiVersion: reconciler/v1", "sandbox: web-1", "driver: {netns: {name: web-1}}")
NIC = (
    "name: eth0",
    "device: tap0",
    "hwAddr: 02:42:20:6f:a3:69",
    "mtu: 1500",
    'addresses: [10.0.0.2/24, "fd00::2/64"]',
)
# What a second and a third interface have instead.
SECOND = ("name: eth1", "device: tap1", "hwAddr: 02:42:20:6f:a3:6a", "addresses: [10.1.0.2/24]")
THIRD = ("name: eth2", "device: tap2", "hwAddr: 02:42:20:6f:a3:6b", "addresses: [10.2.0.2/24]")
SERVICE = ("tcp: 172.17.0.7:80", "servers: [{address: 172.17.0.4:80}]")
ROUTE = ("dest: 10.8.0.0/16", "gateway: 10.0.0.1", "device: eth0")
NEIGHBOUR = ("address: 10.0.0.1", "device: eth0", "hwAddr: 02:42:20:6f:a3:01")
RULE = ("priority: 100", "table: 100")


def manifest(
    *fields: str,
    nics: Sequence[str] | None = None,
    neighbours: Sequence[str] | None = None,
    routes: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
) -> str:
    """Write a manifest whose top has these fields, with sections of these items.

    A field replaces the one of its name, or is added at the end; a name without a colon takes the field out.
    Nothing is between the lines: the top is lines 1 to 3, and each field of an item has a line.
    """
    lines = _merge(TOP, fields)
    sections = (("interfaces", nics), ("neighbours", neighbours), ("routes", routes), ("rules", rules))
    for section, items in sections:
        if items is not None:
            lines += [f"{section}:", *items]
    return "\n".join(lines) + "\n"


def nic(*fields: str) -> str:
    """Write an item of `interfaces`: eth0 is tap0, with 10.0.0.2/24 and fd00::2/64."""
    return _item(NIC, fields)


def route(*fields: str) -> str:
    """Write an item of `routes`: 10.8.0.0/16 via 10.0.0.1 dev eth0."""
    return _item(ROUTE, fields)


def neighbour(*fields: str) -> str:
    """Write an item of `neighbours`: 10.0.0.1 dev eth0 is 02:42:20:6f:a3:01."""
    return _item(NEIGHBOUR, fields)


def rule(*fields: str) -> str:
    """Write an item of `rules`: priority 100 looks up table 100."""
    return _item(RULE, fields)


def with_nic(*fields: str) -> str:
    """Write a manifest of one interface: its fields are on lines 5 to 9, what is added on line 10."""
    return manifest(nics=[nic(*fields)])


def with_route(*fields: str) -> str:
    """Write a manifest of one right interface and one route: its fields are on lines 11 to 13, what is added on 14."""
    return manifest(nics=[nic()], routes=[route(*fields)])


def with_neighbour(*fields: str) -> str:
    """Write a manifest of one right interface and one neighbour.

    The fields of the neighbour are on lines 11 to 13, what is added on 14.
    """
    return manifest(nics=[nic()], neighbours=[neighbour(*fields)])


def with_rule(*fields: str) -> str:
    """Write a manifest of one rule: its fields are on lines 5 and 6, what is added on line 7."""
    return manifest(rules=[rule(*fields)])


def with_ipvs(*fields: str) -> str:
    """Write a manifest with an IPVS section: its fields are on the lines from 5 on."""
    return manifest("\n  ".join(("ipvs:", *(field.replace("\n", "\n  ") for field in fields))))


def service(*fields: str) -> str:
    """Write an item of `services`: tcp 172.17.0.7:80 with the server 172.17.0.4:80."""
    return _item(SERVICE, fields)


def with_service(*fields: str) -> str:
    """Write a manifest of one service: its fields are on lines 6 and 7, what is added on line 8."""
    return with_services(service(*fields))


def with_services(*services: str) -> str:
    """Write a manifest of services, the first from line 6 on."""
    return with_ipvs("services:", *services)


def with_server(*fields: str) -> str:
    """Write a manifest of one service, whose server has these fields from line 8 on: the first may be the address."""
    return with_service(
        "servers:\n- " + "\n  ".join(fields if _name(fields[0]) == "address" else ("address: 172.17.0.4:80", *fields))
    )


def _item(base: Sequence[str], fields: Sequence[str]) -> str:
    lines = "\n".join(_merge(base, fields)).split("\n")
    return "\n".join(f"{'  ' if number else '- '}{line}" for number, line in enumerate(lines))


def _merge(base: Sequence[str], fields: Sequence[str]) -> list[str]:
    merged = {_name(field): field for field in base}
    for field in fields:
        if ":" in field:
            merged[_name(field)] = field
        else:
            del merged[field]
    return list(merged.values())


def _name(field: str) -> str:
    return field.partition(":")[0]
