"""How a peer lies: what becomes of an answer in JSON, and of frames with netlink messages in them."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

from reconciler.guest.agent import Frame
from tests.fuzz.recording import packed

_JUNK: list[Any] = [
    *(None, True, False, 0, -1, 1, 31, 32, 255, 65536, 2**31, 2**63, 10**400, 1.5, float("inf")),
    *(
        "",
        "x",
        "x" * 5000,
        "\ud800",
        "a b",
        "\x1b[31m",
        "child<virtio-net-pci>",
        "02:00:00:00:00:01",
        "02:00:00:00:00:0g",
    ),
    *("../../../etc/passwd", "reconciler-", "reconciler-../x", "reconciler-" + "y" * 16),
    *([], {}, [[]], [{}], [None] * 300, {"name": 1}, {"path": None}, {"devices": 7}),
]
_LENGTHS = (0, 1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 4096, 65535)


def lie(answer: Any, random: Random) -> Any:
    """Return an answer in which one value is another one, is missing, or comes many times."""
    places = list(_places(answer))
    if not places:
        return random.choice(_JUNK)
    holder, key = random.choice(places)
    match random.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder[key:key] = [holder[key]] * random.choice([1, 2, 2000])
        case 2:
            holder[key] = [holder[key]]
        case 3:
            other, at = random.choice(places)
            holder[key] = other[at] if other is not holder else random.choice(_JUNK)
        case _:
            holder[key] = random.choice(_JUNK)
    return answer


def _places(value: Any) -> Any:
    """Yield each place in a value: (list or object, index or name)."""
    if isinstance(value, (list, dict)):
        keys = range(len(value)) if isinstance(value, list) else list(value)
        for key in keys:
            yield value, key
            yield from _places(value[key])


def distort(frames: list[Frame], random: Random) -> bytes:
    """Return the bytes of frames in which something is wrong: in a message, in a frame, or between them."""
    if not frames:
        return b""
    number = random.randrange(len(frames))
    frame = frames[number]
    match random.randrange(8):
        case 0 | 1 | 2:
            frames[number] = frame._replace(payload=_swell(frame.payload, random))
        case 3:
            frames[number] = frame._replace(payload=_flip(frame.payload, random))
        case 4:
            frames[number] = frame._replace(kind=random.randrange(30, 42))
        case 5:
            frames[number:number] = [frame] * random.choice([1, 3, 200])
        case 6:
            return _flip(packed(frames), random)
        case _:
            data = packed(frames)
            return data[: random.randrange(len(data))]
    return packed(frames)


def _flip(data: bytes, random: Random) -> bytes:
    if not data:
        return b"\0"
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 8])):
        changed[random.randrange(len(changed))] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
    return bytes(changed)


def _swell(payload: bytes, random: Random) -> bytes:
    """Replace an attribute of a netlink message by one of another kind or length, with all lengths right."""
    if len(payload) < 24:
        return _flip(payload, random)
    messages, at = [], 0
    while at + 16 <= len(payload):
        (length,) = struct.unpack_from("=I", payload, at)
        if not 16 <= length <= len(payload) - at:
            break
        messages.append(payload[at : at + length])
        at += (length + 3) & ~3
    if not messages:
        return _flip(payload, random)
    number = random.randrange(len(messages))
    messages[number] = _with_attribute(messages[number], random)
    return b"".join(each + b"\0" * (-len(each) & 3) for each in messages)


def _with_attribute(message: bytes, random: Random) -> bytes:
    value = random.choice([b"\xff", b"a", b"\0", b"\x1b[", b"\xc3\x28"]) * random.choice(_LENGTHS)
    value = value[:65000]
    kind = random.choice([random.randrange(1, 64), random.randrange(65536)])
    attribute = struct.pack("=HH", 4 + len(value), kind) + value
    body = message[16:] + b"\0" * (-len(message) & 3) + attribute
    return struct.pack("=I", 16 + len(body)) + message[4:16] + body
