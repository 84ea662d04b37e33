"""What an edit, an absent section or the manifest itself leaves to others; through the agent only."""

from __future__ import annotations

from tests.ipvs.place import Vm
from tests.ipvs.test_ownership import DNS, FOREIGN, MARK, OURS, WEB, load


def test_a_service_of_another_that_the_manifest_names_becomes_ours_as_it_says(vm: Vm) -> None:
    load(
        vm,
        [
            "-A -t 10.1.0.1:80 -s sh",
            "-a -t 10.1.0.1:80 -r 10.9.9.1:8080 -m -w 9",
            "-a -t 10.1.0.1:80 -r 10.9.9.7:80 -g",
        ],
    )
    vm.apply(services=[WEB])
    assert sorted(vm.saved()) == sorted(OURS[:3])
    vm.apply("--allow-delete", "all", services=[])
    assert vm.saved() == []


def test_adopt_counts_as_deletions(vm: Vm) -> None:
    load(vm, [f"-A -t 10.1.1.{number}:80 -s rr" for number in range(12)])
    path = vm.manifest(services=[WEB])
    refused = vm.reconciler("apply", "--adopt", path)
    assert refused.status == 3, refused
    assert "12 of 12" in refused.stderr or "all 12" in refused.stderr
    assert len(vm.saved()) == 12
    assert vm.reconciler("apply", "--adopt", "--allow-delete", "all", path).status == 0
    assert sorted(vm.saved()) == sorted(OURS[:3])


def test_weights_that_are_ignored_are_left_to_others(vm: Vm) -> None:
    web = WEB | {"ignore": ["weight"]}
    vm.apply(services=[web, DNS])
    vm.shell(
        "ipvsadm -e -t 10.1.0.1:80 -r 10.9.9.1:8080 -m -w 0; ipvsadm -e -t 10.1.0.1:80 -r 10.9.9.2:8080 -m -w 77; "
        "ipvsadm -e -u 10.1.0.1:53 -r 10.9.9.1:53 -m -w 5"
    )
    changed = [OURS[0], OURS[1].replace("-w 1", "-w 0"), OURS[2].replace("-w 1", "-w 77"), *OURS[3:5]]
    assert vm.diff(services=[web])[1] == "ipvsadm -D -u 10.1.0.1:53"
    vm.apply(services=[web, DNS])
    assert sorted(vm.saved()) == sorted(changed)
    # An edit of what is ours keeps what is theirs, and a server that comes has the weight of the manifest.
    servers = [
        {"address": "10.9.9.1:8080", "upperThreshold": 9},
        {"address": "10.9.9.2:8080", "forward": "nat"},
        {"address": "10.9.9.3:8080", "weight": 4},
    ]
    vm.apply(services=[web | {"scheduler": "wrr", "servers": servers}, DNS])
    expected = [changed[0].replace("rr", "wrr"), *changed[1:], "-a -t 10.1.0.1:80 -r 10.9.9.3:8080 -m -w 4"]
    assert sorted(vm.saved()) == sorted(expected)
    vm.apply(services=[WEB | {"scheduler": "wrr", "servers": servers}, DNS])
    assert [line for line in vm.saved() if "-w 0" in line or "-w 77" in line] == []


def test_an_edit_keeps_what_it_is_not_about(vm: Vm) -> None:
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
    vm.apply(services=[service])

    def told() -> list[str]:
        saved, thresholds = vm.table()
        return sorted(saved) + sorted(" ".join(line.split()[:4]) for line in thresholds if "->" in line)

    before = told()
    vm.apply(services=[service | {"scheduler": "wlc"}])
    assert told() == [line.replace("-s rr", "-s wlc") for line in before]
    vm.apply(services=[service | {"servers": [full | {"weight": 6}, tunnel]}])
    assert told() == [line.replace("-w 5", "-w 6") for line in before]
    vm.apply(services=[service | {"servers": [full, tunnel | {"upperThreshold": 7}]}])
    assert told() == [line.replace("10.9.9.4:80 8 0", "10.9.9.4:80 7 0") for line in before]
    vm.apply(services=[service | {"servers": [full, tunnel | {"tunPort": 99}]}])
    assert told() == [line.replace("6080", "99") for line in before]


def test_sections_that_say_nothing_of_services_leave_them(vm: Vm) -> None:
    vm.apply(services=[WEB, DNS, MARK])
    load(vm, FOREIGN)
    before = vm.saved()
    vm.apply(timeouts={"tcp": 100}, sysctls={"conntrack": 1})
    vm.apply(sysctls={"conntrack": 0})
    vm.apply()
    assert vm.saved() == before
