"""`reconciler init`: a commented manifest of what is there, to begin with."""

from __future__ import annotations

import argparse
import os
import re
from contextlib import closing
from typing import Any

from reconciler.cli.authority import add_policy, read_policy
from reconciler.cli.output import say
from reconciler.cli.show import expressible, left_out, listing
from reconciler.drivers import connect, namespaces
from reconciler.errors import HostError, ReconcilerError
from reconciler.guest.launch import states
from reconciler.manifest.sandbox import write
from reconciler.manifest.schema import MANIFEST, check, schema_file
from reconciler.manifest.sections import SECTIONS, everything
from reconciler.manifest.starter import Device, Found, starter
from reconciler.model.address import parse_mac
from reconciler.model.interface import is_manifest_name
from reconciler.model.policy import Policy
from reconciler.model.sandbox import LIBVIRT_SYSTEM, DriverAddress, LibvirtAddress, NetnsAddress, Sandbox, VmAddress
from reconciler.netlink.engine import local_engine
from reconciler.netlink.interface import Link

# Where qemu:///system is served.
_LIBVIRTD = "/run/libvirt/libvirt-sock"
# Kinds of links that hold other links together, or belong to the host's own network.
_HOST_KINDS = {"bond", "bridge", "ifb", "openvswitch", "team", "vrf"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    driver = parser.add_mutually_exclusive_group()
    driver.add_argument(
        "--netns", metavar="NAME", help="for the network namespace of this name (default: the first that is there)"
    )
    driver.add_argument("--vm", metavar="NAME", help="for the virtual machine of this name (see `reconciler sandbox`)")
    driver.add_argument("--libvirt", metavar="DOMAIN", help="for the domain of libvirt of this name or UUID")
    parser.add_argument("--sandbox", metavar="ID", help="the ID of the sandbox (default: the name)")
    add_policy(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the manifest. Nothing is changed."""
    policy = read_policy(arguments.policy, [])
    there, unknown = _drivers()
    driver: DriverAddress
    if arguments.netns is not None:
        driver = NetnsAddress(name=arguments.netns)
    elif arguments.vm is not None:
        driver = VmAddress(name=arguments.vm)
    elif arguments.libvirt is not None:
        driver = LibvirtAddress(domain=arguments.libvirt)
    else:
        driver = there[0] if there else NetnsAddress(name="web-1")
    sandbox = Sandbox(id=arguments.sandbox or _id_of(driver), driver=driver)
    _check(sandbox)
    found = Found(
        sandbox=sandbox,
        schema=schema_file(MANIFEST),
        others=[*unknown, *(str(each) for each in there if each != driver)],
        devices=_devices(driver),
    )
    say(*starter(found._replace(**_observe(sandbox, policy, exists=driver in there))))
    return 0


def _id_of(driver: DriverAddress) -> str:
    """Return an ID for a sandbox: its name, as far as an ID can have it."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", _name_of(driver))[:64]
    return name if name[:1].isalnum() else f"s{name}"[:64]


def _name_of(driver: DriverAddress) -> str:
    return driver.domain if isinstance(driver, LibvirtAddress) else getattr(driver, "name", None) or ""


def _check(sandbox: Sandbox) -> None:
    for finding in check(write(sandbox)):
        option = "--sandbox" if finding.path == ("sandbox",) else f"--{finding.path[1]}"
        raise HostError(f"{option}: {finding.message}")


def _drivers() -> tuple[list[DriverAddress], list[str]]:
    """Return the namespaces and running machines of this host that a manifest can name, and what remains unknown."""
    named: list[DriverAddress] = [NetnsAddress(name=name) for name in namespaces.names()]
    unknown: list[str] = []
    try:
        named += [VmAddress(name=each.name) for each in states() if each.state == "running"]
        named += _domains()
    except ReconcilerError as error:
        root = os.geteuid() == 0
        unknown.append(f"perhaps machines ({error})" if root else "perhaps machines, which only root can list")
    return [each for each in named if not check(write(Sandbox(id="a", driver=each)))], unknown


def _domains() -> list[LibvirtAddress]:
    """Return the domains of libvirt that run, if this host has a libvirtd."""
    if not os.path.exists(_LIBVIRTD):
        return []
    # Few hosts have it.
    from reconciler.drivers.vm.binding import Connection

    with closing(Connection(LIBVIRT_SYSTEM)) as libvirt:
        return [LibvirtAddress(domain=name) for name in sorted(each.name for each in libvirt.active().values())]


def _devices(driver: DriverAddress) -> list[Device]:
    """Return the devices of this host that the sandbox could have."""
    fits = _fits_namespace if isinstance(driver, NetnsAddress) else _fits_machine
    with local_engine() as host:
        found = [link for link in host.links() if fits(link) and is_manifest_name(link.name) and _is_mac(link.hw_addr)]
    return [Device(each.name, each.kind, each.hw_addr, each.mtu, each.queues, each.up) for each in found]


def _fits_namespace(link: Link) -> bool:
    return link.ethernet and not link.physical and not link.master and link.kind not in _HOST_KINDS


def _fits_machine(link: Link) -> bool:
    return link.ethernet and link.kind == "tun"


def _is_mac(text: str) -> bool:
    try:
        return bool(parse_mac(text))
    except ValueError:
        return False


def _observe(sandbox: Sandbox, policy: Policy, *, exists: bool) -> dict[str, Any]:
    """Return what is in the sandbox, or why that is unknown."""
    if not exists and isinstance(sandbox.driver, NetnsAddress):
        return {"unknown": f"it does not exist yet; `ip netns add {sandbox.driver.name}` makes it"}
    try:
        with connect(sandbox, policy) as driver:
            observed = driver.observe(everything(sandbox))
    except (ReconcilerError, OSError) as error:
        return {"unknown": str(error)}
    document = write(expressible(observed))
    left = left_out(observed, document)
    _, *lines = listing(observed)
    names = {each.name for each in observed.sandbox.interfaces or ()}
    sections = {each.name: document.get(each.name) for each in SECTIONS}
    return {
        "inside": [
            *(line.removeprefix("  ") for line in lines),
            *(f"{line}; to apply this deletes it" for line in left),
        ],
        "taken": {*observed.around.links, *names},
        "owned": {name: value for name, value in sections.items() if _is_something(value)},
    }


def _is_something(section: Any) -> bool:
    """Return whether a section has any object. An empty one would say that there may be none."""
    return any(section.values()) if isinstance(section, dict) else bool(section)
