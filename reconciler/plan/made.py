"""Links that are made in the sandbox: in which order, and what the kernel deletes, sets down and takes out with them.

The kernel deletes what lies on a link with it (a VLAN, a macvlan), and sets a VLAN down with its link. A port of a bond
or a VRF joins and leaves only while it is down: then the kernel derives its routes anew, in the table of the VRF.
Source: net/8021q/vlan.c (vlan_device_event), drivers/net/macvlan.c, vrf.c, bonding/bond_main.c.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from reconciler.errors import HostError
from reconciler.model.interface import Interface
from reconciler.model.made import KINDS, Made, changed, must_be_replaced, words
from reconciler.model.sandbox import Surroundings
from reconciler.operations.interface import SetLink
from reconciler.operations.made import AddLink, ChangeLink, DeleteLink, MarkLink
from reconciler.operations.segment import Network, Segment
from reconciler.plan import altnames
from reconciler.plan.sysctl import new_sysctls, set_up
from reconciler.values import replace

Pair = tuple[Interface, Interface]


class Maker:
    """How links that are made in a sandbox come and go. See `plan.interface.Host`."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def attach(self, interface: Interface) -> list[Segment]:
        """Make a link, and set it up. HostError if the kernel does not have its kind."""
        own = _own(interface)
        if own.kind in self._around.lacking:
            module = KINDS[own.kind].module
            raise HostError(
                f"interface {interface.name}: the kernel of the sandbox has no links of kind {own.kind}; "
                f"load or install its module: modprobe {module}",
                path=(own.kind,),
            )
        up = SetLink(
            name=interface.name,
            hw_addr=interface.hw_addr or None,
            mtu=interface.mtu or None,
            master=interface.master or None,
            attributes=interface.attributes,
            up=interface.up,
            sign="+",
        )
        added = altnames.coming(interface.name, (), interface.altnames)
        return [Network((AddLink(name=interface.name, made=own),)), *set_up((up,), new_sysctls(interface)), *added]

    def detach(self, interface: Interface) -> list[Segment]:
        """Delete a link."""
        return [Network((DeleteLink(name=interface.name),))]

    def must_be_reattached(self, before: Interface, after: Interface) -> bool:
        """Return whether the kernel cannot change a link in place."""
        return must_be_replaced(_own(before), _own(after))

    def is_in_the_way(self, removed: Interface, added: Sequence[Interface]) -> bool:
        """Return whether another link has the tag or the table of one that is removed."""
        return any(each.made and removed.made and each.made.kind == removed.made.kind for each in added)

    def check(self, interface: Interface) -> None:
        """Do nothing: whatever may be wrong is seen without the kernel."""


def _own(interface: Interface) -> Made:
    if interface.made is None:
        raise TypeError(f"{interface.name} is a device of the host")
    return interface.made


def changes(before: Interface, after: Interface) -> list[Segment]:
    """Return what changes options of a link in place."""
    if before.made is None or after.made is None or before.made == after.made:
        return []
    found = tuple(changed(before.made, after.made))
    was = " ".join(words(after.made.kind, ((option.name, old) for option, _, old in found if old is not None)))
    values = tuple((option.name, value) for option, value, _ in found)
    return [Network((ChangeLink(name=after.name, made=after.made, changes=values, was=was),))]


def marks(wanted: Iterable[Interface], had: Iterable[Interface]) -> list[Segment]:
    """Return what marks links that are adopted, and takes the mark from those that an undo leaves to their owner."""
    there = {each.key: each.marked for each in had if each.made}
    differ = (each for each in wanted if there.get(each.key, each.marked) != each.marked)
    return [Network(tuple(MarkLink(name=each.name, marked=each.marked) for each in differ))]


def told(segments: Iterable[Segment], why: Mapping[str, str]) -> list[Segment]:
    """Return segments in which each deletion of a link that is made again says why."""
    return [
        Network(
            tuple(
                replace(each, why=why[each.name]) if isinstance(each, DeleteLink) and each.name in why else each
                for each in segment.operations
            )
        )
        if isinstance(segment, Network)
        else segment
        for segment in segments
    ]


def reason(pair: Pair) -> str:
    """Return why a link is deleted and made again."""
    before, after = pair
    if before.made and after.made:
        fixed = words(
            before.made.kind,
            (
                (option.name, old)
                for option, new, old in changed(before.made, after.made)
                if old is not None and not option.can_change(old, new)
            ),
        )
        fixed += [f"link {before.made.link}"] if before.made.link != after.made.link else []
        if fixed:
            return f"was {' '.join(fixed)}, which the kernel cannot change; its addresses and routes are added again"
    return "it goes with the link it lies on, and is made again with its addresses and routes"


def ordered(interfaces: Sequence[Interface]) -> list[Interface]:
    """Return interfaces so that each comes after its link and its master; in their order otherwise."""
    if not any(each.beneath for each in interfaces):
        return list(interfaces)
    names = {each.name: each for each in interfaces}
    found: dict[str, Interface] = {}

    def visit(each: Interface, above: frozenset[str]) -> None:
        for name in sorted(each.beneath & names.keys() - above):
            if name not in found:
                visit(names[name], above | {name})
        found.setdefault(each.name, each)

    for each in interfaces:
        visit(each, frozenset((each.name,)))
    return list(found.values())


def along(names: Iterable[str], interfaces: Sequence[Interface], follows: Callable[[Made], bool]) -> set[str]:
    """Return names, and those of the interfaces that lie on them, or on what lies on them, and follow their links."""
    found = set(names)
    while True:
        more = {each.name for each in interfaces if each.made and each.made.link in found and follows(each.made)}
        if more <= found:
            return found
        found |= more


def mtus_along(names: Collection[str], had: Sequence[Interface], wanted: Sequence[Interface]) -> set[str]:
    """Return the links that the kernel may give another MTU, as that of others changes and their own is left to it.

    It lowers that of what lies on a link, gives that of a bond to its ports, and a bridge has the least of its ports.
    Source: vlan_device_event, macvlan_device_event, bond_change_mtu, br_mtu_auto_adjust.
    """
    free = [each for each in had if each.made and not each.mtu]
    found = {each.name for each in free if _mtus_of_ports(each.name, had) != _mtus_of_ports(each.name, wanted)}
    while True:
        changed = found.union(names)
        masters = {each.master for each in had if each.name in changed}
        more = {each.name for each in free if each.name in masters or each.beneath & changed}
        if more <= found:
            return found
        found |= more


def _mtus_of_ports(name: str, interfaces: Sequence[Interface]) -> set[tuple[str, int]]:
    return {(each.key, each.mtu) for each in interfaces if each.master == name}


def goes_down(made: Made) -> bool:
    """Return whether a link goes down with the one that it lies on."""
    return KINDS[made.kind].follows


def goes_away(made: Made) -> bool:
    """Return whether a link goes with the one that it lies on: each does."""
    return bool(made.link)


def downs_ports(name: str, interfaces: Sequence[Interface]) -> bool:
    """Return whether a port of an interface joins or leaves it only while it is down, for all that is known."""
    if not name:
        return False
    own = next((each.made for each in interfaces if each.name == name), None)
    return own is None or KINDS[own.kind].downs_ports
