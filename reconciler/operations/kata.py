"""The operations of interfaces by the command line of kata-runtime. Loaded only where there are any."""

from __future__ import annotations

import json
from dataclasses import dataclass
from shlex import quote
from typing import ClassVar

from reconciler.formats.kata.interface import write_wish
from reconciler.model.interface import Interface
from reconciler.operations import Base, Sign


class _Kata(Base):
    __slots__ = ()

    machine: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PlugInterface(_Kata):
    """Give a container an interface, with its name, MTU and address."""

    sign: ClassVar[Sign] = "+"
    container: str
    interface: Interface

    @property
    def device(self) -> str:
        """The device on the host."""
        return self.interface.device

    @property
    def command(self) -> str:
        """The command, for a shell on the host."""
        said = json.dumps(write_wish(self.interface), separators=(",", ":"))
        return f"kata-runtime kata-network add-iface {quote(self.container)} - <<<{quote(said)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnplugInterface(_Kata):
    """Take an interface from a container."""

    sign: ClassVar[Sign] = "-"
    container: str
    name: str

    @property
    def command(self) -> str:
        """The command, for a shell on the host."""
        said = json.dumps({"name": self.name}, separators=(",", ":"))
        return f"kata-runtime kata-network del-iface {quote(self.container)} - <<<{quote(said)}"


KataOperation = PlugInterface | UnplugInterface
