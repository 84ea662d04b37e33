"""Thousands of sandboxes, many of which do not exist: they cost next to nothing, and the watcher ends at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from reconciler.manifest.dump import dump
from reconciler.rundir import NamedLock
from reconciler.watch import pause
from tests.allowed import FILE
from tests.conftest import Kernel, ip
from tests.examples import examples
from tests.processes import of_machines
from tests.system.box import MACS
from tests.watch.running import REFUSED, Running, put, until, watching

# The most that a watcher may use of one processor when nothing happens, and the seconds in which it has to end: on a
# machine that does nothing else, as `make soak` has it. Beside other tests, only what never rests is found.
SHARE, END, BUSY = 0.03, 2.0, 8
# Seconds after which nothing happens any more, and for which the processor time is measured: of thousands of sandboxes
# for as long as the time between two readings of all manifests.
SETTLE, MEASURE, RESCAN = 10.0, 10.0, 30.0
# How each driver names a sandbox that never existed.
ABSENT: list[dict[str, dict[str, str | int]]] = [
    {"netns": {"name": "never-%d"}},
    {"netns": {"path": "/tmp/never/%d"}},
    {"netns": {"pid": 4_194_304}},
    {"vm": {"name": "never-%d"}},
    {"vm": {"agent": "/tmp/never-%d.agent", "qmp": "/tmp/never-%d.qmp"}},
]


@pytest.fixture
def namespaces(kernel: Kernel) -> Iterator[Callable[[str, int, int], list[str]]]:
    """Return what adds or deletes namespaces with these numbers, all of them with one start of `ip`."""
    made: set[str] = set()

    def change(word: str, begin: int, end: int) -> list[str]:
        names = [f"{kernel.prefix}m{number}" for number in range(begin, end)]
        ip("-batch", "-", stdin="".join(f"netns {word} {name}\n" for name in names))
        (made.update if word == "add" else made.difference_update)(names)
        return names

    yield change
    ip("-force", "-batch", "-", stdin="".join(f"netns delete {name}\n" for name in made))


def write(folder: Path, name: str, driver: dict[str, dict[str, str | int]]) -> None:
    routes = [{"dest": "10.5.0.0/16", "type": "blackhole"}]
    put(
        folder / f"{name}.yaml",
        dump([{"apiVersion": "reconciler/v1", "sandbox": name, "driver": driver, "routes": routes}]),
    )


def used(running: Running) -> float:
    """Return the seconds of processor time that a watcher has used, with its children."""
    found = 0
    for pid in (running.process.pid, *of_machines(running.process.pid)):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found += sum(map(int, fields[11:15]))
    return found / os.sysconf("SC_CLK_TCK")


def allowed(figure: float) -> float:
    """Return the figure of a quiet machine, or what is enough on a busy one."""
    return figure if examples(100) >= 100 else figure * BUSY


def check_idle(running: Running, seconds: float = MEASURE) -> None:
    """Fail if a watcher uses more than SHARE of a processor."""
    time.sleep(SETTLE)
    before, begin = used(running), time.monotonic()
    time.sleep(seconds)
    share = (used(running) - before) / (time.monotonic() - begin)
    print(f"{share:.2%} of a processor")
    assert share < allowed(SHARE)


def check_end(running: Running) -> None:
    """Fail if a watcher takes longer than END to obey SIGTERM."""
    begin = time.monotonic()
    running.signal(signal.SIGTERM)
    assert running.process.wait(60) == 0
    took = time.monotonic() - begin
    print(f"ended after {took:.2f} s")
    assert took < allowed(END)


def test_sandboxes_that_never_existed_cost_nothing(root: None, tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    names = []
    for number in range(30):
        ((driver, address),) = ABSENT[number % len(ABSENT)].items()
        named = {key: value % number if isinstance(value, str) else value - number for key, value in address.items()}
        names.append(f"{driver}-{number}")
        write(folder, names[-1], {driver: named})
    with watching(folder, "--policy", FILE) as running:
        running.await_state("waiting", *names)
        check_idle(running)
        assert set(running.await_state("waiting", *names).sandboxes) == set(names)
        # One line each, and no more.
        assert sorted(each["sandbox"] for each in running.events("waiting")) == sorted(names)
        check_end(running)


def test_a_quarter_of_all_namespaces_goes(
    namespaces: Callable[[str, int, int], list[str]], tmp_path: Path, repeats: Callable[[int], int]
) -> None:
    count = repeats(200)
    folder = tmp_path / "manifests"
    folder.mkdir()
    names = namespaces("add", 0, count)
    for name in names:
        write(folder, name, {"netns": {"name": name}})
    begin = time.monotonic()
    with watching(folder) as running:
        running.await_state("converged", *names)
        print(f"{count} namespaces converged after {time.monotonic() - begin:.1f} s")
        gone = namespaces("delete", 0, count // 4)
        running.await_state("waiting", *gone)
        check_idle(running, RESCAN if count > 1000 else MEASURE)
        states = {name: each["state"] for name, each in running.status().sandboxes.items()}
        assert states == {name: "waiting" if name in gone else "converged" for name in names}
        # They are noticed when they come again, and so is drift in them and in the others.
        namespaces("add", 0, count // 4)
        running.await_state("converged", *names)
        for name in (names[0], names[-1]):
            ip("route", "del", "blackhole", "10.5.0.0/16", namespace=name)
            running.until(lambda name=name: "10.5.0.0/16" in ip("route", namespace=name), f"the repair of {name}")  # type: ignore[misc]
        check_end(running)


class Served:
    """A unix socket. `answer`: what whoever connects is sent before the end; None: nobody accepts."""

    def __init__(self, path: Path, answer: bytes | None) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        if answer is None:
            self._socket.close()
        else:
            self._socket.listen()
            threading.Thread(target=self._serve, args=(answer,), daemon=True).start()

    def _serve(self, answer: bytes) -> None:
        while True:
            with suppress(OSError):
                asker, _ = self._socket.accept()
                with asker:
                    asker.sendall(answer)


def test_no_state_that_a_look_can_end_in_is_tried_again_at_once(kernel: Kernel, tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    states: dict[str, str] = {}

    def add(name: str, state: str, driver: dict[str, dict[str, str | int]], **sections: object) -> None:
        states[name] = state
        routes = {"routes": [{"dest": "10.5.0.0/16", "type": "blackhole"}]}
        head = {"apiVersion": "reconciler/v1", "sandbox": name, "driver": driver}
        put(folder / f"{name}.yaml", dump([head | routes | sections]))

    def namespace() -> dict[str, dict[str, str | int]]:
        return {"netns": {"name": kernel.namespace()}}

    nic = {"name": "eth0", "device": "nowhere0", "hwAddr": MACS[0], "mtu": 1500, "addresses": ["10.0.0.2/16"]}
    (tmp_path / "file").touch()
    for name, answer in (("dead", None), ("closes", b""), ("babbles", b"{}\n" * 1000)):
        for kind in ("agent", "qmp"):
            Served(tmp_path / f"{name}.{kind}", answer)
        machine = {"agent": f"{tmp_path}/{name}.agent", "qmp": f"{tmp_path}/{name}.qmp"}
        add(name, "failed" if answer else "waiting", {"vm": dict(machine)})
    add("gone", "waiting", {"netns": {"name": "never"}})
    add("no-namespace", "failed", {"netns": {"path": str(tmp_path / "file")}})
    add("no-device", "failed", namespace(), interfaces=[nic], routes=[])
    add("no-runtime", "failed", {"kata": {"id": "x", "runtime": "/nowhere/kata-runtime"}}, routes=[])
    add("bad-runtime", "failed", {"kata": {"id": "y", "runtime": "/bin/false"}}, routes=[])
    add("says-paused", "paused", namespace(), paused="by hand")
    add("no-file-paused", "paused", namespace())
    foreign = namespace()
    ip("route", "add", "unreachable", "10.5.0.0/16", namespace=str(foreign["netns"]["name"]))
    add("foreign", "refused", foreign)
    add(
        "refused-by-kernel",
        "failed",
        namespace(),
        interfaces=[nic | {"device": kernel.tap(), "hwAddr": MACS[1]}],
        routes=[REFUSED],
    )
    locked = namespace()
    add("busy", "waiting", locked)
    add("good", "converged", namespace())
    broken = Path(pause.FOLDER, "no-file-paused")
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_text("nonsense")
    try:
        found = os.stat(f"/run/netns/{locked['netns']['name']}")
        with (
            closing(NamedLock(f"netns {found.st_dev}:{found.st_ino}")) as lock,
            watching(folder, "--policy", FILE) as running,
        ):
            # A look that is under way has it.
            until(lock.acquire)
            running.signal(signal.SIGHUP)
            for name, state in states.items():
                running.await_state(state, name)
            check_idle(running)
            assert {name: each["state"] for name, each in running.status().sandboxes.items()} == states
            check_end(running)
    finally:
        broken.unlink()
