"""Packs a folder as a cpio archive, which the kernel unpacks as its first file system.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel (format "newc").
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import BinaryIO

_MAGIC = "070701"
_TRAILER = "TRAILER!!!"


def write_archive(root: str, file: BinaryIO) -> None:
    """Write everything below `root`. Equal folders make equal archives: sorted by name, owned by root, dated 1970."""
    number = 0
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted([*folders, *files]):
            number += 1
            path = os.path.join(folder, name)
            _write_entry(file, path, os.path.relpath(path, root), number)
    _write_header(file, _TRAILER, 0, 0, 0)


def _write_entry(file: BinaryIO, path: str, name: str, number: int) -> None:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        target = os.fsencode(os.readlink(path))
        _write_header(file, name, number, status.st_mode, len(target))
        file.write(target)
    elif stat.S_ISREG(status.st_mode):
        _write_header(file, name, number, status.st_mode, status.st_size)
        with open(path, "rb") as source:
            shutil.copyfileobj(source, file)
    else:
        _write_header(file, name, number, status.st_mode, 0)
    _pad(file)


def _write_header(file: BinaryIO, name: str, number: int, mode: int, size: int) -> None:
    encoded = os.fsencode(name) + b"\0"
    # The inode, mode, owner, group, links, date, size, device (2), special device (2), size of the name, checksum.
    fields = (number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(encoded), 0)
    file.write((_MAGIC + "".join(f"{field:08X}" for field in fields)).encode() + encoded)
    _pad(file)


def _pad(file: BinaryIO) -> None:
    file.write(b"\0" * (-file.tell() & 3))
