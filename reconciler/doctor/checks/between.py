"""What several sandboxes, or a sandbox and the host, cannot both have."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.doctor.registry import Check, Hit
from reconciler.doctor.scene import Scene, Way
from reconciler.doctor.words import command, within
from reconciler.model.address import contains
from reconciler.model.derived import is_link_local

_NO_MAC = {"", "00:00:00:00:00:00"}


def _is_together(scene: Scene, one: Way, other: Way, address: str) -> bool:
    """Return whether two NICs are on one link layer, or the host reaches one of them by the address."""
    if one.segment == other.segment:
        return True
    names = {link.name for way in (one, other) for link in (way.bridge, way.outside) if link}
    route = scene.lookup(scene.host.network).route(address)
    return bool(route and names & route.devices)


def _addresses(scene: Scene) -> Iterator[Hit]:
    first: dict[str, list[Way]] = {}
    for way in scene.ways:
        if way.box.network is None or way.outside is None:
            continue
        for each in way.box.network.of(way.name):
            if is_link_local(each.address):
                continue
            for other in first.get(each.host, []):
                if other.box.id != way.box.id and _is_together(scene, way, other, each.host):
                    words = f"{way.box.id} and {other.box.id} both have the address {each.host}"
                    mend = within(way.box, "ip", "address", "del", *each.key.split(), "dev", way.name)
                    yield Hit(way.box.id, words, f"{mend}    # in the one that should not have it")
                    break
            else:
                first.setdefault(each.host, []).append(way)


def _of_host(scene: Scene) -> Iterator[Hit]:
    network = scene.host.network
    for way in scene.ways:
        for each in way.box.network.of(way.name) if way.box.network else ():
            own = network.hosts.get(each.host)
            if own and way.outside and own.link in {way.outside.name, way.bridge.name if way.bridge else ""}:
                words = f"{way.box.id} has the address {each.host}, which the host has on {own.link} as well"
                yield Hit(
                    way.box.id, words, within(way.box, "ip", "address", "del", *each.key.split(), "dev", way.name)
                )


def _macs(scene: Scene) -> Iterator[Hit]:
    first: dict[tuple[tuple[str, int], str], Way] = {}
    for way in scene.ways:
        if way.inside is None or way.outside is None or way.inside.hw_addr in _NO_MAC:
            continue
        mac = way.inside.hw_addr
        other = first.setdefault((way.segment, mac), way)
        if other is not way:
            where = way.bridge.name if way.bridge else way.outside.name
            words = (
                f"{way.name} of {way.box.id} and {other.name} of {other.box.id} have one MAC address, {mac}, on {where}"
            )
            yield Hit(way.box.id, words, "reconciler validate MANIFESTS    # give one of them another hwAddr")
        for link in (way.outside, way.bridge):
            if link and link.hw_addr == mac and not (way.bridge is link and _copied(scene, way)):
                words = f"{way.name} of {way.box.id} has the MAC address {mac}, as {link.name} of the host has"
                yield Hit(way.box.id, words, command("ip", "link", "set", "dev", link.name, "address", _other(mac)))


def _copied(scene: Scene, way: Way) -> bool:
    """Return whether a bridge has its MAC address from a port that is named already."""
    del scene
    return bool(way.outside and way.bridge and way.outside.hw_addr == way.bridge.hw_addr)


def _other(mac: str) -> str:
    """Return a MAC address beside one: locally administered, and another last byte."""
    last = (int(mac[-2:], 16) + 1) % 256
    return f"{int(mac[:2], 16) | 2:02x}{mac[2:-2]}{last:02x}"


def _lengths(scene: Scene) -> Iterator[Hit]:
    """Yield addresses whose network is another one than that of the host's address on the same link."""
    network = scene.host.network
    for way in scene.ways:
        if way.box.network is None or way.outside is None:
            continue
        entry = way.bridge or way.outside
        for each in way.box.network.of(way.name):
            full = 128 if ":" in each.host else 32
            for own in network.of(entry.name):
                same = contains(each.address, own.host) or contains(own.address, each.host)
                if same and full not in {each.length, own.length} and each.length != own.length:
                    words = f"{each.address} of {way.box.id} and {own.address} of {entry.name} have different lengths"
                    longer = own._replace(address=f"{own.host}/{each.length}").key.split()
                    add = command("ip", "address", "add", *longer, "dev", entry.name)
                    mend = f"{command('ip', 'address', 'del', *own.key.split(), 'dev', entry.name)}; {add}"
                    yield Hit(way.box.id, words, f"{mend}    # or correct the manifest")


CHECKS = (
    Check(
        "address-twice",
        "Packets to the address reach now the one, now the other.",
        "Keep it in one of them.",
        _addresses,
    ),
    Check("address-of-host", "Packets to the address stay on the host.", "Take it away from one of them.", _of_host),
    Check(
        "mac-twice", "The bridge sends packets now to the one, now to the other.", "Give one of them another.", _macs
    ),
    Check(
        "prefix-differs",
        "One side sends to a gateway what the other expects on the link.",
        "Make both equal.",
        _lengths,
    ),
)
