"""A NIC of a sandbox: a device of the host that was given to it, found again by the alias it carries."""

from __future__ import annotations

import re
from dataclasses import dataclass

# RFC 8200, 5: with less, a link cannot carry IPv6, and the kernel takes IPv6 off it.
IPV6_MIN_MTU = 1280
# Bytes: IFALIASZ of linux/if.h is 256, and the kernel counts a terminating NUL and wants less than that.
ALIAS_MAX = 254
_ALIAS = re.compile(
    r"reconciler: device=(\S{1,15}) hwaddr=([0-9a-f:]{17}) mtu=([0-9]{1,5})(?: alias=(.*))?\Z", re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of a NIC: canonical `address/length`, host bits kept. `dad` is always true of IPv4."""

    address: str
    dad: bool = True

    @property
    def key(self) -> str:
        """What identifies it on its NIC."""
        return self.address

    @property
    def host(self) -> str:
        """The address without its length."""
        return self.address.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A NIC. `name` is its name in the sandbox, `device` the one it has on the host.

    `queues` 0 means one queue. `up` is not a wish one can leave out: a desired NIC is up.
    """

    name: str
    device: str
    hw_addr: str
    mtu: int
    addresses: tuple[Address, ...] = ()
    queues: int = 0
    vhost_user_socket: str | None = None
    up: bool = True

    @property
    def key(self) -> str:
        """What identifies it: the host's device, so that another name is a rename and not another NIC."""
        return self.device


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a device was on the host: kept in its alias (IFLA_IFALIAS) as our mark of ownership and the way back."""

    device: str
    hw_addr: str
    mtu: int
    alias: str = ""

    def to_alias(self) -> str:
        """Write it as an alias; a foreign alias that does not fit is cut, between letters."""
        text = f"reconciler: device={self.device} hwaddr={self.hw_addr} mtu={self.mtu}"
        if self.alias:
            text += f" alias={self.alias}"
        return text.encode()[:ALIAS_MAX].decode(errors="ignore")

    @classmethod
    def from_alias(cls, alias: str) -> Origin | None:
        """Read an alias; None if it is not ours."""
        match = _ALIAS.match(alias)
        if match is None:
            return None
        device, hw_addr, mtu, rest = match.groups()
        return cls(device=device, hw_addr=hw_addr, mtu=int(mtu), alias=rest or "")
