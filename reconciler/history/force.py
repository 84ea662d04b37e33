"""Which manifest is in force: it has a line with its text as data, from which `diff --since` knows what it said then.

The last of these lines goes along when a file of the history is full: however much else happens, it stays.
"""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from reconciler.errors import ReconcilerError
from reconciler.history import folder as files
from reconciler.history.lines import IN_FORCE
from reconciler.history.scribe import Scribe

if TYPE_CHECKING:
    from reconciler.manifest.load import Manifest

# Bytes of a manifest as data, more than which is left out.
LONGEST_MANIFEST = 48 << 10
_MARK = b'"event":"%b"' % IN_FORCE.encode()


def take_effect(scribe: Scribe, manifest: Manifest) -> None:
    """Record that a manifest is in force, unless that was recorded last."""
    text = _identity(manifest)
    if b'"text":"%b"' % text.encode() in last(manifest.sandbox.id):
        return
    scribe.tell(IN_FORCE, **effect(scribe, manifest))


def effect(scribe: Scribe, manifest: Manifest) -> dict[str, Any]:
    """Return what is recorded about a manifest when it takes effect."""
    data = _data(manifest)
    content = {"size": len(data)} if isinstance(data, str) else {"manifest": data}
    return {"text": _identity(manifest), **scribe.occasion()._asdict(), **content}


def last(sandbox: str) -> bytes:
    """Return the last line of a manifest in force; empty if there is none, or it cannot be read."""
    with suppress(OSError, ReconcilerError), files.opened() as folder:
        for end in (files.CURRENT, files.BEFORE):
            if found := last_in(sandbox + end, folder):
                return found
    return b""


def last_in(name: str, folder: int) -> bytes:
    """Return the last such line of a file; empty if there is none. OSError or HostError if it cannot be read."""
    with suppress(FileNotFoundError):
        descriptor = files.open_file(name, os.O_RDONLY, folder)
        try:
            # The buffer of a read is as large as what is asked for.
            data = os.pread(descriptor, min(os.fstat(descriptor).st_size, 2 * files.FILE), 0)
        finally:
            os.close(descriptor)
        if (at := data.rfind(_MARK)) >= 0:
            return data[data.rfind(b"\n", 0, at) + 1 :].partition(b"\n")[0]
    return b""


def _identity(manifest: Manifest) -> str:
    """Return a hash of what the manifest was read from."""
    rules = manifest.rules.text if manifest.rules else ""
    return sha256("\0".join((str(manifest.document), manifest.text, rules)).encode(errors="replace")).hexdigest()[:16]


def _data(manifest: Manifest) -> dict[str, Any] | str:
    """Return the manifest as data; its JSON, if that is too long to be recorded."""
    import json

    from reconciler.manifest.sandbox import write

    if len(manifest.text) + len(manifest.rules.text if manifest.rules else "") > 8 * LONGEST_MANIFEST:
        return manifest.text
    data = write(manifest.sandbox)
    text = json.dumps(data, separators=(",", ":"), default=str)
    return text if len(text) > LONGEST_MANIFEST else data
