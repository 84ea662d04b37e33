"""The frame decoder, with any bytes in any pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from reconciler.guest.agent import GREETING, HEADER, MAGIC, MAX_FRAME, NONCE_SIZE, OVERSIZED, Decoder, Frame

IDENTITY = bytes(range(1, NONCE_SIZE + 1))
# Neither end sends a frame that holds the mark.
BYTES = st.binary(max_size=60).filter(lambda data: MAGIC not in data)
FRAMES = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), BYTES), max_size=8)
# Bytes in which headers and pieces of the mark come up.
RUBBISH = st.lists(
    st.one_of(BYTES, st.sampled_from([MAGIC, MAGIC[:7], MAGIC + IDENTITY, b"\0" * 10, b"\xff" * 10])),
    max_size=8,
).map(b"".join)


def pack(*frames: tuple[int, int, bytes]) -> bytes:
    return b"".join(HEADER.pack(len(payload), request, kind) + payload for request, kind, payload in frames)


def feed(decoder: Decoder, data: bytes, cuts: list[int]) -> list[Frame]:
    """Feed data in pieces that end at the cuts."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [frame for start, end in pairwise(edges) for frame in decoder.feed(data[start:end])]


CUTS = st.lists(st.integers(0, 400), max_size=10)


@given(FRAMES, CUTS)
def test_frames_come_out_as_they_went_in(frames: list[Frame], cuts: list[int]) -> None:
    found = feed(Decoder(MAGIC, NONCE_SIZE), MAGIC + IDENTITY + pack(*frames), cuts)
    assert found == [(0, GREETING, IDENTITY), *frames]


@given(BYTES, FRAMES, CUTS)
def test_nothing_counts_before_the_mark(rubbish: bytes, frames: list[Frame], cuts: list[int]) -> None:
    found = feed(Decoder(MAGIC, NONCE_SIZE), rubbish + MAGIC + IDENTITY + pack(*frames), cuts)
    assert found == [(0, GREETING, IDENTITY), *frames]


@given(FRAMES, st.integers(1, MAX_FRAME), FRAMES)
def test_half_a_frame_is_dropped_where_the_mark_comes_again(
    before: list[Frame], missing: int, after: list[Frame]
) -> None:
    half = HEADER.pack(min(MAX_FRAME, 5 + missing), 7, 1) + b"12345"
    decoder = Decoder(MAGIC, NONCE_SIZE)
    found = decoder.feed(MAGIC + IDENTITY + pack(*before) + half)
    assert found == [(0, GREETING, IDENTITY), *before]
    assert decoder.feed(MAGIC + IDENTITY + pack(*after)) == [(0, GREETING, IDENTITY), *after]


@given(st.integers(MAX_FRAME + 1, 2**32 - 1), BYTES)
def test_a_frame_that_is_too_long_ends_it_until_the_mark_comes_again(length: int, rest: bytes) -> None:
    decoder = Decoder(MAGIC, NONCE_SIZE)
    decoder.feed(MAGIC + IDENTITY)
    assert decoder.feed(HEADER.pack(length, 9, 1) + rest) == [(9, OVERSIZED, b"")]
    assert decoder.feed(pack((1, 1, b"unheard"))) == []
    assert decoder.feed(MAGIC + IDENTITY + pack((2, 1, b"heard"))) == [(0, GREETING, IDENTITY), (2, 1, b"heard")]


@given(RUBBISH, CUTS)
def test_no_bytes_do_harm(rubbish: bytes, cuts: list[int]) -> None:
    decoder = Decoder(MAGIC, NONCE_SIZE)
    found = feed(decoder, rubbish, cuts)
    assert all(kind in {GREETING, OVERSIZED} or kind < 2**16 for _, kind, _ in found)
    assert len(decoder._buffer) <= len(rubbish)
    assert decoder.feed(MAGIC + IDENTITY)[-1] == (0, GREETING, IDENTITY)


def test_it_holds_no_more_than_a_frame() -> None:
    decoder = Decoder(MAGIC, NONCE_SIZE)
    for _ in range(100):
        decoder.feed(b"x" * 65536)
        assert len(decoder._buffer) < len(MAGIC)
    decoder.feed(MAGIC + IDENTITY)
    for _ in range(100):
        decoder.feed(HEADER.pack(MAX_FRAME, 1, 1) + b"x" * 65536)
        assert len(decoder._buffer) <= MAX_FRAME + HEADER.size + 65536


def test_the_mark_cannot_lie_across_the_edge_of_a_frame() -> None:
    assert b"\0" not in MAGIC
    assert HEADER.pack(MAX_FRAME, 2**32 - 1, 2**16 - 1)[0] == 0
