"""Files that are no regular files: reading one blocks, has an effect, or is impossible."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPECIAL = ("a FIFO", "a socket", "a device")


def reason(kind: str, folder: str) -> str:
    """Return why a special file of a kind is not read if it is found in a folder."""
    return (
        f"leads out of {folder}, and only what is beneath it is read"
        if kind == "a device"
        else f"is {kind}, not a regular file"
    )


@contextmanager
def special(kind: str, path: Path) -> Iterator[None]:
    """Create a file of a kind of SPECIAL during the block."""
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "a FIFO":
                os.mkfifo(path)
            case "a socket":
                listener.bind(str(path))
            case _:
                # Without the rights of root, only a link can lead to a device.
                path.symlink_to("/dev/zero")
        try:
            yield
        finally:
            path.unlink()
