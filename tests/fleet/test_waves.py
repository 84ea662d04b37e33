"""What a rollout does next, and why; and random fleets, in which no two hosts ever have the same sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import RefusedError
from reconciler.fleet import keys
from reconciler.fleet.known import Known, read_known
from reconciler.fleet.leader import Leader
from reconciler.fleet.memory import Memory
from reconciler.fleet.proposal import Proposal, parse_waves, propose, waves
from reconciler.fleet.push import Terms, push, pushing
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
from reconciler.fleet.store import Changes, Put
from reconciler.fleet.waves import Picture, Step, step
from reconciler.safety import Allowance
from reconciler.values import replace
from tests.fleet.site import played

NAMES = "abcd"
ANY_HOST = (
    "waiting for 1 host (a), which no gate is connected with; `reconciler fleet pause HOST` lets the rollout go on "
    "without a host"
)


def picture(**changes: object) -> Picture:
    """Return what is known of four hosts, of which the first has reached release 2, and is the first wave."""
    plans = {each: Plan("2-x", "c", {f"{each}0": "new"}, {}, {}, (f"{each}0",)) for each in NAMES}
    made = Picture(
        release=Release("2-x", "c", "me", "fp", 1.0, dict.fromkeys(NAMES, "2-x"), (("a",), ("b", "c"), ("d",))),
        rollout=Rollout("2-x", 0, RolloutState.ROLLING, 1, 0.0, 100.0),
        plans=plans,
        desired={each: Desired("2-x" if each == "a" else "1-x", "c") for each in NAMES},
        statuses={each: HostStatus("2-x" if each == "a" else "1-x", reached=True) for each in NAMES},
        alive=set(NAMES),
        hosts=dict.fromkeys(NAMES, HostRecord()),
        now=200.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def moved(before: Picture) -> Picture:
    """Return what is known once the next step is carried out."""
    made = step(before)
    return replace(before, rollout=made.rollout, desired={**before.desired, **made.tell})


def test_a_wave_that_is_through_is_followed_by_the_next() -> None:
    first = step(picture())
    assert first == Step({}, replace(picture().rollout, wave=1, since=200.0))
    second = step(picture(rollout=first.rollout))
    assert second.tell.keys() == {"b", "c"}
    assert second.rollout == first.rollout
    assert second.tell["b"] == Desired("2-x", "c", {"b0": "new"}, {})


def test_a_wave_is_watched_before_the_next_one_begins() -> None:
    rollout = replace(picture().rollout, bake=60.0)
    baking = step(picture(rollout=rollout)).rollout
    assert (baking.state, baking.wave, baking.since) == (RolloutState.BAKING, 0, 200.0)
    assert step(picture(rollout=baking, now=259.0)) == Step({}, baking)
    assert step(picture(rollout=baking, now=260.0)).rollout.wave == 1
    # A clock that was set back.
    assert step(picture(rollout=baking, now=10.0)).rollout.wave == 1
    failed = {**picture().statuses, "a": HostStatus("2-x", True, {}, (Unusual("a0", "failed", "why"),))}
    assert step(picture(rollout=baking, now=230.0, statuses=failed)).rollout.state == RolloutState.STOPPED


@pytest.mark.parametrize("state", ["failed", "refused", "fighting", "outdated", "unwatched"])
def test_a_host_that_fails_stops_it(state: str) -> None:
    statuses = {**picture().statuses, "a": HostStatus("2-x", True, {}, (Unusual("a0", state),))}
    stopped = step(picture(statuses=statuses)).rollout
    assert (stopped.state, stopped.reason) == (
        RolloutState.STOPPED,
        "1 host (a) failed; look with `reconciler fleet status`",
    )
    assert step(picture(statuses=statuses, rollout=stopped)) == Step({}, stopped)
    # With more patience, it goes on; one that an older release has broken does not count.
    patient = replace(picture().rollout, stop_after=2)
    others = {"a": HostStatus("2-x", True, {}, (Unusual("a0", state),))}
    assert step(picture(statuses={**statuses, **others}, rollout=patient)).rollout.wave == 1
    other = {**picture().statuses, "a": HostStatus("2-x", True, {}, (Unusual("a9", state),))}
    assert step(picture(statuses=other)).rollout.wave == 1


@pytest.mark.parametrize(
    ("when", "stops"), [(200.0, False), (195.5, False), (195.0, True), (204.0, False), (900.0, True)]
)
def test_a_failure_that_does_not_last_stops_nothing(when: float, stops: bool) -> None:
    failing = HostStatus("2-x", True, {}, (Unusual("a0", "failed"),), when=when)
    made = step(picture(statuses={**picture().statuses, "a": failing}))
    assert made.tell == {}
    assert (made.rollout.state == RolloutState.STOPPED, made.rollout.wave) == (stops, 0)
    assert stops or made.rollout.reason == "waiting for 1 host (a)"
    # The next look has succeeded.
    assert step(picture(statuses={**picture().statuses, "a": HostStatus("2-x", True, when=200.0)})).rollout.wave == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"statuses": {"a": HostStatus("2-x", reached=False)}}, "waiting for 1 host (a)"),
        ({"statuses": {"a": HostStatus("1-x", reached=True)}}, "waiting for 1 host (a)"),
        ({"statuses": {}}, "waiting for 1 host (a)"),
        (
            {"alive": set("bcd")},
            ANY_HOST,
        ),
        (
            {"alive": set("bcd"), "rollout": replace(picture().rollout, stop_after=3)},
            "waiting for any host of wave 1: no gate is connected with 1 host (a)",
        ),
    ],
)
def test_a_wave_that_is_not_through_has_a_reason(changes: Mapping[str, object], reason: str) -> None:
    made = step(picture(**changes))
    assert made.tell == {}
    assert (made.rollout.wave, made.rollout.state, made.rollout.reason) == (0, RolloutState.ROLLING, reason)


@pytest.mark.parametrize("record", [HostRecord(paused=True), HostRecord(fenced=True), None])
def test_a_host_that_takes_no_part_is_neither_told_nor_waited_for(record: HostRecord | None) -> None:
    hosts = {name: each for name in NAMES if (each := record if name in "ab" else HostRecord()) is not None}
    before = picture(hosts=hosts, statuses={})
    assert moved(before).rollout.wave == 1
    assert step(moved(before)).tell.keys() == {"c"}


def test_the_last_wave_is_followed_by_the_end_and_a_host_that_is_resumed_is_told() -> None:
    done = {each: HostStatus("2-x", reached=True) for each in NAMES}
    desired = {each: Desired("2-x", "c") for each in NAMES}
    rollout = replace(picture().rollout, wave=2, bake=60.0)
    end = step(picture(rollout=rollout, statuses=done, desired=desired)).rollout
    assert (end.state, end.reason) == (RolloutState.DONE, "")
    late = picture(rollout=end, statuses=done, desired={**desired, "b": Desired("1-x", "c")})
    assert step(late).tell.keys() == {"b"}


@pytest.mark.parametrize("state", [RolloutState.PAUSED, RolloutState.STOPPED])
def test_nothing_is_told_while_it_is_paused(state: RolloutState) -> None:
    rollout = replace(picture().rollout, state=state, wave=2)
    assert step(picture(rollout=rollout)) == Step({}, rollout)


def test_a_sandbox_that_moves_is_told_once_its_host_has_given_it_up() -> None:
    plans = {
        "a": Plan("2-x", "c", {}, {}),
        "b": Plan(
            "2-x",
            "c",
            {"x": "1", "b0": "2"},
            {"x.yaml": "f", "b.yaml": "g"},
            {"x": "x.yaml", "b0": "b.yaml"},
            awaited={"x": "a"},
        ),
    }
    release = Release("2-x", "c", "me", "fp", 1.0, {"a": "2-x", "b": "2-x"}, (("a", "b"),))
    had = {"a": Desired("1-x", "c", {"x": "1"}), "b": Desired("1-x", "c", {"b0": "1"})}
    first = picture(plans=plans, release=release, desired=had)
    told = step(first).tell
    assert told["a"] == Desired("2-x", "c")
    partly = Desired("2-x.1", "c", {"b0": "2"}, {"b.yaml": "g"}, {"x": "a"})
    assert told["b"] == partly
    # The new host has done all that it may, the old one has not answered; nobody is told anything.
    waiting = picture(plans=plans, release=release, desired=told, statuses={"b": HostStatus("2-x.1", reached=True)})
    assert step(waiting).tell == {}
    assert step(waiting).rollout.reason == "waiting for a to give up x, which moves to b"
    silent = replace(waiting, alive={"b"})
    assert step(silent).tell == {}
    whole = Desired("2-x", "c", {"x": "1", "b0": "2"}, {"x.yaml": "f", "b.yaml": "g"})
    for changes in (
        {"statuses": {**waiting.statuses, "a": HostStatus("2-x", reached=True)}},
        {"hosts": {**waiting.hosts, "a": HostRecord(fenced=True)}},
        {"hosts": {"b": HostRecord()}},
    ):
        assert step(replace(waiting, **changes)).tell == {"b": whole}
    unready = {"a": HostStatus("2-x", reached=False), "b": HostStatus("2-x.1", reached=True)}
    assert step(replace(waiting, statuses=unready)).tell == {}


def _proposal(told: str, awaited: Mapping[str, str]) -> Proposal:
    plans = {each: Plan("", "c", awaited={"x": awaited[each]} if each in awaited else {}) for each in told}
    return Proposal("", "c", plans, list(told), [], "")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ("1,5%,25%,100%", ["a", "bcde", "fghijklmnopqrst"]),
        ("100%", ["abcdefghijklmnopqrst"]),
        ("2", ["ab", "cdefghijklmnopqrst"]),
        ("50%,1,999", ["abcdefghij", "klmnopqrst"]),
    ],
)
def test_waves_have_as_many_hosts_as_is_said(sizes: str, expected: list[str]) -> None:
    found = waves(_proposal("abcdefghijklmnopqrst", {}), parse_waves(sizes))
    assert ["".join(each) for each in found] == expected


def test_hosts_that_exchange_sandboxes_are_in_one_wave() -> None:
    found = waves(_proposal("abcdef", {"a": "e", "c": "a", "d": "z"}), ("1", "100%"))
    assert ["".join(each) for each in found] == ["ace", "bdf"]


@pytest.mark.parametrize("text", ["", "0", "101%", "1,", "5 %", "all", "-1", "1;2"])
def test_what_is_no_list_of_waves_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a list of waves such as"):
        parse_waves(text)


# Where each of some sandboxes is, and which text it has, after each of some pushes.
_PLACES = st.dictionaries(st.sampled_from("uvwxyz"), st.tuples(st.sampled_from(NAMES), st.integers(0, 2)), min_size=1)


@given(st.lists(_PLACES, min_size=1, max_size=6), st.sampled_from(["1,100%", "100%", "1,2,3"]))
def test_whatever_moves_where_no_two_hosts_have_a_sandbox_and_all_get_there(
    states: list[dict[str, tuple[str, int]]], sizes: str
) -> None:
    asyncio.run(_roll_out(states, parse_waves(sizes)))


async def _roll_out(states: list[dict[str, tuple[str, int]]], sizes: tuple[str, ...]) -> None:
    store = Memory()
    await store.commit([Put(keys.host(each), encode(HostRecord())) for each in NAMES])
    leading = asyncio.ensure_future(Leader(store, "leader", lambda _: None).run())
    try:
        # The player fails if it is told a sandbox that another host has.
        async with played(store, NAMES, delay=0.003) as hosts:
            for state in states:
                # The next push may come while this one is under way.
                await _push(store, state, sizes)
            wanted = states[-1]
            async with asyncio.timeout(60), aclosing(store.follow(keys.ROLLOUT)) as following:
                async for changes in following:
                    if _is_done(changes):
                        break
            assert {name: host for host, held in hosts.holding.items() for name in held} == {
                name: host for name, (host, _) in wanted.items()
            }
    finally:
        leading.cancel()
        await asyncio.wait({leading})


def _is_done(changes: Changes) -> bool:
    """Return whether changes of the rollout say that it is done."""
    pairs = [each.pair for each in changes.events if each.pair]
    return bool(pairs) and decode(Rollout, pairs[-1].value).state == RolloutState.DONE


async def _push(store: Memory, state: Mapping[str, tuple[str, int]], sizes: tuple[str, ...]) -> None:
    wanted = {
        host: Plan(
            "",
            "c",
            {name: str(text) for name, (at, text) in sorted(state.items()) if at == host},
            {f"{name}.yaml": str(text) for name, (at, text) in sorted(state.items()) if at == host},
            {name: f"{name}.yaml" for name, (at, _) in sorted(state.items()) if at == host},
        )
        for host in NAMES
    }

    def proposing(known: Known) -> Proposal:
        return propose(known, wanted, "c", Allowance())

    async with pushing(store, "me") as mine:
        await push(store, mine, proposing, {}, Terms(sizes, 0.0, 1, "me"))
    known = await read_known(store)
    assert {host: plan.sandboxes for host, plan in known.plans.items()} == {
        host: plan.sandboxes for host, plan in wanted.items()
    }
    with suppress(RefusedError):
        assert propose(known, wanted, "c", None).plans == known.plans
