"""Whatever a manifest can say of interfaces, routes, neighbours and rules occurs in the sandboxes of random tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reconciler.model.attribute import ATTRIBUTES
from reconciler.model.interface import Address, Interface
from reconciler.model.made import KINDS, Made
from reconciler.model.metric import METRICS
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import DIRECT_TYPES, REJECT_TYPES, SCOPES, NextHop, Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.values import fields, is_dataclass
from tests.completeness.rows import WITHOUT_ROW
from tests.strategies import OPTIONS, made_links, routes, sandboxes

BOX = NetnsAddress(name="box")
NIC = Interface(name="eth0", device="tap0", hw_addr="02:42:20:6f:a3:69", mtu=1500)
# What has random tests of its own, or needs more than the device that a namespace is given.
ELSEWHERE = {(Interface, name) for name in ("queues", "sysctls", "vhost_user_socket")}
# What needs other interfaces, so that the rows of tests/completeness do not have it.
GENERATED = {(Interface, "made"), (Interface, "master")}
Field = tuple[type, str]
TYPES: tuple[type, ...] = (Interface, Address, Route, NextHop, Neighbour, Rule)


def values(each: Any) -> Iterator[tuple[Field, Hashable]]:
    """Yield the fields of an object and of all within it, each with its value; of pairs, each name is a field."""
    for field in fields(each):
        value = getattr(each, field.name)
        yield (type(each), field.name), value
        for part in value if isinstance(value, tuple) else (value,):
            if is_dataclass(part):
                yield from values(part)
            elif isinstance(part, tuple) and field.name in {"metrics", "attributes", "options"}:
                name = f"{each.kind}.{part[0]}" if isinstance(each, Made) else part[0]
                yield (type(each), f"{field.name}.{name}"), part[1]


def seen(strategy: st.SearchStrategy[Any], count: int) -> dict[Field, set[Hashable]]:
    """Return the values of each field in so many examples, which are the same each time."""
    found = defaultdict[Field, set[Hashable]](set)

    @settings(max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(strategy)
    def look(example: Any) -> None:
        for field, value in values(example):
            found[field].add(value)

    look()
    return found


def once(wanted: Iterable[Field], found: Mapping[Field, set[Hashable]]) -> list[str]:
    """Return the fields that have one value at most."""
    return sorted(f"{kind.__name__}.{name}" for kind, name in wanted if len(found.get((kind, name), ())) < 2)


def test_each_field_has_several_values() -> None:
    found = seen(sandboxes(("tap0", "tap1", "tap2"), BOX, kinds=OPTIONS), 60)
    wanted: set[Field] = {(kind, field.name) for kind in TYPES for field in fields(kind)}
    wanted -= (WITHOUT_ROW.keys() - GENERATED) | ELSEWHERE
    assert once(wanted | {(Interface, f"attributes.{each.field}") for each in ATTRIBUTES}, found) == []


def test_each_metric_type_and_scope_of_a_route_occurs() -> None:
    found = seen(routes([NIC]), 300)
    assert {name for _, name in found} >= {f"metrics.{each.field}" for each in METRICS}
    assert found[Route, "type"] == {"unicast", *DIRECT_TYPES, *REJECT_TYPES}
    # Where a route can have the scope `link`, that is the usual one.
    assert found[Route, "scope"] == {None, *SCOPES} - {"link"}


def test_each_option_of_each_kind_has_several_values() -> None:
    links = made_links(OPTIONS, [NIC])
    found = seen(links.map(lambda each: Sandbox(id="box", driver=BOX, interfaces=tuple(each))), 150)
    assert found[Made, "kind"] == KINDS.keys()
    assert once(((Made, f"options.{kind}.{each.name}") for kind in KINDS for each in KINDS[kind].options), found) == []
