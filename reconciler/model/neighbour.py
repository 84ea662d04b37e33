"""A static entry of a neighbour table.

It is the MAC address of an IP address on a link (ARP, NDP), or an address proxied there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from reconciler.model.address import is_ipv6
from reconciler.model.mark import PROTOCOL
from reconciler.values import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """An entry. `address` is canonical, `hw_addr` is empty if `proxy` answers for the address instead.

    `router`: it is an IPv6 router. `permanent`: it never expires, as every desired entry. `protocol`: who made it;
    it is not compared. `opaque`: what no manifest can express of an observed entry, in the words of iproute2; such an
    entry always differs.
    """

    section: ClassVar[str] = "neighbours"
    address: str
    device: str
    hw_addr: str = ""
    proxy: bool = False
    router: bool = False
    permanent: bool = True
    protocol: int = field(default=PROTOCOL, compare=False)
    opaque: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, bool]:
        """Return what identifies it in the kernel."""
        return (self.device, self.address, self.proxy)

    @property
    def is_ipv6(self) -> bool:
        """Return whether it is an entry of NDP."""
        return is_ipv6(self.address)

    @property
    def nic(self) -> str | None:
        """Return the NIC whose removal deletes it."""
        return self.device

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the entry with the new names of NICs: old → new."""
        return replace(self, device=names[self.device]) if self.device in names else self
