"""The way between a NIC of a sandbox and the host: devices, carriers, bridges, sizes, queues."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.doctor.facts import HOST, Box, Link
from reconciler.doctor.registry import Check, Hit
from reconciler.doctor.scene import Scene, Way
from reconciler.doctor.words import command, within
from reconciler.model.derived import is_link_local
from reconciler.model.sandbox import VmAddress

# BR_STATE_* of linux/if_bridge.h.
_STATES = {0: "disabled", 1: "listening", 2: "learning", 4: "blocking"}
_FORWARDING = 3
# Queues that lose or hold packets on purpose, and those that limit the rate.
_HARMFUL, _LIMITING = {"netem", "plug"}, {"tbf", "htb", "hfsc", "cbq", "cake"}


def _set(device: str, *words: str) -> str:
    return command("ip", "link", "set", "dev", device, *words)


def _missing(scene: Scene) -> Iterator[Hit]:
    for way in scene.ways:
        if isinstance(way.box.driver, VmAddress) and way.outside is None and scene.host.network.links:
            make = f"{command('ip', 'tuntap', 'add', 'dev', way.device, 'mode', 'tap')} && {_set(way.device, 'up')}"
            yield Hit(way.box.id, f"{way.device}, the TAP of {way.name}, does not exist on the host", make)


def _unplugged(scene: Scene) -> Iterator[Hit]:
    for box in scene.boxes:
        machine = box.observed.around.machine if box.observed else None
        for device, each in machine.plugged.items() if machine else ():
            if not each.alive and device in scene.host.network.by_name:
                words = f"{device} was deleted and made again: QEMU still has the old one, so its NIC has no other end"
                yield Hit(box.id, words, command("reconciler", "apply", box.file or "PATH"))
            if not each.in_guest:
                words = f"QEMU has plugged the NIC of {device}, and the guest does not see it"
                yield Hit(box.id, words, within(box, "sh", "-c", "echo 1 > /sys/bus/pci/rescan"))


def _down(scene: Scene) -> Iterator[Hit]:
    for way in scene.ways:
        if way.outside and not way.outside.up:
            yield Hit(way.box.id, f"{_named(way)} is down", _set(way.outside.name, "up"))


def _named(way: Way) -> str:
    """Return what the host's end of a way is."""
    assert way.outside
    same = isinstance(way.box.driver, VmAddress)
    return f"{way.outside.name}, the host's {'TAP' if same else 'end'} of {way.name},"


def _no_carrier(scene: Scene) -> Iterator[Hit]:
    for way in scene.ways:
        if way.outside and way.outside.up and not way.outside.carrier and not (way.is_pair and not _is_up(way.inside)):
            held = way.outside.held
            what = "protodown holds it" if held else "nothing is connected to it"
            mend = (
                _set(way.outside.name, "protodown", "off")
                if held
                else command("ip", "-d", "link", "show", way.outside.name)
            )
            yield Hit(way.box.id, f"{_named(way)} has no carrier: {what}", mend)
    for box, network in scene.seen:
        for link in network.nics:
            if link.up and not link.carrier and not _explained(scene, box, link):
                yield Hit(
                    box.id,
                    f"{link.name} in {box.id} has no carrier",
                    within(box, "ip", "-d", "link", "show", link.name),
                )


def _is_up(link: Link | None) -> bool:
    return bool(link and link.up)


def _explained(scene: Scene, box: Box, link: Link) -> bool:
    """Return whether the host's end says why a link has no carrier, or the link leads nowhere by nature."""
    ways = [way for way in scene.ways_of(box) if way.inside and way.inside.name == link.name]
    return not ways or any(way.outside and (not way.outside.up or not way.outside.carrier) for way in ways)


def _nowhere(scene: Scene) -> Iterator[Hit]:
    """Yield the devices of the host that are in no bridge, and that the host itself does not use either."""
    network = scene.host.network
    routed = {name for route in network.routes for name in route.devices if not is_link_local(route.dest)}
    below = {link.peer for link in network.links if link.kind != "veth" and link.peer_namespace is None}
    for way in scene.ways:
        link = way.outside
        if link is None or link.master or link.kind not in {"veth", "tun"} or link.number in below:
            continue
        own = [each for each in network.of(link.name) if not is_link_local(each.address)]
        multicast = {"ff00::/8"}
        uses = link.name in routed and any(
            link.name in route.devices and route.dest not in multicast and not is_link_local(route.dest)
            for route in network.routes
        )
        if not own and not uses and link.qdisc not in {"clsact", "ingress"} and not _is_shared(scene, link):
            words = f"{_named(way)} is in no bridge and has no address or route: it leads nowhere"
            yield Hit(way.box.id, words, _lead(scene, way, link))


def _lead(scene: Scene, way: Way, link: Link) -> str:
    """Return the command that puts a device into the only bridge, or gives it the address of the sandbox's gateway."""
    bridges = [each.name for each in scene.host.network.links if each.kind == "bridge"]
    inside = way.box.network
    hops = ((hop.gateway, hop.device) for route in (inside.routes if inside else ()) for hop in route.nexthops)
    gateway = next((gateway for gateway, device in hops if gateway and device == way.name), None)
    if gateway and inside and not bridges:
        return command("ip", "address", "add", *inside.facing(way.name, gateway).split(), "dev", link.name)
    to = bridges[0] if len(bridges) == 1 else "BRIDGE"
    return f"{_set(link.name, 'master', to)}    # the bridge it belongs to"


def _is_shared(scene: Scene, link: Link) -> bool:
    """Return whether IPv6 of the host may use it by its link-local address alone, as a gateway of the sandbox does."""
    local = {each.host for each in scene.host.network.of(link.name)}
    gateways = {hop.gateway for _, network in scene.seen for route in network.routes for hop in route.nexthops}
    return bool(local & gateways)


def _bridge(scene: Scene) -> Iterator[Hit]:
    for bridge, ids in _bridges(scene).items():
        link = scene.host.network.by_index[bridge]
        if not link.up:
            yield Hit(HOST, f"{link.name}, the bridge of {', '.join(sorted(ids)[:3])}, is down", _set(link.name, "up"))
    for way in scene.ways:
        port = way.outside.port if way.outside else None
        if port is None or way.outside is None or way.bridge is None or not (way.outside.up and way.outside.carrier):
            continue
        name = way.outside.name
        if port.state != _FORWARDING and way.bridge.up:
            words = f"{name} is {_STATES.get(port.state, port.state)} in {way.bridge.name}, by its spanning tree"
            off = _set(way.bridge.name, "type", "bridge", "stp_state", "0")
            forward = command("bridge", "link", "set", "dev", name, "state", str(_FORWARDING))
            yield Hit(way.box.id, words, f"{off}; {forward}    # unless it is part of a loop; else wait half a minute")
        if not port.broadcasts:
            words = f"{way.bridge.name} sends no broadcasts to {name}, so nobody there is asked by ARP"
            yield Hit(way.box.id, words, command("bridge", "link", "set", "dev", name, "bcast_flood", "on"))
        if not port.multicasts:
            words = f"{way.bridge.name} sends no multicasts to {name}, so nobody there is asked by IPv6"
            yield Hit(way.box.id, words, command("bridge", "link", "set", "dev", name, "mcast_flood", "on"))
        if port.locked:
            words = f"{name} is locked in {way.bridge.name}: it takes packets only from senders that are listed"
            yield Hit(way.box.id, words, command("bridge", "link", "set", "dev", name, "locked", "off"))
        if port.isolated and way.others and all(each.port and each.port.isolated for each in way.others):
            words = f"{name} and all other ports of {way.bridge.name} are isolated from each other"
            yield Hit(way.box.id, words, command("bridge", "link", "set", "dev", name, "isolated", "off"))
        yield from _vlans(way, name)


def _misled(scene: Scene) -> Iterator[Hit]:
    """Yield static entries of bridges that send packets to a sandbox to another port."""
    entries = {each.hw_addr: each for each in scene.host.network.forwards}
    for way in scene.ways:
        entry = entries.get(way.inside.hw_addr) if way.inside else None
        port = scene.host.network.by_index.get(entry.port) if entry else None
        if entry and port and way.outside and way.bridge and port.master == way.bridge.number and port != way.outside:
            words = f"{way.bridge.name} sends packets to {entry.hw_addr}, {way.name} of {way.box.id}, to {port.name}"
            yield Hit(way.box.id, words, command("bridge", "fdb", "del", entry.hw_addr, "dev", port.name, "master"))


def _elsewhere(scene: Scene) -> Iterator[Hit]:
    for way in scene.ways:
        link = way.inside
        if link and link.kind == "veth" and link.peer_namespace is not None and way.outside is None:
            numbers = (way.box.host_number, None)
            if link.peer_namespace not in numbers:
                words = f"the other end of {way.name} of {way.box.id} is in another namespace, not on the host"
                yield Hit(way.box.id, words, within(way.box, "ip", "-d", "link", "show", link.name))


def _bridges(scene: Scene) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for way in scene.ways:
        if way.bridge:
            found.setdefault(way.bridge.number, set()).add(way.box.id)
    return found


def _vlans(way: Way, name: str) -> Iterator[Hit]:
    assert way.outside
    assert way.bridge
    port = way.outside.port
    if not way.bridge.vlan_filtering or port is None or port.vlans is None:
        return
    if not port.vlans or not port.untagged:
        words = f"{way.bridge.name} filters by VLAN and takes no untagged packet from {name}"
        yield Hit(way.box.id, words, command("bridge", "vlan", "add", "dev", name, "vid", "1", "pvid", "untagged"))
        return
    shared = [each for each in way.others if each.port and each.port.vlans and port.untagged in each.port.vlans]
    if way.others and not shared:
        numbers = sorted({each.port.untagged for each in way.others if each.port and each.port.untagged})
        words = f"{name} is in VLAN {port.untagged} of {way.bridge.name}, and no other port is (they have {numbers})"
        to = str(numbers[0]) if numbers else "1"
        yield Hit(way.box.id, words, command("bridge", "vlan", "add", "dev", name, "vid", to, "pvid", "untagged"))


def _mtu(scene: Scene) -> Iterator[Hit]:
    for way in scene.ways:
        if way.inside is None:
            continue
        path = [link for link in (way.outside, way.bridge) if link]
        path += scene.host.network.uplinks[way.bridge.number] if way.bridge else ()
        for link in path:
            if link.mtu < way.inside.mtu:
                words = f"{way.name} has MTU {way.inside.mtu}, and {link.name} of the host only {link.mtu}"
                yield Hit(way.box.id, words, _set(link.name, "mtu", str(way.inside.mtu)))


def _larger(scene: Scene) -> Iterator[Hit]:
    for way in scene.ways:
        if way.is_pair and way.inside and way.outside and way.outside.mtu > way.inside.mtu:
            sizes = f"MTU {way.outside.mtu}, and its other end {way.name} only {way.inside.mtu}"
            words = f"{way.outside.name} of the host has {sizes}"
            yield Hit(way.box.id, words, _set(way.outside.name, "mtu", str(way.inside.mtu)))


def _queues(scene: Scene, kinds: set[str]) -> Iterator[Hit]:
    said = set[str]()
    for way in scene.ways:
        for link in (way.outside, way.bridge):
            if link and link.qdisc in kinds and link.name not in said:
                said.add(link.name)
                words = f"{link.name} of the host has the queue {link.qdisc}"
                yield Hit(way.box.id, words, command("tc", "qdisc", "del", "dev", link.name, "root"))
    for box, network in scene.seen:
        for link in network.links:
            if link.qdisc in kinds:
                words = f"{link.name} in {box.id} has the queue {link.qdisc}"
                yield Hit(box.id, words, within(box, "tc", "qdisc", "del", "dev", link.name, "root"))


def _harmful(scene: Scene) -> Iterator[Hit]:
    return _queues(scene, _HARMFUL)


def _limiting(scene: Scene) -> Iterator[Hit]:
    return _queues(scene, _LIMITING)


def _xdp(scene: Scene) -> Iterator[Hit]:
    for way in scene.ways:
        for link in (way.outside, way.bridge):
            if link and link.xdp:
                yield Hit(
                    way.box.id,
                    f"an XDP program looks at each packet of {link.name} of the host",
                    _set(link.name, "xdp", "off"),
                )
    for box, network in scene.seen:
        for link in network.links:
            if link.xdp:
                words = f"an XDP program looks at each packet of {link.name} in {box.id}"
                yield Hit(box.id, words, within(box, "ip", "link", "set", "dev", link.name, "xdp", "off"))


def _arp(scene: Scene) -> Iterator[Hit]:
    for way in scene.ways:
        for link in (way.outside, way.bridge):
            if link and link.ethernet and not link.arp:
                yield Hit(
                    way.box.id, f"{link.name} of the host neither sends nor answers ARP", _set(link.name, "arp", "on")
                )


CHECKS = (
    Check("tap-missing", "The NIC of the machine leads nowhere.", "Make the TAP, and apply.", _missing),
    Check("nic-unplugged", "The NIC is half there: no packet passes.", "Apply the manifest again.", _unplugged),
    Check("device-down", "No packet leaves or enters the sandbox there.", "Set it up.", _down),
    Check(
        "no-carrier", "No packet passes: one end is missing, down or unplugged.", "Connect its other end.", _no_carrier
    ),
    Check("no-bridge", "Packets of the sandbox reach nobody.", "Put it into its bridge.", _nowhere),
    Check(
        "bridge-blocked", "The bridge does not pass packets to or from the sandbox.", "Change bridge or port.", _bridge
    ),
    Check(
        "end-elsewhere",
        "The host sees nothing of its packets.",
        "Move it, if it should be here.",
        _elsewhere,
        is_note=True,
    ),
    Check("bridge-misled", "Packets to the sandbox go elsewhere.", "Delete the entry of the bridge.", _misled),
    Check(
        "mtu-smaller",
        "Large packets vanish on the way; small ones, such as those of ping, pass.",
        "Make both equal.",
        _mtu,
    ),
    Check(
        "mtu-larger",
        "Packets that are larger than the MTU of the sandbox vanish there; TCP is not affected.",
        "Make both equal.",
        _larger,
        is_note=True,
    ),
    Check("queue-loses", "The queue delays, loses or holds packets on purpose.", "Remove it.", _harmful),
    Check(
        "queue-limits",
        "The queue limits the rate of packets.",
        "Remove it, if nobody wants it.",
        _limiting,
        is_note=True,
    ),
    Check(
        "xdp",
        "The program may drop packets before anything else sees them.",
        "Remove it, if nobody wants it.",
        _xdp,
        is_note=True,
    ),
    Check("arp-off", "Nobody learns the MAC address of the other end.", "Switch ARP on.", _arp),
)
