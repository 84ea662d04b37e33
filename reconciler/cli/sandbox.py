"""`reconciler sandbox`: small virtual machines to try things in."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable

from reconciler.cli.output import print_data, say, sink, warn
from reconciler.cli.parser import add_output, purpose
from reconciler.guest import launch, qemu
from reconciler.guest.image import KERNELS
from reconciler.guest.launch import MachineState


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    start = actions.add_parser("start", **purpose("start a sandbox and wait until it answers"))
    start.add_argument("--kernel", choices=tuple(KERNELS), default="6.1", help="series of the kernel (default: 6.1)")
    start.add_argument(
        "--memory",
        type=int,
        default=qemu.MEMORY,
        metavar="MB",
        help=f"size of the memory in MB (default: {qemu.MEMORY})",
    )
    listing = actions.add_parser("list", **purpose("list the sandboxes"))
    add_output(listing, "text", "json", "yaml", words="form of the list")
    execute = actions.add_parser("exec", **purpose("run a command in a sandbox and exit with its status"))
    stop = actions.add_parser("stop", **purpose("stop a sandbox and delete its sockets"))
    for action in (start, execute, stop):
        action.add_argument("name", metavar="NAME", help="the name of the sandbox")
    words = "the command and its arguments, as one word each"
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND…", help=words)


def run(arguments: argparse.Namespace) -> int:
    """Run one action and return the exit code."""
    match arguments.action:
        case "start":
            _start(arguments)
        case "list":
            _list(launch.states(), arguments.output)
        case "stop":
            launch.stop(arguments.name)
        case _:
            # Some versions of argparse keep the `--` that ends the options.
            words = arguments.words[arguments.words[:1] == ["--"] :]
            return launch.find(arguments.name).run(words, 0, sink(1), sink(2))
    return 0


def _start(arguments: argparse.Namespace) -> None:
    """Start a sandbox. Say what begins while a person waits, and in the end what runs."""
    begin = time.monotonic()
    machine = launch.start(
        arguments.name,
        kernel=arguments.kernel,
        memory=arguments.memory,
        report=lambda step: warn(f"{arguments.name}: {step} …"),
    )
    say(f"{machine.name}: running, pid {machine.pid()}, after {time.monotonic() - begin:.1f} s")


def _list(states: Iterable[MachineState], form: str) -> None:
    if form != "text":
        print_data({"sandboxes": [state._asdict() for state in states]}, form)
        return
    for each in states:
        since = f", up {each.uptime} s" if each.uptime is not None else ""
        say(f"{each.name}: {each.state}" + (f", pid {each.pid}{since}" if each.pid else ""))
