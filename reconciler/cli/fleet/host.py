"""`reconciler fleet host`: say which hosts belong to the fleet."""

from __future__ import annotations

import argparse
import re

from reconciler.cli.fleet.connection import add_etcd
from reconciler.cli.parser import purpose


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="host_action", metavar="ACTION", required=True)
    add = actions.add_parser("add", **purpose("add a host, or renew its certificate"))
    remove = actions.add_parser("remove", **purpose("remove a host that has nothing left, or is fenced"))
    rename = actions.add_parser("rename", **purpose("give a host another name, with all that it has"))
    fence = actions.add_parser("fence", **purpose("say that a host does nothing any more, so others may take over"))
    for action in (add, remove, rename, fence):
        action.add_argument("name", metavar="NAME", help="the host: its folder, and the common name of its certificate")
    rename.add_argument("new", metavar="NEW", help="its new name")
    for action in (add, rename):
        _add_certificate(action)
    add.add_argument(
        "--label", action="append", default=[], type=_label, metavar="NAME=VALUE", help="a note for people"
    )
    for action in (add, remove, rename, fence):
        add_etcd(action)


def _add_certificate(parser: argparse.ArgumentParser) -> None:
    certificate = parser.add_mutually_exclusive_group()
    certificate.add_argument("--cert", metavar="FILE", help="its certificate, as PEM")
    certificate.add_argument(
        "--fingerprint",
        type=_fingerprint,
        metavar="SHA256",
        help="the fingerprint of its certificate, as openssl prints it",
    )


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or len(text) > 200:
        raise argparse.ArgumentTypeError(f'"{text}" is not a label such as zone=a')
    return name, value


def _fingerprint(text: str) -> str:
    found = text.rpartition("=")[2].replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", found):
        raise argparse.ArgumentTypeError(
            f'"{text}" is not the SHA-256 fingerprint of a certificate: 64 hexadecimal digits, as of '
            "`openssl x509 -noout -fingerprint -sha256 -in FILE`"
        )
    return found


def run(arguments: argparse.Namespace) -> int:
    """Change what is known of a host."""
    from reconciler.cli.fleet import hosts

    return hosts.run(arguments)
