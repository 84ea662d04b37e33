"""`reconciler agent`: our agent in a machine: push it through QEMU's guest agent, or print what an image needs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

from reconciler import imperative
from reconciler.cli.authority import read_policy
from reconciler.cli.named import add_sandbox
from reconciler.cli.output import print_data, say
from reconciler.cli.parser import add_output, purpose
from reconciler.cli.reaching import reaching
from reconciler.cli.recording import tell
from reconciler.drivers.vm import pushing
from reconciler.errors import HostError
from reconciler.guest import in_image, push
from reconciler.manifest.allow import check
from reconciler.model.sandbox import MachineAddress, Sandbox

# Where the manifests of the Debian package's watcher are.
_MANIFESTS = "/etc/reconciler/manifests"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    pushes = actions.add_parser("push", **purpose("start the agent in a machine now; replace one of another version"))
    status = actions.add_parser("status", **purpose("print what a machine has: Python, systemd, and a pushed agent"))
    add_output(status, "text", "json", "yaml", words="form of the output")
    remove = actions.add_parser("remove", **purpose("stop the agent that was pushed, and unplug its channel"))
    for each in (pushes, status, remove):
        add_sandbox(each)
    actions.add_parser("cloud-init", **purpose("print user-data for cloud-init that installs the agent in an image"))
    actions.add_parser("unit", **purpose("print a unit of systemd that runs the agent in an image"))


def run(arguments: argparse.Namespace) -> int:
    """Run one action and return the exit code."""
    match arguments.action:
        case "cloud-init":
            print(in_image.cloud_init(), end="")
            return 0
        case "unit":
            print(in_image.unit(), end="")
            return 0
    manifests = arguments.manifests or ([_MANIFESTS] if os.path.isdir(_MANIFESTS) else [])
    policy = read_policy(arguments.policy, manifests, push=True)
    sandbox = imperative.find(arguments.id, manifests, policy)
    check(sandbox, policy)
    with pushing.way_into(_address(sandbox), policy, reaching(sandbox.id, "agent push")) as machine:
        match arguments.action:
            case "push":
                pushed = pushing.push_now(machine)
                if pushed:
                    tell(sandbox.id, "agent push", "pushed")
                say(f"{sandbox.id}: " + ("pushed the agent" if pushed else "this agent runs already"))
            case "remove":
                removed = pushing.remove(machine)
                if removed:
                    tell(sandbox.id, "agent remove", "removed")
                words = "removed the agent" if removed else "no agent was pushed; there is none to remove"
                say(f"{sandbox.id}: {words}")
            case _:
                return _print_status(sandbox, machine, arguments.output)
    return 0


def _address(sandbox: Sandbox) -> MachineAddress:
    """Return the address of a machine that has a guest agent. HostError, with what to do, if it has none."""
    address = sandbox.driver
    if not isinstance(address, MachineAddress) or not address.guest_agent:
        raise HostError(
            f"{sandbox.id}: its manifest names no guest agent; write the socket of one as driver.vm.guestAgent, or "
            "true as driver.libvirt.guestAgent"
        )
    return address


def _print_status(sandbox: Sandbox, machine: pushing.Way, form: str) -> int:
    """Print what a machine has. Return 1 unless this agent was pushed there, and runs."""
    with machine.guest_agent() as guest:
        found = push.look(guest)
    version = ".".join(map(str, found.python)) if found.python else None
    if form == "text":
        say(*(f"{sandbox.id}: {line}" for line in _lines(found, version)))
    else:
        agent = {"active": found.active, "current": found.is_current, "source": found.source or None}
        unit = found.fragment or None
        print_data(
            {"sandbox": sandbox.id, "python": version, "systemd": found.systemd, "agent": agent, "unit": unit}, form
        )
    return int(not found.is_current)


def _lines(found: push.Presence, version: str | None) -> Iterator[str]:
    yield f"Python {version or 'is missing'}, systemd {'runs' if found.systemd else 'does not run'} in the guest"
    if found.fragment:
        yield f"the guest has a unit {push.UNIT}.service of its own ({found.fragment}); reconciler does not replace it"
    elif not found.source:
        yield "no agent was pushed"
    elif not found.active:
        yield f"the agent that was pushed does not run; see `systemctl status {push.UNIT}` in the guest"
    else:
        which = "this agent" if found.is_current else f"another agent ({found.source}, this one is {push.digest()})"
        yield f"{which} was pushed and runs"
