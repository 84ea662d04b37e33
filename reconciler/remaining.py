"""What still differs between a manifest and a sandbox, over the model of each section.

A sandbox is verified if nothing differs. An empty plan does not prove that: it lacks every change for which there is no
operation. Four differences are no error; each has its line below: a foreign object that serves as the desired one, an
address that the kernel itself added, a weight that a manifest ignores, and a server that drains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from reconciler.diff import diff
from reconciler.formats.iproute2 import address_words, route_words
from reconciler.manifest.interface import SECTION as INTERFACES
from reconciler.manifest.section import ListSection
from reconciler.manifest.sections import SECTIONS
from reconciler.manifest.sysctl import SysctlSection
from reconciler.model.identity import (
    HostDevice,
    Keyed,
    Listed,
    Nic,
    NicAddress,
    RealServer,
    Setting,
    Subject,
    Sysctl,
    VirtualService,
)
from reconciler.model.interface import Interface
from reconciler.model.route import Route
from reconciler.model.sandbox import Observed, Sandbox
from reconciler.model.sysctl import Sysctls, full_name
from reconciler.plan.derived import Derived
from reconciler.plan.route import serves
from reconciler.values import NamedTuple, replace

if TYPE_CHECKING:
    from reconciler.model.ipvs import Ipvs, Service

T = TypeVar("T", bound=Keyed)


class Difference(NamedTuple):
    """One difference, in words for people, and all identities of the object that differs.

    `only_mark`: the object is as desired, but does not carry our mark.
    """

    words: str
    about: frozenset[Subject]
    only_mark: bool = False


def remaining(desired: Sandbox, observed: Observed) -> list[Difference]:
    """Return what differs in the sections of `desired`, in the order of SECTIONS; empty if nothing does."""
    return list(_differences(desired, observed))


def _differences(desired: Sandbox, observed: Observed) -> Iterator[Difference]:
    for section in SECTIONS:
        if getattr(desired, section.name) is None:
            continue
        if isinstance(section, ListSection):
            yield from _list_differences(section, desired, observed)
            if section.name == INTERFACES.name:
                yield from _derived_differences(desired, observed)
        elif isinstance(section, SysctlSection):
            yield from _sysctl_differences(None, desired.sysctls or (), observed.sandbox.sysctls or ())
        elif desired.ipvs and observed.sandbox.ipvs:
            yield from _table_differences(desired.ipvs, observed.sandbox.ipvs)


def _list_differences(section: ListSection[T], desired: Sandbox, observed: Observed) -> Iterator[Difference]:
    wishes, found = section.of(desired) or (), section.of(observed.sandbox) or ()
    changes = diff(wishes, found)
    if not changes:
        return
    foreign: Iterable[T] = getattr(observed.around, section.name, ())
    given: dict[str, set[str]] = {}
    for nic, address in observed.around.addresses:
        given.setdefault(nic, set()).add(address)
    for change in changes:
        before, after = change.before, change.after
        if isinstance(before, Interface) and isinstance(after, Interface):
            yield from _address_differences(after, before, given.get(before.name, set()))
            yield from _sysctl_differences(after.name, after.sysctls, before.sysctls)
            before, after = (replace(each, addresses=(), sysctls=()) for each in (before, after))
            if before == after:
                continue
        if after and not before and any(_is_as_good(after, other) for other in foreign if other.key == after.key):
            continue
        about = frozenset(each for one in (before, after) if one for each in _identities(section.name, one))
        yield Difference(f"{section.name}: {_words(section, after, before)}", about)


def _is_as_good(wish: Keyed, other: Keyed) -> bool:
    """Return whether a foreign object serves as the desired one."""
    return serves(wish, other) if isinstance(wish, Route) and isinstance(other, Route) else wish == other


def _identities(section: str, item: Keyed) -> tuple[Subject, ...]:
    return (HostDevice(item.device), Nic(item.name)) if isinstance(item, Interface) else (Listed(section, item.key),)


def _words(section: ListSection[Any], wish: Any, found: Any) -> str:
    if found is None:
        return f"{section.words(wish)} is missing"
    if wish is None:
        return f"{section.words(found)} should not be there"
    fields = _field_words(section.write_item(wish), section.write_item(found))
    if not fields and section.words(wish) != section.words(found):
        # A field that no manifest has.
        fields = f"found {section.words(found)}"
    return f"{section.words(wish)}: {fields or 'it has attributes that no manifest can express'}"


def _field_words(wish: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return which fields of two objects in a manifest's notation differ."""
    names = [name for name in {**wish, **found} if wish.get(name) != found.get(name)]
    return ", ".join(f"{name} is {found.get(name, 'absent')}, not {wish.get(name, 'absent')}" for name in names)


def _address_differences(wish: Interface, found: Interface, given: set[str]) -> Iterator[Difference]:
    """Compare addresses in any order. `given`: the kernel's own, which were not observed as ours but may be desired."""
    for change in diff(wish.addresses, found.addresses):
        address = change.after or change.before
        if address is None or (not change.before and address.key in given):
            continue
        if not change.after:
            words = "should not be there"
        else:
            is_ = address_words(change.before) if change.before else ""
            words = f"is {is_}, not {address_words(address)}" if is_ else "is missing"
        about = frozenset((NicAddress(wish.name, address.key), NicAddress(found.name, address.key)))
        yield Difference(f"interfaces: address {address.key} of {wish.name} {words}", about)


def _sysctl_differences(nic: str | None, wishes: Sysctls, found: Sysctls) -> Iterator[Difference]:
    had = dict(found)
    for name, value in wishes:
        if had.get(name) != value:
            full = name if nic is None else full_name(nic, name)
            words = f"sysctls: {full} is {had.get(name, 'absent')}, not {value}"
            yield Difference(words, frozenset((Sysctl(full, nic),)))


def _derived_differences(desired: Sandbox, observed: Observed) -> Iterator[Difference]:
    """Compare what the kernel derives from the addresses and links of NICs that are as desired."""
    wishes = {wish.device: wish for wish in desired.interfaces or ()}
    derived = Derived(desired.routes or (), observed)
    for nic in observed.sandbox.interfaces or ():
        wish = wishes.get(nic.device)
        if wish is None or derived.state(nic) is None:
            continue
        kept = replace(nic, addresses=tuple(each for each in wish.addresses if each in nic.addresses))
        for lack in derived.routes(kept):
            words = f"{route_words(lack.route)}, which the kernel makes of an address,"
            is_ = f"is {route_words(lack.twins[0])}" if lack.twins else "is missing"
            yield Difference(f"interfaces: {words} {is_}", frozenset((Listed("routes", lack.route.key),)))
        for route in derived.stale(kept):
            words = f"{route_words(route)}, which the kernel made of an address, should not be there"
            yield Difference(f"interfaces: {words}", frozenset((Listed("routes", route.key),)))
        if derived.lacks_link_local(nic):
            yield Difference(f"interfaces: {nic.name} has lost its link-local address", frozenset((Nic(nic.name),)))
        keys = {each.address: each.key for each in kept.addresses}
        for address, key in ({each: each for each in derived.managed(nic)} | keys).items():
            if derived.is_lost(address, nic):
                words = f"interfaces: address {key} of {nic.name} has lost its route in table local"
                yield Difference(words, frozenset((NicAddress(nic.name, key),)))


def _table_differences(desired: Ipvs, observed: Ipvs) -> Iterator[Difference]:
    had = dict(observed.sysctls)
    for name, value in desired.sysctls:
        if had.get(name) != value:
            words = f"ipvs: sysctls.{name} is {had.get(name, 'absent')}, not {value}"
            yield Difference(words, frozenset((Setting(f"sysctls.{name}"),)))
    for name, wish in desired.timeouts._asdict().items():
        is_ = getattr(observed.timeouts, name)
        # 0 and None leave a timeout as it is.
        if wish and wish != is_:
            yield Difference(f"ipvs: timeouts.{name} is {is_}, not {wish}", frozenset((Setting("timeouts"),)))
    if desired.services is None:
        return
    # Only a table needs it.
    from reconciler.plan.ipvs import with_observed_weights

    found = observed.services or ()
    for change in diff(with_observed_weights(desired.services, found), found):
        yield from _service_differences(change.after, change.before, drains=bool(desired.drain))


def _service_differences(wish: Service | None, found: Service | None, *, drains: bool) -> Iterator[Difference]:
    from reconciler.formats.ipvsadm.write import server_options, service_key_options, service_options
    from reconciler.manifest import service as notation

    some = wish or found
    if some is None:
        return
    name = f"ipvs: service {service_key_options(some.key)}"
    about: frozenset[Subject] = frozenset((VirtualService(some.key),))
    if wish and not found:
        yield Difference(f"ipvs: service {service_options(wish)} is missing", about)
    elif found and not wish and not (drains and found.servers):
        yield Difference(f"{name} should not be there", about)
    elif found and wish:
        drained = {server.key for server in found.servers if server.deadline is not None}
        passing = drains and not drained <= {server.key for server in wish.servers}
        prepared = wish.while_draining() if passing or wish.has_draining else wish
        bare, is_ = (replace(each, servers=(), ignore=()) for each in (prepared, found))
        if replace(is_, marked=bare.marked) != bare:
            data = [notation.write(replace(each, scheduler_flags=each.kernel_flags)) for each in (bare, is_)]
            yield Difference(f"{name}: {_field_words(*data) or 'the mark of a drain is wrong'}", about)
        elif is_ != bare:
            yield Difference(f"{name} does not carry our mark", about, only_mark=True)
    for change in diff(wish.servers if wish else (), found.servers if found else ()):
        server = change.after or change.before
        if server is None or (drains and not change.after and server.deadline is not None):
            continue
        if change.after and change.before:
            state = f"is {server_options(change.before)}"
        else:
            state = "is missing" if change.after else "should not be there"
        identities: frozenset[Subject] = frozenset((RealServer(some.key, server.key), VirtualService(some.key)))
        yield Difference(f"{name}: server {server_options(server)} {state}", identities)
