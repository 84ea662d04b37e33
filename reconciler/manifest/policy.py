"""The file of the operator's policy → a policy. It is read like a manifest, and only if no other user can change it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from reconciler.errors import HostError, ManifestError, RefusedError
from reconciler.manifest import trusted
from reconciler.manifest.allow import canonical
from reconciler.manifest.compose import ComposeError, compose, locate
from reconciler.manifest.files import file_problem, is_stream, reason_of
from reconciler.manifest.load import syntax_problem
from reconciler.manifest.place import DocumentFindings, problems
from reconciler.manifest.schema import POLICY, check
from reconciler.model.policy import POLICY_FILE, Devices, Policy

# Bytes of a file. The patterns of 10,000 sandboxes have a quarter of that.
_LARGEST = 1 << 20
_EMPTY = "is empty; write what differs from the defaults, or delete the file to have the defaults"


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
    return _parse(name, text)


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


def _parse(name: str, text: str) -> Policy:
    try:
        documents = compose(text)
    except ComposeError as error:
        raise ManifestError([syntax_problem(name, text, error)]) from None
    if not any(each is not None for each in documents):
        raise ManifestError([file_problem(name, _EMPTY)])
    if len(documents) > 1:
        raise ManifestError([file_problem(name, "contains several documents; a policy is one")])
    if isinstance(documents[0], dict) and "apiVersion" in documents[0]:
        raise ManifestError([file_problem(name, "is a manifest; expected a policy, as docs/security.md describes it")])
    if findings := check(documents[0], POLICY):
        raise ManifestError(problems(name, text, [DocumentFindings(0, findings)]))
    data: Mapping[str, Any] = documents[0]
    return _complete(data, Policy(file=name, lines=MappingProxyType(_lines(text, data))))


def _lines(text: str, fields: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return the first and the last line of each field, from 1, in the order of the text."""
    found = locate(text, {0: [(field,) for field in fields]})[0]
    first = {field: (found[field,].key or found[field,].value)[0] for field in fields}
    lines = text.splitlines()
    found_lines: dict[str, tuple[int, int]] = {}
    for (field, at), following in zip(first.items(), [*first.values(), len(lines)][1:], strict=True):
        last = max(at, following - 1)
        # Empty lines and comments belong to what follows.
        while last > at and lines[last].lstrip()[:1] in {"", "#"}:
            last -= 1
        found_lines[field] = (at + 1, last + 1)
    return found_lines


def _complete(data: Mapping[str, Any], default: Policy) -> Policy:
    """Return the policy of checked data, with the values of `default` where it has none."""
    namespaces = data.get("namespaces", {})
    return Policy(
        file=default.file,
        lines=default.lines,
        drivers=tuple(data.get("drivers", default.drivers)),
        folders=_folders(namespaces.get("folders", default.folders)),
        processes=namespaces.get("processes", default.processes),
        sockets=_folders(data.get("sockets", default.sockets)),
        runtimes=tuple(data.get("runtimes", default.runtimes)),
        devices=_devices(data.get("devices", default.devices)),
        physical_devices=_devices(data.get("physicalDevices", default.physical_devices)),
        rules_files=_folders(data.get("rulesFiles", default.rules_files)),
    )


def _folders(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(canonical, paths))


def _devices(patterns: Mapping[str, Iterable[str]]) -> Devices:
    return MappingProxyType({sandboxes: tuple(devices) for sandboxes, devices in patterns.items()})
