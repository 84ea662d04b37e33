"""Sandboxes that cannot be opened or read, and those that differ from their manifests."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.doctor import words
from reconciler.doctor.facts import Box, Trouble
from reconciler.doctor.registry import Check, Hit
from reconciler.doctor.scene import Scene
from reconciler.doctor.words import command
from reconciler.manifest.warn import others
from reconciler.model.sandbox import KataAddress, LibvirtAddress, NetnsAddress, VmAddress
from reconciler.operations.domain import virsh

# Which processes of the host have a vsock.
_LIST_VSOCK = "ss --vsock --all --processes"
# Operations of a plan that are listed.
_SHOWN = 5


def _failed(scene: Scene, trouble: Trouble) -> Iterator[tuple[Box, str]]:
    return ((box, box.failure.words) for box in scene.boxes if box.failure and box.failure.trouble is trouble)


def _missing(scene: Scene) -> Iterator[Hit]:
    for box, why in _failed(scene, Trouble.MISSING):
        yield Hit(box.id, why, _make(box))


def _make(box: Box) -> str:
    address = box.driver
    if isinstance(address, NetnsAddress) and address.name:
        return f"{command('ip', 'netns', 'add', address.name)} && {words.apply(box)}"
    if isinstance(address, VmAddress) and address.name:
        # The folder of a machine that died is still there.
        again = command("reconciler", "sandbox", "stop", address.name)
        return f"{again}; {command('reconciler', 'sandbox', 'start', address.name)} && {words.apply(box)}"
    if isinstance(address, VmAddress):
        return command("ls", "-l", *address.sockets) if address.sockets else _LIST_VSOCK
    if isinstance(address, KataAddress):
        return command("ls", "-l", address.runtime)
    if isinstance(address, LibvirtAddress):
        return f"{virsh(address, 'start')} && {words.apply(box)}    # `virsh list --all` lists those that there are"
    return command("ls", "-l", address.file)


def _busy(scene: Scene) -> Iterator[Hit]:
    for box, why in _failed(scene, Trouble.BUSY):
        sockets = box.driver.sockets if isinstance(box.driver, VmAddress) else ("/run/reconciler/locks",)
        yield Hit(box.id, why, command("fuser", "-v", sockets[0]) if sockets else _LIST_VSOCK)


def _silent(scene: Scene) -> Iterator[Hit]:
    for box, why in _failed(scene, Trouble.SILENT):
        if not _is_stopped(box):
            yield Hit(box.id, why, _revive(box))


def _revive(box: Box) -> str:
    address = box.driver
    if isinstance(address, VmAddress) and address.name:
        pid = command("cat", f"/run/reconciler/sandboxes/{address.name}/pid")
        return f'ps -o pid,stat,etime,cmd -p "$({pid})" && kill -CONT "$({pid})"'
    if isinstance(address, LibvirtAddress):
        # An agent that was pushed is pushed again, whatever else holds the domain up.
        again = command("reconciler", "agent", "push", box.id, "--manifests", box.file)
        state = virsh(address, "domstate", "--reason")
        return f"{state}; {again}" if address.guest_agent and box.file else f"{state}; {virsh(address, 'resume')}"
    return words.diff(box)


def _is_stopped(box: Box) -> bool:
    return box.state not in {"", "running"}


def _stopped(scene: Scene) -> Iterator[Hit]:
    for box in scene.boxes:
        if _is_stopped(box) and isinstance(box.driver, VmAddress):
            commands = '{"execute":"qmp_capabilities"}\\n{"execute":"cont"}\\n'
            cont = f"printf '{commands}' | socat -t1 - {command(f'UNIX-CONNECT:{box.driver.monitor}')}"
            yield Hit(box.id, f"QEMU says that the machine is {box.state}", cont)


def _no_binding(scene: Scene) -> Iterator[Hit]:
    for box, why in _failed(scene, Trouble.NO_BINDING):
        yield Hit(box.id, why, command("apt-get", "install", "python3-libvirt"))


def _no_libvirt(scene: Scene) -> Iterator[Hit]:
    for box, why in _failed(scene, Trouble.NO_LIBVIRT):
        yield Hit(box.id, why, "systemctl start libvirtd; systemctl status libvirtd")


def _no_channel(scene: Scene) -> Iterator[Hit]:
    for box, why in _failed(scene, Trouble.NO_CHANNEL):
        yield Hit(box.id, why, words.apply(box))


def _no_controller(scene: Scene) -> Iterator[Hit]:
    for box, why in _failed(scene, Trouble.NO_CONTROLLER):
        if isinstance(box.driver, LibvirtAddress):
            yield Hit(box.id, why, virsh(box.driver, "edit"))


def _refused(scene: Scene) -> Iterator[Hit]:
    for box, why in _failed(scene, Trouble.REFUSED):
        yield Hit(box.id, why, command("reconciler", "validate", box.file) if box.file else "reconciler validate .")


def _broken(scene: Scene) -> Iterator[Hit]:
    for box, why in _failed(scene, Trouble.FAILED):
        yield Hit(box.id, why, words.diff(box))


def _no_plan(scene: Scene) -> Iterator[Hit]:
    for box in scene.boxes:
        if box.no_plan and box.no_plan.trouble is not Trouble.HIDDEN:
            yield Hit(box.id, f"nobody can say what `apply` would do: {box.no_plan.words}", words.diff(box))


def _drift(scene: Scene) -> Iterator[Hit]:
    for box in scene.boxes:
        if box.drift:
            first = "; ".join(box.drift[:_SHOWN])
            more = len(box.drift) - _SHOWN
            rest = f"; and {more:,} more" if more > 0 else ""
            differs = f"{box.id} differs from {box.file}; what is missing or wrong needs: {first}{rest}"
            yield Hit(box.id, differs, f"{words.diff(box)}; {words.apply(box)}")


def _warnings(scene: Scene) -> Iterator[Hit]:
    for box in scene.boxes:
        if box.manifest and box.observed:
            for each in others.warnings(box.sandbox, box.observed.around):
                yield Hit(box.id, each.message, words.diff(box))


CHECKS = (
    Check("sandbox-missing", "The sandbox does not exist, or does not run.", "Make or start it.", _missing),
    Check("sandbox-busy", "Another program is connected to it, so nobody else can look.", "Wait for it.", _busy),
    Check("machine-silent", "The machine hangs, or its agent does not run.", "Let it go on, or restart it.", _silent),
    Check("machine-stopped", "The machine does nothing until QEMU lets it go on.", "Let it go on.", _stopped),
    Check("libvirt-binding", "Domains of libvirt cannot be reached.", "Install the binding.", _no_binding),
    Check("libvirt-missing", "Domains of libvirt cannot be reached.", "Start libvirtd.", _no_libvirt),
    Check("channel-missing", "Nothing can reach the agent in the domain.", "Plug a channel in.", _no_channel),
    Check("controller-missing", "No channel can be plugged into the domain.", "Add one.", _no_controller),
    Check("sandbox-refused", "The policy or a safety check keeps reconciler out.", "Follow the message.", _refused),
    Check("sandbox-failed", "The sandbox cannot be read.", "Follow the message.", _broken),
    Check("plan-impossible", "`apply` would fail in the same way.", "Follow the message.", _no_plan),
    Check("drift", "Packets may not take the way that the manifest describes.", "Apply the manifest.", _drift),
    Check(
        "taken", "Something that is not ours stands in front of what the manifest describes.", "See there.", _warnings
    ),
)
