"""`reconciler fleet`: many hosts from one repository, through etcd."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Collection

from reconciler.cli.parser import purpose

# Action → its purpose, and its module here, which has `configure(parser)` and `run(arguments) -> int`.
ACTIONS = {
    "push": ("give hosts what a tree of manifests says, in waves", "push"),
    "diff": ("show what a push would do", "diff"),
    "status": ("print how far hosts and the rollout are", "status"),
    "wait": ("wait until a release has reached its hosts", "wait"),
    "pause": ("stop the rollout, or leave one host alone", "pause"),
    "resume": ("end a pause, or go on with a rollout that has stopped", "resume"),
    "rollback": ("make a new release like an earlier one", "rollback"),
    "history": ("print the releases", "history"),
    "host": ("say which hosts belong to the fleet", "host"),
    "serve": ("be a gate: serve hosts, and lead rollouts", "serve"),
    "agent": ("keep the folder of this host's watcher as the fleet describes it", "agent"),
    "ca": ("make certificates for a trial", "ca"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    configure_some(parser, ACTIONS)


def configure_some(parser: argparse.ArgumentParser, words: Collection[str]) -> None:
    """Add the actions, and the options of those that are among the words of a command line; of all if none is."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    is_lost = ACTIONS.keys().isdisjoint(words)
    for name, (about, module) in ACTIONS.items():
        action = actions.add_parser(name, **purpose(about))
        if is_lost or name in words:
            _module(module).configure(action)


def run(arguments: argparse.Namespace) -> int:
    """Run one action."""
    return int(_module(ACTIONS[arguments.action][1]).run(arguments))


def _module(name: str) -> argparse.Namespace:
    module: argparse.Namespace = importlib.import_module(f"reconciler.cli.fleet.{name}")  # type: ignore[assignment]
    return module
