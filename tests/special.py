"""Files that are no regular files: reading one blocks, has an effect, or is impossible."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPECIAL = ("a FIFO", "a socket", "a device")


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
