"""Manifests that are right by themselves and not together."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import ManifestError
from reconciler.manifest.load import load
from tests.manifest.texts import SECOND, manifest, nic, route, with_nic

OTHER = ("sandbox: web-2", "driver: {netns: {name: web-2}}")

# What the first file says, what the second says, and what the second is told.
CLASHES = {
    "ID": (
        manifest(),
        manifest(OTHER[1]),
        ["b.yaml:2:10: sandbox: sandbox web-1 has a manifest already, in a.yaml; a sandbox has one"],
    ),
    "ID of digits, as a number and as text": (
        manifest("sandbox: 7"),
        manifest("sandbox: '7'", OTHER[1]),
        ["b.yaml:2:10: sandbox: sandbox 7 has a manifest already, in a.yaml; a sandbox has one"],
    ),
    "namespace by name": (
        manifest(),
        manifest(OTHER[0]),
        ["b.yaml:3:9: driver: /run/netns/web-1 is the namespace of sandbox web-1 already, in a.yaml"],
    ),
    "namespace by path": (
        manifest("driver: {netns: {path: /run/ns/1}}"),
        manifest("sandbox: web-2", "driver: {netns: {path: /run/ns/1}}"),
        ["b.yaml:3:9: driver: /run/ns/1 is the namespace of sandbox web-1 already, in a.yaml"],
    ),
    "namespace by name and by path": (
        manifest(),
        manifest("sandbox: web-2", "driver: {netns: {path: /run/netns/web-1}}"),
        ["b.yaml:3:9: driver: /run/netns/web-1 is the namespace of sandbox web-1 already, in a.yaml"],
    ),
    "namespace by pid": (
        manifest("driver: {netns: {pid: 7}}"),
        manifest("sandbox: web-2", "driver: {netns: {pid: 7}}"),
        ["b.yaml:3:9: driver: /proc/7/ns/net is the namespace of sandbox web-1 already, in a.yaml"],
    ),
    "device": (
        with_nic(),
        manifest(*OTHER, nics=[nic("hwAddr: 02:42:20:6f:a3:6a")]),
        ["b.yaml:6:11: interfaces[0].device: tap0 is the device of sandbox web-1 already, in a.yaml"],
    ),
    "MAC in other spellings": (
        with_nic(),
        manifest(*OTHER, nics=[nic(*SECOND), nic("device: tap2", "hwAddr: 02-42-20-6F-A3-69")]),
        ["b.yaml:12:11: interfaces[1].hwAddr: 02:42:20:6f:a3:69 is the hwAddr of sandbox web-1 already, in a.yaml"],
    ),
    "everything": (
        with_nic(),
        with_nic(),
        [
            "b.yaml:2:10: sandbox: sandbox web-1 has a manifest already, in a.yaml; a sandbox has one",
        ],
    ),
    "machine": (
        manifest("driver: {vm: {name: web-1}}"),
        manifest(OTHER[0], "driver: {vm: {name: web-1}}"),
        [
            (
                "b.yaml:3:9: driver: /run/reconciler/sandboxes/web-1/agent.sock is the agent socket of sandbox web-1 "
                "already, in a.yaml"
            )
        ],
    ),
    "machine by one monitor and two agents": (
        manifest("driver: {vm: {qmp: /run/q.sock, agent: /run/a.sock}}"),
        manifest(OTHER[0], "driver: {vm: {qmp: /run/q.sock, agent: /run/b.sock}}"),
        ["b.yaml:3:20: driver.vm.qmp: /run/q.sock is the QMP socket of sandbox web-1 already, in a.yaml"],
    ),
    "machine by vsock": (
        manifest("driver: {vm: {agent: 'vsock://3:200'}}"),
        manifest(OTHER[0], "driver: {vm: {agent: 'vsock://3:200'}}"),
        ["b.yaml:3:9: driver: vsock://3:200 is the agent socket of sandbox web-1 already, in a.yaml"],
    ),
    "machine by hybrid vsock, one by another port of it": (
        manifest("driver: {vm: {agent: 'hvsock:///run/v.sock:200'}}")
        + "---\n"
        + manifest("sandbox: web-3", "driver: {vm: {agent: 'hvsock:///run/v.sock:201'}}"),
        manifest(OTHER[0], "driver: {vm: {agent: 'hvsock:///run//v.sock:200'}}"),
        [
            (
                "b.yaml:3:9: driver: hvsock:///run//v.sock:200 is the agent socket of sandbox web-1 already "
                "(hvsock:///run/v.sock:200), in a.yaml"
            )
        ],
    ),
    "machine by name and by its sockets": (
        manifest("driver: {vm: {qmp: /run/q.sock, agent: /run/reconciler/sandboxes/web-1/agent.sock}}"),
        manifest(OTHER[0], "driver: {vm: {name: web-1}}"),
        [
            (
                "b.yaml:3:9: driver: /run/reconciler/sandboxes/web-1/agent.sock is the agent socket of sandbox web-1 "
                "already, in a.yaml"
            )
        ],
    ),
    "beside a file in which something is wrong": (
        manifest() + "---\n" + manifest("apiVersion", "sandbox: web-3"),
        manifest(OTHER[1]),
        [
            "a.yaml:5:1: apiVersion: missing; expected reconciler/v1",
            "b.yaml:2:10: sandbox: sandbox web-1 has a manifest already, in a.yaml; a sandbox has one",
        ],
    ),
}


@pytest.mark.parametrize(("first", "second", "problems"), CLASHES.values(), ids=CLASHES)
def test_the_second_is_told(
    first: str, second: str, problems: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(first)
    Path("b.yaml").write_text(second)
    with pytest.raises(ManifestError) as caught:
        load(["a.yaml", "b.yaml"])
    assert [str(problem) for problem in caught.value.problems] == problems


def test_documents_of_a_file_are_compared_like_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(manifest() + "---\n" + manifest(OTHER[1]))
    with pytest.raises(ManifestError) as caught:
        load(["a.yaml"])
    assert [str(problem) for problem in caught.value.problems] == [
        "a.yaml:6:10: sandbox: sandbox web-1 has a manifest already, in a.yaml; a sandbox has one"
    ]


def test_a_namespace_and_a_machine_may_have_one_name(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(manifest() + "---\n" + manifest(OTHER[0], "driver: {vm: {name: web-1}}"))
    assert [str(each.sandbox.driver) for each in load([str(file)])] == ["netns web-1", "vm web-1"]


def test_names_and_routes_may_be_the_same_in_two_sandboxes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(manifest(nics=[nic()], routes=[route()]))
    second.write_text(manifest(*OTHER, nics=[nic(*SECOND[1:3])], routes=[route()]))
    one, other = (each.sandbox for each in load([str(first), str(second)]))
    assert one.routes == other.routes
    assert [each.name for each in one.interfaces or ()] == [each.name for each in other.interfaces or ()] == ["eth0"]
