"""Links, addresses and settings inside a sandbox."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.doctor.facts import Box, Network
from reconciler.doctor.registry import Check, Hit
from reconciler.doctor.scene import Scene
from reconciler.doctor.words import apply, set_sysctl, within
from reconciler.model.address import is_ipv6
from reconciler.model.derived import is_link_local
from reconciler.model.interface import LOOPBACK
from reconciler.model.sandbox import KataAddress

# net.ipv4.conf.*.arp_ignore: answer nothing.
_ANSWER_NOTHING = 8
# Of net.ipv4.ip_default_ttl: fewer hops than a way through a data centre may have.
_FEW_HOPS = 16


def _loopback(scene: Scene) -> Iterator[Hit]:
    for box, network in scene.seen:
        link = network.by_name.get(LOOPBACK)
        if link and not link.up:
            yield Hit(box.id, f"lo is down in {box.id}", within(box, "ip", "link", "set", "dev", "lo", "up"))
        elif link and not any(each.host == "127.0.0.1" for each in network.of(LOOPBACK)):
            words = f"lo has no address 127.0.0.1 in {box.id}"
            yield Hit(box.id, words, within(box, "ip", "address", "add", "127.0.0.1/8", "dev", "lo"))


def _down(scene: Scene) -> Iterator[Hit]:
    for box, network in scene.seen:
        wanted = {way.name for way in scene.ways_of(box) if way.wish is None or way.wish.up}
        for link in network.nics:
            if not link.up and link.name in wanted:
                yield Hit(
                    box.id, f"{link.name} is down in {box.id}", within(box, "ip", "link", "set", "dev", link.name, "up")
                )


def _lacking(scene: Scene) -> Iterator[Hit]:
    """Yield the addresses of manifests that sandboxes lack."""
    for box, network in scene.seen:
        if isinstance(box.driver, KataAddress) or not box.manifest:
            continue
        there = {(way.wish.device, way.inside.name) for way in scene.ways_of(box) if way.wish and way.inside}
        names = dict(there)
        for wish in box.sandbox.interfaces or ():
            name = names.get(wish.device)
            had = {each.key for each in network.of(name)} if name else None
            lacking = [each.key for each in wish.addresses if had is not None and each.key not in had]
            if lacking:
                yield Hit(
                    box.id, f"{name} in {box.id} lacks {', '.join(lacking[:5])}, which {box.file} wants", apply(box)
                )


def _duplicate(scene: Scene) -> Iterator[Hit]:
    for box, network in scene.seen:
        for each in network.addresses:
            if each.dad_failed:
                words = f"another host has {each.host} already (duplicate address detection of {each.link} in {box.id})"
                again = within(box, "ip", "address", "del", *each.key.split(), "dev", each.link)
                add = within(box, "ip", "address", "add", *each.key.split(), "dev", each.link)
                yield Hit(box.id, words, f"{again}; {add}    # once the other host has let it go")
    for each in scene.host.network.addresses:
        if each.dad_failed:
            words = f"another host has {each.host} already (duplicate address detection of {each.link} of the host)"
            yield Hit("host", words, f"ip -6 neighbour show; ip address del {each.key} dev {each.link}")


def _ipv6_off(scene: Scene) -> Iterator[Hit]:
    for box, network in scene.seen:
        for way in scene.ways_of(box):
            if way.wish is None or way.inside is None or not any(is_ipv6(each.address) for each in way.wish.addresses):
                continue
            name = f"net.ipv6.conf.{way.inside.name}.disable_ipv6"
            if network.number(name) == 1:
                words = f"IPv6 is off on {way.inside.name} in {box.id}, and its manifest wants IPv6 addresses there"
                yield Hit(box.id, words, f"{set_sysctl(box, name, 0)}; {apply(box)}")


def _no_answer(scene: Scene) -> Iterator[Hit]:
    for box, network in scene.seen:
        everywhere = network.number("net.ipv4.conf.all.arp_ignore") or 0
        for link in network.nics:
            name = f"net.ipv4.conf.{link.name}.arp_ignore"
            if max(everywhere, network.number(name) or 0) == _ANSWER_NOTHING:
                which = name if everywhere != _ANSWER_NOTHING else "net.ipv4.conf.all.arp_ignore"
                words = f"{link.name} in {box.id} answers no ARP: arp_ignore is {_ANSWER_NOTHING}"
                yield Hit(box.id, words, set_sysctl(box, which, 0))


def _advertisements(scene: Scene) -> Iterator[Hit]:
    for box, network in scene.seen:
        wishes = {way.inside.name: dict(way.wish.sysctls) for way in scene.ways_of(box) if way.inside and way.wish}
        for name, wanted in wishes.items():
            forwards = network.number(f"net.ipv6.conf.{name}.forwarding")
            if wanted.get("accept_ra") == 1 and forwards == 1:
                words = f"{name} in {box.id} forwards IPv6, so it ignores router advertisements (accept_ra is 1)"
                yield Hit(box.id, words, set_sysctl(box, f"net.ipv6.conf.{name}.accept_ra", 2))


def _echo(scene: Scene) -> Iterator[Hit]:
    for box, network in scene.seen:
        name = "net.ipv4.icmp_echo_ignore_all"
        if network.number(name):
            yield Hit(box.id, f"{box.id} does not answer ping ({name} is 1)", set_sysctl(box, name, 0))


def _hops(scene: Scene) -> Iterator[Hit]:
    for box, network in scene.seen:
        name = "net.ipv4.ip_default_ttl"
        few = network.number(name)
        if few is not None and few < _FEW_HOPS:
            yield Hit(box.id, f"packets of {box.id} live for {few} hops only ({name})", set_sysctl(box, name, 64))


def _no_address(scene: Scene) -> Iterator[Hit]:
    for box, network in scene.seen:
        if any(way.wish and way.wish.addresses for way in scene.ways_of(box)) and not _has_any(network, box):
            yield Hit(box.id, f"{box.id} has no address at all", apply(box))


def _has_any(network: Network, box: Box) -> bool:
    del box
    return any(each.link != LOOPBACK and not is_link_local(each.address) for each in network.addresses)


CHECKS = (
    Check(
        "loopback-down", "Nothing in the sandbox reaches its own addresses, such as 127.0.0.1.", "Set lo up.", _loopback
    ),
    Check("nic-down", "The NIC sends and receives nothing, and its routes are gone.", "Set it up.", _down),
    Check("address-lacking", "Packets to that address are not answered.", "Apply the manifest.", _lacking),
    Check("address-none", "Nobody can talk to the sandbox.", "Apply the manifest.", _no_address),
    Check("address-duplicate", "The kernel does not use the address.", "Take it away from the other host.", _duplicate),
    Check("ipv6-off", "The kernel refuses IPv6 addresses and routes there.", "Switch IPv6 on, and apply.", _ipv6_off),
    Check("arp-silent", "Nobody learns the MAC address of the NIC.", "Set arp_ignore to 0.", _no_answer),
    Check(
        "ra-ignored",
        "Addresses and routes of router advertisements do not come.",
        "Set accept_ra to 2.",
        _advertisements,
    ),
    Check("ping-ignored", "A ping says nothing about the sandbox.", "Let it answer.", _echo, is_note=True),
    Check("ttl-low", "Packets die on their way.", "Raise the number of hops.", _hops),
)
