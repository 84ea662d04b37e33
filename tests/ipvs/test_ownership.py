"""What is ours is marked in the kernel; the rest stays, as does what an edit or the manifest leaves to others."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ipvs.conftest import TOLD
from tests.ipvs.place import Kata, TablePlace

Data = dict[str, Any]

WEB: Data = {
    "tcp": "10.1.0.1:80",
    "scheduler": "rr",
    "servers": [{"address": "10.9.9.1:8080"}, {"address": "10.9.9.2:8080"}],
}
DNS: Data = {"udp": "10.1.0.1:53", "servers": [{"address": "10.9.9.1"}]}
MARK: Data = {"fwmark": 7, "family": "ipv6", "servers": [{"address": "fd00:9::1"}]}
OURS = [
    "-A -t 10.1.0.1:80 -s rr",
    "-a -t 10.1.0.1:80 -r 10.9.9.1:8080 -m -w 1",
    "-a -t 10.1.0.1:80 -r 10.9.9.2:8080 -m -w 1",
    "-A -u 10.1.0.1:53 -s wlc",
    "-a -u 10.1.0.1:53 -r 10.9.9.1:53 -m -w 1",
    "-A -f 7 -6 -s wlc",
    "-a -f 7 -6 -r [fd00:9::1]:0 -m -w 1",
]
FOREIGN = [
    "-A -t 10.1.0.9:80 -s sh -p 60 -M 255.255.0.0 -b sh-port",
    "-a -t 10.1.0.9:80 -r 10.9.9.1:80 -g -w 7",
    "-A -t [fd00:1::9]:80 -s wlc",
    "-a -t [fd00:1::9]:80 -r [fd00:9::1]:80 -m -w 1",
    "-A -f 9 -s rr",
]


def load(place: TablePlace, lines: list[str]) -> None:
    place.load("".join(f"{line}\n" for line in lines))


def listing(place: TablePlace) -> list[list[str]]:
    """Give the rules that `show -o text` lists as ours, and those that are left alone."""
    ran = place.reconciler("show", "-o", "text", place.manifest())
    assert (ran.status, ran.stderr) == (0, "")
    ours, _, others = ran.stdout.partition("  not ours, left alone:\n")
    parts = ([line.strip() for line in part.splitlines()] for part in (ours, others))
    return [[line for line in part if line.startswith(("-A ", "-a "))] for part in parts]


@TOLD
def test_services_of_others_are_listed_and_stay(place: TablePlace) -> None:
    load(place, FOREIGN)
    place.apply(services=[WEB, DNS, MARK])
    assert sorted(place.saved()) == sorted(OURS + FOREIGN)
    ours, others = listing(place)
    assert (sorted(ours), sorted(others)) == (sorted(OURS), sorted(FOREIGN))
    assert place.diff("--adopt", services=[WEB, DNS, MARK]) != []
    place.apply("--allow-delete", "all", services=[])
    assert sorted(place.saved()) == sorted(FOREIGN)
    assert listing(place)[0] == []
    assert "services: []" in place.reconciler("show", place.manifest()).stdout


@TOLD
def test_a_service_of_ours_that_left_the_manifest_goes(place: TablePlace) -> None:
    load(place, FOREIGN)
    place.apply(services=[WEB, DNS, MARK])
    assert place.diff(services=[WEB, MARK])[1] == "ipvsadm -D -u 10.1.0.1:53"
    place.apply(services=[WEB, MARK])
    assert sorted(place.saved()) == sorted(line for line in OURS + FOREIGN if "-u" not in line)


@TOLD
def test_adopt_takes_the_table_whole(place: TablePlace) -> None:
    load(place, FOREIGN)
    place.apply(services=[WEB])
    commands = place.diff("--adopt", services=[WEB])
    assert sorted(commands) == ["ipvsadm -D -f 9", "ipvsadm -D -t 10.1.0.9:80", "ipvsadm -D -t [fd00:1::9]:80"]
    path = place.manifest(services=[WEB])
    assert place.reconciler("apply", "--adopt", path).status == 0
    assert sorted(place.saved()) == sorted(OURS[:3])


EXCLUDE: list[Any] = ["10.1.0.8/30", "fd00:1::/64", {"fwmark": 9}]


@pytest.mark.parametrize("options", [(), ("--adopt",)])
def test_what_is_excluded_is_never_touched(place: TablePlace, options: tuple[str, ...]) -> None:
    other = ["-A -t 10.1.0.12:80 -s rr", "-A -f 10 -s rr"]
    load(place, FOREIGN + other)
    path = place.manifest(services=[WEB], exclude=EXCLUDE)
    assert place.reconciler("apply", "--allow-delete", "all", *options, path).status == 0
    # Where nobody tells marks, all that is not excluded is ours.
    left = [] if options or isinstance(place, Kata) else other
    assert sorted(place.saved()) == sorted([*OURS[:3], *FOREIGN, *left])
    assert place.reconciler("diff", *options, path).status == 0


@TOLD
def test_what_is_excluded_is_not_touched_even_if_it_bears_our_mark(place: TablePlace) -> None:
    place.apply(services=[WEB, DNS, MARK])
    for exclude in (["10.1.0.1/32"], [{"fwmark": 7}], ["10.0.0.0/8", {"fwmark": 7}]):
        place.apply("--allow-delete", "all", services=[], exclude=exclude)
        prefix, mark = isinstance(exclude[0], str), isinstance(exclude[-1], dict)
        expected = [line for line in OURS if (mark if "-f" in line else prefix)]
        assert sorted(place.saved()) == sorted(expected)
        place.apply(services=[WEB, DNS, MARK])
    wrong = place.reconciler("apply", place.manifest(services=[WEB], exclude=["10.1.0.0/24"]))
    assert wrong.status == 2
    assert "10.1.0.1:80 is excluded by ipvs.exclude[0]" in wrong.stderr


@TOLD
def test_the_mark_stays_through_edits_of_ours(place: TablePlace) -> None:
    place.apply(services=[WEB])
    place.apply(services=[WEB | {"scheduler": "sh", "schedulerFlags": ["sh-port"], "persistent": 5}])
    place.apply(services=[WEB])
    assert sorted(listing(place)[0]) == sorted(OURS[:3])
    place.apply("--allow-delete", "all", services=[])
    assert place.saved() == []


@TOLD
def test_a_mark_lost_by_another_edit_is_put_back(place: TablePlace) -> None:
    """With a change, as the other has made one."""
    place.apply(services=[WEB])
    place.output("ipvsadm", "-E", "-t", "10.1.0.1:80", "-s", "wrr")
    assert listing(place)[0] == []
    place.apply(services=[WEB])
    assert sorted(place.saved()) == sorted(OURS[:3])
    assert sorted(listing(place)[0]) == sorted(OURS[:3])


@TOLD
def test_a_mark_lost_by_an_edit_that_changed_nothing_is_put_back(place: TablePlace) -> None:
    place.apply(services=[DNS])
    place.output("ipvsadm", "-E", "-u", "10.1.0.1:53", "-s", "wlc")
    ran = place.reconciler("diff", place.manifest(services=[DNS]))
    assert ran.status == 1, ran
    assert "marks it as ours" in ran.stdout
    place.apply(services=[DNS])
    assert listing(place)[0] == OURS[3:5]
    place.apply("--allow-delete", "all", services=[])
    assert place.saved() == []
