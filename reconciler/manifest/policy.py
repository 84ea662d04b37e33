"""The file of the operator's policy → a policy. It is read only if no other user can change it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from reconciler.errors import HostError, RefusedError
from reconciler.manifest import trusted
from reconciler.manifest.files import is_stream, reason_of
from reconciler.model.policy import POLICY_FILE, Policy

# Bytes of a file. The patterns of 10,000 sandboxes have a quarter of that.
_LARGEST = 1 << 20


def read(file: str | None, paths: Iterable[str]) -> Policy:
    """Return the policy of a file, or of the default one: its own defaults if that one does not exist.

    `paths`: where the manifests are. RefusedError if others can write the file, HostError if it cannot be read,
    ManifestError with everything that is wrong with its text.
    """
    name = POLICY_FILE if file is None else file
    try:
        if file is None and _is_missing(name):
            return Policy(file=name)
        text = _read_trusted(
            os.path.abspath(name), [_folder_of_authors(each, with_tree=file is None) for each in paths]
        )
    except trusted.UntrustedError as error:
        raise RefusedError(
            f"{name}: a policy counts only if no other user can change it, and {error}; "
            "let the file and each folder above it belong to root, and be writable by root only"
        ) from None
    except (OSError, ValueError) as error:
        raise HostError(f"{name}: the policy cannot be read: {reason_of(error)}") from error
    # Most hosts have no such file, and need nothing that reads one.
    from reconciler.manifest.policy_text import parse

    return parse(name, text)


def _is_missing(path: str) -> bool:
    """Return whether there is no such file. A link that leads nowhere is there; OSError if that cannot be found out."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        folder = os.path.dirname(path)
        return os.path.exists(folder) or not os.path.islink(folder)
    return False


def _read_trusted(path: str, folders: Iterable[str | None]) -> str:
    with trusted.opened(path) as found:
        # Merely to open a device can have an effect.
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise ValueError("it is not a regular file")
        real = os.readlink(f"/proc/self/fd/{found}")
        for folder in folders:
            if folder and real.startswith(os.path.join(folder, "")):
                raise ValueError(
                    f"it is in {folder}, as manifests are, whose authors must not change it; move it elsewhere"
                )
        with open(f"/proc/self/fd/{found}", "rb") as stream:
            data = stream.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start})") from None


def _folder_of_authors(path: str, *, with_tree: bool) -> str | None:
    """Return the real folder that authors of manifests fill: a PATH; None if it is a file.

    `with_tree`: or the git tree around it. What they commit there can belong to root once it is checked out.
    """
    if is_stream(path):
        return None
    real = os.path.realpath(path)
    above = real if with_tree else "/"
    while above != "/":
        if os.path.lexists(os.path.join(above, ".git")):
            return above
        above = os.path.dirname(above)
    return real if os.path.isdir(real) else None
