"""Checks of several objects: within a manifest, section by section, and across all manifests."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

from reconciler.manifest.finding import Finding, Path
from reconciler.manifest.interface import SECTION as INTERFACES
from reconciler.manifest.section import Draft
from reconciler.manifest.sections import SECTIONS
from reconciler.manifest.whereabouts import place_of
from reconciler.model.sandbox import KataAddress, LibvirtAddress, NetnsAddress, Sandbox, VmAddress
from reconciler.values import NamedTuple


def check_sections(draft: Draft) -> Iterator[Finding]:
    """Check a manifest by itself, as far as it could be read."""
    for section in SECTIONS:
        yield from section.check(draft)
    if draft.checks:
        # Most manifests have none.
        from reconciler.manifest import check_list

        yield from check_list.check(draft.checks, draft)
    if draft.driver == "kata":
        for section in SECTIONS:
            yield from section.check_kata(draft)
    if draft.driver == "vm" and isinstance(draft.data["driver"]["vm"], dict):
        yield from _check_machine(draft)


def _check_machine(draft: Draft) -> Iterator[Finding]:
    machine = draft.data["driver"]["vm"]
    if "guestAgent" in machine and str(machine.get("agent")).startswith(("vsock://", "hvsock://")):
        message = (
            "an agent that is pushed serves a virtio-serial port, no vsock; remove guestAgent, or give the path of "
            "that port's socket as agent"
        )
        yield Finding(("driver", "vm", "guestAgent"), message, at_key=True)
    if (
        "agent" in machine
        and "qmp" not in machine
        and any(each is None or not each.made for each in draft.items(INTERFACES))
    ):
        message = (
            "the machine has no monitor, so no NIC can be plugged into it; add qmp to the driver, or remove the "
            "interfaces: routes, rules, neighbours and IPVS can name NICs that the machine has"
        )
        yield Finding(("interfaces",), message, at_key=True)


_ID = "ID"


class _Claim(NamedTuple):
    """What only one manifest may have: its kind, what identifies it, its name in this manifest, and the field."""

    what: str
    identity: Hashable
    value: str
    path: Path


def check_together(
    sandboxes: Sequence[tuple[str, Sandbox]], identify: Callable[[str], Hashable]
) -> Iterator[tuple[int, Finding]]:
    """Check manifests, each with the name of its file, against each other. Yield the index of a wrong one, and why.

    A sandbox, its namespace or agent, and each device and MAC address are in one manifest only. `identify` returns what
    all paths of a namespace or a socket have in common.
    """
    first: dict[tuple[str, Hashable], tuple[int, str]] = {}
    for index, (_, sandbox) in enumerate(sandboxes):
        twin = None
        for claim in _claims(sandbox, identify):
            owner, value = first.setdefault((claim.what, claim.identity), (index, claim.value))
            if owner in {index, twin}:
                continue
            file, other = sandboxes[owner]
            if claim.what == _ID:
                # The rest of the sandbox follows from that.
                twin = owner
                message = f"sandbox {sandbox.id} has a manifest already, in {file}; a sandbox has one"
            else:
                also = "" if value == claim.value else f" ({value})"
                message = f"{claim.value} is the {claim.what} of sandbox {other.id} already{also}, in {file}"
            yield index, Finding(claim.path, message)


def _claims(sandbox: Sandbox, identify: Callable[[str], Hashable]) -> Iterator[_Claim]:
    yield _named(_ID, sandbox.id, ("sandbox",))
    match sandbox.driver:
        case KataAddress(id=name):
            yield _named("container", name, ("driver", "kata", "id"))
        case VmAddress(file=file, name=name, qmp=qmp, agent=agent) as address:
            if agent or name:
                yield _Claim("agent socket", address.place(identify), file, ("driver",))
            if qmp:
                yield _Claim("QMP socket", identify(qmp), qmp, ("driver", "vm", "qmp"))
        case LibvirtAddress() as machine:
            yield _Claim("domain", place_of(machine), machine.domain, ("driver", "libvirt", "domain"))
        case NetnsAddress(file=file):
            yield _Claim("namespace", identify(file), file, ("driver",))
    for index, interface in enumerate(sandbox.interfaces or ()):
        if interface.made:
            continue
        yield _named("device", interface.device, ("interfaces", index, "device"))
        if interface.hw_addr:
            yield _named("hwAddr", interface.hw_addr, ("interfaces", index, "hwAddr"))


def _named(what: str, value: str, path: Path) -> _Claim:
    return _Claim(what, value, value, path)
