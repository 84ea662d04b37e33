"""Links that are made in a sandbox on top of what is given: what each kind has, which this module alone knows.

A kind is one entry of KINDS: its options, with their names in a manifest and in iproute2, and their numbers in the
kernel. Everything else (manifest, netlink, plan, words) goes over that table.
Source: include/uapi/linux/if_link.h (IFLA_VLAN_*, IFLA_MACVLAN_*, IFLA_VRF_*, IFLA_BR_*, IFLA_BOND_*), if_ether.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from reconciler.values import NamedTuple, dataclass

Value = bool | int | str
_NO_NAMES: Mapping[str, int] = MappingProxyType({})


class Option(NamedTuple):
    """An option of a kind.

    `name`: in a manifest. `words`: in iproute2. `attribute`: its number in IFLA_INFO_DATA. `form`: its bytes, for
    `struct`. `default`: None if a manifest has to have it. `names`: of its numbers. `unit`: of how many of the kernel's
    is one of ours. `is_fixed`: the kernel cannot change it; the link is replaced. `only_with`: the mode that has it.
    `pinned`: values that cannot come or go otherwise.
    `is_own`: `default` is ours, and not the kernel's.
    """

    name: str
    words: str
    attribute: int
    form: str
    default: Value | None
    names: Mapping[str, int] = _NO_NAMES
    unit: int = 1
    is_fixed: bool = False
    only_with: str = ""
    is_own: bool = False
    pinned: frozenset[str] = frozenset()

    def can_change(self, old: Value | None, new: Value) -> bool:
        """Return whether the kernel can change a value to another one."""
        return not (self.is_fixed or old in self.pinned or new in self.pinned)

    def to_kernel(self, value: Value) -> int:
        """Return the kernel's number for a value."""
        return self.names[value] if isinstance(value, str) else int(value) * self.unit

    def from_kernel(self, number: int) -> Value:
        """Return the value of a number; one that has no name, or is no whole unit, is the number as text."""
        if self.names:
            return next((name for name, each in self.names.items() if each == number), str(number))
        if isinstance(self.default, bool):
            return bool(number)
        return number // self.unit if number % self.unit == 0 else str(number)


class Kind(NamedTuple):
    """A kind of link. `module`: of the kernel that has it. `on_link`: it lies on another link.

    `has_ports`: other links name it as their `master`. `downs_ports`: a port comes and goes only while it is down, or
    is set down by that. `follows`: it goes down with its link. `is_routed`: it has a table of its own, and no frames.
    """

    module: str
    options: tuple[Option, ...] = ()
    on_link: bool = False
    has_ports: bool = False
    downs_ports: bool = False
    follows: bool = False
    is_routed: bool = False


# Hundredths of a second, in which the kernel counts (USER_HZ).
_HUNDREDTHS = 100
_VLAN_PROTOCOLS = MappingProxyType({"802.1q": 0x8100, "802.1ad": 0x88A8})
_MACVLAN_MODES = MappingProxyType({"private": 1, "vepa": 2, "bridge": 4, "passthru": 8})
_BOND_MODES = MappingProxyType(
    {
        name: number
        for number, name in enumerate(
            ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")
        )
    }
)
_HASHES = MappingProxyType({"layer2": 0, "layer3+4": 1, "layer2+3": 2, "encap2+3": 3, "encap3+4": 4})
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "vlan": Kind(
            "8021q",
            (
                Option("id", "id", 1, "=H", None, is_fixed=True),
                Option("protocol", "protocol", 5, ">H", "802.1q", _VLAN_PROTOCOLS, is_fixed=True),
            ),
            on_link=True,
            follows=True,
        ),
        "bridge": Kind(
            "bridge",
            (
                Option("stp", "stp_state", 5, "=I", default=False),
                Option("forwardDelay", "forward_delay", 1, "=I", 15, unit=_HUNDREDTHS),
                Option("ageingTime", "ageing_time", 4, "=I", 300, unit=_HUNDREDTHS),
                Option("vlanFiltering", "vlan_filtering", 7, "=B", default=False),
                Option("multicastSnooping", "mcast_snooping", 23, "=B", default=True),
            ),
            has_ports=True,
        ),
        "bond": Kind(
            "bonding",
            (
                Option("mode", "mode", 1, "=B", "balance-rr", _BOND_MODES, is_fixed=True),
                Option("miimon", "miimon", 3, "=I", 100, is_own=True),
                Option("minLinks", "min_links", 18, "=I", 0),
                Option("transmitHashPolicy", "xmit_hash_policy", 14, "=B", "layer2", _HASHES),
                Option(
                    "lacpRate",
                    "lacp_rate",
                    21,
                    "=B",
                    "slow",
                    MappingProxyType({"slow": 0, "fast": 1}),
                    is_fixed=True,
                    only_with="802.3ad",
                ),
            ),
            has_ports=True,
            downs_ports=True,
        ),
        "vrf": Kind(
            "vrf",
            (Option("table", "table", 1, "=I", None, is_fixed=True),),
            has_ports=True,
            downs_ports=True,
            is_routed=True,
        ),
        "macvlan": Kind(
            "macvlan",
            (Option("mode", "mode", 1, "=I", "bridge", _MACVLAN_MODES, is_own=True, pinned=frozenset({"passthru"})),),
            on_link=True,
        ),
        "dummy": Kind("dummy"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a link that is made in the sandbox is: a kind of KINDS, and the link that it lies on, or "".

    `options`: the value of each option of the kind that this link can have, in the order of the kind.
    """

    kind: str
    link: str = ""
    options: tuple[tuple[str, Value], ...] = ()

    @property
    def is_routed(self) -> bool:
        """Return whether it is a VRF."""
        return KINDS[self.kind].is_routed

    @property
    def is_plain(self) -> bool:
        """Return whether it may have come with the module of its kind, as bond0 does: nothing of it was chosen."""
        known = {option.name: option for option in KINDS[self.kind].options}
        return not self.link and all(known[name].is_own or value == known[name].default for name, value in self.options)


def made(kind: str, values: Mapping[str, Value], link: str = "") -> Made:
    """Return a link of a kind with these options, and the defaults of the others."""
    found: list[tuple[str, Value]] = []
    for option in applicable(kind, values):
        value = values.get(option.name, option.default)
        if value is not None:
            found.append((option.name, value))
    return Made(kind=kind, link=link, options=tuple(found))


def applicable(kind: str, values: Mapping[str, Value]) -> Iterator[Option]:
    """Yield the options that a link with these values can have."""
    mode = values.get("mode")
    return (each for each in KINDS[kind].options if each.only_with in {"", mode})


def unusual(own: Made) -> tuple[tuple[str, Value], ...]:
    """Return the options that the kernel would not choose by itself. It need not be built with the others."""
    usual = {each.name: each.default for each in KINDS[own.kind].options if not each.is_own}
    return tuple((name, value) for name, value in own.options if value != usual.get(name))


def changed(before: Made, after: Made) -> Iterator[tuple[Option, Value, Value | None]]:
    """Yield the options that differ between two links of one kind, with the new and the old value."""
    old = dict(before.options)
    options = {each.name: each for each in KINDS[after.kind].options}
    for name, value in after.options:
        if old.get(name) != value:
            yield options[name], value, old.get(name)


def must_be_replaced(before: Made, after: Made) -> bool:
    """Return whether the kernel cannot change one link to the other."""
    return (
        (before.kind, before.link) != (after.kind, after.link)
        or not all(option.can_change(old, new) for option, new, old in changed(before, after))
        or len(before.options) > len(after.options)
    )


def words(kind: str, options: Iterable[tuple[str, Value]]) -> list[str]:
    """Return options as iproute2 writes them."""
    by_name = {each.name: each for each in KINDS[kind].options}
    return [word for name, value in options for word in (by_name[name].words, _value_words(by_name[name], value))]


def _value_words(option: Option, value: Value) -> str:
    if isinstance(value, str):
        return value
    return str(int(value) * option.unit)


def made_key(kind: str, name: str) -> str:
    """Return what identifies a link that is made, in place of a device of the host: no device has such a name."""
    return f"{kind}:{name}"


def is_made_key(device: str) -> bool:
    """Return whether that identifies a link that is made in the sandbox."""
    return ":" in device
