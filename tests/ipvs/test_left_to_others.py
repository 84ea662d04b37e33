"""What an edit, an absent section or the manifest itself leaves to others; through the agent only."""

from __future__ import annotations

from tests.ipvs.place import MachineTable
from tests.ipvs.test_ownership import DNS, FOREIGN, MARK, OURS, WEB, load


def test_a_service_of_another_that_the_manifest_names_becomes_ours_as_it_says(reached: MachineTable) -> None:
    load(
        reached,
        [
            "-A -t 10.1.0.1:80 -s sh",
            "-a -t 10.1.0.1:80 -r 10.9.9.1:8080 -m -w 9",
            "-a -t 10.1.0.1:80 -r 10.9.9.7:80 -g",
        ],
    )
    reached.apply(services=[WEB])
    assert sorted(reached.saved()) == sorted(OURS[:3])
    reached.apply("--allow-delete", "all", services=[])
    assert reached.saved() == []


def test_adopt_counts_as_deletions(reached: MachineTable) -> None:
    load(reached, [f"-A -t 10.1.1.{number}:80 -s rr" for number in range(12)])
    path = reached.manifest(services=[WEB])
    refused = reached.reconciler("apply", "--adopt", path)
    assert refused.status == 3, refused
    assert "12 of 12" in refused.stderr or "all 12" in refused.stderr
    assert len(reached.saved()) == 12
    assert reached.reconciler("apply", "--adopt", "--allow-delete", "all", path).status == 0
    assert sorted(reached.saved()) == sorted(OURS[:3])


def test_weights_that_are_ignored_are_left_to_others(reached: MachineTable) -> None:
    web = WEB | {"ignore": ["weight"]}
    reached.apply(services=[web, DNS])
    reached.shell(
        "ipvsadm -e -t 10.1.0.1:80 -r 10.9.9.1:8080 -m -w 0; ipvsadm -e -t 10.1.0.1:80 -r 10.9.9.2:8080 -m -w 77; "
        "ipvsadm -e -u 10.1.0.1:53 -r 10.9.9.1:53 -m -w 5"
    )
    changed = [OURS[0], OURS[1].replace("-w 1", "-w 0"), OURS[2].replace("-w 1", "-w 77"), *OURS[3:5]]
    assert reached.diff(services=[web])[1] == "ipvsadm -D -u 10.1.0.1:53"
    reached.apply(services=[web, DNS])
    assert sorted(reached.saved()) == sorted(changed)
    # An edit of what is ours keeps what is theirs, and a server that comes has the weight of the manifest.
    servers = [
        {"address": "10.9.9.1:8080", "upperThreshold": 9},
        {"address": "10.9.9.2:8080", "forward": "nat"},
        {"address": "10.9.9.3:8080", "weight": 4},
    ]
    reached.apply(services=[web | {"scheduler": "wrr", "servers": servers}, DNS])
    expected = [changed[0].replace("rr", "wrr"), *changed[1:], "-a -t 10.1.0.1:80 -r 10.9.9.3:8080 -m -w 4"]
    assert sorted(reached.saved()) == sorted(expected)
    reached.apply(services=[WEB | {"scheduler": "wrr", "servers": servers}, DNS])
    assert [line for line in reached.saved() if "-w 0" in line or "-w 77" in line] == []


def test_an_edit_keeps_what_it_is_not_about(reached: MachineTable) -> None:
    full = {"address": "10.9.9.1:8080", "weight": 5, "upperThreshold": 9, "lowerThreshold": 3}
    tunnel = {
        "address": "10.9.9.4",
        "forward": "tunnel",
        "tunType": "gue",
        "tunPort": 6080,
        "tunChecksum": "csum",
        "upperThreshold": 8,
    }
    service = WEB | {"persistent": 60, "netmask": "255.255.0.0", "servers": [full, tunnel]}
    reached.apply(services=[service])

    def told() -> list[str]:
        saved, thresholds = reached.table()
        return sorted(saved) + sorted(" ".join(line.split()[:4]) for line in thresholds if "->" in line)

    before = told()
    reached.apply(services=[service | {"scheduler": "wlc"}])
    assert told() == [line.replace("-s rr", "-s wlc") for line in before]
    reached.apply(services=[service | {"servers": [full | {"weight": 6}, tunnel]}])
    assert told() == [line.replace("-w 5", "-w 6") for line in before]
    reached.apply(services=[service | {"servers": [full, tunnel | {"upperThreshold": 7}]}])
    assert told() == [line.replace("10.9.9.4:80 8 0", "10.9.9.4:80 7 0") for line in before]
    reached.apply(services=[service | {"servers": [full, tunnel | {"tunPort": 99}]}])
    assert told() == [line.replace("6080", "99") for line in before]


def test_sections_that_say_nothing_of_services_leave_them(reached: MachineTable) -> None:
    reached.apply(services=[WEB, DNS, MARK])
    load(reached, FOREIGN)
    before = reached.saved()
    reached.apply(timeouts={"tcp": 100}, sysctls={"conntrack": 1})
    reached.apply(sysctls={"conntrack": 0})
    reached.apply()
    assert reached.saved() == before
