"""Links that are made in a namespace of this host: any state after any other, kills between, and what is not ours.

Bridges and macvlans: the host's kernel need not have more.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.model.made import made
from reconciler.netlink import made as codec
from reconciler.netlink.message import messages
from reconciler.operations.made import AddLink
from tests.conftest import Kernel
from tests.made.conftest import state_of
from tests.system.box import MACS, Box, errors
from tests.system.test_kill import kill_after_each

_PAIRS = 25
_NAMES = ("br0", "br1", "mv0", "mv1")


def some(choose: random.Random, devices: list[str]) -> dict[str, Any]:
    """Return sections with some NICs, some bridges with ports, and some macvlans on any of them."""
    nics: list[dict[str, Any]] = []
    bridges = [name for name in ("br0", "br1") if choose.random() < 0.6]
    for number, device in enumerate(devices):
        if choose.random() < 0.8:
            nic = {"name": choose.choice((f"eth{number}", f"up{number}")), "device": device, "hwAddr": MACS[number]}
            nics.append(
                nic | {"mtu": 1500} | ({"master": choose.choice(bridges)} if bridges and choose.random() < 0.5 else {})
            )
    below = [each["name"] for each in nics if "master" not in each] + bridges
    made: list[dict[str, Any]] = [
        {"name": name, "bridge": {"ageingTime": choose.choice((60, 300))}} for name in bridges
    ]
    used: dict[str, str] = {}
    for name in ("mv0", "mv1"):
        if below and choose.random() < 0.7:
            link = choose.choice(below)
            mode = used.setdefault(link, choose.choice(("bridge", "private")))
            made.append({"name": name, "macvlan": {"link": link, "mode": mode}})
    everything = nics + made
    choose.shuffle(everything)
    routes = []
    for number, each in enumerate(everything):
        if choose.random() < 0.7:
            each["addresses"] = [f"10.{number}.0.2/24", {"address": f"fd00:{number}::2/64", "dad": False}]
            routes.append({"dest": f"10.9{number}.0.0/16", "gateway": f"10.{number}.0.1", "device": each["name"]})
    return {"interfaces": everything, "routes": routes}


@pytest.fixture
def devices(kernel: Kernel) -> list[str]:
    return [kernel.tap() for _ in range(2)]


def test_any_state_after_any_other_one(box: Box, devices: list[str], repeats: Callable[[int], int]) -> None:
    for seed in range(repeats(_PAIRS)):
        choose = random.Random(seed)
        first, second = some(choose, devices), some(choose, devices)
        box.apply("--allow-delete", "all", interfaces=[], routes=[])
        box.apply("--allow-delete", "all", **second)
        expected = state_of(box)
        box.apply("--allow-delete", "all", **first)
        box.apply("--allow-delete", "all", **second)
        assert (seed, box.diff(**second)) == (seed, [])
        assert (seed, state_of(box)) == (seed, expected)


STORY: tuple[dict[str, Any], dict[str, Any]] = (
    {
        "interfaces": [
            {"name": "eth0", "device": "0", "hwAddr": MACS[0], "mtu": 1500, "master": "br0"},
            {"name": "br0", "bridge": {}, "addresses": ["10.0.0.2/24"]},
            {"name": "mv0", "macvlan": {"link": "br0"}, "addresses": ["10.1.0.2/24"]},
            {"name": "eth1", "device": "1", "hwAddr": MACS[1], "mtu": 1500},
        ],
        "routes": [{"dest": "10.9.0.0/16", "gateway": "10.1.0.1", "device": "mv0"}],
    },
    {
        "interfaces": [
            {"name": "eth1", "device": "0", "hwAddr": MACS[0], "mtu": 1500},
            {"name": "br0", "bridge": {"ageingTime": 60}, "addresses": ["10.0.0.2/24"]},
            {"name": "eth0", "device": "1", "hwAddr": MACS[1], "mtu": 1500, "master": "br0"},
            {"name": "mv0", "macvlan": {"link": "eth1", "mode": "private"}, "addresses": ["10.1.0.2/24"]},
            {"name": "br1", "bridge": {}},
        ],
        "routes": [{"dest": "10.9.0.0/16", "gateway": "10.1.0.1", "device": "mv0"}],
    },
)


def test_killed_after_each_operation_in_turn_and_run_again(box: Box, devices: list[str]) -> None:
    first, second = (
        sections
        | {
            "interfaces": [
                each | ({"device": devices[int(each["device"])]} if "device" in each else {})
                for each in sections["interfaces"]
            ]
        }
        for sections in STORY
    )
    assert min(kill_after_each(box, first, second, state=partial(state_of, box))) > 10


def test_a_link_and_its_mark_are_one_send() -> None:
    operation = AddLink(name="br0", made=made("bridge", {}))
    indexes: dict[str, int] = {}
    first, second = messages(codec.encode(operation, indexes, 7))
    assert (first.sequence, second.sequence) == (7, 7)
    # Each names the link by the same index, at the fourth byte of its body.
    assert first.payload[4:8] == second.payload[4:8] == indexes["br0"].to_bytes(4, "little")


def test_what_others_made_is_in_the_way_and_stays(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.ip("link", "add", "br0", "type", "bridge")
    file = box.write(interfaces=[{"name": "br0", "bridge": {}}, {"name": "br1", "bridge": {}}])
    for words in (["diff"], ["apply"]):
        capsys.readouterr()
        assert main([*words, file]) == 3
        assert "interfaces[0].name: the name br0 is taken in the sandbox by an interface that is not ours" in errors(
            capsys
        )
    assert set(box.state()["links"]) == {"lo", "br0"}
    box.apply("--allow-delete", "all", interfaces=[{"name": "br1", "bridge": {}}])
    box.apply("--allow-delete", "all", interfaces=[])
    assert set(box.state()["links"]) == {"lo", "br0"}


def test_a_renamed_link_gets_its_name_back_and_keeps_its_number(box: Box) -> None:
    nics = [{"name": "br0", "bridge": {}, "addresses": ["10.0.0.2/24"]}]
    box.apply(interfaces=nics)
    (before,) = [each["ifindex"] for each in json.loads(box.ip("-j", "link", "show", "dev", "br0"))]
    box.ip("link", "set", "dev", "br0", "name", "lost")
    assert box.diff(interfaces=nics) == ["ip link set dev lost name br0"]
    box.apply(interfaces=nics)
    (after,) = [each["ifindex"] for each in json.loads(box.ip("-j", "link", "show", "dev", "br0"))]
    assert before == after


def test_what_show_prints_is_what_is_there(box: Box, devices: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    nics = [
        {"name": "eth0", "device": devices[0], "hwAddr": MACS[0], "mtu": 1500, "master": "br0"},
        {"name": "br0", "bridge": {"stp": True}, "addresses": ["10.0.0.2/24"]},
        {"name": "mv0", "macvlan": {"link": "br0", "mode": "private"}},
    ]
    box.apply(interfaces=nics)
    head = box.write()
    for options in ([], ["-o", "json"]):
        capsys.readouterr()
        assert main(["show", *options, head]) == 0
        shown = capsys.readouterr().out
        file = box.file.with_name(f"shown{os.getpid()}.yaml")
        file.write_text(shown)
        assert main(["validate", str(file)]) == 0
        assert main(["diff", str(file)]) == 0
    assert [each["name"] for each in json.loads(shown)["interfaces"]] == ["eth0", "br0", "mv0"]


def test_a_proof_says_what_its_copy_cannot_try(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    nics: list[dict[str, Any]] = [{"name": "br0", "bridge": {}}, {"name": "mv0", "macvlan": {"link": "br0"}}]
    assert main(["diff", "--prove", box.write(interfaces=nics)]) == 1
    assert "has carried out 4 operations in a copy" in capsys.readouterr().out
    box.apply(interfaces=nics)
    nics[1] |= {"macvlan": {"link": "br0", "mode": "private"}}
    assert main(["diff", "--prove", box.write(interfaces=nics)]) == 1
    assert "mv0 is a veth in the copy, and no macvlan" in capsys.readouterr().out
