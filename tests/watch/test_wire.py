"""What two processes of the watch say to each other arrives as it was said, and nothing else arrives."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from reconciler.manifest.load import load
from reconciler.model.policy import DEFAULTS
from reconciler.operations.listing import PlanLine
from reconciler.watch.machines import wire
from reconciler.watch.machines.messages import (
    REPORTS,
    Alive,
    Allow,
    Ask,
    Begin,
    Claim,
    Done,
    Ended,
    Found,
    Report,
    Setup,
    Unstarted,
    Wish,
)
from reconciler.watch.meter import Failed, Looked, Repaired
from reconciler.watch.outstanding import Outstanding
from reconciler.watch.revision import Revision
from reconciler.watch.settings import Settings
from reconciler.watch.state import SandboxState
from reconciler.watch.traffic import Drain, Traffic

FOUND = Found(
    7,
    2,
    True,
    "undone: why",
    "vm a",
    "näme\udcff.yaml",
    Revision("abc", "def"),
    SandboxState.DRAINING,
    1.5,
    2.0,
    3.25,
    "why\n\u202e",
    4,
    ("ip route add a", "b"),
    5,
    (1.0, 2.0),
    0.0,
    0.1,
    0.0,
    Traffic("IP Virtual\n", 8.0, (Drain("tcp 10.0.0.1:80", "10.0.0.2:80", 3, 1e9),)),
    Outstanding(9.0, (PlanLine("+", "  + ip", ""),), 3),
    60.5,
    "9f86",
    "60aa",
)
SAID: list[Report] = [
    FOUND,
    FOUND._replace(traffic=None, outstanding=None, drifts=(), fights=()),
    Done(1, succeeded=False),
    Unstarted(1, "can't start new thread"),
    Ended(2**40),
    Alive(""),
    Looked("vm", full=True, succeeded=False, seconds=0.5),
    Repaired("kata", "drift", 1.0, 3),
    Failed("protocol"),
]


def heard(data: bytes) -> list[Any]:
    return list(wire.reports(io.BytesIO(data), REPORTS))


def test_each_report_arrives() -> None:
    assert {type(each) for each in SAID} == set(REPORTS)
    found = heard(b"".join(map(wire.pack_report, SAID)))
    assert found == SAID
    assert [type(each) for each in found] == [type(each) for each in SAID]
    assert type(found[0].state) is SandboxState
    assert type(found[0].traffic.drains[0]) is Drain


def test_what_is_cut_off_is_nothing() -> None:
    whole = wire.pack_report(FOUND)
    assert all(heard(whole[:end]) == [] for end in range(len(whole)))


def _changed(value: Any, chance: random.Random) -> Any:
    """Return plain data of which one part has another type."""
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], _changed(value[at], chance), *value[at + 1 :]]
    others: list[Any] = [None, True, 1, 1.5, "x", [], {}, [1], {"a": 1}, ["x", [None]], 10**400]
    return chance.choice([each for each in others if type(each) is not type(value)])


def test_nothing_else_arrives() -> None:
    chance = random.Random(17)
    refused = 0
    for each in SAID * 100:
        name, *fields = json.loads(wire.pack_report(each)[4:])
        at = chance.randrange(len(fields))
        fields[at] = _changed(fields[at], chance)
        body = json.dumps([name, *fields])
        try:
            (found,) = heard(len(body).to_bytes(4, "big") + body.encode())
        except (ValueError, OverflowError):
            refused += 1
            continue
        # Whatever arrives is what would have been said so.
        assert heard(wire.pack_report(found)) == [found]
        check(found)
    assert refused > 700


def check(found: Report) -> None:
    """Fail if a field has another type than in SAID; some there may be None."""
    like = next(each for each in SAID if type(each) is type(found))
    for name, value, known in zip(found._fields, found, like, strict=True):
        assert type(value) is type(known) or (value is None and name in {"traffic", "outstanding"}), found


@pytest.mark.parametrize(
    "body", [b"", b"7", b"[]", b"{}", b'["Setup"]', b'["Found"]', b'[["Done"],1,true]', b"[" * 100000]
)
def test_no_report_at_all(body: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        heard(len(body).to_bytes(4, "big") + body)


def test_a_report_that_is_too_long_is_not_read() -> None:
    with pytest.raises(ValueError, match="4,294,967,295 bytes"):
        heard(b"\xff" * 100)


def test_orders_arrive() -> None:
    manifests = load(
        [
            str(path)
            for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
            if "sandbox:" in path.read_text()
        ]
    )
    said = [
        Setup(Settings(1.0, 2.0), DEFAULTS, "json", "info", measured=True),
        *(Begin(number, 1, each, Revision("a", "b")) for number, each in enumerate(manifests)),
        Allow(DEFAULTS),
        Ask(1, Wish.RELOAD),
        Claim(frozenset({"a"})),
    ]
    assert len(said) > 10
    assert list(wire.orders(io.BytesIO(b"".join(map(wire.pack, said))))) == said
