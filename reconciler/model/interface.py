"""A NIC of a sandbox: a device of the host that was moved or plugged into it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from reconciler.model.address import is_ipv6, network
from reconciler.model.attribute import Attributes
from reconciler.model.made import Made
from reconciler.model.mark import OWN_ALTNAMES
from reconciler.model.sysctl import Sysctls
from reconciler.values import NamedTuple, dataclass, field

# The only link that a namespace is born with.
LOOPBACK = "lo"
# Bytes. With less, a link cannot carry IPv6 (RFC 8200, 5), and the kernel removes IPv6 from it.
IPV6_MIN_MTU = 1280
# Bytes. The largest MTU of a manifest, by its schema.
MTU_MAX = 9600
# Bytes. IFALIASZ of linux/if.h is 256; with its terminating NUL, an alias must be shorter than that.
ALIAS_MAX = 254
# Bytes of a name: IFNAMSIZ of linux/if.h is 16, with the terminating NUL.
NAME_MAX = 15
# Bytes of an alternative name: ALTIFNAMSIZ of linux/if.h is 128, with the terminating NUL.
ALTNAME_MAX = 127
_MANIFEST_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_NAME, _NO_NAMES = re.compile(r"[^\s/:\0]+"), {".", ".."}
# IFA_PROTO of a link-local address that the kernel has made (linux/if_addr.h).
KERNEL_LINK_LOCAL = 3
_ALIAS = re.compile(
    r"reconciler: device=(\S{1,15})(?: hwaddr=([0-9a-f:]{17}))? mtu=([0-9]{1,5})(?: alias=(.*))?\Z", re.DOTALL
)


def is_manifest_name(name: str) -> bool:
    """Return whether a manifest can name an interface or a device so, by its schema."""
    return _MANIFEST_NAME.fullmatch(name) is not None and len(name) <= NAME_MAX


def is_altname(name: str) -> bool:
    """Return whether a manifest can give an interface such an alternative name, by its schema and our mark."""
    is_ours = name.startswith(OWN_ALTNAMES)
    return _MANIFEST_NAME.fullmatch(name) is not None and len(name) <= ALTNAME_MAX and not is_ours


def is_link_name(name: str) -> bool:
    """Return whether the kernel allows a name of a link (net/core/dev.c: dev_valid_name)."""
    return (
        _NAME.fullmatch(name) is not None and len(name.encode(errors="replace")) <= NAME_MAX and name not in _NO_NAMES
    )


def address_key(prefix: str, peer: str | None) -> str:
    """Return what identifies an address on its NIC, in the words of iproute2: the length is behind the peer."""
    if peer is None:
        return prefix
    host, _, length = prefix.partition("/")
    return f"{host} peer {peer}/{length}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of a NIC: canonical `address/length` with its host bits. `dad` is always True for IPv4.

    `peer`: the other end of the link, to which the length of an IPv4 address belongs. `label` (None: the name of the
    NIC) and `scope` are of IPv4. `metric` is that of the connected route, 0 if the kernel chooses it; with
    `noprefixroute` there is none.
    The other fields are those of an observed address, or of one that the kernel has lost. `protocol`: what made it, 0
    if that is not known; it is not compared. `opaque`: what no manifest can express, in the words of iproute2, such as
    `autojoin`; such an address always differs.
    """

    address: str
    dad: bool = True
    label: str | None = None
    scope: str = "global"
    metric: int = 0
    noprefixroute: bool = False
    peer: str | None = None
    protocol: int = field(default=0, compare=False)
    opaque: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Return the address and its peer, which identify it on its NIC, in the words of iproute2."""
        return address_key(self.address, self.peer)

    @property
    def host(self) -> str:
        """Return the address without its prefix length."""
        return self.address.partition("/")[0]

    @property
    def subnet(self) -> str:
        """Return its network: of an IPv4 address with a peer, that of the peer."""
        _, _, length = self.address.partition("/")
        return network(self.address if self.peer is None or is_ipv6(self.peer) else f"{self.peer}/{length}")

    @property
    def networks(self) -> tuple[str, ...]:
        """Return the networks to which the kernel makes connected routes, also if `noprefixroute` keeps one away."""
        return (self.subnet, *self.of_peer)

    @property
    def of_peer(self) -> tuple[str, ...]:
        """Return the network of the route that the kernel makes to the peer of each IPv6 address that has one.

        It deletes that route with the address, even if another one has that peer (net/ipv6/addrconf.c:
        __ipv6_ifa_notify).
        """
        return (f"{self.peer}/128",) if self.peer and is_ipv6(self.peer) else ()

    @property
    def connected(self) -> tuple[str, ...]:
        """Return the networks to which the kernel makes connected routes."""
        return self.of_peer if self.noprefixroute else self.networks

    @property
    def words(self) -> tuple[str, ...]:
        """Return all but the address, its peer and `dad`, in the words of iproute2."""
        return (
            *([f"label {self.label}"] if self.label else ()),
            *([f"scope {self.scope}"] if self.scope != "global" else ()),
            *([f"metric {self.metric}"] if self.metric else ()),
            *(["noprefixroute"] if self.noprefixroute else ()),
            *self.opaque,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A NIC. `name` is its name in the sandbox, `device` its name on the host. `mtu` is in bytes.

    `hw_addr`: its MAC address; empty if its device is no Ethernet device and has none, such as a TUN or a tunnel.

    `made`: what it is if it is made in the sandbox. Then `device` is `made_key`, and an empty `hw_addr` and an `mtu` of
    0 leave these to the kernel, also in an observed one. `master`: the NIC of ours that it is a port of, or "".
    `marked`: whether a link that is made in the sandbox has our mark; False of one that is adopted, and where an undo
    leaves it to its former owner. It is not compared.

    `queues` 0 means one queue. `sysctls` of an observed NIC are those that its desired one names, and so are its
    `attributes`; one that no manifest wants has those that are unusual. `altnames`: all of its alternative names,
    sorted; None if the manifest does not say.
    """

    name: str
    device: str
    hw_addr: str
    mtu: int
    addresses: tuple[Address, ...] = ()
    queues: int = 0
    vhost_user_socket: str | None = None
    sysctls: Sysctls = ()
    attributes: Attributes = ()
    altnames: tuple[str, ...] | None = None
    up: bool = True
    made: Made | None = None
    master: str = ""
    marked: bool = field(default=True, compare=False)

    @property
    def connected(self) -> list[str]:
        """Return the networks to which the kernel makes connected routes."""
        return [network for each in self.addresses for network in each.connected]

    @property
    def key(self) -> str:
        """Return the device on the host, which identifies it: another `name` is a rename, not another NIC."""
        return self.device

    def fits(self, size: int) -> bool:
        """Return whether a packet of so many bytes fits its MTU, as any may if that is left to the kernel."""
        return size <= self.mtu or not self.mtu

    @property
    def has_mac(self) -> bool:
        """Return whether it has a MAC address: each does that is made in the sandbox."""
        return bool(self.made or self.hw_addr)

    @property
    def beneath(self) -> frozenset[str]:
        """Return the names of the NICs that have to be there before it: its link, and what it is a port of."""
        return frozenset(filter(None, (self.made.link if self.made else "", self.master)))


def given(interfaces: Iterable[Interface] | None) -> Iterator[Interface]:
    """Yield the NICs that are devices of the host: all but those that are made in the sandbox."""
    return (each for each in interfaces or () if each.made is None)


class LinkState(NamedTuple):
    """What the kernel reports of the link of a NIC beside the fields of a manifest.

    `ipv6`: IPv6 has configured the link: it is up, had a carrier, and IPv6 is not disabled. `generation`: how IPv6
    makes its link-local address, `eui64` (of the MAC address), `none` or `other`. `arp`, `multicast`: its flags.
    `broadcast`: its MAC address for broadcasts. `master`: the link of others that it is a port of, and `vrf` whether
    that is a VRF. `table`: that of the VRF, ours or not, that it is a port of, or that it is. `hw_addr`: its MAC
    address, or "". `held`: `protodown` keeps its carrier off. `attributes` and `altnames`: all of them, also those that
    its manifest leaves as they are; None if that is unknown.
    `unsettled`: the IPv6 addresses (`address/length`) whose duplicate address detection has not ended well.
    """

    ipv6: bool = False
    generation: str = "eui64"
    arp: bool = True
    multicast: bool = True
    broadcast: str = ""
    master: str = ""
    vrf: bool = False
    table: int = 0
    hw_addr: str = ""
    held: bool = False
    attributes: Attributes | None = None
    altnames: tuple[str, ...] | None = None
    unsettled: frozenset[str] = frozenset()


UNKNOWN_STATE = LinkState()


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a device was on the host, and what it is restored to. `up`: whether it was up.

    The record of the devices that were given has this. The alias (IFLA_IFALIAS) repeats the first four for people.
    """

    device: str
    hw_addr: str
    mtu: int
    alias: str = ""
    up: bool = False
    attributes: Attributes = ()
    altnames: tuple[str, ...] = ()

    def to_alias(self) -> str:
        """Return it as an alias of at most ALIAS_MAX bytes. A former alias is cut, between characters, to fit."""
        hw_addr = f" hwaddr={self.hw_addr}" if self.hw_addr else ""
        text = f"reconciler: device={self.device}{hw_addr} mtu={self.mtu}"
        if self.alias:
            text += f" alias={self.alias}"
        while len(text.encode(errors="surrogateescape")) > ALIAS_MAX:
            text = text[:-1]
        return text

    @classmethod
    def from_alias(cls, alias: str) -> Origin | None:
        """Read an alias. Return None if it is not ours."""
        match = _ALIAS.match(alias)
        if match is None:
            return None
        device, hw_addr, mtu, rest = match.groups()
        return cls(device=device, hw_addr=hw_addr or "", mtu=int(mtu), alias=rest or "")
