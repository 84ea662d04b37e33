"""Runs `reconciler watch` as a process, reads its log and status, and makes namespaces that it keeps."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from reconciler.cli.main import main
from reconciler.manifest.dump import dump
from tests.allowed import FILE
from tests.conftest import Kernel, ip
from tests.system.box import MACS, nic

COMMAND = [sys.executable, "-m", "reconciler"]
# Seconds.
DEADLINE, END = 180.0, 240.0
ROUTE = {"dest": "10.8.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}
OTHER = {"dest": "10.9.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}
# Nothing in a manifest tells that the kernel has no such source address.
REFUSED = {"dest": "192.168.9.0/24", "gateway": "10.0.0.1", "device": "eth0", "source": "198.51.100.77"}


def until(
    condition: Callable[[], object],
    what: str = "what is waited for",
    *,
    seconds: float = DEADLINE,
    longest: float = 0.3,
    more: Callable[[], str] = str,
) -> None:
    """Wait until a condition is true; fail the test with `more` if that takes too long.

    Between two looks are at most `longest` seconds. To look costs processes, which what is waited for needs as well.
    """
    end = time.monotonic() + seconds
    pause = min(0.03, longest)
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not in {seconds:.0f} s: {what}\n{more()}")
        time.sleep(pause)
        pause = min(1.5 * pause, longest)


def reconciler(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, timeout=END)


class Answer(NamedTuple):
    """The output of `status`, and its exit code."""

    code: int
    alarms: list[str]
    problems: list[str]
    sandboxes: dict[str, dict[str, Any]]


class Running:
    """A watcher that runs. Several that run in turn write one log; the lines of this one begin at byte `begin`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, begin: int) -> None:
        self.process, self._log, self._begin = process, log, begin

    def lines(self) -> list[dict[str, Any]]:
        """Return all events logged so far, without a line that is being written."""
        whole = self._text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def events(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """Return the events with this name and these fields."""
        return [each for each in self.lines() if each["event"] == name and fields.items() <= each.items()]

    def await_event(self, name: str, **fields: object) -> dict[str, Any]:
        """Wait for an event with this name and these fields; return the first one."""

        def found() -> bool:
            assert self.process.poll() is None or self.events(name, **fields), self._tail()
            return bool(self.events(name, **fields))

        self.until(found, f"{name} {fields}")
        return self.events(name, **fields)[0]

    def status(self) -> Answer:
        with redirect_stdout(io.StringIO()) as printed:
            code = main(["status", "-o", "json"])
        assert code in {0, 1}
        data = json.loads(printed.getvalue())
        return Answer(code, data["alarms"], data["problems"], {each["sandbox"]: each for each in data["sandboxes"]})

    def about(self, name: str) -> dict[str, Any]:
        """Return all that is known of one sandbox."""
        with redirect_stdout(io.StringIO()) as printed:
            main(["status", name, "-o", "json"])
        (found,) = json.loads(printed.getvalue())["sandboxes"]
        return dict(found)

    def state(self, name: str) -> str:
        """Return the state of a sandbox; empty if the watcher does not know it."""
        return str(self.status().sandboxes.get(name, {}).get("state", ""))

    def await_state(self, state: str, *names: str) -> Answer:
        """Wait until all these sandboxes are in a state; return the output of `status` then."""
        answers: list[Answer] = []

        def found() -> bool:
            answers[:] = [self.status()]
            return all(answers[0].sandboxes.get(name, {}).get("state") == state for name in names)

        self.until(found, f"{', '.join(names)} {state}")
        return answers[0]

    def await_good(self) -> Answer:
        """Wait until `status` calls every sandbox good; return its output then."""
        answers: list[Answer] = []

        def found() -> bool:
            answers[:] = [self.status()]
            return answers[0].code == 0

        self.until(found, "nothing that is wrong")
        return answers[0]

    def await_quiet(self) -> None:
        """Wait until there has been no look for longer than the watcher's tick."""
        looks, since = self._looks(), time.monotonic()

        def quiet() -> bool:
            nonlocal looks, since
            if (now := self._looks()) != looks:
                looks, since = now, time.monotonic()
            return time.monotonic() - since > 1.5

        self.until(quiet, "no more looks")

    def _looks(self) -> dict[str, float]:
        return {name: each["looked"] for name, each in self.status().sandboxes.items()}

    def metric(self, name: str, sandbox: str = "") -> float:
        """Return the value of a metric of one sandbox, or of the watcher."""
        label = f'{{sandbox="{sandbox}"}}' if sandbox else ""
        (found,) = (line for line in self.metrics() if line.startswith(f"reconciler_{name}{label} "))
        return float(found.split()[-1])

    def metrics(self) -> list[str]:
        """Return the lines of all metrics."""
        port = self.await_event("metrics")["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE) as answer:
            return list(answer.read().decode().splitlines())

    def await_tries(self, count: int) -> None:
        """Wait until so many looks have failed: what fails is tried again after 1, 2, 4, … s, some a quarter sooner."""

        def failed() -> float:
            looks = (line for line in self.metrics() if line.startswith("reconciler_look_duration_seconds_count"))
            return sum(float(line.split()[-1]) for line in looks if 'result="failed"' in line)

        self.until(lambda: failed() >= count, f"{count} looks that fail")

    def until(self, condition: Callable[[], object], what: str = "what is waited for") -> None:
        """Wait until a condition is true; a failure shows the end of the log."""
        until(condition, what, more=self._tail)

    def _tail(self) -> str:
        return self._text()[-4000:]

    def _text(self) -> str:
        return self._log.read_bytes()[self._begin :].decode()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """Stop the watcher as a service manager does; return its exit code."""
        self.process.terminate()
        return self.process.wait(END)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def watching(
    folder: Path, *options: str, paths: tuple[Path, ...] = (), within: tuple[str, ...] = ()
) -> Iterator[Running]:
    """Run a watcher of a folder, or of `paths`, during the block, which begins once all manifests have been read.

    `within`: a command that runs the watcher in another namespace.
    """
    log = folder.with_suffix(".log")
    words = [*within, *COMMAND, "watch", "--log", "json", "--policy", FILE, *options, *map(str, paths or (folder,))]
    with log.open("ab") as file:
        begin = file.tell()
        running = Running(subprocess.Popen(words, stderr=file), log, begin)
    try:
        running.await_event("watching")
        yield running
    finally:
        running.process.terminate()
        try:
            running.process.wait(END)
        finally:
            running.kill()


class Kept:
    """A namespace, a device for it, and its manifest in a folder. The namespace and the sandbox have the same name."""

    def __init__(self, kernel: Kernel, folder: Path, number: int, *, veth: bool = False) -> None:
        self.hw_addr = MACS[number]
        self.name = kernel.namespace()
        self.device, self.peer = kernel.veth() if veth else (kernel.tap(), "")
        self.file = folder / f"{self.name}.yaml"
        self.sections: dict[str, Any] = {"interfaces": [nic(self.device, hwAddr=self.hw_addr)], "routes": [ROUTE]}
        folder.mkdir(exist_ok=True)
        self.write()

    def write(self, **sections: Any) -> None:
        """Change some sections of the manifest, and write it."""
        self.sections |= sections
        head = {"apiVersion": "reconciler/v1", "sandbox": self.name, "driver": {"netns": {"name": self.name}}}
        put(self.file, dump([head | self.sections]))

    def ip(self, *words: str) -> str:
        return ip(*words, namespace=self.name)

    def has(self, dest: str = "10.8.0.0/16") -> bool:
        """Return whether the namespace exists and has a route."""
        shown = subprocess.run(
            ["ip", "-n", self.name, "route", "show", dest], capture_output=True, text=True, check=False
        )
        return bool(shown.stdout)

    def is_as_written(self) -> bool:
        """Return whether the kernel has everything that the first manifest describes."""
        try:
            (link,) = json.loads(self.ip("-j", "address", "show", "dev", "eth0"))
        except subprocess.CalledProcessError:
            return False
        addresses = [f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["family"] == "inet"]
        found = (link["address"], link["mtu"], "UP" in link["flags"], addresses)
        return found == (self.hw_addr, 1500, True, ["10.0.0.2/16"]) and self.has()

    def end(self) -> None:
        """Delete the namespace, and wait until the kernel has destroyed everything in it."""
        ip("netns", "del", self.name)
        if self.peer:
            until(lambda: not is_on_host(self.peer), f"{self.peer} is gone with {self.name}")

    def begin(self) -> None:
        """Create the namespace again, and its device."""
        ip("netns", "add", self.name)
        self.supply()

    def supply(self) -> None:
        """Create the device again."""
        if self.peer:
            ip("link", "add", self.device, "type", "veth", "peer", "name", self.peer)
        else:
            ip("tuntap", "add", "dev", self.device, "mode", "tap")

    def inode(self) -> int:
        return os.stat(f"/run/netns/{self.name}").st_ino


Keep = Callable[..., Kept]


@contextmanager
def at_once(folder: Path) -> Iterator[None]:
    """Let all changes of the block be read at the same time, as those of a checkout are."""
    (folder / ".git").mkdir(exist_ok=True)
    lock = folder / ".git/index.lock"
    lock.touch()
    try:
        yield
    finally:
        lock.unlink()


def is_on_host(device: str) -> bool:
    return Path("/sys/class/net", device).exists()


def put(file: Path, text: str) -> None:
    """Replace a file atomically."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.replace(file)
