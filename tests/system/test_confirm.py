"""`apply --confirm`: a change is kept once it is confirmed, and undone otherwise, whoever is killed."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler import pending
from reconciler.cli.main import main
from reconciler.drivers import connect
from reconciler.errors import BusyError
from reconciler.manifest.load import load
from reconciler.pending import Pending
from tests.allowed import FILE, POLICY
from tests.conftest import Kernel
from tests.machine import Guest
from tests.system.box import Box, SandboxPlace, VmBox, nic
from tests.terminal import terminal
from tests.watch.running import until

ROOT = Path(__file__).parents[2]
ROLES = ("command", "helper", "twin")


class Story:
    """A sandbox with an old and a new state, each as `show` prints it."""

    def __init__(self, place: SandboxPlace, capsys: pytest.CaptureFixture[str]) -> None:
        self.place, self._capsys = place, capsys
        # The tests of other processes have sandboxes that wait as well.
        self.name = place.kernel.prefix
        one, two = place.device(carrier=True), place.device(carrier=True)
        route = {"dest": "192.168.1.0/24", "gateway": "10.0.0.1", "device": "eth0"}
        self.sections = {
            "sandbox": self.name,
            "interfaces": [nic(one, addresses=place.addresses("10.0.0.2/16", "10.0.0.3/16")), nic(two, "eth1", 1)],
            "routes": [route | {"gateway": "10.0.0.9"}, {"dest": "default", "gateway": "10.1.0.1", "device": "eth1"}],
        }
        self._old = {
            "sandbox": self.name,
            "interfaces": [nic(one, mtu=1400)],
            "routes": [route, {"dest": "10.9.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}],
        }
        place.apply("--allow-delete", "all", **self.sections)
        self.new = self.shown()
        place.apply("--allow-delete", "all", **self._old)
        self.old = self.shown()
        self.file = place.write(**self.sections)

    def again(self) -> None:
        """Have the old state once more."""
        self.place.apply("--allow-delete", "all", **self._old)
        self.place.write(**self.sections)
        assert self.shown() == self.old

    @property
    def waiting(self) -> Pending | None:
        """Return the change that waits."""
        return pending.read(self.name)

    def await_end(self) -> None:
        """Wait until no change waits any more."""
        until(lambda: self.waiting is None, longest=0.05)

    def shown(self) -> str:
        """Return what `show` prints."""
        self._capsys.readouterr()
        assert main(["show", str(self.place.file)]) == 0
        return self._capsys.readouterr().out


@pytest.fixture
def story(place: SandboxPlace, capsys: pytest.CaptureFixture[str]) -> Iterator[Story]:
    made = Story(place, capsys)
    yield made
    pending.remove(made.name)


@pytest.fixture
def boxed(box: Box, capsys: pytest.CaptureFixture[str]) -> Iterator[Story]:
    made = Story(box, capsys)
    yield made
    pending.remove(made.name)


def test_it_is_undone_unless_it_is_confirmed(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "--confirm", "0.5s", story.file]) == 0
    assert f"{story.name}: a change waits to be confirmed, until " in capsys.readouterr().out
    story.await_end()
    assert story.shown() == story.old
    assert main(["confirm", story.name]) == 2
    assert capsys.readouterr().err == f"reconciler: {story.name}: no change waits to be confirmed\n"
    assert main(["confirm", "../waiting/x"]) == 2
    assert capsys.readouterr().err == 'reconciler: "../waiting/x" is not a valid sandbox ID\n'
    assert main(["apply", "--confirm", "1min", story.file]) == 0
    assert story.shown() == story.new
    # Nobody else changes it meanwhile, and whoever looks may.
    assert main(["apply", story.file]) == 2
    assert "a change waits to be confirmed, until " in capsys.readouterr().err
    assert main(["diff", story.file]) == 0
    assert main(["confirm", story.name]) == 0
    assert story.waiting is None
    assert story.shown() == story.new
    assert main(["apply", story.file]) == 0


def test_without_a_change_there_is_nothing_to_confirm(boxed: Story, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", boxed.file]) == 0
    assert main(["apply", "--confirm", "1min", boxed.file]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{boxed.name}: in sync"
    assert boxed.waiting is None


def test_what_fails_is_undone_at_once(boxed: Story, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing waits, whether an operation fails or a check."""
    data = json.loads(json.dumps(boxed.sections))
    checks = [{"tcp": "10.0.0.2:9", "required": True, "timeout": 1}]
    assert main(["apply", "--confirm", "1min", boxed.place.write(**data, checks=checks)]) == 2
    assert "1 check failed after the change" in capsys.readouterr().err
    assert (boxed.shown(), boxed.waiting) == (boxed.old, None)
    data["routes"].append({"dest": "192.168.9.0/24", "gateway": "10.0.0.1", "device": "eth0", "source": "10.77.0.1"})
    assert main(["apply", "--confirm", "1min", boxed.place.write(**data)]) == 2
    assert (boxed.shown(), boxed.waiting) == (boxed.old, None)


def test_the_file_is_for_root_only_and_has_the_way_back(boxed: Story) -> None:
    assert main(["apply", "--confirm", "1min", boxed.file]) == 0
    path = Path(pending.WAITING) / boxed.name
    assert [oct(each.stat().st_mode & 0o777) for each in (path, path.parent, path.parent.parent)] == [
        "0o600",
        "0o700",
        "0o700",
    ]
    found = boxed.waiting
    assert found
    assert 0 < found.left <= 60
    assert sorted(found.before["routes"], key=str) == sorted(boxed._old["routes"], key=str)
    with connect(load([boxed.file])[0].sandbox, POLICY) as driver, pytest.raises(BusyError), driver.lock():
        pass
    assert main(["confirm", boxed.name]) == 0


def test_a_sandbox_that_was_replaced_is_left_alone(boxed: Story, kernel: Kernel) -> None:
    """A namespace of the same name is another one; what the kernel had went with the old one."""
    assert main(["apply", "--confirm", "1s", boxed.file]) == 0
    name = Path(boxed.file).stem
    subprocess.run(["ip", "netns", "del", name], check=True)
    subprocess.run(["ip", "netns", "add", name], check=True)
    boxed.await_end()
    links = subprocess.run(["ip", "-n", name, "-br", "link"], check=True, capture_output=True, text=True).stdout
    assert len(links.splitlines()) == 1


def test_the_next_command_finishes_what_all_killed_processes_left(
    boxed: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["apply", "--confirm", "1s", boxed.file]) == 0
    for pid in helpers(boxed.name):
        os.kill(pid, 9)
    until(lambda: (found := boxed.waiting) is not None and found.is_due)
    # A command of another test may be the next one, and at it still.
    until(lambda: boxed.shown() == boxed.old and boxed.waiting is None)


def helpers(sandbox: str) -> list[int]:
    """Return the processes that would undo the change of a sandbox of these tests."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes() if folder.name.isdecimal() else b""
            if f"import main; main({sandbox!r})".encode() in words:
                found.append(int(folder.name))
    return found


def stepped(role: str, step: int, steps: Path, *words: str) -> int:
    """Run a command that is killed at a step of one of its processes; return its exit code."""
    environment = {**os.environ, "ROLE": role, "STEP": str(step), "STEPS": str(steps)}
    command = [sys.executable, "-m", "tests.system.stepped", *words]
    ran = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    return ran.returncode


def test_killed_at_any_step_it_is_the_old_state_or_the_confirmed_one(
    boxed: Story, repeats: Callable[[int], int], tmp_path: Path
) -> None:
    """Of all processes, at steps that are spread over all that they do. Nothing is left between the two states."""
    words = ["apply", "--policy", FILE, "--allow-delete", "all", "--confirm", "1s", boxed.file]
    steps = tmp_path / "steps"
    for role in ROLES:
        steps.unlink(missing_ok=True)
        assert stepped(role, 0, steps, *words) == 0
        boxed.await_end()
        until(steps.exists)
        count, runs = int(steps.read_text()), repeats(3)
        assert boxed.shown() == boxed.old
        assert count > 20
        for run in range(runs):
            # A part of a step further each time, so that several runs of the test see others.
            step = 1 + int((run + random.random()) * count / runs)
            begin = pending.now()
            stepped(role, step, steps, *words)
            deadline = known.deadline if (known := boxed.waiting) else 0.0
            boxed.await_end()
            late = pending.now() - max(deadline, begin)
            assert boxed.shown() == boxed.old, (role, step)
            # Only where nothing else is at work, the time says anything.
            assert runs <= 3 or not deadline or late < 2, (role, step, late)


def test_a_confirmation_that_is_killed_counts_or_not(
    boxed: Story, repeats: Callable[[int], int], tmp_path: Path
) -> None:
    steps = tmp_path / "steps"
    apply = ["apply", "--allow-delete", "all", "--confirm", "3s", boxed.file]
    assert main(apply) == 0
    assert stepped("command", 0, steps, "confirm", boxed.name) == 0
    count, runs = int(steps.read_text()), repeats(3)
    for run in range(runs):
        boxed.again()
        assert main(apply) == 0
        stepped("command", 1 + int((run + random.random()) * count / runs), steps, "confirm", boxed.name)
        boxed.await_end()
        assert boxed.shown() in {boxed.old, boxed.new}


def last(text: bytes) -> str:
    """Return the last line that a terminal shows."""
    return text.decode().splitlines()[-1].rpartition("\x1b[K")[2]


def test_enter_keeps_it_on_a_terminal_which_counts_down(boxed: Story) -> None:
    words = ["apply", "--policy", FILE, "--allow-delete", "all", "--confirm", "5min", boxed.file]
    with terminal(*words, columns=40) as shown:
        shown.read(b"Enter keeps it; undone in ")
        shown.type("\n")
        code, text = shown.finish()
    assert (code, last(text)) == (0, f"{boxed.name}: confirmed")
    assert (boxed.shown(), boxed.waiting) == (boxed.new, None)


def test_a_terminal_shows_that_it_was_undone(boxed: Story) -> None:
    words = ["apply", "--policy", FILE, "--allow-delete", "all", "--confirm", "1s", boxed.file]
    with terminal(*words) as shown:
        code, text = shown.finish()
    assert (code, last(text)) == (2, f"{boxed.name}: not confirmed in time: undone")
    assert boxed.shown() == boxed.old


def test_a_confirmation_by_another_ends_the_wait(boxed: Story) -> None:
    words = ["apply", "--policy", FILE, "--allow-delete", "all", "--confirm", "5min", boxed.file]
    with terminal(*words) as shown:
        shown.read(b"Enter keeps it")
        assert main(["confirm", boxed.name]) == 0
        code, text = shown.finish()
    assert (code, last(text)) == (0, f"{boxed.name}: confirmed")


def test_status_counts_down_without_a_watcher(boxed: Story, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "--confirm", "5min", boxed.file]) == 0
    capsys.readouterr()
    main(["status"])
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{boxed.name}: "))
    assert re.fullmatch(rf"{boxed.name}: a change waits to be confirmed, until .* \(\d+ s left\)", line)
    assert main(["confirm", boxed.name]) == 0


def test_what_no_manifest_can_express_is_no_way_back(boxed: Story, capsys: pytest.CaptureFixture[str]) -> None:
    boxed.place.ip("address", "add", "10.5.0.1/24", "broadcast", "10.5.0.9", "dev", "eth0")
    assert main(["apply", "--confirm", "1min", boxed.file]) == 3
    assert "the way back cannot be recorded: no manifest can express all" in capsys.readouterr().err
    assert boxed.waiting is None


def test_rules_of_ipvs_are_undone_and_a_service_that_takes_no_connection_undoes_them(
    kernel: Kernel, guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = VmBox(kernel, tmp_path / "box.yaml", guest)
    name = kernel.prefix
    service = {"tcp": "127.0.0.1:80", "scheduler": "rr", "servers": [{"address": "127.0.0.1:81", "weight": 1}]}
    connects = {"connects": {"service": "127.0.0.1:80"}, "timeout": 1}
    try:
        place.apply(sandbox=name, ipvs={"services": [service]})
        before = guest.output("ipvsadm", "-Sn")
        more = [service | {"scheduler": "wlc"}, {"udp": "10.0.0.7:53", "servers": [{"address": "10.0.0.8:53"}]}]
        file = place.write(sandbox=name, ipvs={"services": more})
        assert main(["apply", "--confirm", "1s", file]) == 0
        assert guest.output("ipvsadm", "-Sn") != before
        until(lambda: pending.read(name) is None)
        assert guest.output("ipvsadm", "-Sn") == before
        file = place.write(sandbox=name, ipvs={"services": more}, checks=[connects | {"required": True}])
        assert main(["apply", "--confirm", "1min", file]) == 2
        assert "1 check failed after the change: connects 127.0.0.1:80" in capsys.readouterr().err
        assert (guest.output("ipvsadm", "-Sn"), pending.read(name)) == (before, None)
    finally:
        pending.remove(name)
        place.apply("--allow-delete", "all", sandbox=name, ipvs={"services": []})
