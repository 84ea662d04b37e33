"""A container that is reached by `kata-runtime kata-network` and `kata-ipvs`: each look and each change is a command.

The commands do not report the host's device, the queues and the socket of an interface: these are taken from the
manifest. They report no marks, so the whole IPVS table counts as ours, except what the manifest excludes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Container, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from reconciler.drivers.lock import SandboxLock, refuse_waiting
from reconciler.drivers.process import run
from reconciler.drivers.reach import check_program, refuse_physical_devices
from reconciler.errors import ChannelError, HostError, ProtocolError, ReconcilerError
from reconciler.formats.ipvsadm.listing import parse_listing
from reconciler.formats.ipvsadm.write import save_rules
from reconciler.formats.kata.interface import read_listed, write_request
from reconciler.formats.kata.route import read_route, write_route
from reconciler.manifest.whereabouts import place_of
from reconciler.model.interface import Interface
from reconciler.model.ipvs import Ipvs, ServerKey, Service, ServiceKey
from reconciler.model.policy import Policy
from reconciler.model.sandbox import KataAddress, Observed, Sandbox, Surroundings
from reconciler.operations import Operation
from reconciler.operations.ipvs import AddServer, AddService, DeleteConntrack
from reconciler.operations.outcome import Outcome, Status, until_failure
from reconciler.operations.runtime import (
    AddContainerRoute,
    DeleteContainerRoute,
    ImportedRule,
    ObjectCommand,
    PlugInterface,
    RuleCommand,
    UnplugInterface,
)
from reconciler.operations.segment import (
    Commands,
    Imports,
    Moves,
    Network,
    Plugs,
    RuleCommands,
    Segment,
    Settings,
    Table,
)
from reconciler.values import replace

if TYPE_CHECKING:
    from reconciler.guest.agent import Probe
    from reconciler.model.cost import Traffic
    from reconciler.netlink.facts import Snapshot

_T = TypeVar("_T")
# At most this many rules that an import left out are added one by one, each in a fraction of a second.
SINGLES = 200
# Bytes of stderr that a message quotes at most.
_REASON = 1000


class KataDriver:
    """One container. Nothing is open but the file of the locks, once it was locked."""

    def __init__(self, address: KataAddress, policy: Policy) -> None:
        """HostError if the runtime does not exist, RefusedError if another user can change it."""
        self._address, self._policy = address, policy
        check_program(address)
        self._lock = SandboxLock(f"kata {address.id}", address)

    def close(self) -> None:
        """Close the file of the locks."""
        self._lock.close()

    @property
    def place(self) -> Hashable:
        """Return what all addresses of this container have in common."""
        return place_of(self._address)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the container against our other runs. Other clients of the runtime ignore this lock."""
        with self._lock.held():
            refuse_waiting(self.place)
            yield

    def observe(self, desired: Sandbox, *, quick: bool = False) -> Observed:
        """List interfaces, routes, and the IPVS table if the manifest describes it."""
        del quick
        # Whether the runtime has a device already is not known.
        refuse_physical_devices(desired, self._policy)
        listed = self._list("list-ifaces", read_listed)
        listing = self.ipvs_listing() if desired.ipvs else ""
        ours, others = self._table(desired.ipvs, listing) if desired.ipvs else (None, ())
        return Observed(
            sandbox=Sandbox(
                id=desired.id,
                driver=desired.driver,
                interfaces=_known(listed, desired.interfaces or ()),
                routes=tuple(self._list("list-routes", read_route)),
                ipvs=ours,
            ),
            around=Surroundings(services=others, ipvs_listing=listing),
        )

    def _list(self, action: str, read: Callable[[Any], _T]) -> list[_T]:
        text = self._run("kata-network", action, self._address.id)
        try:
            return [read(each) for each in json.loads(text) or ()]
        except (ValueError, TypeError, RecursionError) as error:
            raise ProtocolError(f"{self._address}: cannot parse the output of {action}: {error}") from error

    def _table(self, desired: Ipvs, listing: str) -> tuple[Ipvs, tuple[Service, ...]]:
        try:
            found = parse_listing(listing)
        except ValueError as error:
            raise ProtocolError(f"{self._address}: cannot parse the listing of IPVS: {error}") from error
        ours = tuple(each for each in found if not desired.excludes(each.key))
        return replace(desired, services=ours), tuple(each for each in found if desired.excludes(each.key))

    def adopt(self, desired: Sandbox) -> Observed:
        """Return what is observed: all that the runtime lists is ours already."""
        return self.observe(desired)

    def snapshot(self, devices: Collection[str]) -> Snapshot:
        """Return an empty one, as the protocol says."""
        del devices
        # Only an apply pays for the import.
        from reconciler.netlink.facts import Snapshot

        return Snapshot()

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Return none, as the protocol says."""
        del names
        return {}

    def find_modules(self, names: Sequence[str]) -> dict[str, bool]:
        """Find none: kata-runtime lists none."""
        del names
        return {}

    def traffic(self) -> Traffic:
        """Return that none are known, as the runtime lists none."""
        # Only a plan that can cut connections pays for the import.
        from reconciler.model.cost import Traffic

        return Traffic(unknown=("kata-runtime lists no connections",))

    def attempt(self, probes: Sequence[Probe], seconds: float) -> list[str]:
        """Raise HostError, as the protocol says."""
        del probes, seconds
        raise HostError(f"{self._address}: nothing can be run in a sandbox behind kata-runtime")

    def device_to(self, address: str) -> str:
        """Raise HostError, as the protocol says."""
        raise HostError(f"{self._address}: no route to {address} can be looked up behind kata-runtime")

    def ipvs_listing(self) -> str:
        """Return what ipvsadm lists."""
        return self._ipvsadm("--list -n")

    def _ipvsadm(self, parameters: str) -> str:
        return self._run("kata-ipvs", "ipvsadm", "--parameters", parameters, self._address.id)

    def _run(self, *words: str, stdin: str = "") -> str:
        """Run a command of the runtime. Return its output. HostError with its stderr if it fails."""
        ran = run([self._address.runtime, *words], stdin.encode())
        if ran.status:
            reason = ran.stderr.decode(errors="replace").strip()[-_REASON:]
            raise HostError(f"{words[0]} {words[1]}: {reason or f'exit status {ran.status}'}")
        return ran.stdout.decode(errors="replace")

    def execute(self, segments: Sequence[Segment]) -> Iterator[list[Outcome]]:
        """Execute segments: each operation by a command of its own, and an import at once."""
        return until_failure(outcomes for segment in segments for outcomes in self._execute(segment))

    def _execute(self, segment: Segment) -> Iterator[list[Outcome]]:
        match segment:
            case Commands():
                return ([_outcome(each, partial(self._change, each))] for each in segment.operations)
            case RuleCommands():
                return ([_outcome(each, partial(self._change_rule, each))] for each in segment.operations)
            case Imports():
                return iter([self._import(segment.operations)])
            case Moves() | Network() | Settings() | Table() | Plugs():
                raise TypeError(f"a runtime's command line cannot execute {type(segment).__name__}")
            case _:
                assert_never(segment)

    def _change(self, operation: ObjectCommand) -> None:
        match operation:
            case PlugInterface(interface=interface):
                self._network("add-iface", write_request(interface))
            case UnplugInterface(name=name):
                self._network("del-iface", {"name": name})
            case AddContainerRoute(route=route):
                self._network("add-route", write_route(route)[0])
            case DeleteContainerRoute(route=route):
                self._network("del-route", write_route(route)[0])
            case _:
                assert_never(operation)

    def _change_rule(self, command: RuleCommand | ImportedRule) -> None:
        operation = command.operation
        if isinstance(operation, DeleteConntrack):
            self._run("kata-ipvs", "cleanup", "--parameters", operation.parameters, self._address.id)
        else:
            self._ipvsadm(operation.parameters)

    def _network(self, action: str, data: object) -> None:
        self._run("kata-network", action, self._address.id, "-", stdin=json.dumps(data))

    def _import(self, rules: Sequence[ImportedRule]) -> list[Outcome]:
        services: dict[ServiceKey, Service] = {}
        for rule in rules:
            match rule.operation:
                case AddService(service=service):
                    services[service.key] = replace(service, servers=())
                case AddServer(service=key, server=server):
                    services[key] = replace(services[key], servers=(*services[key].servers, server))
                case _:
                    assert_never(rule.operation)
        text = "".join(f"{line}\n" for line in save_rules(services.values()))
        restore = partial(self._run, "kata-ipvs", "ipvsadm", "--restore", "-", self._address.id, stdin=text)
        first = _outcome(rules[0], restore)
        if first.status is Status.DONE:
            return [first._replace(operation=each) for each in rules]
        return self._finish(rules, first)

    def _finish(self, rules: Sequence[ImportedRule], import_: Outcome) -> list[Outcome]:
        """Return the outcomes of an import that failed or did not answer.

        If few rules are missing, add them one by one.
        """
        try:
            found = {each.key: {server.key for server in each.servers} for each in parse_listing(self.ipvs_listing())}
        except (ReconcilerError, ValueError) as error:
            return [
                Outcome(each, Status.UNKNOWN, f"{import_.reason}; listing the table afterwards failed as well: {error}")
                for each in rules
            ]
        missing = [each for each in rules if not _is_there(each.operation, found)]
        outcomes = {id(each): Outcome(each, Status.FAILED, import_.reason) for each in missing}
        if len(missing) <= SINGLES:
            outcomes = {id(each): _outcome(each, partial(self._change_rule, each)) for each in missing}
        return [outcomes.get(id(each)) or Outcome(each, Status.DONE) for each in rules]


def _is_there(operation: AddService | AddServer, found: Mapping[ServiceKey, Container[ServerKey]]) -> bool:
    if isinstance(operation, AddService):
        return operation.service.key in found
    return operation.server.key in found.get(operation.service, ())


def _outcome(operation: Operation, act: Callable[[], object]) -> Outcome:
    """Execute an operation and return its outcome: unknown if there was no answer, or none that can be parsed."""
    try:
        act()
    except (ChannelError, ProtocolError) as error:
        return Outcome(operation, Status.UNKNOWN, str(error))
    except ReconcilerError as error:
        return Outcome(operation, Status.FAILED, str(error))
    return Outcome(operation, Status.DONE)


def _known(listed: Sequence[Interface], wishes: Sequence[Interface]) -> tuple[Interface, ...]:
    """Add what only the manifest knows to the listed interface with the same MAC address, or else the same name."""
    of_hw_addr = {wish.hw_addr: wish for wish in wishes}
    others = of_hw_addr.keys() - {each.hw_addr for each in listed}
    of_name = {of_hw_addr[each].name: of_hw_addr[each] for each in others}
    pairs = ((each, of_hw_addr.get(each.hw_addr) or of_name.get(each.name)) for each in listed)
    return tuple(_with_device(each, wish) if wish else each for each, wish in pairs)


def _with_device(found: Interface, wish: Interface) -> Interface:
    return replace(found, device=wish.device, queues=wish.queues, vhost_user_socket=wish.vhost_user_socket)
