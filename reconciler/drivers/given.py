"""The record of the devices that were given to namespaces: what proves that a link is one of them, and what it was.

An alias is only a hint for people: whoever has rights in a namespace can change it, and can delete a device and make
another one of the same kind, index and MAC address. So each namespace with devices of ours has a file below FOLDER,
which only root can read. A device is recognised by its number (`LocalKernel.device_numbers`): the kernel gives it when
the device is created, the device keeps it through each rename and move, and no other device has it until the next boot.
The namespace itself is recognised by the kernel's cookie of it, likewise. The inode number only names the file: the
kernel uses it again, so that there are never more files than there were namespaces at once.

Before a device moves, its entry is written and marked as moving; after it, the entry is settled or removed. A run that
is killed in between leaves a moving entry, which the next run settles.

A device that another program moved into the namespace is recorded later, if `drivers.provenance` proves where it came
from (`--adopt`).

Only a run that has the lock of the namespace writes.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from reconciler import rundir
from reconciler.errors import HostError
from reconciler.model.interface import Origin
from reconciler.netlink.interface import Link
from reconciler.values import NamedTuple, asdict, dataclass, replace

FOLDER = "/run/reconciler/devices"
# Device and inode number of a namespace.
_FILE = re.compile(r"([0-9]+)-([0-9]+)\.json")
# Nanoseconds that are certainly more than a tick of the clock of file systems; a tick is at most 10 ms.
_TICK = 100_000_000
# Bytes of a record. An entry has 400.
_SIZE = 4 << 20
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A device that was given to a namespace, with its index there. `moving`: it is on its way there or back."""

    index: int
    kind: str
    number: int
    origin: Origin
    moving: bool


class Recognised(NamedTuple):
    """The links of a namespace that are ours, by the host's device, and what the alias of others claims, by name."""

    ours: dict[str, tuple[Link, Origin]]
    unproven: dict[str, Origin]


class Namespace(NamedTuple):
    """How the kernel numbers a namespace's file while the namespace exists."""

    device: int
    inode: int


class Kernel(Protocol):
    """What a kernel knows of a namespace, and nobody in it can change: see `netlink.channel.LocalKernel`."""

    @property
    def cookie(self) -> int:
        """What no other namespace has."""

    def device_numbers(self, names: Mapping[int, str]) -> dict[int, int]:
        """Return the numbers of devices by their index. `names`: what each is named."""


class GivenDevices:
    """The devices that were given to one namespace."""

    def __init__(self, namespace: int, kernel: Kernel) -> None:
        """Use the record of the namespace of an open file."""
        found = os.fstat(namespace)
        self._name = f"{found.st_dev}-{found.st_ino}.json"
        self._kernel = kernel
        # The entries, while no other run can change them.
        self._kept: list[Given] | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Read the record once for the block: the caller has the lock of the namespace."""
        self._kept = self._stored()
        try:
            yield
        finally:
            self._kept = None

    def recognise(self, links: Sequence[Link]) -> Recognised:
        """Return which links are ours, and which only have an alias like ours."""
        ours = {each.origin.device: (link, each.origin) for each, link in self._find(self._read(), links)}
        proven = {link.index for link, _ in ours.values()}
        claims = ((link.name, Origin.from_alias(link.alias)) for link in links if link.index not in proven)
        return Recognised(ours, {name: origin for name, origin in claims if origin})

    def moving(self) -> list[Given]:
        """Return the entries of the devices that were on their way when a run was killed."""
        return [each for each in self._read() if each.moving]

    def begin(self, moving: Given, links: Sequence[Link]) -> None:
        """Record that a device is on its way. `links`: those of the namespace."""
        taken = {moving.index, moving.number, moving.origin.device}
        kept = [each for each in self._present(links) if taken.isdisjoint({each.index, each.number})]
        self._write([*(each for each in kept if each.origin.device not in taken), moving])

    def adopt(self, found: Sequence[Given], links: Sequence[Link]) -> None:
        """Record devices that another program moved here, all at once. `links`: those of the namespace."""
        taken = {each.origin.device for each in found} | {each.index for each in found}
        kept = [each for each in self._present(links) if taken.isdisjoint({each.index, each.origin.device})]
        self._write([*kept, *found])

    def forget(self, devices: Collection[str]) -> None:
        """Remove the entries of devices, which stay where they are."""
        self._write([each for each in self._read() if each.origin.device not in devices])

    def number(self, link: Link) -> int | None:
        """Return the number of a link of the namespace; None if it does not exist any more."""
        return self._kernel.device_numbers({link.index: link.name}).get(link.index)

    def end(self, links: Sequence[Link]) -> None:
        """Record where the device has arrived: in the namespace if it is one of its links, or else outside."""
        self._write(self._present(links))

    def find(self, link: Link) -> Given | None:
        """Return the entry of a link; None if no entry proves that it is ours."""
        return next((each for each, _ in self._find(self._read(), [link])), None)

    def _present(self, links: Sequence[Link]) -> list[Given]:
        return [replace(each, moving=False) for each, _ in self._find(self._read(), links)]

    def _find(self, entries: Sequence[Given], links: Sequence[Link]) -> list[tuple[Given, Link]]:
        """Return the entries whose devices are among these links of the namespace."""
        by_index = {link.index: link for link in links}
        likely = {each.index: by_index[each.index].name for each in entries if each.index in by_index}
        numbers = self._kernel.device_numbers(likely)
        return [(each, by_index[each.index]) for each in entries if numbers.get(each.index) == each.number]

    def _read(self) -> list[Given]:
        return self._stored() if self._kept is None else self._kept

    def _stored(self) -> list[Given]:
        """Return the entries. A record of an earlier boot, of another namespace, or that is no record has none."""
        with suppress(FileNotFoundError), rundir.opened(FOLDER) as folder:
            data = _load(folder, self._name)
            if data and data.get("cookie") == self._kernel.cookie:
                return _entries(data)
        return []

    def _write(self, devices: Sequence[Given]) -> None:
        try:
            self._replace(devices)
        except OSError as error:
            raise HostError(
                f"the record of given devices cannot be written: {FOLDER}/{self._name}: {error.strerror}"
            ) from error
        if self._kept is not None:
            self._kept = list(devices)

    def _replace(self, devices: Sequence[Given]) -> None:
        """Replace the record, or remove it if there are no devices."""
        if not devices:
            with suppress(FileNotFoundError), rundir.opened(FOLDER) as folder:
                os.unlink(self._name, dir_fd=folder)
            return
        data = {"boot": rundir.boot_id(), "cookie": self._kernel.cookie, "devices": [asdict(each) for each in devices]}
        rundir.make(FOLDER)
        with rundir.opened(FOLDER) as folder:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            new = f"{self._name}.new"
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=folder)
            with open(os.open(new, flags, 0o600, dir_fd=folder), "w", encoding="utf-8") as file:
                # `json.dump` encodes in Python, `json.dumps` does not.
                file.write(json.dumps(data))
            os.rename(new, self._name, src_dir_fd=folder, dst_dir_fd=folder)


def find_given(devices: Collection[str]) -> list[Given]:
    """Return what all records of this boot say of these devices of the host, wherever they were given to."""
    return [each for _, each in _find_given(devices)]


def find_namespaces(devices: Collection[str]) -> set[Namespace]:
    """Return the namespaces that these devices of the host were given to."""
    return {namespace for namespace, _ in _find_given(devices)}


def _find_given(devices: Collection[str]) -> list[tuple[Namespace, Given]]:
    by_device = _all.read()
    return [each for device in devices for each in by_device.get(device, ())]


class _AllRecords:
    """What all records of this boot say, by device of the host.

    They are read again when the folder has changed: a watcher may have thousands of them, and of sandboxes that lack a
    device.
    """

    def __init__(self) -> None:
        self._last: tuple[object, Mapping[str, list[tuple[Namespace, Given]]]] = None, {}

    def read(self) -> Mapping[str, list[tuple[Namespace, Given]]]:
        """Return the namespaces and entries of each device that was given. HostError as `rundir.make` raises it."""
        try:
            with rundir.opened(FOLDER) as folder:
                found = os.fstat(folder)
                stamp = found.st_dev, found.st_ino, found.st_mtime_ns
                last, by_device = self._last
                if stamp != last:
                    by_device = _read_all(folder)
                    # A record that is written within the same tick of the clock changes the folder, but not its time.
                    settled = time.time_ns() - found.st_mtime_ns > _TICK
                    self._last = stamp if settled else None, by_device
                return by_device
        except FileNotFoundError:
            return {}


def _read_all(folder: int) -> Mapping[str, list[tuple[Namespace, Given]]]:
    by_device: dict[str, list[tuple[Namespace, Given]]] = {}
    for file in os.listdir(folder):
        if not (name := _FILE.fullmatch(file)):
            continue
        namespace = Namespace(int(name[1]), int(name[2]))
        # A record may be removed meanwhile.
        with suppress(FileNotFoundError):
            for each in _entries(_load(folder, file)):
                by_device.setdefault(each.origin.device, []).append((namespace, each))
    return by_device


_all = _AllRecords()


def _load(folder: int, name: str) -> dict[str, Any]:
    """Return what a record of this boot contains; nothing if it is no record."""
    try:
        file = os.open(name, _READ | os.O_NONBLOCK, dir_fd=folder)
        try:
            found = os.fstat(file)
            rundir.check(f"{FOLDER}/{name}", found)
            data = json.loads(os.read(file, min(found.st_size, _SIZE))) if stat.S_ISREG(found.st_mode) else {}
        finally:
            os.close(file)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) and data.get("boot") == rundir.boot_id() else {}


def _entries(data: Mapping[str, Any]) -> list[Given]:
    try:
        return [Given(**{**each, "origin": _origin(each["origin"])}) for each in data.get("devices", ())]
    except (KeyError, TypeError, ValueError):
        return []


def _origin(data: Mapping[str, Any]) -> Origin:
    attributes = tuple((field, value) for field, value in data["attributes"])
    return Origin(**{**data, "attributes": attributes, "altnames": tuple(data["altnames"])})
