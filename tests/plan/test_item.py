"""Neighbours and rules: what comes, what goes and in which order, and what the kernel drops on the way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import RefusedError
from reconciler.formats.iproute2 import Item
from reconciler.model.interface import Interface
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import Route
from reconciler.model.rule import NO_SUPPRESSION, Rule
from reconciler.model.sandbox import Observed, Sandbox
from reconciler.operations.address import AddAddress, DeleteAddress
from reconciler.operations.interface import RenameInterface
from reconciler.operations.item import AddItem, DeleteItem, ItemOperation, ReplaceItem
from reconciler.operations.route import AddRoute, DeleteRoute
from reconciler.plan import Deletion, Plan, plan
from reconciler.values import replace
from tests.examples import examples
from tests.plan.sandboxes import found, hop, mac, nic, planned_commands, route
from tests.plan.sandboxes import wanted as sandbox
from tests.segments import segments

ETH0 = nic("eth0", "192.0.2.10/24", "2001:db8::10/64 nodad")
ETH1 = nic("eth1", "198.51.100.10/24", number=2)
NEAR = Neighbour(address="192.0.2.1", device="eth0", hw_addr=mac(0xF1))
NEAR6 = Neighbour(address="2001:db8::1", device="eth0", hw_addr=mac(0xF1), router=True)
PROXY = Neighbour(address="192.0.2.77", device="eth0", proxy=True)
PROXY6 = Neighbour(address="2001:db8::77", device="eth0", proxy=True)
FAR = Neighbour(address="198.51.100.1", device="eth1", hw_addr=mac(0xF2))
ALL0 = (NEAR, NEAR6, PROXY, PROXY6)
RULE = Rule(family="ipv4", priority=100, from_="10.1.0.0/16", table=100)
RULE6 = Rule(family="ipv6", priority=100, from_="fd00::/8", table=100)


def wanted(
    interfaces: Iterable[Interface] | None = None,
    routes: Iterable[Route] | None = None,
    *,
    neighbours: Iterable[Neighbour] | None = None,
    rules: Iterable[Rule] | None = None,
) -> Sandbox:
    return replace(
        sandbox(interfaces, routes),
        neighbours=None if neighbours is None else tuple(neighbours),
        rules=None if rules is None else tuple(rules),
    )


def there(
    interfaces: Iterable[Interface] = (),
    routes: Iterable[Route] = (),
    *,
    ours: Iterable[Item] = (),
    foreign: Iterable[Item] = (),
    **around: Any,
) -> Observed:
    """Return what is observed, with neighbours and rules that are ours, and those of others."""
    seen, ours, foreign = found(interfaces, routes, **around), tuple(ours), tuple(foreign)

    def of(items: tuple[Item, ...]) -> dict[str, Any]:
        return {
            "neighbours": tuple(each for each in items if isinstance(each, Neighbour)),
            "rules": tuple(each for each in items if isinstance(each, Rule)),
        }

    return Observed(sandbox=replace(seen.sandbox, **of(ours)), around=replace(seen.around, **of(foreign)))


def items_planned(desired: Sandbox, observed: Observed) -> list[ItemOperation]:
    return [each for each in plan(desired, observed).operations if isinstance(each, AddItem | ReplaceItem | DeleteItem)]


each_kind = pytest.mark.parametrize(
    "item", [NEAR, NEAR6, PROXY, PROXY6, RULE, RULE6], ids=lambda each: str(each.key)[:40]
)


def asked(*items: Item) -> Sandbox:
    return wanted(
        neighbours=[each for each in items if isinstance(each, Neighbour)],
        rules=[each for each in items if isinstance(each, Rule)],
    )


@each_kind
def test_what_is_there_is_left(item: Item) -> None:
    assert plan(asked(item), there([ETH0], ours=[replace(item)])) == Plan(())


@each_kind
def test_what_is_missing_is_added(item: Item) -> None:
    assert plan(asked(item), there([ETH0])) == Plan(segments([AddItem(item=item)]))


@each_kind
def test_what_is_too_much_is_deleted_and_counted(item: Item) -> None:
    kind = "neighbour" if isinstance(item, Neighbour) else "rule"
    expected = Plan(segments([DeleteItem(item=item)]), (Deletion(kind=kind, count=1, total=1),))
    assert plan(asked(), there([ETH0], ours=[item])) == expected


@each_kind
def test_a_section_that_is_absent_is_left_alone(item: Item) -> None:
    assert plan(wanted([ETH0], []), there([ETH0], ours=[item])) == Plan(())
    assert plan(wanted(), there([ETH0], ours=[item])) == Plan(())


@each_kind
def test_what_somebody_else_has_made_alike_is_enough(item: Item) -> None:
    assert plan(asked(item), there([ETH0], foreign=[replace(item)])) == Plan(())


@each_kind
def test_what_is_of_others_is_never_deleted(item: Item) -> None:
    assert plan(asked(), there([ETH0], foreign=[item])) == Plan(())


NEIGHBOUR_CHANGES = {
    "hw_addr": (NEAR, replace(NEAR, hw_addr=mac(0xF9))),
    "router": (NEAR6, replace(NEAR6, router=False)),
    "router of a proxy": (PROXY6, replace(PROXY6, router=True)),
    "one that expires": (replace(NEAR, permanent=False), NEAR),
}


@pytest.mark.parametrize(("before", "after"), NEIGHBOUR_CHANGES.values(), ids=NEIGHBOUR_CHANGES)
def test_a_neighbour_is_replaced_and_never_missing(before: Neighbour, after: Neighbour) -> None:
    planned = plan(asked(after), there([ETH0], ours=[before]))
    assert planned == Plan(segments([ReplaceItem(item=after, before=before)]))


@pytest.mark.parametrize(
    "after",
    [replace(NEAR, address="192.0.2.2"), replace(NEAR, device="eth1"), replace(NEAR, hw_addr="", proxy=True)],
    ids=["address", "device", "proxy"],
)
def test_another_key_is_another_neighbour_that_comes_before_the_old_one_goes(after: Neighbour) -> None:
    planned = plan(asked(after), there([ETH0, ETH1], ours=[NEAR]))
    expected = segments([AddItem(item=after), DeleteItem(item=NEAR)])
    assert planned == Plan(expected, (Deletion(kind="neighbour", count=1, total=1),))


def test_a_different_neighbour_of_somebody_else_is_refused_by_name() -> None:
    with pytest.raises(RefusedError) as caught:
        plan(asked(NEAR), there([ETH0], foreign=[replace(NEAR, hw_addr=mac(0xF9))]))
    assert str(caught.value) == (
        "192.0.2.1 lladdr 02:00:00:00:00:f1 dev eth0 nud permanent: "
        "192.0.2.1 lladdr 02:00:00:00:00:f9 dev eth0 nud permanent is in its place and is not ours; delete it there"
    )


@pytest.mark.parametrize("other", [replace(NEAR, device="eth1"), replace(NEAR, address="192.0.2.2"), PROXY, NEAR6])
def test_a_neighbour_of_somebody_else_under_another_key_is_in_nobodys_way(other: Neighbour) -> None:
    assert items_planned(asked(NEAR), there([ETH0, ETH1], foreign=[other])) == [AddItem(item=NEAR)]


def test_what_others_have_follows_a_rename_and_is_still_in_the_way() -> None:
    after, theirs = replace(NEAR, device="net0"), replace(NEAR, hw_addr=mac(0xF9))
    desired = wanted([replace(ETH0, name="net0")], neighbours=[after])
    assert items_planned(desired, there([ETH0], foreign=[NEAR])) == []
    with pytest.raises(RefusedError) as caught:
        plan(desired, there([ETH0], foreign=[theirs]))
    assert str(caught.value) == (
        "192.0.2.1 lladdr 02:00:00:00:00:f1 dev net0 nud permanent: "
        "192.0.2.1 lladdr 02:00:00:00:00:f9 dev net0 nud permanent is in its place and is not ours; delete it there"
    )
    # Names are swapped, and what was in the way of the one NIC is on the other.
    swapped = [replace(ETH0, name="eth1"), replace(ETH1, name="eth0")]
    operations = items_planned(wanted(swapped, neighbours=[NEAR]), there([ETH0, ETH1], foreign=[theirs]))
    assert operations == [AddItem(item=NEAR)]


def test_what_others_lose_with_a_link_is_in_nobodys_way() -> None:
    theirs = replace(NEAR, hw_addr=mac(0xF9))
    desired = wanted([replace(ETH0, hw_addr=mac(9))], neighbours=[NEAR])
    assert items_planned(desired, there([ETH0], foreign=[theirs])) == [AddItem(item=NEAR)]
    # It would be equal, but the kernel drops it.
    assert items_planned(desired, there([ETH0], foreign=[NEAR])) == [AddItem(item=NEAR)]


declared_or_not = pytest.mark.parametrize("declared", [True, False], ids=["declared", "absent"])


@declared_or_not
def test_a_link_that_goes_down_gets_all_its_neighbours_back(declared: bool) -> None:
    section = (*ALL0, FAR) if declared else None
    desired = wanted([replace(ETH0, hw_addr=mac(9)), ETH1], neighbours=section)
    planned = items_planned(desired, there([ETH0, ETH1], ours=[*ALL0, FAR], kinds={}))
    assert planned == [AddItem(item=each) for each in ALL0]
    assert plan(desired, there([ETH0, ETH1], ours=[*ALL0, FAR], kinds={})).deletions == ()


@declared_or_not
def test_a_link_with_another_mac_gets_its_neighbours_back_but_for_proxies(declared: bool) -> None:
    desired = wanted([replace(ETH0, hw_addr=mac(9)), ETH1], neighbours=(*ALL0, FAR) if declared else None)
    planned = items_planned(desired, there([ETH0, ETH1], ours=[*ALL0, FAR]))
    assert planned == [AddItem(item=NEAR), AddItem(item=NEAR6)]


@declared_or_not
def test_neighbours_follow_a_new_name(declared: bool) -> None:
    after = [replace(each, device="net0") for each in ALL0]
    desired = wanted([replace(ETH0, name="net0")], neighbours=after if declared else None)
    observed = there([ETH0], ours=ALL0)
    assert plan(desired, observed).operations == (RenameInterface(name="eth0", new_name="net0"),)
    # An old kernel takes the link down for it.
    observed = replace(observed, around=replace(observed.around, release="6.1"))
    assert items_planned(desired, observed) == [AddItem(item=each) for each in after]


def test_neighbours_of_a_nic_that_goes_are_not_deleted_one_by_one_but_counted() -> None:
    for section in ([FAR], None):
        planned = plan(wanted([ETH1], neighbours=section), there([ETH0, ETH1], ours=[*ALL0, FAR]))
        assert not any(isinstance(each, AddItem | ReplaceItem | DeleteItem) for each in planned.operations)
        assert planned.deletions == (
            Deletion(kind="interface", count=1, total=2),
            Deletion(kind="neighbour", count=4, total=5),
        )


def test_a_neighbour_of_another_nic_of_the_same_name_comes_again() -> None:
    after = replace(ETH0, device="tap-new")
    assert items_planned(wanted([after], neighbours=[NEAR]), there([ETH0], ours=[NEAR, PROXY])) == [AddItem(item=NEAR)]
    # What goes with its NIC is not taken along to one that happens to have its name.
    assert items_planned(wanted([after]), there([ETH0], ours=[NEAR, PROXY])) == []


def test_ipv6_neighbours_go_where_an_mtu_turns_ipv6_off() -> None:
    small = nic("eth0", "192.0.2.10/24", mtu=1000)
    observed = there([nic("eth0", "192.0.2.10/24")], ours=ALL0)
    assert items_planned(wanted([small]), observed) == []
    assert items_planned(wanted([small], neighbours=[NEAR, PROXY]), observed) == []
    assert plan(wanted([small]), observed).deletions == (Deletion(kind="neighbour", count=2, total=4),)


@declared_or_not
@pytest.mark.parametrize(
    "after", [nic("eth0", "192.0.2.11/24", "2001:db8::10/64 nodad"), nic("eth0", "2001:db8::10/64 nodad")]
)
def test_a_nic_that_is_without_ipv4_for_a_moment_loses_its_ipv4_neighbours(after: Interface, declared: bool) -> None:
    desired = wanted([after], neighbours=ALL0 if declared else None)
    observed = there([ETH0], ours=ALL0)
    assert items_planned(desired, observed) == [AddItem(item=NEAR), AddItem(item=PROXY)]
    operations = plan(desired, observed).operations
    assert operations.index(DeleteAddress(device="eth0", address=ETH0.addresses[0])) < operations.index(
        AddItem(item=NEAR)
    )


def test_a_nic_that_may_be_without_ipv4_for_a_moment_may_lose_its_ipv4_neighbours() -> None:
    before, after = nic("eth0", "192.0.2.10/24", "192.0.2.11/24"), nic("eth0", "192.0.2.11/24")
    changed = replace(FAR, device="eth0")
    observed = there([before], ours=[NEAR, NEAR6, PROXY, changed])
    desired = wanted([after], neighbours=[NEAR, NEAR6, replace(changed, hw_addr=mac(9))])
    assert items_planned(desired, observed) == [
        ReplaceItem(item=replace(changed, hw_addr=mac(9)), before=changed),
        ReplaceItem(item=NEAR, before=NEAR),
        DeleteItem(item=PROXY),
    ]


def test_a_nic_with_a_leased_address_keeps_its_neighbours() -> None:
    observed = there([ETH0], ours=ALL0, addresses=frozenset({("eth0", "192.0.2.99/24")}))
    after = nic("eth0", "192.0.2.11/24", "2001:db8::10/64 nodad")
    assert items_planned(wanted([after], neighbours=ALL0), observed) == []


def test_a_new_nic_has_its_neighbours_at_once() -> None:
    assert planned_commands(wanted([ETH0], neighbours=[NEAR, PROXY6]), there())[1:] == [
        "ip link set dev eth0 address 02:00:00:00:00:01 mtu 1500 up",
        "ip address add 192.0.2.10/24 dev eth0",
        "ip address add 2001:db8::10/64 dev eth0 nodad",
        "ip neigh replace 192.0.2.1 lladdr 02:00:00:00:00:f1 dev eth0 nud permanent protocol 200",
        "ip neigh replace proxy 2001:db8::77 dev eth0 protocol 200",
    ]


def test_order_among_addresses_neighbours_routes_and_rules() -> None:
    before, after = ETH0, nic("eth0", "203.0.113.10/24", "2001:db8::10/64 nodad")
    via, old_via = route("10.1.0.0/16", hop("eth0", "203.0.113.1")), route("10.2.0.0/16", hop("eth0", "192.0.2.1"))
    gateway = replace(NEAR, address="203.0.113.1")
    other = replace(RULE, priority=200)
    planned = plan(
        wanted([after], [via], neighbours=[gateway], rules=[other]),
        there([before], [old_via], ours=[NEAR, RULE]),
    )
    assert planned.operations == (
        AddAddress(device="eth0", address=after.addresses[0]),
        AddItem(item=gateway),
        AddRoute(route=via),
        AddItem(item=other),
        DeleteItem(item=RULE),
        DeleteRoute(route=old_via),
        DeleteItem(item=NEAR),
        DeleteAddress(device="eth0", address=before.addresses[0]),
    )


RULE_CHANGES: dict[str, dict[str, Any]] = {
    "priority": {"priority": 101},
    "from": {"from_": "10.2.0.0/16"},
    "to": {"to": "10.2.0.0/16"},
    "iif": {"iif": "eth0"},
    "oif": {"oif": "eth0"},
    "fwmark": {"fwmark": 1, "fwmask": 1},
    "ipproto": {"ipproto": 6},
    "sport": {"sport": (5, 5)},
    "dport": {"dport": (5, 6)},
    "uidrange": {"uidrange": (5, 6)},
    "tos": {"tos": 4},
    "suppress_prefixlength": {"suppress_prefixlength": 0},
    "table": {"table": 101},
    "l3mdev": {"table": 0, "l3mdev": True},
    "action": {"table": 0, "action": "prohibit"},
    "goto": {"table": 0, "action": "goto", "goto": 200},
    "family": {"family": "ipv6", "from_": "fd00::/8"},
}


@pytest.mark.parametrize("change", RULE_CHANGES.values(), ids=RULE_CHANGES)
def test_another_rule_comes_before_the_old_one_goes(change: dict[str, Any]) -> None:
    after = replace(RULE, **change)
    planned = plan(asked(after), there(ours=[RULE]))
    expected = segments([AddItem(item=after), DeleteItem(item=RULE)])
    assert planned == Plan(expected, (Deletion(kind="rule", count=1, total=1),))


def test_what_no_manifest_can_say_of_a_rule_differs() -> None:
    strange = replace(RULE, opaque=("tun_id 0",))
    assert items_planned(asked(RULE), there(ours=[strange])) == [AddItem(item=RULE), DeleteItem(item=strange)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (RULE, replace(RULE, invert=True)),
        (replace(RULE, action="goto", table=0, goto=200), replace(RULE, action="goto", table=0, goto=300)),
    ],
    ids=["invert", "goto"],
)
def test_a_rule_that_the_kernel_takes_for_the_new_one_goes_first(before: Rule, after: Rule) -> None:
    planned = plan(asked(after), there(ours=[before]))
    expected = segments([DeleteItem(item=before), AddItem(item=after)])
    assert planned == Plan(expected, (Deletion(kind="rule", count=1, total=1),))


BROAD = replace(RULE, from_=None)


def test_a_broad_rule_comes_before_a_narrow_one_and_goes_after_it() -> None:
    both = [RULE, BROAD]
    assert items_planned(asked(*both), there()) == [AddItem(item=BROAD), AddItem(item=RULE)]
    assert items_planned(asked(), there(ours=both)) == [DeleteItem(item=RULE), DeleteItem(item=BROAD)]


def test_a_narrow_rule_makes_way_for_a_broad_one_for_a_moment() -> None:
    planned = plan(asked(RULE, BROAD), there(ours=[RULE]))
    assert planned == Plan(segments([DeleteItem(item=RULE), AddItem(item=BROAD), AddItem(item=RULE)]))


def test_a_narrow_rule_that_would_go_in_place_of_a_broad_one_is_put_back() -> None:
    narrow = replace(BROAD, ipproto=6)
    planned = plan(asked(narrow), there(ours=[narrow, BROAD]))
    expected = segments([DeleteItem(item=narrow), DeleteItem(item=BROAD), AddItem(item=narrow)])
    assert planned == Plan(expected, (Deletion(kind="rule", count=1, total=2),))
    # In the other order nothing is mistaken.
    assert items_planned(asked(narrow), there(ours=[BROAD, narrow])) == [DeleteItem(item=BROAD)]


class KernelRules:
    """Our rules in a kernel, as net/core/fib_rules.c compares them."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules: list[Rule] = []
        for rule in rules:
            self.add(rule)

    def add(self, rule: Rule) -> bool:
        """Add a rule after those of its priority; False if the kernel refuses it (rule_exists)."""
        exact = (
            *("family", "priority", "action", "table", "iif", "oif", "fwmark", "fwmask", "l3mdev", "uidrange"),
            *("ipproto", "sport", "dport", "suppress_prefixlength"),
        )
        for other in self.rules:
            if all(getattr(rule, name) == getattr(other, name) for name in exact) and self._compare(rule, other):
                return False
        self.rules = sorted([*self.rules, rule], key=lambda each: each.priority)
        return True

    def delete(self, rule: Rule) -> Rule:
        """Delete the first rule that a request meets (rule_find)."""
        for other in self.rules:
            given = [
                name
                for name in (
                    "table",
                    "iif",
                    "oif",
                    "fwmark",
                    "fwmask",
                    "l3mdev",
                    "uidrange",
                    "ipproto",
                    "sport",
                    "dport",
                )
                if getattr(rule, name)
            ]
            given += ["suppress_prefixlength"] if rule.suppress_prefixlength != NO_SUPPRESSION else []
            given += ["family", "priority", "action"]
            if all(getattr(rule, name) == getattr(other, name) for name in given) and self._compare(rule, other):
                self.rules.remove(other)
                return other
        raise AssertionError(f"no {rule}")

    @staticmethod
    def _compare(rule: Rule, other: Rule) -> bool:
        """Compare as fib4_rule_compare does."""
        return all(
            getattr(rule, name) in (unset, getattr(other, name))
            for name, unset in (("from_", None), ("to", None), ("tos", 0))
        )


@st.composite
def alike(draw: st.DrawFn) -> Rule:
    """A rule of one of two priorities that has much in common with any other."""
    action = draw(st.sampled_from(("table", "table", "table", "goto")))
    return Rule(
        family="ipv4",
        priority=draw(st.sampled_from((100, 100, 101))),
        from_=draw(st.none() | st.sampled_from(("10.0.0.0/8", "10.1.0.0/16"))),
        tos=draw(st.sampled_from((0, 4))),
        ipproto=draw(st.sampled_from((0, 6))),
        fwmask=draw(st.sampled_from((0, 1))),
        invert=draw(st.booleans()),
        action=action,
        table=100 if action == "table" else 0,
        goto=draw(st.sampled_from((200, 300))) if action == "goto" else 0,
    )


def accepted() -> st.SearchStrategy[list[Rule]]:
    """Rules that a manifest may list."""
    return st.lists(alike(), max_size=8, unique_by=lambda each: replace(each, invert=False, goto=0))


@settings(deadline=None, max_examples=examples(300))
@given(accepted(), accepted())
def test_whatever_rules_have_in_common_the_kernel_gets_what_is_wanted(before: list[Rule], after: list[Rule]) -> None:
    kernel = KernelRules()
    for wishes in (before, after, before):
        for operation in items_planned(asked(*wishes), there(ours=kernel.rules)):
            rule = operation.item
            assert isinstance(rule, Rule)
            if isinstance(operation, AddItem):
                assert kernel.add(rule), rule
            else:
                assert kernel.delete(rule) == rule
        assert set(kernel.rules) == set(wishes)
        assert len(kernel.rules) == len(wishes)


def test_a_foreign_rule_is_no_part_of_that() -> None:
    assert items_planned(asked(BROAD), there(foreign=[RULE])) == [AddItem(item=BROAD)]
    assert items_planned(asked(), there(ours=[BROAD], foreign=[RULE])) == [DeleteItem(item=BROAD)]


def test_a_rule_keeps_the_names_of_nics_that_change_them() -> None:
    named = replace(RULE, iif="eth0")
    renamed = wanted([replace(ETH0, name="net0")], rules=[named])
    assert items_planned(renamed, there([ETH0], ours=[named])) == []
    assert items_planned(wanted([]), there([ETH0], ours=[named])) == []


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), unique=True, max_size=6), st.lists(st.integers(0, 9), unique=True, max_size=6))
def test_deletions_are_counted(before: list[int], after: list[int]) -> None:
    def rules(numbers: list[int]) -> list[Rule]:
        return [replace(RULE, priority=number) for number in numbers]

    def neighbours(numbers: list[int]) -> list[Neighbour]:
        return [replace(NEAR, address=f"192.0.2.{number + 100}") for number in numbers]

    observed = there([ETH0], ours=[*rules(before), *neighbours(before)])
    gone = len({*before} - {*after})
    assert plan(wanted(neighbours=neighbours(after), rules=rules(after)), observed).deletions == (
        (
            Deletion(kind="neighbour", count=gone, total=len(before)),
            Deletion(kind="rule", count=gone, total=len(before)),
        )
        if gone
        else ()
    )
