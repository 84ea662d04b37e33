"""Several real sandboxes of one apply: a slow machine delays none, and a device moves from one to another."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.converge import apply
from reconciler.drivers import netns_execute
from reconciler.drivers.given import Namespace, find_namespaces
from reconciler.drivers.home import attachable
from reconciler.operations.outcome import Outcome
from tests.conftest import Kernel, ip
from tests.system.box import Box, make_box, nic
from tests.watch.hostile import MANIFEST, Honest, Slow, monitor, serve


@pytest.fixture
def other(kernel: Kernel, tmp_path: Path) -> Box:
    folder = tmp_path / "other"
    folder.mkdir()
    return make_box(kernel, folder)


def write(box: Box, folder: Path, name: str, **sections: object) -> None:
    """Write the manifest of a box under another ID into a folder."""
    folder.mkdir(exist_ok=True)
    text = Path(box.write(**sections)).read_text().replace("sandbox: box", f"sandbox: {name}")
    (folder / f"{name}.yaml").write_text(text)


def test_a_machine_that_answers_every_nine_seconds_delays_no_other(box: Box, kernel: Kernel, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    write(box, manifests, "good", interfaces=[nic(kernel.tap())])
    with tempfile.TemporaryDirectory(dir="/run") as place:
        serve(Path(place, "agent.sock"), lambda channel: Slow(channel).serve())
        serve(Path(place, "qmp.sock"), lambda channel: monitor(channel, b""))
        (manifests / "a-slow.yaml").write_text(MANIFEST.format(kind="a-slow", folder=place))
        command = [sys.executable, "-m", "reconciler", "apply", str(manifests)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            # The slow one is asked twice at least.
            deadline = time.monotonic() + 17
            while "eth0" not in ip("link", namespace=box.namespace):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert process.poll() is None
            process.terminate()


def test_an_unexpected_error_in_one_leaves_the_others_alone(
    box: Box,
    other: Box,
    kernel: Kernel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifests = tmp_path / "manifests"
    write(box, manifests, "a", interfaces=[nic(kernel.tap())])
    write(other, manifests, "b", interfaces=[nic(kernel.tap(), "eth0", 1)])

    def broken(driver: object, desired: object, **options: object) -> object:
        if getattr(desired, "id", "") == "a":
            raise KeyError("defect")
        return apply(driver, desired, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("reconciler.cli.apply.apply", broken)
    assert main(["apply", str(manifests)]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("a: a defect of reconciler: KeyError: 'defect' (test_beside.py:"), output.err
    assert output.out.startswith("b: applied 3 operations in ")


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_a_device_moves_from_one_sandbox_to_another_in_one_apply(
    box: Box, other: Box, kernel: Kernel, tmp_path: Path, names: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    device, manifests = kernel.tap(), tmp_path / "manifests"
    box.apply(interfaces=[nic(device)])
    capsys.readouterr()
    write(box, manifests, names[0], interfaces=[])
    write(other, manifests, names[1], interfaces=[nic(device)])
    assert main(["apply", str(manifests)]) == 0, capsys.readouterr().err
    assert set(box.state()["links"]) == {"lo"}
    assert set(other.state()["links"]) == {"lo", "eth0"}
    said = capsys.readouterr().out.splitlines()
    assert [line[0] for line in said] == ["a", "b"]


def test_a_device_that_is_slow_to_come_home_is_awaited(
    box: Box, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = kernel.tap()
    box.apply(interfaces=[nic(device)])
    restore, under_way = netns_execute.restore, threading.Event()

    def slow(*given: Any) -> Outcome:
        under_way.set()
        # Longer than anybody would wait for a run that was killed.
        time.sleep(2)
        return restore(*given)

    monkeypatch.setattr(netns_execute, "restore", slow)
    with ThreadPoolExecutor(1) as pool:
        leaving = pool.submit(box.apply, "--allow-delete", "all", interfaces=[])
        assert under_way.wait(60)
        assert attachable([device])[device].name == device
        leaving.result()


def test_a_device_that_came_home_after_the_look_is_looked_at_again(
    box: Box, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = kernel.tap()
    box.apply(interfaces=[nic(device)])
    restore = netns_execute.restore
    under_way, was_seen = threading.Event(), threading.Event()

    def slow(*given: Any) -> Outcome:
        under_way.set()
        assert was_seen.wait(60)
        return restore(*given)

    def once_it_is_home(devices: Collection[str]) -> set[Namespace]:
        was_seen.set()
        leaving.result()
        return find_namespaces(devices)

    monkeypatch.setattr(netns_execute, "restore", slow)
    monkeypatch.setattr("reconciler.drivers.home.find_namespaces", once_it_is_home)
    with ThreadPoolExecutor(1) as pool:
        leaving = pool.submit(box.apply, "--allow-delete", "all", interfaces=[])
        assert under_way.wait(60)
        assert attachable([device])[device].name == device


def test_an_honest_machine_is_in_sync(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one that all hostile machines are made of."""
    with tempfile.TemporaryDirectory(dir="/run") as place:
        serve(Path(place, "agent.sock"), lambda channel: Honest(channel).serve())
        serve(Path(place, "qmp.sock"), lambda channel: monitor(channel, b""))
        file = tmp_path / "honest.yaml"
        file.write_text(MANIFEST.format(kind="honest", folder=place))
        assert main(["diff", str(file)]) == 0, capsys.readouterr().err
