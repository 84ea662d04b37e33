"""The record of the devices that were given to namespaces: what proves that a link is one of them, and what it was.

An alias is only a hint for people: whoever has rights in a namespace can change it, and can delete a device and make
another one of the same kind, index and MAC address. So each namespace with devices of ours has a file below FOLDER,
which only root can read. A device is recognised by its number (`LocalKernel.device_numbers`): the kernel gives it when
the device is created, the device keeps it through each rename and move, and no other device has it until the next boot.
The namespace itself is recognised by the kernel's cookie of it, likewise. The inode number only names the file: the
kernel uses it again, so that there are never more files than there were namespaces at once.

Before a device moves, its entry is written and marked as moving; after it, the entry is settled or removed. A run that
is killed in between leaves a moving entry, which the next run settles.

Only a run that has the lock of the namespace writes.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol

from reconciler import rundir
from reconciler.errors import HostError
from reconciler.model.interface import Origin
from reconciler.netlink.interface import Link

FOLDER = "/run/reconciler/devices"
_BOOT = "/proc/sys/kernel/random/boot_id"
# Bytes of a record. An entry has 300.
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


class Namespace(Protocol):
    """What a kernel knows of a namespace, and nobody in it can change: see `netlink.channel.LocalKernel`."""

    def cookie(self) -> int:
        """Return what no other namespace has."""

    def device_numbers(self, names: Mapping[int, str]) -> dict[int, int]:
        """Return the numbers of devices by their index. `names`: what each is named."""


class GivenDevices:
    """The devices that were given to one namespace."""

    def __init__(self, namespace: int, kernel: Namespace) -> None:
        """Use the record of the namespace of an open file."""
        found = os.fstat(namespace)
        self._name = f"{found.st_dev}-{found.st_ino}.json"
        self._kernel = kernel

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
        """Return the entries. A record of an earlier boot, of another namespace, or that is no record has none."""
        with suppress(FileNotFoundError), _opened_folder() as folder:
            data = _load(folder, self._name)
            if data and data.get("cookie") == self._kernel.cookie():
                return _entries(data)
        return []

    def _write(self, devices: Sequence[Given]) -> None:
        data = {"boot": _boot(), "cookie": self._kernel.cookie(), "devices": [asdict(each) for each in devices]}
        try:
            with _opened_folder(create=bool(devices)) as folder:
                if not devices:
                    os.unlink(self._name, dir_fd=folder)
                    return
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
                new = f"{self._name}.new"
                with suppress(FileNotFoundError):
                    os.unlink(new, dir_fd=folder)
                with open(os.open(new, flags, 0o600, dir_fd=folder), "w", encoding="utf-8") as file:
                    json.dump(data, file)
                os.rename(new, self._name, src_dir_fd=folder, dst_dir_fd=folder)
        except FileNotFoundError:
            if devices:
                raise
        except OSError as error:
            raise HostError(
                f"the record of given devices cannot be written: {FOLDER}/{self._name}: {error.strerror}"
            ) from error


def find_given(devices: Collection[str]) -> list[Given]:
    """Return what all records of this boot say of these devices of the host, wherever they were given to."""
    found: list[Given] = []
    with suppress(FileNotFoundError), _opened_folder() as folder:
        for name in os.listdir(folder):
            # A record may be removed meanwhile.
            with suppress(FileNotFoundError):
                entries = _entries(_load(folder, name)) if name.endswith(".json") else []
                found += [each for each in entries if each.origin.device in devices]
    return found


@contextmanager
def _opened_folder(*, create: bool = False) -> Iterator[int]:
    """Yield a descriptor of FOLDER. HostError if another user could have written there; FileNotFoundError."""
    parent = os.path.dirname(FOLDER)
    if create:
        rundir.make(FOLDER)
    try:
        above = os.open(parent, _READ | os.O_DIRECTORY)
        try:
            _check(parent, os.fstat(above))
            folder = os.open(os.path.basename(FOLDER), _READ | os.O_DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    except PermissionError as error:
        raise HostError(f"{FOLDER}: {error.strerror}; only root can read the record of given devices") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HostError(f"{FOLDER}: {error.strerror}; it must be a folder of root, and no link") from error
    try:
        found = os.fstat(folder)
        _check(FOLDER, found)
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.fchmod(folder, 0o700)
        yield folder
    finally:
        os.close(folder)


def _check(path: str, found: os.stat_result) -> None:
    """Raise HostError if another user than this one may write to what was opened: it would prove nothing."""
    # Other users may create files in a folder with the sticky bit, but not replace ours.
    writable = stat.S_IMODE(found.st_mode) & 0o022 and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in (os.geteuid(), 0) or writable:
        whose = f"belongs to user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}"
        raise HostError(
            f"{path} {whose}: another user could have written the record of given devices; "
            f"look who did that, then delete {FOLDER} and return the devices by hand"
        )


def _load(folder: int, name: str) -> dict[str, Any]:
    """Return what a record of this boot contains; nothing if it is no record."""
    try:
        with open(os.open(name, _READ | os.O_NONBLOCK, dir_fd=folder), "rb") as file:
            found = os.fstat(file.fileno())
            _check(f"{FOLDER}/{name}", found)
            data = json.loads(file.read(_SIZE)) if stat.S_ISREG(found.st_mode) else {}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) and data.get("boot") == _boot() else {}


def _entries(data: Mapping[str, Any]) -> list[Given]:
    try:
        return [Given(**{**each, "origin": Origin(**each["origin"])}) for each in data.get("devices", ())]
    except (KeyError, TypeError):
        return []


def _boot() -> str:
    with open(_BOOT, encoding="ascii") as file:
        return file.read().strip()
