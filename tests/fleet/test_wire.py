"""The codec, also with bytes that no etcd sends."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import ProtocolError
from reconciler.fleet.etcd import messages, wire
from reconciler.fleet.etcd.wire import Message
from reconciler.fleet.store import Pair


@given(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=300), st.integers(1, 2**29 - 1))
def test_what_is_encoded_is_read_back(number: int, data: bytes, field: int) -> None:
    received = Message(wire.number(field, number) + wire.message(1 if field > 1 else 2, data))
    assert received.number(field) == number
    assert received.all(1 if field > 1 else 2) == [data]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_an_error_of_the_protocol(data: bytes) -> None:
    for read in (messages.read_answer, messages.transaction_answer, messages.keep_answer, messages.watch_answer):
        with suppress(ProtocolError):
            read(data)


def test_fields_that_a_later_etcd_adds_are_skipped() -> None:
    # Field 100 with 8 bytes, field 101 with 4, field 102 with bytes.
    later = bytes([0xA1, 6, *range(8), 0xAD, 6, *range(4)]) + wire.message(102, b"x")
    pair = wire.data(1, b"/a") + later + wire.data(5, b"value") + wire.number(2, 3) + wire.number(3, 4)
    found = messages.read_answer(later + wire.message(2, pair) + wire.message(1, wire.number(3, 9)))
    assert found == (messages.Header(0, 9), (Pair("/a", b"value", 3, 4),), False)


@pytest.mark.parametrize("data", [b"\x08", b"\x08" + b"\xff" * 11, b"\x0a\x05abc", b"\x0b", b"\x09abc"])
def test_what_ends_too_early_or_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="etcd sent a message"):
        Message(data)
