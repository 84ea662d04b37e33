"""`reconciler fleet`: many hosts from one repository."""

from __future__ import annotations

import argparse
import importlib

from reconciler.cli.parser import purpose

_ACTIONS = {
    "serve": "be a gate: serve hosts, and lead rollouts",
    "agent": "keep this host as the fleet describes it, with the watcher that reads the agent's folder",
    "ca": "make certificates for a trial",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, words in _ACTIONS.items():
        importlib.import_module(f"reconciler.cli.fleet.{name}").configure(actions.add_parser(name, **purpose(words)))


def run(arguments: argparse.Namespace) -> int:
    """Run one action and return the exit code."""
    return int(importlib.import_module(f"reconciler.cli.fleet.{arguments.action}").run(arguments))
