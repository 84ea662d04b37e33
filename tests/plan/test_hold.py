"""What a sandbox becomes if some objects cannot be changed: what depends on them stays, all else is as desired."""

from __future__ import annotations

import pytest

from reconciler.model.identity import HostDevice, Listed, Nic, NicAddress, Subject, Sysctl
from reconciler.model.interface import Interface
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import Sandbox
from reconciler.model.sysctl import full_name
from reconciler.plan.hold import hold
from reconciler.values import replace
from tests.plan.sandboxes import hop, nic, route, wanted

OLD, NEW = nic("eth0", "10.0.0.2/24"), nic("eth1", "10.1.0.2/24", number=2)
VIA_OLD, VIA_NEW = route("192.168.0.0/24", hop("eth0", "10.0.0.1")), route("192.168.1.0/24", hop("eth1", "10.1.0.1"))
DEFAULT = route("0.0.0.0/0", hop("eth0", "10.0.0.1"))


def stuck_route(each: Route) -> Listed:
    return Listed("routes", each.key)


def stuck_rule(each: Rule) -> Listed:
    return Listed("rules", each.key)


def rule(priority: int, **fields: object) -> Rule:
    base = Rule(family="ipv4", priority=priority, from_="10.0.0.0/24", table=100)
    return replace(base, **fields)  # type: ignore[arg-type]


def held(
    desired: tuple[tuple[Interface, ...], tuple[Route, ...]],
    before: tuple[tuple[Interface, ...], tuple[Route, ...]],
    *stuck: Subject,
) -> tuple[set[Interface], set[Route]]:
    found = hold(wanted(*desired), wanted(*before), stuck)
    assert found.interfaces is not None
    assert found.routes is not None
    return set(found.interfaces), set(found.routes)


def test_without_a_failure_nothing_is_held() -> None:
    desired, before = wanted([OLD, NEW], [VIA_OLD, VIA_NEW]), wanted([OLD], [DEFAULT])
    assert hold(desired, before, ()) == desired


@pytest.mark.parametrize("subject", [Nic("eth1"), HostDevice(NEW.device)], ids=["by name", "by device"])
def test_a_nic_that_does_not_come_takes_its_routes_along_and_no_others(subject: Subject) -> None:
    found = held(((OLD, NEW), (VIA_OLD, VIA_NEW)), ((), ()), subject)
    assert found == ({OLD}, {VIA_OLD})


def test_a_nic_that_cannot_be_set_keeps_its_settings_and_gets_all_else() -> None:
    before = replace(OLD, mtu=1400, addresses=())
    found = held(((OLD,), (VIA_OLD,)), ((before,), ()), Nic("eth0"))
    assert found == ({replace(before, addresses=OLD.addresses)}, {VIA_OLD})


def test_on_a_nic_that_stays_down_everything_stays() -> None:
    before = replace(OLD, up=False)
    found = held(((OLD,), (VIA_OLD, DEFAULT)), ((before,), (DEFAULT,)), Nic("eth0"))
    assert found == ({before}, {DEFAULT})


def test_a_nic_that_cannot_be_renamed_keeps_the_routes_of_its_old_name() -> None:
    after = replace(OLD, name="net0")
    via_new_name = replace(VIA_OLD, nexthops=(hop("net0", "10.0.0.1"),))
    found = held(((after,), (via_new_name,)), ((OLD,), (VIA_OLD,)), Nic("net0"), Nic("eth0"))
    assert found == ({OLD}, {VIA_OLD})


def test_names_that_are_exchanged_stay_together() -> None:
    one, two = nic("a", device="tap1"), nic("b", device="tap2", number=2)
    swapped = replace(one, name="b"), replace(two, name="a")
    found = held((swapped, ()), ((one, two), ()), Nic("b"))
    assert found == ({one, two}, set())


def test_a_nic_whose_replacement_does_not_come_stays_with_all_that_it_has() -> None:
    other = replace(OLD, device="tap-new")
    for new in (other, replace(other, name="eth7")):
        found = held(((new,), ()), ((OLD,), (VIA_OLD,)), HostDevice("tap-new"))
        assert found == ({OLD}, {VIA_OLD})
    # Another one that leaves has no part in it.
    found = held(((other,), ()), ((OLD, NEW), (VIA_OLD, VIA_NEW)), HostDevice("tap-new"))
    assert found == ({OLD}, {VIA_OLD})


def test_an_address_that_does_not_come_takes_what_needs_it_along() -> None:
    both = nic("eth0", "10.0.0.2/24", "10.7.0.2/24", "fd00::2/64")
    through, source = route("192.168.7.0/24", hop("eth0", "10.7.0.1")), replace(VIA_OLD, source="10.7.0.2")
    beyond = route("192.168.8.0/24", hop("eth0", "192.168.7.1", on_link=True))
    found = held(((both,), (through, source, beyond, DEFAULT)), ((), ()), NicAddress("eth0", "10.7.0.2/24"))
    assert found == ({nic("eth0", "10.0.0.2/24", "fd00::2/64")}, {beyond, DEFAULT})


def test_an_address_stays_until_its_successor_is_there() -> None:
    before, after = nic("eth0", "10.0.0.2/24", "fd00::2/64"), nic("eth0", "10.7.0.2/24", "fd07::2/64")
    renumbered = route("0.0.0.0/0", hop("eth0", "10.7.0.1"))
    found = held(((after,), (renumbered,)), ((before,), (DEFAULT,)), NicAddress("eth0", "10.7.0.2/24"))
    assert found == ({nic("eth0", "10.0.0.2/24", "fd07::2/64")}, {DEFAULT})


def test_a_route_that_stays_keeps_the_address_that_reaches_its_gateway() -> None:
    before, after = nic("eth0", "10.0.0.2/24"), nic("eth0", "10.7.0.2/24")
    renumbered = route("0.0.0.0/0", hop("eth0", "10.7.0.1"))
    ((found,), routes) = held(((after,), (renumbered,)), ((before,), (DEFAULT,)), stuck_route(renumbered))
    assert {each.address for each in found.addresses} == {"10.0.0.2/24", "10.7.0.2/24"}
    assert routes == {DEFAULT}


def test_an_address_without_a_connected_route_reaches_no_gateway() -> None:
    def bare(name: str, number: int) -> Interface:
        full = nic(name, "10.0.0.3/24", number=number)
        return replace(full, addresses=(replace(full.addresses[0], noprefixroute=True),))

    # The gateway was reached by the other address, which is stuck.
    both = replace(bare("eth0", 1), addresses=(*bare("eth0", 1).addresses, *OLD.addresses))
    found = held(((both,), (VIA_OLD,)), ((bare("eth0", 1),), ()), NicAddress("eth0", "10.0.0.2/24"))
    assert found == ({bare("eth0", 1)}, set())
    # A route that stays keeps the connected route that it needs.
    renumbered = route("0.0.0.0/0", hop("eth1", "10.1.0.1"))
    plain = replace(both, addresses=OLD.addresses)
    after = replace(plain, addresses=(replace(OLD.addresses[0], noprefixroute=True),))
    found = held(((after, NEW), (renumbered,)), ((plain,), (DEFAULT,)), stuck_route(renumbered))
    assert found == ({plain, NEW}, {DEFAULT})


def test_a_route_over_one_that_does_not_come_is_not_tried() -> None:
    near = route("10.9.0.0/24", hop("eth0"))
    far, farther = route("192.168.9.0/24", hop("eth0", "10.9.0.1")), route("192.168.10.0/24", hop("eth0", "10.9.0.7"))
    found = held(((OLD,), (near, far, farther, DEFAULT)), ((OLD,), (VIA_OLD,)), stuck_route(near))
    assert found == ({OLD}, {DEFAULT})


def test_a_route_whose_successor_does_not_come_stays() -> None:
    metric, table = replace(DEFAULT, metric=100), replace(DEFAULT, table=100)
    for successor in (metric, table):
        found = held(((OLD,), (successor,)), ((OLD,), (DEFAULT,)), stuck_route(successor))
        assert found == ({OLD}, {DEFAULT})
    # Packets of the deleted one would take the default route.
    assert held(((OLD,), (metric,)), ((OLD,), (VIA_OLD,)), stuck_route(metric)) == ({OLD}, {VIA_OLD})
    # Those of another table, another family or another network are unrelated.
    ipv6 = route("::/0", hop("eth0", "fe80::1"))
    beside = route("192.168.1.0/24", hop("eth0", "10.0.0.1"))
    for unrelated in (table, ipv6, beside):
        assert held(((OLD,), (unrelated,)), ((OLD,), (VIA_OLD,)), stuck_route(unrelated)) == ({OLD}, set())


def test_a_route_that_cannot_be_replaced_is_as_before_and_the_others_are_new() -> None:
    after = replace(DEFAULT, nexthops=(hop("eth0", "10.0.0.9"),))
    found = held(((OLD,), (after, VIA_OLD)), ((OLD,), (DEFAULT,)), stuck_route(after))
    assert found == ({OLD}, {DEFAULT, VIA_OLD})


def test_the_nic_of_a_route_that_stays_is_not_removed() -> None:
    through_new = replace(DEFAULT, nexthops=(hop("eth1", "10.1.0.1"),))
    found = held(((NEW,), (through_new,)), ((OLD,), (DEFAULT,)), stuck_route(through_new))
    assert found == ({OLD, NEW}, {DEFAULT})


def test_rules_of_one_priority_stay_together_and_with_them_the_routes() -> None:
    old, new, other = rule(100), rule(100, table=200), rule(110)
    in_old, in_new = replace(DEFAULT, table=100), replace(DEFAULT, table=200)
    desired = replace(wanted([OLD], [in_new]), rules=(new, other))
    before = replace(wanted([OLD], [in_old]), rules=(old,))
    found = hold(desired, before, [stuck_rule(new)])
    assert (set(found.rules or ()), set(found.routes or ())) == ({old, other}, {in_old, in_new})
    # Without the route, the rule would have nothing to look up.
    found = hold(desired, before, [stuck_route(in_new)])
    assert (set(found.rules or ()), set(found.routes or ())) == ({old, other}, {in_old})
    # The same packets, another priority.
    moved = rule(90, table=200)
    found = hold(replace(desired, rules=(moved,)), before, [stuck_rule(moved)])
    assert set(found.rules or ()) == {old}


def test_neighbours_go_with_their_nic() -> None:
    near, far = (Neighbour(address="10.0.0.1", device=name, hw_addr="02:00:00:00:00:01") for name in ("eth0", "eth1"))
    desired = replace(wanted([OLD, NEW]), neighbours=(near, far))
    assert hold(desired, wanted([OLD]), [Nic("eth1")]).neighbours == (near,)
    before = replace(near, hw_addr="02:00:00:00:00:09")
    found = hold(desired, replace(wanted([OLD]), neighbours=(before,)), [Listed("neighbours", near.key)])
    assert set(found.neighbours or ()) == {before, far}


def test_absent_sections_stay_absent() -> None:
    desired = wanted(None, [VIA_OLD])
    found = hold(desired, wanted([OLD], [DEFAULT]), [stuck_route(VIA_OLD), Nic("eth0")])
    assert (found.interfaces, found.routes, found.rules, found.neighbours) == (None, (DEFAULT,), None, None)
    assert hold(wanted([OLD]), Sandbox(id="box", driver=desired.driver), [Nic("eth0")]).routes is None


def test_a_sysctl_that_cannot_be_set_is_left_alone_and_nothing_else_is() -> None:
    eth0 = replace(OLD, sysctls=(("rp_filter", 1), ("accept_ra", 0)))
    desired = replace(wanted([eth0], [VIA_OLD]), sysctls=(("net.ipv4.ip_forward", 1), ("net.ipv4.tcp_ecn", 1)))
    before = replace(wanted([replace(eth0, mtu=1400, sysctls=())], []), sysctls=())
    stuck: list[Subject] = [
        Sysctl("net.ipv4.ip_forward"),
        Sysctl(full_name("eth0", "accept_ra"), "eth0"),
    ]
    found = hold(desired, before, stuck)
    assert found.sysctls == (("net.ipv4.tcp_ecn", 1),)
    assert found.interfaces == (replace(eth0, sysctls=(("rp_filter", 1),)),)
    assert found.routes == (VIA_OLD,)
    # The settings of a link and its sysctls do not depend on each other.
    found = hold(desired, before, [Nic("eth0")])
    assert found.interfaces == (replace(eth0, mtu=1400),)
