"""The mark in a device's alias says what it was on the host, and is told from any other alias."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.model.interface import ALIAS_MAX, Origin
from reconciler.values import replace

no_deadline = settings(deadline=None)

ORIGIN = Origin(device="tap-test", hw_addr="02:42:20:6f:a3:69", mtu=1500)
MARK = "reconciler: device=tap-test hwaddr=02:42:20:6f:a3:69 mtu=1500"

# linux/netdevice.h, dev_valid_name: no white space, no slash, no colon; at most 15 bytes.
NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="/:"), min_size=1, max_size=15)
ALIASES = st.text(max_size=ALIAS_MAX) | st.text(alphabet="é東🌐", min_size=40, max_size=ALIAS_MAX)


@st.composite
def origins(draw: st.DrawFn) -> Origin:
    return Origin(
        device=draw(NAMES),
        hw_addr=draw(st.just(b"") | st.binary(min_size=6, max_size=6)).hex(":"),
        mtu=draw(st.integers(46, 65535)),
        alias=draw(ALIASES),
    )


@no_deadline
@given(origins())
def test_it_is_read_as_it_was_written(origin: Origin) -> None:
    alias = origin.to_alias()
    assert len(alias.encode()) <= ALIAS_MAX
    read = Origin.from_alias(alias)
    assert read == replace(origin, alias=read.alias if read else "")
    assert read is not None
    assert origin.alias.startswith(read.alias)


@no_deadline
@given(origins())
def test_no_more_is_cut_off_than_must_be(origin: Origin) -> None:
    whole = f"{replace(origin, alias='').to_alias()} alias={origin.alias}" if origin.alias else origin.to_alias()
    alias = origin.to_alias()
    assert whole.startswith(alias)
    # A letter has at most 4 bytes.
    assert alias == whole or len(alias.encode()) > ALIAS_MAX - 4


@no_deadline
@given(origins())
def test_the_longest_mark_itself_fits(origin: Origin) -> None:
    bare = replace(origin, device="d" * 15, mtu=65535, alias="")
    assert Origin.from_alias(bare.to_alias()) == bare


@pytest.mark.parametrize(
    ("origin", "alias"),
    [
        (ORIGIN, MARK),
        (replace(ORIGIN, hw_addr=""), "reconciler: device=tap-test mtu=1500"),
        (replace(ORIGIN, alias="uplink of web-1"), f"{MARK} alias=uplink of web-1"),
        (replace(ORIGIN, alias=" alias=\nmtu=1"), f"{MARK} alias= alias=\nmtu=1"),
        (replace(ORIGIN, alias=MARK), f"{MARK} alias={MARK}"),
    ],
)
def test_how_it_looks(origin: Origin, alias: str) -> None:
    assert (origin.to_alias(), Origin.from_alias(alias)) == (alias, origin)


def test_a_letter_is_not_cut_in_two() -> None:
    room = ALIAS_MAX - len(f"{MARK} alias=")
    assert replace(ORIGIN, alias="a" * (room - 1) + "é").to_alias() == f"{MARK} alias={'a' * (room - 1)}"
    assert replace(ORIGIN, alias="a" * (room - 2) + "é").to_alias() == f"{MARK} alias={'a' * (room - 2)}é"


@no_deadline
@given(st.text())
@example("")
@example("reconciler")
@example("reconciler: device=tap-test")
@example(MARK.replace("reconciler", "Reconciler"))
@example(f" {MARK}")
@example(f"{MARK} ")
@example(f"{MARK}\n")
@example(f"{MARK} altered")
@example(MARK.replace("tap-test", ""))
@example(MARK.replace("tap-test", "tap-0123456789012"))
@example(MARK.replace("02:42:20:6f:a3:69", "02:42:20:6F:A3:69"))
@example(MARK.replace("1500", "-1"))
@example(MARK.replace("1500", "100000"))
@example(MARK.replace("1500", ""))
def test_any_other_alias_is_not_ours(alias: str) -> None:
    assert Origin.from_alias(alias) is None
