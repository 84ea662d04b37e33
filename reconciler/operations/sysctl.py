"""Operations on sysctls of the network. Those of IPVS belong to its table: see `operations.ipvs`."""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote
from typing import ClassVar

from reconciler.model.identity import NOTHING, Nic, Subject, Sysctl
from reconciler.operations.base import Base, Sign


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNetworkSysctl(Base):
    """Change a sysctl, by its name for sysctl(8). `before` is None if it is not known.

    `nic`: the NIC that it belongs to; None: it belongs to the sandbox.
    """

    sign: ClassVar[Sign] = "~"
    name: str
    value: int
    before: int | None = None
    nic: str | None = None

    @property
    def command(self) -> str:
        """Return the command."""
        return f"sysctl -w {quote(f'{self.name}={self.value}')}"

    @property
    def comment(self) -> str:
        """Return what it was, or why it is set again."""
        if self.before == self.value:
            return "another one changes it"
        return "" if self.before is None else f"was {self.before}"

    @property
    def subject(self) -> Subject:
        """Return the sysctl."""
        return Sysctl(self.name, self.nic)

    @property
    def needs(self) -> frozenset[Subject]:
        """Return the NIC without which it does not exist."""
        return NOTHING if self.nic is None else frozenset((Nic(self.nic),))
