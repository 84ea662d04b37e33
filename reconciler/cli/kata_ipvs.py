"""`reconciler kata-ipvs`: IPVS rules one by one or in bulk, by the options of `kata-runtime kata-ipvs`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

from reconciler import imperative
from reconciler.cli.authority import read_policy
from reconciler.cli.named import add_sandbox, print_undone
from reconciler.cli.parser import purpose
from reconciler.cli.recording import lock
from reconciler.errors import HostError
from reconciler.formats.ipvsadm.command import IpvsadmCommand, parse_command
from reconciler.formats.ipvsadm.listing import in_order, list_services
from reconciler.formats.ipvsadm.rules import parse_rules
from reconciler.formats.ipvsadm.write import restorable_rules, service_key_options
from reconciler.formats.kata.cleanup import read_cleanup
from reconciler.imperative import LockedSandbox
from reconciler.manifest.beneath import named
from reconciler.manifest.files import STDIN, read_text, reason_of
from reconciler.model.ipvs import Ipvs, ServerKey, Service, ServiceKey
from reconciler.model.policy import Policy
from reconciler.model.sandbox import Sandbox
from reconciler.netlink import ipvs_listing
from reconciler.wording import plural

_T = TypeVar("_T")
# At most this many wrong lines are printed.
_SHOWN = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    ipvsadm = actions.add_parser("ipvsadm", **purpose("change or list the table of virtual services"))
    what = ipvsadm.add_mutually_exclusive_group(required=True)
    what.add_argument("--parameters", metavar="OPTIONS", help="the options of ipvsadm, as one word")
    what.add_argument("--restore", metavar="FILE|-", help="import rules as ipvsadm-save writes them")
    cleanup = actions.add_parser("cleanup", **purpose("forget the connections to an original destination"))
    cleanup.add_argument("--parameters", metavar="OPTIONS", required=True, help="--orig-dst IP --protonum tcp|udp")
    for action in (ipvsadm, cleanup):
        add_sandbox(action)


def run(arguments: argparse.Namespace) -> int:
    """Execute one action."""
    policy = read_policy(arguments.policy, arguments.manifests)
    sandbox = imperative.find(arguments.id, arguments.manifests, policy)
    if arguments.action == "cleanup":
        address, protocol = _checked(read_cleanup, arguments.parameters)
        with lock(sandbox, policy, "kata-ipvs cleanup") as locked:
            locked.forget_connections(address, protocol)
        return 0
    if arguments.restore is not None:
        changed = _restore(sandbox, policy, _read_rules(arguments.restore))
    else:
        changed = _execute(sandbox, policy, _checked(parse_command, arguments.parameters))
    if changed:
        print_undone(sandbox)
    return 0


def _checked(read: Callable[[str], _T], text: str) -> _T:
    try:
        return read(text)
    except ValueError as error:
        raise HostError(f"--parameters: {error}") from None


def _read_rules(file: str) -> list[Service]:
    """Read rules. HostError with all wrong lines if there are any."""
    name = "<stdin>" if file == STDIN else file
    wrong: list[str] = []
    try:
        text = read_text(named(file))
    except (OSError, ValueError) as error:
        raise HostError(f"{name}: {reason_of(error)}") from None
    services = parse_rules(text, lambda line, why: wrong.append(f"{name}:{line}: {why}"))
    if wrong:
        more = [f"… and {len(wrong) - _SHOWN:,} more"] if len(wrong) > _SHOWN else []
        count = f"{len(wrong):,} {plural('line', len(wrong))}"
        raise HostError(f"{count} of the rules are wrong, none is imported:", more=[*wrong[:_SHOWN], *more])
    if not services:
        raise HostError(f"{name}: there is no rule in it")
    return services


def _restore(sandbox: Sandbox, policy: Policy, services: list[Service]) -> bool:
    with lock(_with_ipvs(sandbox), policy, "kata-ipvs ipvsadm") as locked:
        ours, others = _tables(locked)
        return locked.set_ipvs(Ipvs(services=imperative.table_with(services, ours, others)))


def _with_ipvs(sandbox: Sandbox) -> Sandbox:
    """Return the sandbox with an IPVS section, so that its table is observed."""
    return Sandbox(id=sandbox.id, driver=sandbox.driver, ipvs=Ipvs())


def _tables(locked: LockedSandbox) -> tuple[tuple[Service, ...], tuple[Service, ...]]:
    """Return our services, and the foreign ones."""
    ipvs = locked.observed.sandbox.ipvs
    return (ipvs.services or () if ipvs else ()), locked.observed.around.services


def _execute(sandbox: Sandbox, policy: Policy, command: IpvsadmCommand) -> bool:
    """Execute a command. Return whether it changed anything."""
    lines: list[str] = []
    with lock(_with_ipvs(sandbox), policy, "kata-ipvs ipvsadm") as locked:
        ours, others = _tables(locked)
        match command:
            case IpvsadmCommand("-L"):
                lines += _listing(locked, command.key, (*ours, *others))
            case IpvsadmCommand("-S"):
                lines += restorable_rules(in_order((*ours, *others)))
            case IpvsadmCommand("-C"):
                return locked.set_ipvs(Ipvs(services=()), adopt=True)
            case IpvsadmCommand(timeouts=timeouts) if timeouts is not None:
                return locked.set_ipvs(Ipvs(timeouts=timeouts))
            case IpvsadmCommand(key=key):
                after = imperative.table_after(command, ours, others)
                return locked.set_ipvs(Ipvs(services=after), adopt=frozenset({key} if key else ()))
    # The lock is released before printing: a slow reader must not keep the sandbox locked.
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return False


def _listing(locked: LockedSandbox, key: ServiceKey | None, services: tuple[Service, ...]) -> Iterator[str]:
    shown = [service for service in services if key in (None, service.key)]
    if key and not shown:
        raise HostError(f"-L {service_key_options(key)}: no such service")
    listing = locked.ipvs_listing()
    connections = ipvs_listing.connections(listing)

    def counts(service: ServiceKey, server: ServerKey) -> tuple[int, int]:
        return connections.get((ipvs_listing.words(service), ipvs_listing.place(*server)), (0, 0))

    # ipvsadm omits the heading of the whole table if one service is listed.
    if key is None:
        yield ipvs_listing.heading(listing)
    yield from list_services(shown, counts)
