"""Single commands for a sandbox: the observed state, changed as the command demands, is applied.

A command changes one section and leaves the others alone. It acts on the objects that it names, even on foreign ones if
it can identify them, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from reconciler.converge import apply
from reconciler.drivers import Driver, connect
from reconciler.errors import HostError, SandboxGoneError
from reconciler.formats.ipvsadm.command import IpvsadmCommand
from reconciler.formats.ipvsadm.write import server_key_options, service_key_options
from reconciler.history.scribe import SILENT, Scribe
from reconciler.model.interface import Interface
from reconciler.model.ipvs import RULES_MAX, Ipvs, Service, ServiceKey
from reconciler.model.policy import DEFAULTS, Policy
from reconciler.model.route import Route
from reconciler.model.sandbox import KataAddress, Observed, Sandbox, VmAddress
from reconciler.operations.ipvs import DeleteConntrack
from reconciler.operations.outcome import Status
from reconciler.operations.runtime import RuleCommand
from reconciler.operations.segment import RuleCommands, Segment, Table, flat
from reconciler.preview import Adoption
from reconciler.safety import Allowance
from reconciler.values import replace


def find(name: str, manifests: Sequence[str], policy: Policy = DEFAULTS) -> Sandbox:
    """Return a sandbox by its ID or a prefix that no other one has: in manifests, or else among the machines that run.

    Only the ID and the driver are read from a manifest. `policy`: as in `manifest.load`.
    SandboxGoneError if no sandbox matches, HostError if several do.
    """
    known = {each.id: each for each in (_of_manifests(manifests, policy) if manifests else _machines())}
    if name in known:
        return known[name]
    found = sorted(each for each in known if name and each.startswith(name))
    if len(found) > 1:
        raise HostError(f"several IDs begin with {name}: {', '.join(found)}")
    if not found:
        where = "in these manifests" if manifests else "among the machines that run; others are found with --manifests"
        raise SandboxGoneError(f"no sandbox has an ID that begins with {name!r} {where}")
    return known[found[0]]


def _of_manifests(paths: Sequence[str], policy: Policy) -> list[Sandbox]:
    from reconciler.manifest.load import load

    return [Sandbox(id=each.sandbox.id, driver=each.sandbox.driver) for each in load(paths, policy)]


def _machines() -> list[Sandbox]:
    from reconciler.guest import launch

    running = (state.name for state in launch.states() if state.pid)
    return [Sandbox(id=name, driver=VmAddress(name=name)) for name in running]


class LockedSandbox:
    """A sandbox that is locked against other runs. `observed`: what was in it when it was opened."""

    def __init__(self, driver: Driver, sandbox: Sandbox, scribe: Scribe) -> None:
        self._driver, self._sandbox, self._scribe = driver, sandbox, scribe
        self.observed = self.look()

    def look(self) -> Observed:
        """Return what is in it now."""
        return self._driver.observe(self._sandbox)

    def ipvs_listing(self) -> str:
        """Return the kernel's own listing of the IPVS table."""
        return self._driver.ipvs_listing()

    def set_interfaces(self, interfaces: Sequence[Interface]) -> bool:
        """Replace our interfaces by these. Return whether that changed anything."""
        return self._apply(replace(self._sandbox, interfaces=tuple(interfaces)))

    def set_routes(self, routes: Sequence[Route]) -> bool:
        """Replace our routes by these. Return whether that changed anything."""
        return self._apply(replace(self._sandbox, routes=tuple(routes)))

    def set_ipvs(self, ipvs: Ipvs, *, adopt: Adoption = False) -> bool:
        """Replace our IPVS table by this one. Return whether it changed.

        The foreign services of `adopt` count as ours.
        """
        return self._apply(replace(self._sandbox, ipvs=ipvs), adopt=adopt)

    def _apply(self, desired: Sandbox, *, adopt: Adoption = False) -> bool:
        # The user has named the object, so its deletion is allowed.
        allowance = Allowance()
        with self._scribe.attempt():
            result = apply(
                self._driver, desired, allowance=allowance, adopt=adopt, all_or_nothing=True, scribe=self._scribe
            )
        return bool(result.operations)

    def forget_connections(self, address: str, protocol: str) -> None:
        """Delete the entries of connection tracking with this original destination and protocol."""
        operation = DeleteConntrack(address=address, protocol=protocol)
        segment: Segment = Table((operation,))
        if isinstance(self._sandbox.driver, KataAddress):
            segment = RuleCommands((RuleCommand(container=self._sandbox.driver.id, operation=operation),))
        with self._scribe.change(flat([segment])):
            for outcomes in self._driver.execute([segment]):
                for outcome in outcomes:
                    if outcome.status is not Status.DONE:
                        raise HostError(f"{outcome.operation.command}: {outcome.reason}")


@contextmanager
def lock(sandbox: Sandbox, policy: Policy, scribe: Scribe = SILENT) -> Iterator[LockedSandbox]:
    """Open and lock a sandbox before the first look: changes of another run in between would be undone.

    `scribe` records what is changed.
    """
    with connect(sandbox, policy) as driver, driver.lock():
        yield LockedSandbox(driver, sandbox, scribe)


def table_after(command: IpvsadmCommand, ours: Sequence[Service], others: Sequence[Service]) -> tuple[Service, ...]:
    """Return our services after a command of ipvsadm. HostError if the command is impossible."""
    key = command.key
    before = next((service for service in (*ours, *others) if service.key == key), None)
    after = _changed(command, before)
    kept = tuple(service for service in ours if service.key != key)
    return _checked((*kept, after) if after else kept)


def _changed(command: IpvsadmCommand, before: Service | None) -> Service | None:
    name, key, service, server, _ = command
    if service and name == "-A":
        if before:
            raise HostError(f"-A {_words(service.key)}: this service is there already")
        return service
    if before is None:
        raise HostError(f"{name}{f' {_words(key)}' if key else ''}: no such service")
    if service:
        return replace(service, servers=before.servers)
    if server is None:
        return None
    there = server.key in {each.key for each in before.servers}
    if there == (name == "-a"):
        what = "this server is there already" if there else "no such server"
        raise HostError(f"{name} {_words(before.key)} {server_key_options(server.key)}: {what}")
    kept = tuple(each for each in before.servers if each.key != server.key)
    return replace(before, servers=kept if name == "-d" else (*kept, server), marked=True)


def table_with(services: Sequence[Service], ours: Sequence[Service], others: Sequence[Service]) -> tuple[Service, ...]:
    """Return our services with `services` added. HostError if one of them exists already."""
    there = {service.key for service in (*ours, *others)}
    for service in services:
        if service.key in there:
            raise HostError(
                f"-A {_words(service.key)}: this service is there already; "
                "clear the table before rules are imported: ipvsadm --parameters --clear"
            )
    return _checked((*ours, *services))


def _checked(services: tuple[Service, ...]) -> tuple[Service, ...]:
    count = sum(1 + len(service.servers) for service in services)
    if count > RULES_MAX:
        raise HostError(f"that would be {count:,} IPVS rules, services and servers; at most {RULES_MAX:,} are possible")
    return services


def _words(key: ServiceKey) -> str:
    return service_key_options(key)
