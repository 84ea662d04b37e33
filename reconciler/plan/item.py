"""Objects that are added, replaced and deleted as a whole.

An object of a NIC is lost when the kernel empties the NIC's tables: the link goes down or gets another MAC address, the
NIC loses its last IPv4 address, or, for IPv6, its MTU becomes too small (net/core/neighbour.c: neigh_ifdown,
neigh_changeaddr; net/ipv4/arp.c: arp_netdev_event; net/ipv4/fib_frontend.c: fib_disable_ip).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import TypeVar

from reconciler.diff import diff
from reconciler.errors import RefusedError
from reconciler.formats.iproute2 import Item, item_words
from reconciler.model.attribute import changed
from reconciler.model.identity import Listed
from reconciler.model.interface import Interface
from reconciler.model.mark import PROTOCOL
from reconciler.model.neighbour import Neighbour
from reconciler.operations.item import AddItem, DeleteItem, ItemOperation, ReplaceItem
from reconciler.plan.interface import LinkPlan
from reconciler.values import dataclass, field

T = TypeVar("T", bound=Item)


@dataclass(slots=True)
class ItemPlan:
    """What is added or replaced, and what is deleted.

    `deleted`: how many are deleted for good, of `total` that are ours.
    """

    coming: list[ItemOperation] = field(default_factory=list)
    going: list[ItemOperation] = field(default_factory=list)
    deleted: int = 0
    total: int = 0


def readdressed(had: Iterable[Interface], wanted: Iterable[Interface]) -> set[str]:
    """Return the NICs, by the names they have before, that get another MAC address, or whose ARP is switched."""
    after = {interface.device: interface for interface in wanted}
    return {
        each.name
        for each in had
        if (wish := after.get(each.device))
        and (
            (wish.hw_addr and wish.hw_addr != each.hw_addr) or "arp" in dict(changed(each.attributes, wish.attributes))
        )
    }


def _never(_: object) -> bool:
    return False


def plan_items(
    wishes: Sequence[T] | None,
    found: Sequence[T],
    foreign: Iterable[T],
    links: LinkPlan,
    lost: Callable[[T], bool] = _never,
    doubtful: Callable[[T], bool] = _never,
) -> ItemPlan:
    """Plan one section. `wishes` None: what is there stays.

    `lost` says which objects found the kernel drops on the way.
    `doubtful` says which it may drop: those are replaced by themselves.

    Raises RefusedError where an object of another owner is in the place of a wanted one and differs.
    """

    def left(objects: Iterable[T]) -> list[Item]:
        return [each.renamed(links.renames) for each in objects if each.nic not in links.removed and not lost(each)]

    wanted: Sequence[Item] = _kept(found, links) if wishes is None else wishes
    others = {each.key: each for each in left(foreign)}
    plan = ItemPlan(total=len(found))
    staying = left(found)
    for change in diff(wanted, staying):
        before, after = change.before, change.after
        if after is None:
            plan.going += [DeleteItem(item=before)] if before else []
        elif before is not None:
            plan.coming.append(ReplaceItem(item=after, before=before))
        elif after.key not in others:
            plan.coming.append(AddItem(item=after))
        elif others[after.key] != after:
            raise RefusedError(
                f"{item_words(after)}: {item_words(others[after.key])} is in its place and is not ours; "
                "delete it there",
                about=Listed(after.section, after.key),
            )
    _mark(plan, wanted, staying, others.keys())
    doubted = left([each for each in found if doubtful(each)])
    kept = set(wanted) if doubted else set()
    plan.coming += [ReplaceItem(item=each, before=each) for each in doubted if each in kept]
    keys = {each.key for each in wanted}
    plan.deleted = sum(each.renamed(links.renames).key not in keys for each in found)
    return plan


def _mark(plan: ItemPlan, wanted: Iterable[Item], found: Iterable[Item], others: Collection[Hashable]) -> None:
    """Give the objects found that equal desired ones the protocol of these: an adoption, or the undo of one.

    The kernel changes a neighbour in place. It cannot change a rule: a second one comes, and then the first one goes.
    """
    wanted, found = list(wanted), list(found)
    if all(each.protocol == PROTOCOL for each in (*wanted, *found)):
        return
    present: dict[Hashable, list[Item]] = defaultdict(list)
    for each in found:
        present[each.key].append(each)
    for wish in wanted:
        alike = [each for each in present.get(wish.key, ()) if each == wish]
        if not alike or any(each.protocol == wish.protocol for each in alike):
            continue
        if isinstance(wish, Neighbour):
            if wish.protocol:
                plan.coming.append(ReplaceItem(item=wish, before=alike[0]))
            else:
                # The kernel cannot set the protocol of a neighbour back to 0, which is none: it is deleted and added.
                plan.coming += [DeleteItem(item=alike[0]), AddItem(item=wish)]
            continue
        plan.coming += [AddItem(item=wish)] if wish.key not in others else []
        plan.going += [DeleteItem(item=alike[0])]


def _kept(found: Iterable[Item], links: LinkPlan) -> list[Item]:
    """Return the objects to keep where a manifest says nothing of them.

    These are not those of a NIC that goes, or that loses IPv6.
    """
    gone = links.removed
    return [
        each.renamed(links.renames)
        for each in found
        if each.nic not in gone and not (isinstance(each, Neighbour) and each.is_ipv6 and each.device in links.ipv6_off)
    ]
