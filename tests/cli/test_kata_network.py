"""`kata-network` on a real namespace: what it answers, what it changes, and what it leaves alone."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.drivers.netns import NetnsDriver
from reconciler.model.sandbox import NetnsAddress
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.manifest.texts import manifest

IFACE: dict[str, Any] = {
    "name": "eth-test",
    "IPAddresses": [{"address": "172.16.0.3", "mask": "16"}],
    "hwAddr": "02:42:20:6f:a3:69",
    "mtu": 1400,
}
OTHER = IFACE | {
    "name": "eth1",
    "IPAddresses": [{"address": "172.18.0.3", "mask": "16"}],
    "hwAddr": "02:42:20:6f:a3:70",
}
DEFAULT = {"dest": "default", "gateway": "172.16.0.1", "device": "eth-test"}


class Box:
    """A namespace with a manifest, devices for it, and commands to it."""

    def __init__(self, kernel: Kernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = kernel.namespace()
        self.devices = [kernel.tap(), kernel.tap()]
        self._capsys, self._monkeypatch = capsys, monkeypatch
        Path("box.yaml").write_text(manifest("sandbox: 6ec7a98", f"driver: {{netns: {{name: {self.name}}}}}"))
        self.ip("link", "set", "dev", "lo", "up")

    def ip(self, *words: str) -> str:
        return ip(*words, namespace=self.name)

    def ask(self, action: str, data: object = None) -> tuple[int, Any, str]:
        """Give the exit code, what the answer says, and what is on stderr."""
        stream = io.TextIOWrapper(io.BytesIO(json.dumps(data).encode()))
        self._monkeypatch.setattr(sys, "stdin", stream)
        code = main(["kata-network", action, "6ec7", "--manifests", "box.yaml"])
        out, err = self._capsys.readouterr()
        assert out.endswith("\n")
        return code, json.loads(out), err

    def do(self, action: str, data: object = None) -> Any:
        """Give what the answer of an action says that succeeds."""
        code, answer, err = self.ask(action, data)
        assert (code, err) == (0, "")
        return answer

    def refuse(self, action: str, data: object = None) -> str:
        """Give why an action fails."""
        code, answer, err = self.ask(action, data)
        assert (code, answer) == (2, None)
        return err.removeprefix("reconciler: ").rstrip()

    def plug(self) -> None:
        for device, interface in zip(self.devices, (IFACE, OTHER), strict=True):
            self.do("add-iface", interface | {"device": device})

    def routes(self) -> list[str]:
        """Say which routes of IPv4 are ours, without what the kernel adds."""
        shown = self.ip("route", "show", "proto", "200").splitlines()
        return [line.partition(" scope ")[0].partition(" linkdown")[0].strip() for line in shown]


@pytest.fixture
def box(kernel: Kernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Box:
    monkeypatch.chdir(tmp_path)
    return Box(kernel, capsys, monkeypatch)


def test_an_interface_comes_and_goes(box: Box) -> None:
    assert box.do("list-ifaces") is None
    answer = box.do("add-iface", IFACE | {"device": box.devices[0]})
    # A namespace has no place on a bus.
    assert answer == IFACE | {
        "device": box.devices[0],
        "IPAddresses": [{"Family": 2, "Address": "172.16.0.3", "Mask": "16"}],
    }
    (link,) = json.loads(box.ip("-j", "address", "show", "dev", "eth-test"))
    assert (link["address"], link["mtu"], "UP" in link["flags"]) == ("02:42:20:6f:a3:69", 1400, True)
    listed = {"name": "eth-test", "mac": "02:42:20:6f:a3:69", "ip": ["172.16.0.3/16"], "mtu": 1400}
    assert box.do("list-ifaces") == [listed]
    assert box.do("del-iface", {"name": "eth-test"}) is None
    assert box.do("list-ifaces") is None
    assert Path("/sys/class/net", box.devices[0]).exists()


def test_interfaces_and_routes_leave_each_other_alone(box: Box) -> None:
    box.plug()
    box.do("add-route", [DEFAULT, {"dest": "10.9.9.9/8", "gateway": "172.18.0.1", "device": "eth1"}])
    assert [each["name"] for each in box.do("list-ifaces")] == ["eth-test", "eth1"]
    box.do("del-iface", {"name": "eth1"})
    assert box.do("list-routes") == [DEFAULT]
    box.do("del-route", {"dest": "default"})
    assert [each["name"] for each in box.do("list-ifaces")] == ["eth-test"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mtu": 45}, "mtu: 45: expected a number from 46 to 9600"),
        ({"name": "lo"}, "the name lo is taken in the sandbox by an interface that is not ours"),
        ({"device": "none"}, "none: no such device on this host"),
        ({"vhostUserSocket": "/run/vhost-user1"}, "vhostUserSocket: only virtual machines have vhost-user NICs"),
        ({"queues": 2}, "is single-queue; interface eth-test asks for 2 queues"),
        (
            {"IPAddresses": [{"address": "172.16.0.0", "mask": "16"}]},
            "172.16.0.0/16 is the address of the network itself",
        ),
        (
            {"mtu": 1279, "IPAddresses": [{"address": "fd00::3", "mask": "64"}]},
            "fd00::3/64 needs an MTU of at least 1280",
        ),
    ],
)
def test_an_interface_that_cannot_be(change: dict[str, Any], reason: str, box: Box) -> None:
    code, answer, err = box.ask("add-iface", IFACE | {"device": box.devices[0]} | change)
    # What somebody else has is refused for safety.
    assert (code, answer) == (3 if "not ours" in reason else 2, None)
    assert reason in err
    assert box.do("list-ifaces") is None


@pytest.mark.parametrize("field", ["name", "device", "hwAddr"])
def test_an_interface_that_is_there_already(field: str, box: Box) -> None:
    box.do("add-iface", first := IFACE | {"device": box.devices[0]})
    second = OTHER | {"device": box.devices[1], field: first[field]}
    assert box.refuse("add-iface", second) == f"{field}: an interface with {first[field]} is there already"


def test_an_interface_that_is_not_ours_is_neither_listed_nor_deleted(box: Box) -> None:
    box.ip("link", "add", "theirs", "type", "veth", "peer", "name", "other")
    assert box.do("list-ifaces") is None
    for name, reason in (("theirs", "the interface theirs is not ours"), ("gone", "there is no interface gone")):
        code, answer, err = box.ask("del-iface", {"name": name})
        assert (code, answer, err) == (2, {"name": name}, f"reconciler: {reason}\n")
    assert "theirs" in box.ip("link", "show", "dev", "theirs")


def test_routes_are_added_one_by_one_or_together(box: Box) -> None:
    box.plug()
    assert box.do("add-route", DEFAULT) == [DEFAULT]
    others = [
        {"dest": "172.17.10.10/24", "gateway": "", "device": "eth1"},
        {"dest": "10.1.2.3", "device": "lo"},
        {"dest": "fd00:17::/64", "device": "eth1"},
    ]
    answers = [
        {"dest": "172.17.10.0/24", "gateway": "", "device": "eth1"},
        {"dest": "10.1.2.3/32", "gateway": "", "device": "lo"},
        {"dest": "fd00:17::/64", "gateway": "", "device": "eth1"},
    ]
    assert box.do("add-route", others) == answers
    by_dest = sorted([DEFAULT, *answers], key=lambda each: each["dest"])
    assert sorted(box.do("list-routes"), key=lambda each: each["dest"]) == by_dest
    assert box.routes() == [
        "default via 172.16.0.1 dev eth-test",
        "10.1.2.3 dev lo",
        "172.17.10.0/24 dev eth1",
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            {"dest": "default", "device": "eth-test"},
            "gateway: missing; a default route needs the IP address of a gateway",
        ),
        ({"dest": "10.0.0.0/8", "device": "eth9"}, "device: there is no interface eth9"),
        ({"dest": "10.8.0.0/16", "device": "eth1"}, "there is a route to 10.8.0.0/16 already"),
        ([{"dest": "10.9.0.0/16", "device": "lo"}] * 2, "there is a route to 10.9.0.0/16 already"),
        ([{"dest": "10.9.0.0/16", "device": "lo"}, {}], "dest: missing"),
        ([], "an empty array; expected a route"),
    ],
)
def test_a_route_that_cannot_be(data: Any, reason: str, box: Box) -> None:
    box.plug()
    box.do("add-route", {"dest": "10.8.0.0/16", "device": "eth-test"})
    assert box.refuse("add-route", data) == reason
    assert len(box.routes()) == 1


@pytest.mark.parametrize("dest", ["10.8.0.0/16", "172.16.0.0/16"])
def test_a_route_of_somebody_else(dest: str, box: Box) -> None:
    """It is refused even if it says the same: it would be neither listed nor deleted by these commands."""
    box.plug()
    box.ip("route", "add", "10.8.0.0/16", "dev", "eth-test", "proto", "static")
    code, answer, err = box.ask("add-route", {"dest": dest, "device": "eth-test"})
    assert (code, answer) == (3, None)
    assert err == f"reconciler: refused: there is a route to {dest} already, and it is not ours\n"
    assert box.routes() == []


def test_a_route_that_the_kernel_refuses_is_undone(box: Box) -> None:
    box.plug()
    refused = [{"dest": "10.8.0.0/16", "device": "lo"}, {"dest": "10.9.0.0/16", "gateway": "1.2.3.4", "device": "eth1"}]
    assert "Nexthop has invalid gateway" in box.refuse("add-route", refused)
    assert box.routes() == []


def test_routes_are_deleted_by_what_is_given(box: Box) -> None:
    box.plug()
    for metric, via in ((0, "172.16.0.1"), (5, "172.18.0.1"), (6, "172.18.0.2")):
        box.ip("route", "add", "10.8.0.0/16", "via", via, "metric", str(metric), "proto", "200")
    box.ip("route", "add", "10.8.0.0/16", "via", "172.18.0.3", "table", "100", "proto", "200")
    box.ip("route", "add", "10.8.0.0/16", "via", "172.18.0.4", "metric", "9", "proto", "static")
    one = {"dest": "10.8.0.0/16", "gateway": "172.18.0.1", "device": "eth1"}
    assert box.do("del-route", {"dest": "10.8.0.0/16", "gateway": "172.18.0.1"}) == [one]
    assert box.refuse("del-route", one) == "no route of ours matches 10.8.0.0/16 via 172.18.0.1 dev eth1"
    answer = box.do("del-route", {"dest": "10.8.7.7/16"})
    assert sorted(each["gateway"] for each in answer) == ["172.16.0.1", "172.18.0.2"]
    # Another table cannot be told in JSON, and another protocol is somebody else.
    assert "172.18.0.3" in box.ip("route", "show", "table", "100")
    assert "172.18.0.4" in box.ip("route", "show", "10.8.0.0/16")
    assert box.do("list-routes") == []


def test_the_next_hops_of_a_route_are_listed_one_by_one(box: Box) -> None:
    box.plug()
    hops = ("nexthop via 172.16.0.1 dev eth-test", "nexthop via 172.18.0.1 dev eth1")
    box.ip("route", "add", "10.8.0.0/16", "proto", "200", *" ".join(hops).split())
    box.ip("route", "add", "blackhole", "10.9.0.0/16", "proto", "200")
    listed = [
        {"dest": "10.8.0.0/16", "gateway": "172.16.0.1", "device": "eth-test"},
        {"dest": "10.8.0.0/16", "gateway": "172.18.0.1", "device": "eth1"},
        {"dest": "10.9.0.0/16", "gateway": "", "device": ""},
    ]
    assert box.do("list-routes") == listed
    assert box.do("del-route", listed) == listed
    assert box.routes() == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "net.json: not JSON: Expecting property name"),
        ("", "net.json: not JSON: Expecting value"),
        ("[" * 100_000, "net.json: not JSON: "),
        (" " * (1 << 20) + "1", "net.json: larger than 1 MiB"),
        ("\xff", "net.json: not UTF-8 (byte 0)"),
    ],
)
def test_a_file_that_is_no_json(text: str, reason: str, box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.json").write_bytes(text.encode("latin-1"))
    for action in ("add-iface", "del-iface", "add-route", "del-route"):
        assert main(["kata-network", action, "6ec7a98", "net.json", "--manifests", "box.yaml"]) == 2
        out, err = capsys.readouterr()
        assert out == "null\n"
        assert err.startswith(f"reconciler: {reason}")
    assert main(["kata-network", "add-iface", "6ec7a98", "none.json", "--manifests", "box.yaml"]) == 2
    assert capsys.readouterr() == ("null\n", "reconciler: none.json: No such file or directory\n")
    del box


def test_what_another_run_holds_is_left(box: Box) -> None:
    driver = NetnsDriver(NetnsAddress(name=box.name), POLICY)
    with driver.lock():
        assert "another reconciler is changing" in box.refuse("add-iface", IFACE | {"device": box.devices[0]})
    driver.close()
    assert box.do("list-ifaces") is None


def test_commands_at_the_same_time_undo_nothing_of_each_other(box: Box) -> None:
    box.plug()
    words = [sys.executable, "-m", "reconciler", "kata-network", "add-route", "--manifests", "box.yaml", "6ec7"]
    added: list[str] = []

    def add(number: int) -> None:
        file = Path(f"{number}.json")
        file.write_text(json.dumps({"dest": f"10.{number}.0.0/16", "device": "lo"}))
        # A run that finds another one at work says so, and is to try again.
        for _ in range(100):
            if os.spawnv(os.P_WAIT, sys.executable, [*words, str(file)]) == 0:
                added.append(f"10.{number}.0.0/16 dev lo")
                return

    threads = [threading.Thread(target=add, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert box.routes() == sorted(added)
    assert len(added) == 4


def test_a_watch_that_will_undo_it_is_told(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"sandbox": "6ec7a98", "file": "box.yaml", "state": "converged"}
    monkeypatch.setattr("reconciler.watch.client.read_status", lambda: {"sandboxes": [entry]})
    assert box.do("list-ifaces") is None
    code, _, err = box.ask("add-iface", IFACE | {"device": box.devices[0]})
    message = "6ec7a98: `reconciler watch` will revert whatever differs from box.yaml\n"
    assert (code, err) == (0, message)
