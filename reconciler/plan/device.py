"""Errors about the devices of the host that interfaces need, with the field of the manifest that asks for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from reconciler.errors import HostError
from reconciler.model.identity import HostDevice
from reconciler.model.interface import Interface
from reconciler.model.sandbox import Surroundings


@contextmanager
def about(interface: Interface, wanted: Sequence[Interface]) -> Iterator[None]:
    """Let a HostError within the block name the device of an interface, and complete its path.

    Whoever raises the error knows the field, and not which interface of the manifest it is.
    """
    try:
        yield
    except HostError as error:
        error.about = HostDevice(interface.device)
        error.path = ("interfaces", wanted.index(interface), *error.path)
        raise


def check_elsewhere(interface: Interface, around: Surroundings) -> None:
    """Raise HostError if the device of an interface is in another sandbox."""
    if place := around.elsewhere.get(interface.device):
        advice = "remove it from the manifest of that sandbox first"
        raise HostError(f"{interface.device} is in another sandbox, {place}; {advice}", path=("device",))


def check_hw_addr(interface: Interface, has: str, kind: str = "") -> None:
    """Raise HostError if a device has a MAC address and its interface does not name one, or the other way round.

    `has`: that of the device, "" for none. `kind`: that of the device, in words. A link that is made in the sandbox has
    one, whatever its manifest says.
    """
    if interface.made:
        return
    if interface.hw_addr and not has:
        message = f"{interface.device} has no MAC address{kind}; remove hwAddr from interface {interface.name}"
        raise HostError(message, path=("hwAddr",))
    if has and not interface.hw_addr:
        advice = f"interface {interface.name} has to name it, or another one, as its hwAddr"
        raise HostError(f"{interface.device} has the MAC address {has}; {advice}", path=("hwAddr",))


def missing(interface: Interface, hint: str = "") -> HostError:
    """Return the error that the device of an interface does not exist; `hint` follows the advice to create it."""
    needed = f"{interface.device}: no such device on this host, which interface {interface.name} needs"
    return HostError(f"{needed}; create it first{hint}", path=("device",))
