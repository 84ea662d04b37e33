"""Read and change sysctls of the network of a kernel."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler.errors import ChannelError, ReconcilerError
from reconciler.model.sandbox import Sandbox
from reconciler.model.sysctl import OF_NIC, Sysctls, effects, full_name
from reconciler.netlink.channel import Kernel
from reconciler.values import NamedTuple

if TYPE_CHECKING:
    from reconciler.operations.outcome import Outcome
    from reconciler.operations.sysctl import SetNetworkSysctl

_NUMBER = re.compile(r"-?[0-9]{1,10}")


class ObservedSysctls(NamedTuple):
    """The sysctls that a manifest names, those of NICs by the device of the host; one that is missing is left out.

    `along`: others that will change, by their names for sysctl(8): with those that differ, or with a NIC that leaves.
    """

    of_sandbox: Sysctls | None = None
    of_nics: Mapping[str, Sysctls] = {}
    along: Sysctls = ()


def observe(kernel: Kernel, desired: Sandbox, nics: Mapping[str, str], links: Collection[str]) -> ObservedSysctls:
    """Read what a manifest names. `nics`: our NICs, device → name; `links`: all links in the sandbox."""
    wishes = desired.sysctls or ()
    of_nics = {
        each.device: {name: full_name(nics[each.device], name) for name, _ in each.sysctls}
        for each in desired.interfaces or ()
        if each.sysctls and each.device in nics
    }
    named = [*(name for name, _ in wishes), *(full for names in of_nics.values() for full in names.values())]
    had = read_numbers(kernel, named)
    effected = [each.name for name, value in wishes if had.get(name) != value for each in effects(name, value, links)]
    along = read_numbers(kernel, [name for name in dict.fromkeys(effected) if name not in named])
    if desired.interfaces is not None:
        staying = {each.device for each in desired.interfaces}
        along |= _set_of_nics(kernel, [name for device, name in nics.items() if device not in staying])
    return ObservedSysctls(
        of_sandbox=None if desired.sysctls is None else tuple((name, had[name]) for name, _ in wishes if name in had),
        of_nics={
            device: tuple((name, had[full]) for name, full in names.items() if full in had)
            for device, names in of_nics.items()
        },
        along=tuple(along.items()),
    )


def _set_of_nics(kernel: Kernel, nics: Sequence[str]) -> dict[str, int]:
    """Return the sysctls of NICs that do not have the value that the kernel gives to a new one."""
    names = {full_name(nic, name): full_name("default", name) for nic in nics for name in OF_NIC}
    found = read_numbers(kernel, list({**names, **dict.fromkeys(names.values())}))
    return {name: found[name] for name, default in names.items() if name in found and found[name] != found.get(default)}


def read_numbers(kernel: Kernel, names: Sequence[str]) -> dict[str, int]:
    """Read sysctls by their names for sysctl(8), without those that the kernel does not have or that are no numbers."""
    return {name: int(text) for name, text in kernel.read_sysctls(names).items() if _NUMBER.fullmatch(text)}


def execute(kernel: Kernel, operations: Sequence[SetNetworkSysctl]) -> Iterator[list[Outcome]]:
    """Change sysctls, one after the other; yield the outcome of each, and stop after one that failed."""
    from reconciler.operations.outcome import Outcome, Status

    for operation in operations:
        try:
            kernel.set_sysctl(operation.name, str(operation.value))
        except ReconcilerError as error:
            yield [Outcome(operation, Status.UNKNOWN if isinstance(error, ChannelError) else Status.FAILED, str(error))]
            return
        yield [Outcome(operation, Status.DONE)]
