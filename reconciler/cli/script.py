"""Plans as shell scripts: `diff -o shell`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import assert_never

from reconciler.errors import HostError
from reconciler.manifest.load import Manifest
from reconciler.model.sandbox import DriverAddress, KataAddress, LibvirtAddress, NetnsAddress, VmAddress
from reconciler.operations.address import AwaitAddress
from reconciler.operations.interface import DetachInterface, MoveOperation
from reconciler.operations.made import AddLink
from reconciler.operations.network import NetworkOperation
from reconciler.operations.route import DeleteRoute
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
from reconciler.preview import Preview
from reconciler.wording import printable, quote


def render_script(manifest: Manifest, preview: Preview) -> str:
    """Return a plan as a script for a root shell on this host. HostError for operations that no shell can execute."""
    driver = manifest.sandbox.driver
    head = printable(f"# {manifest.sandbox.id} ({driver}), from {manifest.file}")
    return "\n".join([head, *(line for segment in preview.plan.segments for line in _lines(segment, driver))])


def _lines(segment: Segment, driver: DriverAddress) -> Iterator[str]:
    match segment:
        case Moves():
            return _moves(segment.operations, driver)
        case Network():
            return (f"{_within(driver)} {_network_words(each)}" for each in segment.operations)
        case Settings():
            return (f"{_within(driver)} {each.command}" for each in segment.operations)
        case Table():
            return _table(segment, driver)
        case Plugs():
            raise HostError(
                "-o shell cannot plug NICs: these operations are commands for QEMU's monitor or for libvirt; "
                "-o text shows them"
            )
        case Commands() | Imports() | RuleCommands():
            return (f"{_within(driver)} {each.command}" for each in segment.operations)
        case _:
            assert_never(segment)


def _moves(operations: Iterable[MoveOperation], driver: DriverAddress) -> Iterator[str]:
    """Yield commands that move devices. `$$` is the process ID of the shell on the host."""
    for operation in operations:
        within = isinstance(operation, DetachInterface)
        yield f"{_within(driver)} {operation.command}" if within else operation.command


def _network_words(operation: NetworkOperation) -> str:
    if isinstance(operation, AwaitAddress | AddLink):
        # All of its commands are for the sandbox.
        return f"sh -c {quote(operation.command)}"
    may_fail = isinstance(operation, DeleteRoute) and operation.doubtful
    return f"{operation.command}{' || true' if may_fail else ''}"


def _table(table: Table, driver: DriverAddress) -> Iterator[str]:
    from reconciler.formats.ipvsadm.write import has_no_option
    from reconciler.operations.ipvs import DeleteConntrack, StopExpiring

    for operation in table.operations:
        command = operation.command
        if has_no_option(command):
            raise HostError(f"-o shell cannot do this, as ipvsadm has no option for it: {command}")
        if isinstance(operation, StopExpiring):
            command = f"sh -c {quote(command)}"
        elif isinstance(operation, DeleteConntrack):
            # conntrack fails if there is no such entry.
            command += " || true"
        yield f"{_within(driver)} {command}"


def _within(driver: DriverAddress) -> str:
    match driver:
        case NetnsAddress():
            return f"nsenter --net={quote(driver.file)}"
        case VmAddress(name=None) | LibvirtAddress():
            raise HostError(
                f"-o shell cannot run commands in {driver}; only machines of `reconciler sandbox start` can"
            )
        case KataAddress():
            raise HostError(f"-o shell cannot run commands in {driver}; kata-runtime has no command for that")
        case VmAddress():
            return f"reconciler sandbox exec {driver.name} --"
