"""Times as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.wording import seconds, suggest


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1s", 1.0),
        ("0.5s", 0.5),
        ("90s", 90.0),
        ("15min", 900.0),
        ("1.5h", 5400.0),
        ("1h", 3600.0),
        ("2d", 172800.0),
        ("007s", 7.0),
        ("0.001s", 0.001),
        ("999999.999d", 999999.999 * 86400),
    ],
)
def test_a_time_is_a_number_and_its_unit(text: str, number: float) -> None:
    assert seconds(text) == number


def test_many_names_are_not_listed() -> None:
    assert suggest("xyz", ["abc", "def"]) == "expected one of: abc, def"
    assert suggest("xyz", map(str, range(41)), listed_by="") == "expected one of 41 names"
    assert suggest("xyz", map(str, range(41))) == "expected one of 41 names; `reconciler explain` has them"


@pytest.mark.parametrize(
    "text",
    [
        *["", "s", "90", "90 s", " 90s", "90s ", "90s\n", "90S", "90sec", "1m", "1H", "1w", "-1s", "+1s", "1e3s"],
        *[".5s", "1.s", "1,5h", "1h30min", "infs", "nans", "0s", "0.000d", "0.0001s", "1234567s", "٣s"],
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time such as") as raised:
        seconds(text)
    assert str(raised.value) == f'"{text}" is not a time such as 90s, 15min, 1h or 2d'


@given(number=st.integers(1, 999_999), unit=st.sampled_from([("s", 1), ("min", 60), ("h", 3600), ("d", 86400)]))
def test_any_whole_number_of_any_unit(number: int, unit: tuple[str, int]) -> None:
    assert seconds(f"{number}{unit[0]}") == number * unit[1]
