"""`reconciler fleet ca`: certificates for a trial."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from reconciler.cli.fleet.connection import missing_extra
from reconciler.cli.output import say
from reconciler.cli.parser import purpose
from reconciler.errors import HostError

if TYPE_CHECKING:
    from reconciler.fleet.ca import Made

_ACTIONS = {
    "init": "make both authorities: that of hosts and gates, and that of etcd",
    "host": "make the certificate of a host",
    "gate": "make the certificate of a gate",
    "etcd": "make the certificate of a member of etcd",
    "client": "make a certificate with which gates and administrators reach etcd",
}
_SERVERS = {"gate", "etcd"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="ca_action", metavar="ACTION", required=True)
    for name, words in _ACTIONS.items():
        made = actions.add_parser(name, **purpose(words))
        made.add_argument("folder", metavar="FOLDER", help="the folder of the authorities, which `init` makes")
        if name != "init":
            made.add_argument("name", metavar="NAME", help="its name; that of a host is the name of its folder in TREE")
        if name in _SERVERS:
            made.add_argument(
                "addresses", nargs="+", metavar="ADDRESS", help="a name of DNS or an address by which clients reach it"
            )


def run(arguments: argparse.Namespace) -> int:
    """Make what is asked for, and print the files."""
    from reconciler.fleet import keys

    try:
        from reconciler.fleet import ca
    except ImportError as error:
        raise missing_extra(error) from None

    kind = arguments.ca_action
    if kind == "init":
        for each in ca.make_authorities(arguments.folder):
            _show(each)
        return 0
    try:
        keys.check_host(arguments.name)
    except ValueError as error:
        raise HostError(str(error)) from None
    kinds = {"host": ca.HOST, "gate": ca.GATE, "etcd": ca.MEMBER, "client": ca.CLIENT}
    made = ca.issue(arguments.folder, kinds[kind], arguments.name, getattr(arguments, "addresses", ()))
    _show(made)
    if kind == "host":
        say(f"fingerprint {made.fingerprint}")
    return 0


def _show(made: Made) -> None:
    say(f"{made.certificate} and {made.key}")
