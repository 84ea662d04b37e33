import json
from typing import Any

import pytest

from reconciler.fleet.records import (
    Desired,
    HostRecord,
    HostStatus,
    Plan,
    Release,
    Rollout,
    RolloutState,
    Unusual,
    decode,
    encode,
)

RECORDS = [
    Plan("3-ab", "12ca3cc", {"web-1": "d1"}, {"a.yaml": "f1"}, {"web-1": "a.yaml"}, ("web-1",), {"web-1": "b"}),
    Desired("3-ab", "12ca3cc", {"web-1": "d1"}, {"web-1.yaml": "f1"}, {"web-2": "b"}),
    Release("3-ab", "12ca3cc", "root", "41de-7f3a-91c2", 5.5, {"a": "2-cd"}, (("a",), ("b", "c")), ("root1",), "1-ef"),
    Rollout("3-ab", 1, RolloutState.BAKING, 2, 600.0, 5.5, "words", ("2-cd",)),
    HostStatus("3-ab", True, {"failed": 1}, (Unusual("web-1", "failed", "\ud800 \x1b"),), ("disk full",), 5.5),
    HostRecord("ab" * 32, {"zone": "é"}, True, True),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda each: type(each).__name__)
def test_a_record_is_read_as_it_was_written(record: Any) -> None:
    assert decode(type(record), encode(record)) == record


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"release": "1", "reached": 1}',
        b'{"release": 1, "reached": true}',
        b'{"release": "1", "reached": true, "when": NaN}',
        b'{"release": "1", "reached": true, "when": 1e999}',
        b'{"release": "1", "reached": true, "when": 1' + b"0" * 400 + b"}",
        b'{"release": "1", "reached": true, "counts": {"failed": true}}',
        b'{"release": "1", "reached": true, "counts": []}',
        b'{"release": "1", "reached": true, "unusual": [{"sandbox": "a"}]}',
        b'{"release": "1", "reached": true, "unusual": ["a"]}',
        b'{"release": "1", "reached": true, "alarms": "a"}',
        b"[" * 100_000,
    ],
)
def test_what_is_not_exactly_of_the_form_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(HostStatus, data)


def test_a_newer_version_may_add_fields_and_an_older_one_may_lack_them() -> None:
    data = json.dumps({"release": "1", "reached": True, "tomorrow": [1]}).encode()
    assert decode(HostStatus, data) == HostStatus("1", reached=True)
