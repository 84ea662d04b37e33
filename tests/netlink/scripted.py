"""A channel that answers from a script: for tests of what is made of answers, not of what a kernel answers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from socket import AF_INET6

from reconciler.netlink import message
from reconciler.netlink.message import Message

Answer = Callable[[list[Message]], list[Message]]


@dataclass
class ScriptedChannel:
    """Gives each exchange the next answer of the script, and keeps what was asked. A script that ends is an error."""

    script: Iterable[Answer]
    asked: list[list[Message]] = field(default_factory=list)
    _answers: Iterator[Answer] = field(init=False)

    def __post_init__(self) -> None:
        self._answers = iter(self.script)

    def exchange(self, requests: bytes, last: int) -> list[Message]:
        asked = message.messages(requests)
        assert asked[-1].sequence == last
        self.asked.append(asked)
        return next(self._answers)(asked)

    def exchanges(self, batches: Iterable[tuple[bytes, int]]) -> Iterator[list[Message]]:
        return (self.exchange(requests, last) for requests, last in batches)

    def dumps(self, requests: Sequence[bytes]) -> list[Message]:
        return [answer for each in requests for answer in self.exchange(each, message.sequence_of(each))]

    def close(self) -> None:
        """Nothing is held."""

    @property
    def sequences(self) -> list[list[int]]:
        """The sequence numbers of what was asked."""
        return [[request.sequence for request in requests] for requests in self.asked]


def dump(kind: int, *payloads: bytes, interrupted: int | None = None, status: int = 0) -> Answer:
    """Answer a dump: a message for each payload, then DONE with a status; the one at `interrupted` says so."""

    def answer(asked: list[Message]) -> list[Message]:
        parts = [(kind, payload) for payload in payloads] + [(message.DONE, struct.pack("=i", status))]
        flags = [message.DUMP_INTERRUPTED if index == interrupted else 0 for index in range(len(parts))]
        return [
            Message(type=type_, flags=2 | flag, sequence=asked[-1].sequence, payload=payload)
            for (type_, payload), flag in zip(parts, flags, strict=True)
        ]

    return answer


def error(asked: Message, code: int, text: str = "") -> Message:
    """Answer one request with an error; 0 is an acknowledgement."""
    header = struct.pack("=IHHII", 16, asked.type, asked.flags, asked.sequence, 0)
    words = message.attribute(1, text.encode() + b"\0") if text else b""
    flags = 0x100 | (0x200 if text else 0)
    return Message(
        type=message.ERROR, flags=flags, sequence=asked.sequence, payload=struct.pack("=i", -code) + header + words
    )


def acknowledge(asked: list[Message]) -> list[Message]:
    """Answer that all went well: one acknowledgement, of the last."""
    return [error(asked[-1], 0)]


def refuse(**refusals: tuple[int, str]) -> Answer:
    """Answer with an error for some requests, named `at3`.

    The last request is acknowledged unless it is one of them.
    """

    def answer(asked: list[Message]) -> list[Message]:
        places = {int(place.removeprefix("at")): why for place, why in refusals.items()}
        answers = [error(asked[index], *why) for index, why in places.items()]
        return answers if len(asked) - 1 in places else [*answers, error(asked[-1], 0)]

    return answer


def link(index: int, name: str) -> bytes:
    """The payload of a link."""
    return struct.pack("=BxHiII", 0, 1, index, 1, 0) + message.attribute(3, name.encode() + b"\0")


def ipv6_address(index: int, packed: bytes, flags: int) -> bytes:
    """The payload of an address of 64 bits of prefix, with flags of linux/if_addr.h."""
    head = struct.pack("=BBBBI", AF_INET6, 64, flags & 0xFF, 0, index)
    return head + message.attribute(1, packed) + message.attribute(8, struct.pack("=I", flags))
