"""Files as they are kept in the store: zlib, in chunks if they are large, found by the digest of their bytes."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator

# The largest value of one key. A larger file is kept in chunks, and a gate reads them one by one.
CHUNK = 512 << 10
# Files that a host asks for at once. Their digests have to fit into the line of a request.
AT_ONCE = 25
# What a file may have, unpacked: `manifest.files.MAX_BYTES`, and packed.
MAX_BYTES = 32 << 20
MAX_PACKED = 8 << 20


def digest(data: bytes) -> str:
    """Return the digest of a file: SHA-256 of its bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def pack(data: bytes) -> bytes:
    """Return the bytes of a file as they are stored and sent."""
    return zlib.compress(data, 6)


def unpack(packed: bytes, expected: str) -> bytes:
    """Return the bytes of a file. ValueError if they are not those of the digest, or more than MAX_BYTES."""
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(packed, MAX_BYTES + 1)
    except zlib.error:
        raise ValueError("is not packed as it should be") from None
    if len(data) > MAX_BYTES or not unpacking.eof or digest(data) != expected:
        raise ValueError("is not the file of its digest")
    return data


def chunks(packed: bytes) -> Iterator[bytes]:
    """Yield the values of the keys of a packed file, at least one."""
    yield packed[:CHUNK]
    for start in range(CHUNK, len(packed), CHUNK):
        yield packed[start : start + CHUNK]
