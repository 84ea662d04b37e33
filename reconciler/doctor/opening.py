"""Opens a sandbox and reads it, without a change: whatever fails becomes a fact as well.

An IPVS table is read only where IPVS is loaded already, as to ask for it would load it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.doctor import netpicture
from reconciler.doctor.facts import Box, Failure, Network, Trouble, Unknown, Usage
from reconciler.doctor.host import loadable_modules, with_firewall
from reconciler.drivers import Driver, connect
from reconciler.drivers.reach import open_namespace
from reconciler.drivers.vm.binding import NoBindingError, NoLibvirtError
from reconciler.drivers.vm.libvirt import NoChannelError, NoControllerError
from reconciler.errors import (
    BusyError,
    ChannelError,
    ManifestError,
    ReconcilerError,
    RefusedError,
    SandboxGoneError,
)
from reconciler.manifest.load import Manifest, explain
from reconciler.manifest.whereabouts import OWN
from reconciler.model.policy import Policy
from reconciler.model.sandbox import (
    DriverAddress,
    KataAddress,
    LibvirtAddress,
    MachineAddress,
    NetnsAddress,
    Observed,
    Sandbox,
    VmAddress,
)
from reconciler.netlink import nsid
from reconciler.netlink.budget import Budget
from reconciler.netlink.channel import ROUTE, LocalKernel
from reconciler.preview import compare
from reconciler.values import replace
from reconciler.wording import failure

if TYPE_CHECKING:
    from reconciler.drivers.vm.driver import VmDriver

_IPVS = "net.ipv4.vs.conntrack"
_COUNT, _MOST = "net.netfilter.nf_conntrack_count", "net.netfilter.nf_conntrack_max"
# The commands that are kept of a plan: the first say what is wrong, and all are counted.
_RUNNING = "running"
# What runs in a machine of ours, and the bytes of its answer that are read.
_ASK = (
    "cat /proc/modules; find /lib/modules -name '*.ko*' 2>/dev/null; "
    f"echo conntrack $(cat /proc/sys/{_COUNT.replace('.', '/')} /proc/sys/{_MOST.replace('.', '/')} 2>/dev/null)"
)
_MOST_BYTES = 1 << 20


def look(sandbox: Sandbox, manifest: Manifest | None, policy: Policy, modules: frozenset[str] | None) -> Box:
    """Return what can be seen of a sandbox. `modules`: those that the host's kernel has loaded; None: it has none."""
    try:
        with connect(sandbox, policy) as driver:
            return _look(driver, Box(sandbox=sandbox, manifest=manifest), policy, modules)
    except (ReconcilerError, OSError) as error:
        found = _stopped(sandbox.driver) or _failure(manifest, error)
        return Box(sandbox=sandbox, manifest=manifest, failure=found)


def _stopped(address: DriverAddress) -> Failure | None:
    """Return the failure if a signal has stopped the QEMU of a machine of ours."""
    if not isinstance(address, VmAddress) or address.name is None:
        return None
    from reconciler.guest.launch import LaunchedMachine

    with suppress(ReconcilerError, OSError, IndexError):
        pid = LaunchedMachine(address.name).pid()
        with open(f"/proc/{pid or 'none'}/stat", encoding="ascii", errors="replace") as file:
            if file.read().rpartition(")")[2].split()[0] in {"T", "t"}:
                return Failure(Trouble.SILENT, f"its QEMU, the process {pid}, is stopped by a signal (SIGSTOP)")
    return None


def _failure(manifest: Manifest | None, error: ReconcilerError | OSError) -> Failure:
    match error:
        case SandboxGoneError():
            trouble = Trouble.MISSING
        case BusyError():
            trouble = Trouble.BUSY
        case ChannelError():
            trouble = Trouble.SILENT
        case RefusedError() | ManifestError():
            trouble = Trouble.REFUSED
        case NoBindingError():
            trouble = Trouble.NO_BINDING
        case NoLibvirtError():
            trouble = Trouble.NO_LIBVIRT
        case NoChannelError():
            trouble = Trouble.NO_CHANNEL
        case NoControllerError():
            trouble = Trouble.NO_CONTROLLER
        case _:
            trouble = Trouble.FAILED
    if os.geteuid() != 0 and trouble is not Trouble.REFUSED and trouble is not Trouble.MISSING:
        trouble = Trouble.HIDDEN
    if isinstance(error, OSError):
        return Failure(trouble, failure(error))
    words = " ".join(explain(manifest, error)) if manifest else str(error)
    return Failure(trouble, words.removeprefix(f"{manifest.sandbox.id}: ") if manifest else words)


def _look(driver: Driver, box: Box, policy: Policy, modules: frozenset[str] | None) -> Box:
    address = box.driver
    if isinstance(address, MachineAddress):
        machine: VmDriver = driver  # type: ignore[assignment]
        box = replace(box, state=machine.state())
        if box.state != _RUNNING:
            return replace(box, failure=Failure(Trouble.SILENT, f"QEMU says that the machine is {box.state}"))
    box = _with_network(driver, box)
    box = _with_plan(driver, box)
    match address:
        case NetnsAddress():
            return _with_namespace(box, address, policy, modules)
        case VmAddress() | LibvirtAddress():
            return _with_machine(box, address)
        case KataAddress():
            why = "kata-runtime lists interfaces, routes and IPVS only"
            return replace(box, unknown=(Unknown(box.id, "the inside of the container", why, beyond=True),))


def _with_network(driver: Driver, box: Box) -> Box:
    dumped = driver.snapshot(())
    if not dumped.inside:
        return box
    network = netpicture.with_settings(netpicture.decode(dumped), driver.read_sysctls)
    return replace(box, network=network, ipvs=bool(driver.read_sysctls([_IPVS])))


def _with_plan(driver: Driver, box: Box) -> Box:
    """Add what was observed, and what `apply` would do about it."""
    desired = box.sandbox
    if box.ipvs is False:
        desired = replace(desired, ipvs=None)
    observed: Observed | None = None
    try:
        observed = driver.observe(desired)
        plan = compare(desired, observed).plan if box.manifest else None
    except (ReconcilerError, OSError) as error:
        return replace(box, observed=observed, no_plan=_failure(box.manifest, error))
    return replace(box, observed=observed, drift=tuple(each.command for each in plan.operations) if plan else None)


def _with_namespace(box: Box, address: NetnsAddress, policy: Policy, modules: frozenset[str] | None) -> Box:
    """Add what only a namespace of this host can tell."""
    unknown: list[Unknown] = []
    file = open_namespace(address, policy)
    try:
        kernel = LocalKernel(file, Budget())
        network = with_firewall(box.network or Network(), kernel, modules, box.id, unknown)
        counts = kernel.read_sysctls([_COUNT, _MOST])
        known = modules | loadable_modules() if modules is not None and box.sandbox.ipvs else None
        return replace(
            box,
            network=network,
            host_number=_number_of_host(kernel),
            modules=known,
            conntrack=_usage(counts.get(_COUNT, ""), counts.get(_MOST, "")),
            unknown=(*box.unknown, *unknown),
        )
    finally:
        os.close(file)


def _number_of_host(kernel: LocalKernel) -> int | None:
    own = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        channel = kernel.open(ROUTE)
        try:
            return nsid.find(channel, own)
        finally:
            channel.close()
    finally:
        os.close(own)


def _with_machine(box: Box, address: MachineAddress) -> Box:
    """Add what a machine of ours says when a command is run in it; others have no port for commands."""
    relay = "its agent relays no messages about firewalls"
    beyond = Unknown(box.id, "the firewall in the machine", relay, beyond=True)
    if not isinstance(address, VmAddress) or address.name is None:
        why = "it has no port for commands, as machines of `reconciler sandbox` have"
        table = Unknown(box.id, "how full its connection tracking is, and its modules", why, beyond=True)
        return replace(box, unknown=(*box.unknown, beyond, table))
    # Only machines have that port.
    from reconciler.guest.launch import LaunchedMachine

    output = bytearray()

    def keep(data: bytes) -> None:
        output.extend(data[: _MOST_BYTES - len(output)])

    try:
        with suppress(FileNotFoundError):
            LaunchedMachine(address.name).run(["sh", "-c", _ASK], None, keep, lambda _: None)
    except ReconcilerError as error:
        what = "how full its connection tracking is, and its modules"
        return replace(box, unknown=(*box.unknown, beyond, Unknown(box.id, what, str(error))))
    return _with_answer(replace(box, unknown=(*box.unknown, beyond)), output.decode(errors="replace"))


def _with_answer(box: Box, text: str) -> Box:
    modules, conntrack = set[str](), None
    for line in text.splitlines():
        first, *more = line.split() or [""]
        if first == "conntrack":
            conntrack = _usage(*more) if len(more) == 2 else None
        elif first.startswith("/"):
            modules.add(os.path.basename(first).split(".ko", 1)[0].replace("-", "_"))
        else:
            modules.add(first)
    quiet = box.unknown
    if "nf_tables" not in modules and "ip_tables" not in modules and modules:
        # Without these, nothing in it can drop packets by a rule.
        quiet = tuple(each for each in quiet if each.what != "the firewall in the machine")
    return replace(box, modules=frozenset(modules) or None, conntrack=conntrack, unknown=quiet)


def _usage(used: str, most: str) -> Usage | None:
    return Usage(int(used), int(most)) if used.isdecimal() and most.isdecimal() else None
