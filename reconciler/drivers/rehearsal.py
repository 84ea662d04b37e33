"""Carries a plan out in a copy of the sandbox, before it touches the sandbox itself.

The copy is a namespace without a name, and another one is in place of the host, with the devices that are to move.
Both are of this host, where its kernel is the sandbox's or of the same series; they end with the thread that has them.
Otherwise they are in a throwaway machine. So nothing is left whenever this process dies.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING

from reconciler.drivers import Driver
from reconciler.drivers.inside import Inside
from reconciler.drivers.tryout import Files, Tryout
from reconciler.errors import HostError, ReconcilerError
from reconciler.model.release import series
from reconciler.model.sandbox import KataAddress, MachineAddress, Observed
from reconciler.model.sysctl import full_name
from reconciler.netlink import replica
from reconciler.netlink.channel import ROUTE, LocalKernel, enter_new_namespace
from reconciler.netlink.engine import Engine, local_engine
from reconciler.netlink.facts import Snapshot
from reconciler.operations import Operation
from reconciler.operations.made import AddLink
from reconciler.operations.outcome import Outcome, Status, until_failure
from reconciler.operations.segment import Table
from reconciler.plan import Plan
from reconciler.values import NamedTuple

if TYPE_CHECKING:
    from reconciler.guest.throwaway import Room, Throwaways


class Rehearsal(NamedTuple):
    """What a kernel said to the operations of a plan in a copy of the sandbox.

    `failed`: those that it refused; after one, others may not have been tried. `lacks`: what the copy does not have, in
    words. `untried`: why some operations were not tried at all, or not on the kernel of the sandbox; then success is
    not proven. `kernel`: the release of the kernel that tried it, "" if none did; `own`: that of the sandbox.
    """

    failed: tuple[Outcome, ...] = ()
    lacks: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()
    kernel: str = ""
    own: str = ""

    @property
    def proven(self) -> bool | None:
        """Return whether the plan succeeds; None if that is not known.

        Whatever a kernel of another series says, that of the sandbox may say something else.
        """
        if series(self.kernel) != series(self.own):
            return None
        return False if self.failed else None if self.untried else True


class Captured(NamedTuple):
    """All of a sandbox that a copy is made of."""

    observed: Observed
    dumped: Snapshot
    sysctls: Mapping[str, str]
    modules: Mapping[str, bool] = MappingProxyType({})


def capture(driver: Driver, observed: Observed, plan: Plan) -> Captured:
    """Read what a copy of a sandbox is made of, for a plan. The sandbox is free again before a copy is made."""
    dumped = driver.snapshot(())
    names = dict.fromkeys([*replica.settings_of(dumped), *dict(_sysctls(observed))])
    modules: Mapping[str, bool] = {}
    if isinstance(observed.sandbox.driver, MachineAddress):
        modules = driver.find_modules(sorted({each for _, needed in _modules(plan) for each in needed}))
    return Captured(observed, dumped, driver.read_sysctls(list(names)), modules)


def _modules(plan: Plan) -> Iterator[tuple[Operation, list[str]]]:
    """Yield the operations of a plan for which the kernel looks for modules, and these."""
    for segment in plan.segments:
        if isinstance(segment, Table):
            # Most manifests have no IPVS section.
            from reconciler.operations.ipvs import AddService, EditService

            for each in segment.operations:
                if isinstance(each, AddService | EditService):
                    engine = each.service.persistence_engine
                    needed = (each.service.scheduler_module, f"ip_vs_pe_{engine}" if engine else "")
                    yield each, [module for module in needed if module]


def rehearse(captured: Captured, plan: Plan, throwaways: Throwaways) -> Rehearsal:
    """Carry a plan out in a copy. HostError if this host cannot make one of a namespace."""
    address = captured.observed.sandbox.driver
    if isinstance(address, KataAddress):
        return Rehearsal(untried=("kata-runtime does not list all of a sandbox, so there is no copy of it",))
    if isinstance(address, MachineAddress) and not _is_alike(captured, plan):
        return _in_a_machine(captured, plan, throwaways)
    found: list[Rehearsal | BaseException] = []

    def work() -> None:
        try:
            found.append(_in_a_namespace(captured, plan))
        except BaseException as error:  # noqa: BLE001 it is raised again below
            found.append(error)

    # A thread that has entered a namespace never comes back: it ends with it.
    thread = threading.Thread(target=work, name="rehearsal", daemon=True)
    thread.start()
    thread.join()
    (result,) = found
    if isinstance(result, BaseException):
        raise result
    return result


def _sysctls(observed: Observed) -> Iterator[tuple[str, int]]:
    had = observed.sandbox
    yield from had.sysctls or ()
    yield from observed.around.sysctls
    for nic in had.interfaces or ():
        yield from ((full_name(nic.name, name), value) for name, value in nic.sysctls)


def _is_alike(captured: Captured, plan: Plan) -> bool:
    """Return whether the kernel of this host can stand in for that of a machine: it is of the same series."""
    if captured.observed.around.kernel != series(os.uname().release):
        return False
    kinds = {each.made.kind for each in plan.operations if isinstance(each, AddLink)}
    with local_engine() if kinds else nullcontext() as host:
        if host and any(map(host.lacks, kinds)):
            return False
    if not any(isinstance(each, Table) for each in plan.segments):
        return True
    with closing(Inside(LocalKernel())) as here:
        try:
            _ = here.ipvs
        except HostError:
            return False
    return True


def _in_a_namespace(captured: Captured, plan: Plan) -> Rehearsal:
    with ExitStack() as stack:
        inner = enter_new_namespace()
        stack.callback(os.close, inner)
        outer = enter_new_namespace()
        stack.callback(os.close, outer)
        kernel = LocalKernel(inner)
        within = stack.enter_context(closing(Inside(kernel)))
        host = Engine(stack.enter_context(closing(LocalKernel(outer).open(ROUTE))))
        place = replica.Place(kernel, within.engine, host, replica.namespace_of_file(outer))
        copy = Tryout(within, place, captured.observed, Files(inner, outer))
        return _carried_out(captured, plan, copy, [*_built(place, captured), *copy.add_devices()], os.uname().release)


def _in_a_machine(captured: Captured, plan: Plan, throwaways: Throwaways) -> Rehearsal:
    around = captured.observed.around
    try:
        with throwaways.room(around.kernel or (0, 0), captured.observed.sandbox.id) as room:
            return _in_a_room(captured, plan, room)
    except ReconcilerError as error:
        return Rehearsal(untried=(str(error),), own=around.release)


def _in_a_room(captured: Captured, plan: Plan, room: Room) -> Rehearsal:
    # The sandbox itself is a machine, so this is imported already.
    from reconciler.guest.kernel import GuestKernel

    kernel = GuestKernel(room.inner)
    with closing(Inside(kernel)) as within:
        host = Engine(GuestKernel(room.outer).open(ROUTE))
        place = replica.Place(kernel, within.engine, host, replica.namespace_of_process(1))
        copy = Tryout(within, place, captured.observed)
        # Each is a step with bounds of its own: the messages are those of the sandbox, so it decides what they cost.
        with room.budget.step():
            lacks = _built(place, captured)
        with room.budget.step():
            return _carried_out(captured, plan, copy, lacks, room.release)


def _built(place: replica.Place, captured: Captured) -> list[str]:
    return replica.build(place, captured.dumped, captured.sysctls)


def _carried_out(captured: Captured, plan: Plan, copy: Tryout, lacks: list[str], kernel: str) -> Rehearsal:
    outcomes = [each for batch in until_failure(copy.execute(plan.segments)) for each in batch]
    if isinstance(captured.observed.sandbox.driver, MachineAddress):
        outcomes = _with_modules(outcomes, captured, plan, copy)
    failed = tuple(each for each in outcomes if each.status is Status.FAILED)
    unknown = [each for each in outcomes if each.status not in {Status.DONE, Status.FAILED}]
    if unknown:
        others = f" and {len(unknown) - 1:,} others" if len(unknown) > 1 else ""
        first = unknown[0]
        copy.untried.append(f"whether `{first.operation.command}`{others} would succeed is unknown: {first.reason}")
    own = captured.observed.around.release
    if series(own) != series(kernel):
        copy.untried.append(f"it was tried on kernel {kernel}, and the sandbox has {own}")
    elif own != kernel:
        lacks = [f"the sandbox has kernel {own}, another build of the same series", *lacks]
    return Rehearsal(failed, tuple(dict.fromkeys(lacks)), tuple(dict.fromkeys(copy.untried)), kernel, own)


def _with_modules(outcomes: list[Outcome], captured: Captured, plan: Plan, copy: Tryout) -> list[Outcome]:
    """Return outcomes in which what needs a module fails if the sandbox does not have that one, as the copy may."""
    needed = dict(_modules(plan))
    for name in sorted({each for names in needed.values() for each in names}.difference(captured.modules)):
        copy.untried.append(f"whether the sandbox's kernel has the module {name} is unknown")

    def real(outcome: Outcome) -> Outcome:
        for name in needed.get(outcome.operation, ()):
            if outcome.status is Status.DONE and captured.modules.get(name) is False:
                return outcome._replace(status=Status.FAILED, reason=f"the sandbox's kernel has no module {name}")
        return outcome

    return [real(each) for each in outcomes]
