"""The digest of a manifest: by it, a watcher says which manifest a sandbox was last made like."""

from __future__ import annotations

from reconciler.manifest.load import Manifest


def digest(manifest: Manifest) -> str:
    """Return SHA-256 of a manifest in hexadecimal digits: of its file's text, its place in it, and its rules.

    It does not depend on where the file is, so it is the same on every host.
    """
    from hashlib import sha256

    found = sha256(f"{manifest.document}\n{len(manifest.text)}\n{manifest.text}".encode(errors="surrogatepass"))
    if manifest.rules:
        found.update(manifest.rules.text.encode(errors="surrogatepass"))
    return found.hexdigest()
