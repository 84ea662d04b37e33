"""`reconciler import`: convert files of other tools, or what is in a sandbox, to one manifest."""

from __future__ import annotations

import argparse

from reconciler.cli.output import print_documents, warn
from reconciler.errors import HostError
from reconciler.manifest.foreign import read
from reconciler.manifest.gaps import fill
from reconciler.manifest.imported import document
from reconciler.manifest.notation import NOTATIONS
from reconciler.manifest.sandbox import write
from reconciler.manifest.schema import check
from reconciler.model.sandbox import DriverAddress, LibvirtAddress, NetnsAddress, Sandbox, VmAddress


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="JSON of `ip -j` or kata-network, YAML of netplan or nmstate, a .network file, rules of ipvsadm-save, a "
        "keepalived.conf, or - for standard input",
    )
    parser.add_argument("--live", action="store_true", help="no files: print what is in the sandbox, whoever made it")
    parser.add_argument(
        "--sandbox",
        metavar="ID",
        help="the ID of the sandbox in the manifest (default: the name of --netns, --vm or --libvirt)",
    )
    driver = parser.add_mutually_exclusive_group(required=True)
    driver.add_argument("--netns", metavar="NAME", help="the sandbox is the network namespace of this name")
    driver.add_argument(
        "--vm", metavar="NAME", help="the sandbox is the virtual machine of this name (see `reconciler sandbox`)"
    )
    driver.add_argument("--libvirt", metavar="DOMAIN", help="the sandbox is the domain of libvirt of this name or UUID")
    parser.add_argument(
        "--config-id",
        metavar="ID",
        help="the configuration ID of keepalived on the host, which chooses the lines of a keepalived.conf that begin "
        "with @ID (default: only what is the same with every ID)",
    )
    parser.add_argument(
        "--from", dest="notation", choices=NOTATIONS, help="format of the files (default: detected from each content)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the manifest on stdout, and everything that was left out on stderr."""
    head = _head(arguments)
    if arguments.live == bool(arguments.files):
        raise HostError("give either FILE…, to convert files, or --live, to read the sandbox itself")
    if arguments.live:
        # Only this needs drivers.
        from reconciler.cli import live

        return live.run(head)
    imported = read(arguments.files, arguments.notation, arguments.config_id)
    fill(imported, head)
    warn(*imported.skipped_in_order())
    data = document(imported, head)
    print_documents([data])
    return 0


def _head(arguments: argparse.Namespace) -> Sandbox:
    driver: DriverAddress
    if arguments.libvirt is not None:
        option, name = "--libvirt", arguments.libvirt
        driver = LibvirtAddress(domain=name)
    elif arguments.vm is not None:
        option, name = "--vm", arguments.vm
        driver = VmAddress(name=name)
    else:
        option, name = "--netns", arguments.netns
        driver = NetnsAddress(name=name)
    head = Sandbox(id=name if arguments.sandbox is None else arguments.sandbox, driver=driver)
    for finding in check(write(head)):
        given = "--sandbox" if arguments.sandbox is not None and finding.path == ("sandbox",) else option
        raise HostError(f"{given}: {finding.message}")
    return head
