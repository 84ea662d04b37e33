"""The record of the devices that were given to namespaces: what proves that a link there is ours, and what it was.

An alias is only a hint for people: whoever has rights in a namespace can change it. So each namespace with devices of
ours has a file below FOLDER, which only root can read. A device is recognised by its index in the namespace, which
changes neither with its name nor with its alias, by its kind, and by its permanent MAC address. The namespace itself is
recognised by the kernel's cookie of it, which no other namespace has until the next boot. The inode number only names
the file: the kernel uses it again, so that there are never more files than there were namespaces at once.

Before a device moves, its entry is written and marked as moving; after it, the entry is settled or removed. A run that
is killed in between leaves a moving entry. That one is believed only if the link has the alias, which moves with the
device in one message.

Only a run that has the lock of the namespace writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from reconciler import rundir
from reconciler.errors import HostError
from reconciler.model.interface import Origin
from reconciler.netlink.interface import Link

FOLDER = "/run/reconciler/devices"
_BOOT = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A device that was given to a namespace. `index`: its index there. `moving`: it is on its way there or back."""

    index: int
    kind: str
    permanent: str
    origin: Origin
    moving: bool

    def is_in(self, links: Iterable[Link]) -> bool:
        """Return whether it is one of these links."""
        return any(self.is_(link) for link in links)

    def is_(self, link: Link) -> bool:
        """Return whether it is this link."""
        if (self.index, self.kind, self.permanent) != (link.index, link.kind, link.permanent):
            return False
        return not self.moving or Origin.from_alias(link.alias) == Origin.from_alias(self.origin.to_alias())


class Recognised(NamedTuple):
    """The links of a namespace that are ours, by the host's device, and what the alias of others claims, by name."""

    ours: dict[str, tuple[Link, Origin]]
    unproven: dict[str, Origin]


class GivenDevices:
    """The devices that were given to one namespace."""

    def __init__(self, namespace: int, cookie: Callable[[], int]) -> None:
        """Use the record of the namespace of an open file. `cookie` reads what no other namespace has."""
        found = os.fstat(namespace)
        self._path = f"{FOLDER}/{found.st_dev}-{found.st_ino}.json"
        self._cookie = cookie

    def recognise(self, links: Sequence[Link]) -> Recognised:
        """Return which links are ours, and which only have an alias like ours."""
        given = self._read()
        ours = {each.origin.device: (link, each.origin) for each in given for link in links if each.is_(link)}
        proven = {link.index for link, _ in ours.values()}
        claims = ((link.name, Origin.from_alias(link.alias)) for link in links if link.index not in proven)
        return Recognised(ours, {name: origin for name, origin in claims if origin})

    def settle(self, read_links: Callable[[], Sequence[Link]]) -> None:
        """Bring the record in line with the links, if a run was killed while a device moved."""
        if any(each.moving for each in self._read()):
            self._write(self._present(read_links()))

    def begin(self, moving: Given, links: Sequence[Link]) -> None:
        """Record that a device is on its way. `links`: those of the namespace."""
        kept = [each for each in self._present(links) if each.index != moving.index]
        self._write([*(each for each in kept if each.origin.device != moving.origin.device), moving])

    def end(self, links: Sequence[Link]) -> None:
        """Record where the device has arrived: in the namespace if it is one of its links, or else outside."""
        self._write(self._present(links))

    def find(self, index: int) -> Given | None:
        """Return the entry of a link by its index."""
        return next((each for each in self._read() if each.index == index), None)

    def _present(self, links: Sequence[Link]) -> list[Given]:
        return [replace(each, moving=False) for each in self._read() if each.is_in(links)]

    def _read(self) -> list[Given]:
        """Return the entries. A record of an earlier boot, of another namespace, or that is no record has none."""
        try:
            with open(self._path, encoding="utf-8") as file:
                data = json.load(file)
            if (data["boot"], data["cookie"]) != (_boot(), self._cookie()):
                return []
            return [_given(each) for each in data["devices"]]
        except FileNotFoundError:
            return []
        except PermissionError as error:
            raise HostError(f"{self._path}: {error.strerror}; only root can read the record of given devices") from None
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _write(self, devices: Sequence[Given]) -> None:
        if not devices:
            if os.path.exists(self._path):
                os.unlink(self._path)
            return
        data = {"boot": _boot(), "cookie": self._cookie(), "devices": [asdict(each) for each in devices]}
        try:
            rundir.make(FOLDER)
            new = os.open(f"{self._path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(new, "w", encoding="utf-8") as file:
                json.dump(data, file)
            os.replace(f"{self._path}.new", self._path)
        except OSError as error:
            raise HostError(f"the record of given devices cannot be written: {self._path}: {error.strerror}") from error


def _given(data: dict[str, Any]) -> Given:
    return Given(**{**data, "origin": Origin(**data["origin"])})


def _boot() -> str:
    with open(_BOOT, encoding="ascii") as file:
        return file.read().strip()
