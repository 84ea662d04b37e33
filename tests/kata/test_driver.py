"""The `kata` driver on a real machine, whose `kata-runtime` is our own program."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import Any

import pytest

from reconciler.manifest.dump import dump
from tests.allowed import command as program
from tests.allowed import write_policy
from tests.ipvs.place import Vm as Table
from tests.kata.container import ID, Container

NIC: dict[str, Any] = {
    "name": "eth-test",
    "device": "tap-test",
    "hwAddr": "02:42:20:6f:a3:69",
    "mtu": 1500,
    "addresses": ["172.16.0.3/16"],
    "queues": 5,
}
ROUTES = [
    {"dest": "default", "gateway": "172.17.0.1", "device": "eth-test"},
    {"dest": "172.17.0.0/16", "device": "eth-test"},
]
SERVICES = [
    {
        "tcp": f"10.1.0.1:{port}",
        "scheduler": "rr",
        "persistent": 300,
        "servers": [{"address": "10.9.9.1:80", "weight": 5}, {"address": "10.9.9.2", "forward": "dr"}],
    }
    for port in range(1, 31)
]


class Manifest:
    """A manifest of the container by its runtime, and our commands on it."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self.file = container.folder / "kata.yaml"

    def run(self, command: str, *words: str, **sections: Any) -> subprocess.CompletedProcess[str]:
        runtime = str(self._container.folder / "kata-runtime")
        driver = {"kata": {"id": ID, "runtime": runtime}}
        policy = write_policy(self._container.folder / "policy", runtimes=[runtime])
        self.file.write_text(dump([{"apiVersion": "reconciler/v1", "sandbox": "box", "driver": driver, **sections}]))
        return self._container.run(shlex.join([*program(), command, "--policy", policy, *words, str(self.file)]))

    def apply(self, **sections: Any) -> str:
        """Apply it; it must succeed, and leave nothing to do. Give what it did."""
        ran = self.run("apply", "-v", "--allow-delete", "all", **sections)
        assert (ran.returncode, ran.stderr) == (0, ""), ran
        after = self.run("diff", **sections)
        assert (after.returncode, after.stderr) == (0, ""), after
        return ran.stdout

    def diff(self, **sections: Any) -> list[str]:
        ran = self.run("diff", "-o", "json", **sections)
        assert ran.returncode == 1, ran
        (sandbox,) = json.loads(ran.stdout)["sandboxes"]
        return [each["operation"] for each in sandbox["operations"]]


@pytest.fixture
def manifest(container: Container) -> Manifest:
    return Manifest(container)


def ours(container: Container) -> list[str]:
    lines = container.guest.output("ip", "route", "show", "proto", "200").splitlines()
    return [line.partition(" scope ")[0].strip() for line in lines]


@pytest.mark.usefixtures("tap")
def test_interfaces_and_routes(manifest: Manifest, container: Container) -> None:
    expected = ["PlugInterface", "AddContainerRoute", "AddContainerRoute"]
    assert manifest.diff(interfaces=[NIC], routes=ROUTES) == expected
    manifest.apply(interfaces=[NIC], routes=ROUTES)
    both = ["default via 172.17.0.1 dev eth-test", "172.17.0.0/16 dev eth-test"]
    assert ours(container) == both
    # What changes of an interface plugs it anew, and its routes come back.
    changed = NIC | {"mtu": 1400, "addresses": ["172.16.0.4/16"]}
    manifest.apply(interfaces=[changed])
    assert "inet 172.16.0.4/16" in container.guest.output("ip", "address", "show", "dev", "eth-test")
    assert ours(container) == both
    moved = [ROUTES[0] | {"gateway": "172.16.0.1"}]
    manifest.apply(interfaces=[changed], routes=moved)
    assert ours(container) == ["default via 172.16.0.1 dev eth-test"]
    manifest.apply(interfaces=[], routes=[])
    assert container.output("kata-runtime kata-network list-ifaces 6ec7a98") == "null\n"


def test_a_table_is_imported_and_changed(manifest: Manifest, table: Table) -> None:
    manifest.apply(ipvs={"services": SERVICES})
    assert len(table.saved()) == 90
    assert table.saved()[:3] == [
        "-A -t 10.1.0.1:1 -s rr -p 300",
        "-a -t 10.1.0.1:1 -r 10.9.9.1:80 -m -w 5",
        "-a -t 10.1.0.1:1 -r 10.9.9.2:1 -g -w 1",
    ]
    changed = SERVICES[0] | {"scheduler": "wrr", "servers": [{"address": "10.9.9.3:80"}]}
    expected = ["EditService", "AddServer", "DeleteServer", "DeleteServer"]
    assert manifest.diff(ipvs={"services": [changed, *SERVICES[1:]]}) == expected
    manifest.apply(ipvs={"services": [changed]})
    assert table.saved() == ["-A -t 10.1.0.1:1 -s wrr -p 300", "-a -t 10.1.0.1:1 -r 10.9.9.3:80 -m -w 1"]


@pytest.mark.usefixtures("tap")
def test_a_failure_is_undone(manifest: Manifest, container: Container) -> None:
    manifest.apply(interfaces=[NIC], routes=[])
    wrong = [ROUTES[1], {"dest": "10.8.0.0/16", "device": "lo"}]
    container.guest.output("ip", "link", "set", "dev", "lo", "down")
    ran = manifest.run("apply", "--all-or-nothing", interfaces=[NIC], routes=wrong)
    container.guest.output("ip", "link", "set", "dev", "lo", "up")
    assert ran.returncode == 2
    assert "kata-network add-route: reconciler: failed at operation 1 of 1" in ran.stderr
    assert "1 done and undone; 0 not begun. box is as it was before." in ran.stderr
    assert ours(container) == []
