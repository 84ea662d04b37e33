"""Each field of the model is in the schema, and in what is written and read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from reconciler.manifest import interface, route, sandbox
from reconciler.manifest.sandbox import complete, read_sections
from reconciler.manifest.schema import Finding, schema_text
from reconciler.model.interface import Address, Interface
from reconciler.model.route import NextHop, Route
from reconciler.model.sandbox import NetnsAddress, Sandbox

NIC = Interface(name="eth0", device="tap0", hw_addr="02:42:20:6f:a3:69", mtu=1500)
HOP = NextHop(device="eth0")
ROUTE = Route(dest="10.8.0.0/16", nexthops=(HOP,))
change = dataclasses.replace

# For each class and field something whose value there is no default.
EXAMPLES: dict[type, dict[str, Any]] = {
    NetnsAddress: {
        "name": NetnsAddress(name="web-1"),
        "path": NetnsAddress(path="/run/netns/web-1"),
        "pid": NetnsAddress(pid=4194304),
    },
    Address: {
        "address": Address(address="10.0.0.2/24"),
        "dad": Address(address="fd00::2/64", dad=False),
    },
    Interface: {
        "name": NIC,
        "device": NIC,
        "hw_addr": NIC,
        "mtu": NIC,
        "addresses": change(NIC, addresses=(Address(address="fd00::2/64"), Address(address="10.0.0.2/24"))),
        "queues": change(NIC, queues=256),
        "vhost_user_socket": change(NIC, vhost_user_socket="/run/vhost-user1"),
    },
    NextHop: {
        "device": HOP,
        "gateway": change(HOP, gateway="10.0.0.1"),
        "weight": change(HOP, weight=256),
        "on_link": change(HOP, gateway="10.0.0.1", on_link=True),
    },
    Route: {
        "dest": ROUTE,
        "type": Route(dest="10.8.0.0/16", type="prohibit"),
        "nexthops": change(ROUTE, nexthops=(HOP, NextHop(device="eth1"))),
        "table": change(ROUTE, table=4294967295),
        "metric": change(ROUTE, metric=4294967295),
        "source": change(ROUTE, source="10.0.0.2"),
        "mtu": change(ROUTE, mtu=65520),
        "advmss": change(ROUTE, advmss=65495),
    },
}
# No manifest says these: a desired NIC is up, and only an observed route can have what we cannot express.
NOT_SAID = {(Interface, "up"), (Route, "opaque")}
# A route of one next hop says it in its own fields.
ALSO_SAID = {Route: {"gateway", "device", "onLink"}}

Reread = Callable[[Any], tuple[Any, Any]]


def reread_driver(each: NetnsAddress) -> tuple[Any, Any]:
    data = sandbox.write(Sandbox(id="web-1", driver=each))
    return data["driver"]["netns"], complete(data, read_sections(data, [])).driver


def reread_interface(each: Interface) -> tuple[Any, Any]:
    data = interface.write(each)
    return data, accepted(lambda findings: interface.read(data, (), findings))


def reread_address(each: Address) -> tuple[Any, Any]:
    data, read = reread_interface(change(NIC, addresses=(each,)))
    (item,) = data["addresses"]
    return item if isinstance(item, dict) else {"address": item}, read.addresses[0]


def reread_route(each: Route) -> tuple[Any, Any]:
    data = route.write(each)
    return data, accepted(lambda findings: route.read(data, (), findings))


def reread_hop(each: NextHop) -> tuple[Any, Any]:
    data, read = reread_route(change(ROUTE, nexthops=(each, NextHop(device="eth9"))))
    return data["nexthops"][0], read.nexthops[0]


def accepted(read: Callable[[list[Finding]], Any]) -> Any:
    findings: list[Finding] = []
    value = read(findings)
    assert findings == []
    return value


REREAD: dict[type, Reread] = {
    NetnsAddress: reread_driver,
    Address: reread_address,
    Interface: reread_interface,
    NextHop: reread_hop,
    Route: reread_route,
}
ROWS = [(kind, field, example) for kind, examples in EXAMPLES.items() for field, example in examples.items()]


def properties(kind: type) -> set[str]:
    """Give the names that the schema has for the fields of a class."""
    schema = json.loads(schema_text())
    nic, way = (schema["$defs"][name]["properties"] for name in ("interface", "route"))
    found = {
        NetnsAddress: schema["properties"]["driver"]["properties"]["netns"]["properties"],
        Address: nic["addresses"]["items"]["properties"],
        Interface: nic,
        NextHop: way["nexthops"]["items"]["properties"],
        Route: way,
    }
    return set(found[kind])


def said(field: str) -> str:
    """Give the name of a field in a manifest."""
    first, *others = field.split("_")
    return first + "".join(word.capitalize() for word in others)


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_every_field_has_an_example_and_a_property(kind: Any) -> None:
    fields = {field.name for field in dataclasses.fields(kind) if (kind, field.name) not in NOT_SAID}
    assert set(EXAMPLES[kind]) == fields
    assert properties(kind) == {said(field) for field in fields} | ALSO_SAID.get(kind, set())


@pytest.mark.parametrize(
    ("kind", "field", "example"), ROWS, ids=[f"{kind.__name__}.{field}" for kind, field, _ in ROWS]
)
def test_every_field_is_written_and_read(kind: type, field: str, example: Any) -> None:
    defaults = {each.name: each.default for each in dataclasses.fields(example)}
    assert getattr(example, field) != defaults[field]
    data, read = REREAD[kind](example)
    assert (said(field) in data, read) == (True, example)


@pytest.mark.parametrize(
    ("kind", "field", "example"), ROWS, ids=[f"{kind.__name__}.{field}" for kind, field, _ in ROWS]
)
def test_a_field_that_has_its_default_is_not_written(kind: type, field: str, example: Any) -> None:
    by_default = {
        said(each.name)
        for each in dataclasses.fields(example)
        if each.name != field and getattr(example, each.name) == each.default
    }
    assert by_default & set(REREAD[kind](example)[0]) == set()
