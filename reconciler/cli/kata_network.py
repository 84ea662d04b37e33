"""`reconciler kata-network`: single interfaces and routes, by the JSON of `kata-runtime kata-network`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from reconciler import imperative
from reconciler.cli.authority import read_policy
from reconciler.cli.named import add_sandbox, print_undone
from reconciler.cli.parser import purpose
from reconciler.cli.recording import lock
from reconciler.errors import HostError, ReconcilerError, RefusedError
from reconciler.formats.kata.interface import read_interface, read_name, write_failed, write_interface, write_listed
from reconciler.formats.kata.route import RouteSelector, read_route, read_selector, write_route
from reconciler.imperative import LockedSandbox
from reconciler.manifest import interface as notation
from reconciler.manifest.allow import check
from reconciler.manifest.beneath import named
from reconciler.manifest.files import STDIN, read_text, reason_of
from reconciler.manifest.finding import Finding
from reconciler.model.interface import Interface
from reconciler.model.policy import Policy
from reconciler.model.route import TABLE_MAIN, Route
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.values import replace
from reconciler.wording import to_json

_T = TypeVar("_T")
# The limit for the JSON, in characters.
_LIMIT = 1 << 20
_ACTIONS = {
    "add-iface": "plug in an interface; its device exists on the host",
    "del-iface": "unplug the interface of this name",
    "list-ifaces": "list the interfaces that were plugged in",
    "add-route": "add a route, or an array of them",
    "del-route": "delete each route that matches what is given of destination, gateway and device",
    "list-routes": "list the routes that were added",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, what in _ACTIONS.items():
        action = actions.add_parser(name, **purpose(what))
        add_sandbox(action)
        if not name.startswith("list-"):
            words = "the JSON; - (default) for standard input"
            action.add_argument("file", nargs="?", default=STDIN, metavar="FILE|-", help=words)


def run(arguments: argparse.Namespace) -> int:
    """Execute one action and print its answer as JSON; after a failure, what openEuler's `kata-runtime` prints."""
    said: Any = None
    try:
        if "file" in arguments:
            said = _read(arguments.file)
        policy = read_policy(arguments.policy, arguments.manifests)
        sandbox = imperative.find(arguments.id, arguments.manifests, policy)
        answer, changed = _act(arguments.action, sandbox, policy, said)
    except (ReconcilerError, OSError):
        _print(write_failed(said) if arguments.action == "del-iface" else None)
        raise
    _print(answer)
    if changed:
        print_undone(sandbox)
    return 0


def _print(answer: Any) -> None:
    print(to_json(answer, separators=(",", ":")))


def _read(file: str) -> Any:
    name = "<stdin>" if file == STDIN else file
    try:
        text = read_text(named(file))
    except (OSError, ValueError) as error:
        raise HostError(f"{name}: {reason_of(error)}") from None
    if len(text) > _LIMIT:
        raise HostError(f"{name}: larger than {_LIMIT >> 20} MiB")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HostError(f"{name}: not JSON: {error}") from None


def _checked(read: Callable[[Any], _T], said: Any) -> _T:
    try:
        return read(said)
    except ValueError as error:
        raise HostError(str(error)) from None


def _act(action: str, sandbox: Sandbox, policy: Policy, said: Any) -> tuple[Any, bool]:
    """Execute an action. Return its answer, and whether it changed anything."""
    match action:
        case "add-iface":
            return _add_interface(sandbox, policy, _checked(read_interface, said))
        case "del-iface":
            return None, _delete_interface(sandbox, policy, _checked(read_name, said))
        case "list-ifaces":
            with imperative.lock(sandbox, policy) as locked:
                found = [write_listed(each) for each in _interfaces(locked)]
            return found or None, False
        case "add-route":
            return _add_routes(sandbox, policy, [_checked(read_route, each) for each in _each(said)])
        case "del-route":
            return _delete_routes(sandbox, policy, [_checked(read_selector, each) for each in _each(said)])
        case _:
            with imperative.lock(sandbox, policy) as locked:
                return [line for each in _routes(locked) for line in write_route(each)], False


def _each(said: Any) -> list[Any]:
    """Return the objects of the input, which is one object or an array of them."""
    items = said if isinstance(said, list) else [said]
    if not items:
        raise HostError("an empty array; expected a route")
    return items


def _interfaces(locked: LockedSandbox) -> tuple[Interface, ...]:
    return locked.observed.sandbox.interfaces or ()


def _routes(locked: LockedSandbox) -> list[Route]:
    """Return our routes in the main table: the JSON has no field for a table."""
    return [route for route in locked.observed.sandbox.routes or () if route.table == TABLE_MAIN]


def _add_interface(sandbox: Sandbox, policy: Policy, interface: Interface) -> tuple[dict[str, Any], bool]:
    _check_interface(sandbox, policy, interface)
    with lock(sandbox, policy, "kata-network add-iface") as locked:
        had = _interfaces(locked)
        for field, attribute in (("name", "name"), ("device", "device"), ("hwAddr", "hw_addr")):
            value = getattr(interface, attribute)
            if any(getattr(each, attribute) == value for each in had):
                raise HostError(f"{field}: an interface with {value} is there already")
        changed = locked.set_interfaces((*had, interface))
        machine = locked.look().around.machine
    answer = write_interface(interface)
    if machine and interface.device in machine.plugged:
        answer["pciAddr"] = machine.plugged[interface.device].pci_addr
    return answer, changed


def _check_interface(sandbox: Sandbox, policy: Policy, interface: Interface) -> None:
    """Raise HostError if an interface would be invalid in a manifest, RefusedError if the policy does not allow it."""
    if interface.vhost_user_socket and isinstance(sandbox.driver, NetnsAddress):
        raise HostError("vhostUserSocket: only virtual machines have vhost-user NICs")
    findings: list[Finding] = []
    notation.read(notation.write(interface), (), findings)
    if findings:
        raise HostError("; ".join(finding.message for finding in findings))
    check(replace(sandbox, interfaces=(interface,)), policy)


def _delete_interface(sandbox: Sandbox, policy: Policy, name: str) -> bool:
    with lock(sandbox, policy, "kata-network del-iface") as locked:
        had = _interfaces(locked)
        kept = [each for each in had if each.name != name]
        if len(kept) == len(had):
            foreign = name in locked.observed.around.links
            raise HostError(f"the interface {name} is not ours" if foreign else f"there is no interface {name}")
        return locked.set_interfaces(kept)


def _add_routes(sandbox: Sandbox, policy: Policy, routes: list[Route]) -> tuple[list[dict[str, str]], bool]:
    with lock(sandbox, policy, "kata-network add-route") as locked:
        found = locked.observed
        keys = {route.key for route in found.sandbox.routes or ()}
        foreign = {route.key for route in found.around.routes}
        links = {*found.around.links, *(each.name for each in _interfaces(locked))}
        for route in routes:
            there = f"there is a route to {write_route(route)[0]['dest']} already"
            if route.key in keys:
                raise HostError(there)
            if route.key in foreign:
                # Without a change, the route would not be marked as ours, and so not be listed.
                raise RefusedError(f"{there}, and it is not ours")
            if route.devices - links:
                raise HostError(f"device: there is no interface {', '.join(route.devices)}")
            keys.add(route.key)
        changed = locked.set_routes((*(found.sandbox.routes or ()), *routes))
    return [line for route in routes for line in write_route(route)], changed


def _delete_routes(
    sandbox: Sandbox, policy: Policy, selectors: list[RouteSelector]
) -> tuple[list[dict[str, str]], bool]:
    with lock(sandbox, policy, "kata-network del-route") as locked:
        had = locked.observed.sandbox.routes or ()
        for selector in selectors:
            if not any(selector.selects(route) for route in had):
                raise HostError(f"no route of ours matches {' '.join(_selector_words(selector))}")
        gone = [route for route in had if any(selector.selects(route) for selector in selectors)]
        changed = locked.set_routes([route for route in had if route not in gone])
    return [line for route in gone for line in write_route(route)], changed


def _selector_words(selector: RouteSelector) -> Iterator[str]:
    yield selector.dests[0] if len(selector.dests) == 1 else "default"
    if selector.gateway:
        yield f"via {selector.gateway}"
    if selector.device:
        yield f"dev {selector.device}"
