"""A link and its addresses, in the JSON of `ip -j link` and `ip -j addr`."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.formats.entry import Entry, Link, expressible_altnames
from reconciler.model.address import family_name, is_ipv6, parse_prefix, split_prefix
from reconciler.model.attribute import BY_FIELD, Value
from reconciler.model.interface import LOOPBACK, Address, Origin
from reconciler.model.route import scope_named

_LINK_LOCAL = b"\xfe\x80" + bytes(6)
# `valid_life_time` of an address without an end.
_FOREVER = 0xFFFFFFFF
# Kinds of links that are made in a namespace out of nothing or on top of other links, and not moved into it.
_ON_OTHERS = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"})
_MADE = (
    "amt", "bareudp", "batadv", "bond", "bond_slave", "bridge", "bridge_slave", "can", "ovpn", "erspan",
    "geneve", "gre", "gretap", "gtp", "hsr", "ifb", "ip6erspan", "ip6gre", "ip6gretap", "ip6tnl", "ipip",
    "lowpan", "netdevsim", "nlmon", "openvswitch", "rmnet", "sit", "team", "vcan", "vrf", "vti", "vti6",
    "vxcan", "vxlan", "wwan", "wireguard", "xfrm",
)  # fmt: skip
# Queueing disciplines that the kernel chooses by itself.
_QDISCS = frozenset({"noop", "noqueue", "mq", "fq_codel", "pfifo_fast", "fq"})
_STATE = (
    "ifindex", "link", "link_index", "link_netnsid", "operstate", "linkmode", "link_type",
    "broadcast", "promiscuity", "allmulti", "min_mtu", "max_mtu", "num_tx_queues", "num_rx_queues",
    "gso_max_segs", "tso_max_size", "tso_max_segs", "gro_max_size", "gso_ipv4_max_size",
    "gro_ipv4_max_size", "gso_ipv4_max_segs", "stats", "stats64", "parentbus", "parentdev", "permaddr",
    "phys_port_id", "phys_port_name", "phys_switch_id", "carrier_changes", "carrier_up_count",
    "carrier_down_count", "linkinfo", "new_netnsid", "new_netns", "netns", "netns-immutable", "deleted",
    "min_link_mtu", "map",
)  # fmt: skip
_ADDRESS_STATE = (
    "family", "scope", "secondary", "tentative", "optimistic", "preferred_life_time", "permanent",
    "stable-privacy", "valid_life_time", "flags", "ifindex", "index", "dev",
)  # fmt: skip
_MODES = {"none": 1, "random": 3}
_NO_PROMISC = "promiscuous mode: a manifest has no such field"
# What a listing calls attributes: keys of numbers, and flags with what they say.
_NUMBERS = {"txqlen": "txQueueLen", "gso_max_size": "gsoMaxSize"}
_FLAGS: dict[str, tuple[str, bool]] = {"NOARP": ("arp", False), "ALLMULTI": ("allmulticast", True)}


def read(entry: Entry) -> None:
    """Read a link, with the addresses that are listed with it."""
    found, name = entry.found, entry.text("ifname") or ""
    if name == LOOPBACK:
        entry.drop(list(entry.left()))
        for address in _entries(entry):
            _read_loopback(address)
        return
    flags = entry.texts("flags")
    why = _why_absent(entry, flags)
    if why:
        found.absent[name] = why
        found.skip(entry.path, f"{name}: {why}")
        return
    hw_addr = _read_mac(entry)
    partial = set[str]()
    addresses = tuple(_addresses(entry, name, partial))
    found.add(
        entry.path,
        Link(
            name=name,
            device=_read_alias(entry),
            hw_addr=hw_addr,
            mtu=entry.number("mtu", 0, 0xFFFFFFFF),
            state=("up" if "UP" in flags else "down") if flags else None,
            addresses=addresses,
            attributes=tuple(_attributes(entry, flags)),
            altnames=_read_altnames(entry),
            partial=frozenset(partial),
        ),
    )
    _read_state(entry, name, flags)


def _entries(entry: Entry) -> list[Entry]:
    return list(entry.entries("addr_info"))


def _why_absent(entry: Entry, flags: list[str]) -> str:
    """Return why a link is left out; empty if it can be a device of the host that was moved into the sandbox."""
    kind = Entry(entry.get("linkinfo"), entry.at("linkinfo"), entry.found).text("info_kind") or ""
    if kind in _MADE:
        return f"a {kind} is made in the sandbox, and reconciler makes no devices"
    if kind in _ON_OTHERS and "link" in entry:
        return f"a {kind} on {entry.text('link')} is made in the sandbox, and reconciler makes no devices"
    link_type = entry.text("link_type") or "ether"
    if link_type != "ether":
        return f"it is no Ethernet device (link_type {link_type})"
    # The kernel makes gretap0 and erspan0 in each namespace once their module is loaded.
    if "address" in entry and not (entry.text("address") or "").strip("0:"):
        return "it has no MAC address"
    if "POINTOPOINT" in flags:
        return "it is no Ethernet device (POINTOPOINT)"
    return ""


def _read_mac(entry: Entry) -> str | None:
    """Read the MAC address of the link itself: a port of a bond has that of the bond."""
    info = Entry(entry.get("linkinfo"), entry.at("linkinfo"), entry.found)
    if info.text("info_slave_kind") in ("bond", "team"):
        entry.skip("address", "it is that of the bond")
        return entry.mac("permaddr")
    return entry.mac("address")


def _read_alias(entry: Entry) -> str | None:
    """Return the device that an alias of ours names."""
    origin = Origin.from_alias(entry.text("ifalias") or "")
    return origin.device if origin else None


def _read_altnames(entry: Entry) -> tuple[str, ...] | None:
    return expressible_altnames(entry.found, ((entry.at("altnames"), name) for name in entry.texts("altnames")))


def _attributes(entry: Entry, flags: list[str]) -> Iterator[tuple[str, Value]]:
    """Yield the attributes that most links do not have."""
    alias = entry.text("ifalias") or ""
    if not BY_FIELD["alias"].is_expressible(alias):
        entry.found.skip(entry.at("ifalias"), "no manifest can have such an alias")
    elif alias and not Origin.from_alias(alias):
        yield "alias", alias
    for key, field in _NUMBERS.items():
        value = entry.number(key, 0, 0xFFFFFFFF)
        if value is not None and not BY_FIELD[field].is_expressible(value):
            entry.found.skip(entry.at(key), f"{value}: no manifest has such a {field}")
        elif value not in (None, BY_FIELD[field].usual):
            yield field, value
    yield from (attribute for flag, attribute in _FLAGS.items() if flag in flags)


def _read_state(entry: Entry, name: str, flags: list[str]) -> None:
    found = entry.found
    if "PROMISC" in flags:
        found.skip(entry.at("flags"), f"{name}: {_NO_PROMISC}")
    entry.usual("qdisc", _QDISCS)
    entry.usual("group", {"default", "0"})
    mode = entry.text("inet6_addr_gen_mode")
    if mode not in (None, "eui64"):
        hint = f"sysctls: {{addr_gen_mode: {_MODES[mode]}}} sets it" if mode in _MODES else "no manifest can set it"
        found.skip(entry.at("inet6_addr_gen_mode"), f"{mode}; {hint}")
    entry.drop(_STATE)
    entry.rest({"master": "reconciler makes no device a port of another one"})


def _read_loopback(entry: Entry) -> None:
    text = f"{entry.text('local')}/{entry.text('prefixlen')}"
    if text in ("127.0.0.1/8", "::1/128"):
        entry.found.count("objects that the kernel makes by itself")
    else:
        entry.found.skip(entry.path, f"{text} of lo: a manifest does not describe lo")


def _addresses(entry: Entry, name: str, partial: set[str]) -> Iterator[Address]:
    """Yield the addresses; add to `partial` the families of those that are left out and that routes may need."""
    generated = entry.text("inet6_addr_gen_mode") or "eui64"
    for each in _entries(entry):
        if each.text("family") not in ("inet", "inet6"):
            each.found.skip(each.path, "is neither IPv4 nor IPv6")
            continue
        local, length = each.address("local"), each.number("prefixlen", 0, 128)
        if local is None or length is None:
            if not each.found.wrong:
                each.found.fault(each.path, "has no address")
            continue
        try:
            prefix = parse_prefix(f"{local}/{length}")
        except ValueError as error:
            each.found.fault(each.at("prefixlen"), str(error))
            continue
        if _is_kernels(each, prefix, generated):
            each.found.count("objects that the kernel makes by itself")
        elif why := _why_left_out(each):
            each.found.skip(each.path, f"{prefix}: {why}")
            partial.add(family_name(prefix))
        else:
            yield _read_address(each, prefix, name)


def _is_kernels(entry: Entry, prefix: str, generated: str) -> bool:
    """Return whether the kernel made an address of a MAC address, or of a secret."""
    if entry.text("protocol") == "kernel_ll":
        return True
    packed, length = split_prefix(prefix)
    if packed[:8] != _LINK_LOCAL or length != 64:
        return False
    # RFC 4291, appendix A. The MAC address may have been another one.
    of_mac = packed[11:13] == b"\xff\xfe"
    return of_mac or generated in ("random", "stable_secret") or entry.has("stable-privacy")


def _why_left_out(entry: Entry) -> str:
    lifetime = entry.number("valid_life_time", 0, _FOREVER)
    if entry.flag("dynamic") or lifetime not in (None, _FOREVER):
        return "its lifetime is limited, as by DHCP or a router's advertisement"
    if entry.flag("temporary"):
        return "the kernel made it for privacy (use_tempaddr)"
    if entry.flag("dadfailed"):
        return "another host has it (dadfailed)"
    return ""


def _read_address(entry: Entry, prefix: str, name: str) -> Address:
    preferred = entry.number("preferred_life_time", 0, _FOREVER)
    where = entry.found
    ipv6 = is_ipv6(prefix)
    label = entry.text("label")
    if label and (ipv6 or not label.startswith(name)):
        entry.usual("label", {name})
        label = None
    # IPv6 derives the scope from the address.
    text = "global" if ipv6 else entry.text("scope") or "global"
    scope = scope_named(text)
    if scope is None:
        where.note(entry.at("scope"), f"{prefix}: imported with scope global, not {text}")
    if preferred == 0:
        where.skip(entry.at("preferred_life_time"), f"{prefix} is deprecated: a manifest has no such field")
    dad, peer = not entry.flag("nodad"), entry.address("address")
    entry.drop([*_ADDRESS_STATE, "deprecated", "protocol"])
    metric, noprefixroute = entry.number("metric", 0, 0xFFFFFFFF) or 0, bool(entry.flag("noprefixroute"))
    entry.rest()
    return Address(
        address=prefix,
        peer=peer,
        dad=dad or not ipv6,
        label=None if label == name else label,
        scope=scope or "global",
        metric=0 if noprefixroute else metric,
        noprefixroute=noprefixroute,
    )
