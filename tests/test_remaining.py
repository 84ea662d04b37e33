"""What differs between a manifest and a sandbox is named, field by field; and what may differ is not."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.model.identity import HostDevice, Listed, Nic, NicAddress, RealServer, Setting, Sysctl, VirtualService
from reconciler.model.interface import Address, Interface
from reconciler.model.ipvs import Ipvs, Server, Service, Timeouts
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import NextHop, Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.remaining import remaining
from reconciler.values import MISSING, fields, replace
from tests.manifest.test_completeness import EXAMPLES, HOP, NIC, NOT_SAID, ROUTE, SERVER, SERVICE, defaults
from tests.plan.sandboxes import DRIVER

KINDS: tuple[type, ...] = (Interface, Address, Neighbour, NextHop, Route, Rule, Server, Service)
FIELDS: list[tuple[type, str, Any]] = [
    (kind, field, example) for kind in KINDS for field, example in EXAMPLES[kind].items()
]
# The other fields that are compared, although no manifest says them, in the same order in each process. Flags of other
# programs are not, nor who made an object.
UNCOMPARED = {*((kind, field) for kind in KINDS for field in ("protocol", "other_flags")), (Interface, "marked")}
UNSAID = sorted((each for each in NOT_SAID - UNCOMPARED if each[0] in KINDS), key=str)
FIELDS += [(kind, field, EXAMPLES[kind][next(iter(EXAMPLES[kind]))]) for kind, field in UNSAID]
# It says what the weights of a service are compared with, and is never observed.
FIELDS.remove((Service, "ignore", EXAMPLES[Service]["ignore"]))
_LINK = "eth0 (host tap0): 02:42:20:6f:a3:69 mtu 1500"


def sandbox(**sections: Any) -> Sandbox:
    return Sandbox(id="box", driver=DRIVER, **sections)


def table(*services: Service, **fields: Any) -> Sandbox:
    return sandbox(ipvs=Ipvs(services=services, **fields))


def around(**fields: Any) -> Surroundings:
    return replace(Surroundings(), **fields)


def words(desired: Sandbox, observed: Sandbox, surroundings: Surroundings | None = None) -> list[str]:
    found = Observed(sandbox=observed, around=surroundings or Surroundings())
    return [difference.words for difference in remaining(desired, found)]


def sandbox_with(each: Any) -> Sandbox:
    """Return a sandbox that has an object of any kind, in those that it belongs to."""
    match each:
        case Interface():
            return sandbox(interfaces=(each,))
        case Address():
            return sandbox(interfaces=(replace(NIC, addresses=(each,)),))
        case Neighbour():
            return sandbox(neighbours=(each,))
        case NextHop():
            return sandbox(routes=(replace(ROUTE, nexthops=(each, NextHop(device="eth9"))),))
        case Route():
            return sandbox(routes=(each,))
        case Rule():
            return sandbox(rules=(each,))
        case Server():
            return table(replace(SERVICE, servers=(each,)))
        case Service():
            return table(each)
        case _:
            raise TypeError(each)


def another(value: Any) -> Any:
    """Return another value of the same type, which can be written."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case tuple():
            return ("noprefixroute",)
        case None:
            return "192.0.2.9"
        case "udp":
            return "tcp"
        case str():
            return f"{value}0"
        case _:
            raise TypeError(value)


@pytest.mark.parametrize(
    ("kind", "field", "example"), FIELDS, ids=[f"{kind.__name__}.{field}" for kind, field, _ in FIELDS]
)
def test_each_field_differs(kind: Any, field: str, example: Any) -> None:
    default = defaults(kind)[field]
    value = getattr(example, field)
    other = default if default not in {MISSING, value} else another(value)
    desired, found = sandbox_with(example), sandbox_with(replace(example, **{field: other}))
    assert words(desired, desired) == []
    assert words(desired, found) != []


@pytest.mark.parametrize(
    ("kind", "examples"),
    [(each, [*EXAMPLES[each], *(field for kind, field in NOT_SAID if kind is each)]) for each in KINDS],
    ids=[each.__name__ for each in KINDS],
)
def test_all_fields_are_compared(kind: Any, examples: list[str]) -> None:
    assert {field.name for field in fields(kind)} == set(examples)


def test_a_section_that_is_absent_does_not_differ() -> None:
    found = sandbox(interfaces=(NIC,), routes=(ROUTE,), rules=(), neighbours=(), ipvs=Ipvs(services=(SERVICE,)))
    assert words(sandbox(), found) == []
    assert words(sandbox(ipvs=Ipvs()), found) == []
    assert words(sandbox(ipvs=Ipvs()), sandbox()) == []


def test_what_differs_is_named() -> None:
    other = replace(ROUTE, dest="10.9.0.0/16")
    changed = replace(other, mtu=1400, nexthops=(replace(HOP, gateway="10.0.0.1"),))
    assert words(sandbox(routes=(ROUTE, changed)), sandbox(routes=(other, replace(ROUTE, dest="10.7.0.0/16")))) == [
        "routes: 10.8.0.0/16 dev eth0 is missing",
        "routes: 10.9.0.0/16 via 10.0.0.1 dev eth0 mtu 1400: gateway is absent, not 10.0.0.1, mtu is absent, not 1400",
        "routes: 10.7.0.0/16 dev eth0 should not be there",
    ]
    found = replace(
        NIC, name="eth1", up=False, addresses=(Address(address="fd00::2/64"), Address(address="10.0.0.2/16"))
    )
    wish = replace(NIC, addresses=(Address(address="fd00::2/64", dad=False), Address(address="10.0.0.3/16")))
    assert words(sandbox(interfaces=(wish,)), sandbox(interfaces=(found,))) == [
        "interfaces: address fd00::2/64 of eth0 is fd00::2/64, not fd00::2/64 nodad",
        "interfaces: address 10.0.0.3/16 of eth0 is missing",
        "interfaces: address 10.0.0.2/16 of eth0 should not be there",
        f"interfaces: {_LINK} up: name is eth1, not eth0, state is down, not absent",
    ]
    down = replace(NIC, up=False)
    assert words(sandbox(interfaces=(NIC,)), sandbox(interfaces=(down,))) == [
        f"interfaces: {_LINK} up: state is down, not absent"
    ]
    opaque = replace(ROUTE, opaque=("initcwnd 10",))
    assert words(sandbox(routes=(ROUTE,)), sandbox(routes=(opaque,))) == [
        "routes: 10.8.0.0/16 dev eth0: found 10.8.0.0/16 dev eth0 initcwnd 10"
    ]


def test_what_differs_of_a_table_is_named() -> None:
    lighter = replace(SERVER, weight=0)
    gone = replace(SERVICE, port=81, servers=(SERVER,))
    wish = replace(SERVICE, scheduler="rr", servers=(SERVER, replace(SERVER, port=81)))
    assert words(
        table(wish, replace(SERVICE, port=82), timeouts=Timeouts(900, 0, None), sysctls=(("conntrack", 1),)),
        table(replace(SERVICE, servers=(lighter,)), gone, timeouts=Timeouts(1, 2, 3)),
    ) == [
        "ipvs: sysctls.conntrack is absent, not 1",
        "ipvs: timeouts.tcp is 1, not 900",
        "ipvs: service -u 172.17.0.7:80: scheduler is absent, not rr",
        "ipvs: service -u 172.17.0.7:80: server -r 172.17.0.4:80 -m -w 1 is -r 172.17.0.4:80 -m -w 0",
        "ipvs: service -u 172.17.0.7:80: server -r 172.17.0.4:81 -m -w 1 is missing",
        "ipvs: service -u 172.17.0.7:82 -s wlc is missing",
        "ipvs: service -u 172.17.0.7:81 should not be there",
        "ipvs: service -u 172.17.0.7:81: server -r 172.17.0.4:80 -m -w 1 should not be there",
    ]


def test_only_the_mark_differs() -> None:
    (difference,) = remaining(table(SERVICE), Observed(sandbox=table(replace(SERVICE, marked=False))))
    assert (difference.words, difference.only_mark) == (
        "ipvs: service -u 172.17.0.7:80 does not carry our mark",
        True,
    )
    both = replace(SERVICE, marked=False, scheduler="rr")
    assert [each.only_mark for each in remaining(table(SERVICE), Observed(sandbox=table(both)))] == [False]


# What may differ.


def test_an_equal_route_of_another_owner_serves() -> None:
    connected = replace(ROUTE, source="10.8.0.1")
    for foreign in (ROUTE, connected):
        assert words(sandbox(routes=(ROUTE,)), sandbox(routes=()), around(routes=(foreign,))) == []
    for foreign in (replace(ROUTE, mtu=1400), replace(ROUTE, metric=5)):
        assert words(sandbox(routes=(ROUTE,)), sandbox(routes=()), around(routes=(foreign,))) == [
            "routes: 10.8.0.0/16 dev eth0 is missing"
        ]


@pytest.mark.parametrize("kind", [Neighbour, Rule])
def test_an_equal_object_of_another_owner_serves(kind: type) -> None:
    each = EXAMPLES[kind]["address" if kind is Neighbour else "priority"]
    section = each.section
    desired, found = sandbox_with(each), sandbox(**{section: ()})
    assert words(desired, found, around(**{section: (each,)})) == []
    other = replace(each, hw_addr="02:00:00:00:00:01") if kind is Neighbour else replace(each, table=7)
    assert len(words(desired, found, around(**{section: (other,)}))) == 1


def test_an_address_that_the_kernel_gave_is_there() -> None:
    address = Address(address="fd00::2/64")
    desired, found = sandbox_with(address), sandbox(interfaces=(NIC,))
    assert words(desired, found, around(addresses=frozenset({("eth0", "fd00::2/64")}))) == []
    assert words(desired, found, around(addresses=frozenset({("eth1", "fd00::2/64")}))) == [
        "interfaces: address fd00::2/64 of eth0 is missing"
    ]


def test_the_order_of_addresses_is_no_difference() -> None:
    pair = (Address(address="fd00::2/64"), Address(address="10.0.0.2/16"))
    one, other = (sandbox(interfaces=(replace(NIC, addresses=each),)) for each in (pair, pair[::-1]))
    assert words(one, other) == []


def test_weights_that_are_ignored_may_differ_and_nothing_else() -> None:
    wish = replace(SERVICE, ignore=("weight",), servers=(SERVER,))
    heavier = replace(SERVER, weight=7)
    assert words(table(wish), table(replace(SERVICE, servers=(heavier,)))) == []
    assert words(table(replace(wish, ignore=())), table(replace(SERVICE, servers=(heavier,)))) != []
    assert words(table(wish), table(replace(SERVICE, servers=(replace(heavier, forward="dr"),)))) == [
        "ipvs: service -u 172.17.0.7:80: server -r 172.17.0.4:80 -m -w 7 is -r 172.17.0.4:80 -g -w 7"
    ]
    # A server that drains has its weight from us.
    assert words(table(wish), table(replace(SERVICE, servers=(SERVER.draining(5),)))) != []


def test_servers_that_drain_may_be_there_where_the_manifest_drains() -> None:
    draining = SERVER.draining(1_800_000_000)
    found = table(replace(SERVICE, servers=(draining,)), replace(SERVICE, port=81, servers=(draining,)))
    assert words(table(SERVICE, drain=60), found) == []
    assert len(words(table(SERVICE), found)) == 3
    # One that does not drain yet.
    assert words(table(SERVICE, drain=60), table(replace(SERVICE, servers=(SERVER,)))) == [
        "ipvs: service -u 172.17.0.7:80: server -r 172.17.0.4:80 -m -w 1 should not be there"
    ]


def test_sysctls_are_named_in_full() -> None:
    desired = sandbox(
        sysctls=(("net.ipv4.ip_forward", 1), ("net.ipv6.bindv6only", 1)),
        interfaces=(replace(NIC, sysctls=(("accept_ra", 0), ("ipv4.forwarding", 1))),),
    )
    found = sandbox(
        sysctls=(("net.ipv4.ip_forward", 0), ("net.ipv6.bindv6only", 1)),
        interfaces=(replace(NIC, sysctls=(("ipv4.forwarding", 0),)),),
    )
    assert words(desired, found) == [
        "sysctls: net.ipv4.ip_forward is 0, not 1",
        "sysctls: net.ipv6.conf.eth0.accept_ra is absent, not 0",
        "sysctls: net.ipv4.conf.eth0.forwarding is 0, not 1",
    ]
    assert [difference.about for difference in remaining(desired, Observed(sandbox=found))] == [
        {Sysctl("net.ipv4.ip_forward")},
        {Sysctl("net.ipv6.conf.eth0.accept_ra", "eth0")},
        {Sysctl("net.ipv4.conf.eth0.forwarding", "eth0")},
    ]
    # What a manifest does not name may be anything.
    assert words(sandbox(sysctls=()), found) == []


def test_the_fallback_of_a_scheduler_may_be_on_while_servers_drain_and_no_longer() -> None:
    wish = replace(SERVICE, scheduler="mh", servers=(SERVER,))
    leaving = replace(SERVER, port=81)
    on = replace(wish, draining=True)
    drains = replace(on, servers=(SERVER, leaving.draining(1_800_000_000)))
    name = "ipvs: service -u 172.17.0.7:80"
    assert words(table(wish, drain=60), table(drains)) == []
    assert words(table(wish, drain=60), table(replace(drains, draining=False))) == [
        f"{name}: schedulerFlags is absent, not ['mh-fallback']"
    ]
    assert words(table(wish, drain=60), table(on)) == [f"{name}: schedulerFlags is ['mh-fallback'], not absent"]
    forever = replace(wish, scheduler_flags=("mh-fallback",))
    assert words(table(forever), table(on)) == [f"{name}: the mark of a drain is wrong"]


def test_what_a_difference_is_about_is_what_operations_are_about() -> None:
    renamed = replace(NIC, name="eth1", addresses=(Address(address="10.0.0.2/16"),))
    desired = replace(
        table(replace(SERVICE, servers=(SERVER,)), timeouts=Timeouts(1), sysctls=(("conntrack", 1),)),
        interfaces=(NIC,),
        routes=(ROUTE,),
    )
    observed = replace(table(SERVICE), interfaces=(renamed,), routes=())
    assert [difference.about for difference in remaining(desired, Observed(sandbox=observed))] == [
        {NicAddress("eth0", "10.0.0.2/16"), NicAddress("eth1", "10.0.0.2/16")},
        {HostDevice("tap0"), Nic("eth0"), Nic("eth1")},
        {Listed("routes", ROUTE.key)},
        {Setting("sysctls.conntrack")},
        {Setting("timeouts")},
        {VirtualService(SERVICE.key), RealServer(SERVICE.key, SERVER.key)},
    ]
