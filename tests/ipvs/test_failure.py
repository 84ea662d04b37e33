"""What goes wrong: rules that the kernel refuses, wrong files, processes and machines that die or stand still."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import resumed
from tests.ipvs import halted as halting
from tests.ipvs.place import ID, MachineTable, Vm
from tests.ipvs.rules import rules
from tests.machine import freeze

RULES = rules()
# As many as an apply is stopped in the middle of: it sends them in more batches than BATCHES.
MANY = rules(1500)
# What we cannot know to be wrong and this kernel refuses: IPv6 link-local servers, a scheduler that it does not have.
REFUSED_SERVER = ["-A -t [fd00::1]:80 -s rr", "-a -t [fd00::1]:80 -r [fe80::9]:80 -m -w 1"]
REFUSED_SERVICE = ["-A -t 10.1.0.9:80 -s twos", "-a -t 10.1.0.9:80 -r 10.9.9.1:80 -m -w 1"]
# Seconds that a host waits for a guest that stands still, once for what it is at and once to look again; and a margin.
FROZEN = 2 * 10.0 + 20.0
# Seconds, less than a host waits for a guest that is silent.
AT_ONCE = 9.0
BATCHES = 4


def with_refused(lines: list[str], refused: list[str]) -> str:
    middle = len(lines) // 2
    return "\n".join(lines[:middle] + refused + lines[middle:]) + "\n"


def literal(reached: MachineTable, text: str) -> str:
    """Write a manifest with rules as people write it; give its path."""
    indented = text.replace("\n", "\n    ").rstrip(" ")
    return reached.file("literal.yaml", f"{reached.text().replace('ipvs: {}', 'ipvs:')}  rules: |\n    {indented}")


def spawn(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "reconciler", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def halted(number: int, path: str) -> subprocess.Popen[str]:
    """Start an apply, and wait until it stops before its batch of that number, or has ended without one (halted.py)."""
    process = subprocess.Popen(
        [sys.executable, halting.__file__, str(number), "apply", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return process


def failure(stderr: str) -> str:
    """Give what is said besides warnings."""
    return "\n".join(line for line in stderr.splitlines() if ": warning: " not in line)


def test_a_refused_server_is_reported_with_its_text_and_the_other_19_999_are_in_place(reached: MachineTable) -> None:
    lines = [*RULES[:-4], "-A -t 10.99.0.1:80 -s rr", "-a -t 10.99.0.1:80 -r 10.9.9.1:80 -m -w 1"]
    text = with_refused(lines, REFUSED_SERVER)
    assert text.count("\n") == 20_000
    path = literal(reached, text)
    ran = reached.reconciler("apply", path)
    assert (ran.status, ran.stdout) == (2, "")
    said = failure(ran.stderr).splitlines()
    assert said[:2] == [
        f"{ID}: 1 of 20,000 operations failed: ipvsadm -a -t [fd00::1]:80 -r [fe80::9]:80 -m -w 1",
        "  the kernel: Invalid argument",
    ]
    assert said[2].startswith(f"  from {path}:")
    assert said[-1] == "  19,999 done and kept; 1 left to do. To have all or nothing: --all-or-nothing."
    assert sorted(reached.saved()) == sorted([*lines, REFUSED_SERVER[0]])
    # Nothing is left of the failure once the rule is taken out.
    assert reached.reconciler("apply", literal(reached, "\n".join([*lines, REFUSED_SERVER[0]]))).status == 0


def test_a_refused_service_is_named_and_so_are_its_servers(reached: MachineTable) -> None:
    lines = rules(3)
    # A newer kernel has it, and then has it no more.
    reached.shell("rmmod ip_vs_twos 2>/dev/null || true; rm -f /lib/modules/*/kernel/net/netfilter/ipvs/ip_vs_twos.*")
    ran = reached.reconciler("apply", literal(reached, with_refused(lines, REFUSED_SERVICE)))
    assert ran.status == 2
    said = failure(ran.stderr)
    assert f"{ID}: 2 of 14 operations failed: ipvsadm -A -t 10.1.0.9:80 -s twos\n  the kernel: No such file" in said
    assert "  ipvsadm -a -t 10.1.0.9:80 -r 10.9.9.1:80 -m -w 1: its service could not be added\n" in said
    assert sorted(reached.saved()) == sorted(lines)


BEFORE: dict[str, Any] = {
    "timeouts": {"tcp": 100, "tcpfin": 7, "udp": 8},
    "sysctls": {"conntrack": 1, "drop_entry": 0},
    "services": [
        {
            "tcp": "10.1.0.1:80",
            "scheduler": "rr",
            "servers": [{"address": "10.9.9.1", "upperThreshold": 9, "weight": 4}],
        },
        {"udp": "10.1.0.1:53", "persistent": 9, "servers": [{"address": "10.9.9.1"}, {"address": "10.9.9.2"}]},
        {"fwmark": 7, "servers": [{"address": "10.9.9.1", "forward": "tunnel", "tunType": "gre"}]},
    ],
}
AFTER: dict[str, Any] = {
    "timeouts": {"tcp": 200},
    "sysctls": {"conntrack": 0, "drop_entry": 1},
    "services": [
        {
            "tcp": "10.1.0.1:80",
            "scheduler": "sh",
            "servers": [{"address": "10.9.9.1", "weight": 5}, {"address": "10.9.9.3"}],
        },
        {"udp": "10.1.0.1:53", "servers": [{"address": "10.9.9.2", "forward": "dr"}]},
        {"tcp": "[fd00::1]:80", "servers": [{"address": "fe80::9"}]},
        {"fwmark": 8},
    ],
}


def settings(reached: MachineTable) -> str:
    return reached.shell("ipvsadm -L --timeout; cat /proc/sys/net/ipv4/vs/conntrack /proc/sys/net/ipv4/vs/drop_entry")


def test_all_or_nothing_leaves_everything_as_it_was(reached: MachineTable) -> None:
    reached.apply(**BEFORE)
    before, set_before = reached.table(), settings(reached)
    ran = reached.reconciler("apply", "--all-or-nothing", reached.manifest(**AFTER))
    assert (ran.status, ran.stdout) == (2, "")
    assert "ipvsadm -a -t [fd00::1]:80 -r [fe80::9]:80 -m -w 1\n  the kernel: Invalid argument" in ran.stderr
    assert "undone" in ran.stderr
    assert f"{ID} is as it was before." in ran.stderr
    after = reached.table()
    assert [sorted(part) for part in after] == [sorted(part) for part in before]
    assert settings(reached) == set_before
    assert reached.diff(**BEFORE) == []


def test_all_or_nothing_of_20_000_rules(reached: MachineTable) -> None:
    path = literal(reached, with_refused(RULES[:-4], REFUSED_SERVER))
    ran = reached.reconciler("apply", "--all-or-nothing", path)
    assert (ran.status, ran.stdout) == (2, "")
    assert "all 19,997 undone" in ran.stderr
    assert f"{ID} is as it was before." in ran.stderr
    assert reached.saved() == []


@pytest.mark.parametrize("command", ["validate", "diff", "apply"])
def test_a_wrong_rule_on_line_19_999_refuses_the_file_before_anything_is_touched(
    reached: MachineTable, command: str
) -> None:
    reached.load("-A -t 10.1.0.1:80 -s rr\n")
    wrong = "-a -t 10.11.9.250:80 -r 10.9.9.300:80 -m"
    lines = [*RULES[:19_998], wrong, RULES[19_999]]
    reached.file("web.rules", "\n".join(lines))
    ran = reached.reconciler(command, reached.manifest(rulesFile="web.rules"))
    assert (ran.status, ran.stdout) == (2, "")
    message = '-r 10.9.9.300:80: "10.9.9.300" is not an IP address (host names are not looked up)'
    assert ran.stderr.startswith(f"{reached.folder}/web.rules:19999:1: {message}\n19999 | {wrong}\n")
    path = literal(reached, "\n".join(lines))
    ran = reached.reconciler(command, path)
    assert (ran.status, ran.stdout) == (2, "")
    at = Path(path).read_text().splitlines().index(f"    {wrong}") + 1
    assert ran.stderr.startswith(f"{path}:{at}:5: ipvs.rules line 19999: {message}\n")
    assert reached.saved() == ["-A -t 10.1.0.1:80 -s rr"]


def test_deletions_beyond_the_limit_are_refused(reached: MachineTable) -> None:
    lines = rules(10)
    reached.apply(rules="\n".join(lines))
    first = "\n".join(lines[:4])
    for text, words in (
        # 9 of 10 services, 27 of 30 servers.
        (first, "27 of 30"),
        # All services are kept, and 24 of 30 servers are not.
        ("\n".join(line for number, line in enumerate(lines) if number < 8 or line.startswith("-A")), "24 of 30"),
    ):
        ran = reached.reconciler("apply", reached.manifest(rules=text))
        assert (ran.status, ran.stdout) == (3, "")
        assert words in ran.stderr
        assert "--allow-delete" in ran.stderr
        assert sorted(reached.saved()) == sorted(lines)
    ran = reached.reconciler("apply", reached.manifest(services=[]))
    assert ran.status == 3
    assert "all 10" in ran.stderr
    assert reached.reconciler("apply", "--allow-delete", "26", reached.manifest(rules=first)).status == 3
    assert reached.reconciler("apply", "--allow-delete", "27", reached.manifest(rules=first)).status == 0
    assert sorted(reached.saved()) == sorted(lines[:4])
    # The last service is all of them.
    assert reached.reconciler("apply", reached.manifest(services=[])).status == 3
    assert reached.reconciler("apply", reached.manifest(rules="")).status == 2
    assert sorted(reached.saved()) == sorted(lines[:4])
    assert reached.reconciler("apply", "--allow-delete", "100%", reached.manifest(services=[])).status == 0
    assert reached.saved() == []


def test_killed_at_any_point_and_run_again(reached: MachineTable, repeats: Callable[[int], int]) -> None:
    """Of a restore, then of 4,500 edits: each process that is killed leaves a table that the next goes on with."""
    seed = time.time_ns()
    dice = random.Random(seed)
    for weight in (1, 7):
        lines = rules(1500, weight=weight)
        path = reached.manifest(rules="\n".join(lines))
        killed = 0
        for pause in (0.0, *(dice.uniform(0.01, 0.5) for _ in range(repeats(4)))):
            process = halted(dice.randint(1, BATCHES), path)
            if pause:
                process.send_signal(signal.SIGCONT)
                time.sleep(pause)
            process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
        ran = reached.reconciler("apply", path)
        assert ran.status == 0, f"{ran} (seed {seed})"
        assert sorted(reached.saved()) == sorted(lines), f"seed {seed}"
        assert killed


def test_what_was_set_for_a_moment_by_a_process_that_was_killed_is_put_back(reached: MachineTable) -> None:
    reached.apply(services=BEFORE["services"])
    reached.shell("echo 2 >/proc/sys/net/ipv4/vs/expire_nodest_conn")
    reached.apply(services=BEFORE["services"])
    assert reached.shell("cat /proc/sys/net/ipv4/vs/expire_nodest_conn").strip() == "0"


def test_two_at_once_are_one_and_one_that_says_so(reached: MachineTable) -> None:
    path = reached.manifest(rules="\n".join(MANY))
    processes = [spawn("apply", path) for _ in range(2)]
    ended = [(*process.communicate(timeout=600), process.returncode) for process in processes]
    codes = sorted(code for _, _, code in ended)
    assert codes in ([0, 0], [0, 2]), ended
    for _, stderr, code in ended:
        if code:
            assert "another" in stderr, stderr
    assert sorted(reached.saved()) == sorted(MANY)


@contextmanager
def frozen(pid: int | None) -> Iterator[None]:
    assert pid is not None
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_guest_that_stands_still_is_an_error_within_seconds_and_then_all_is_well(vm: Vm) -> None:
    path = vm.manifest(rules="\n".join(MANY))
    pid = vm.guest.sandbox.pid()
    process = halted(2, path)
    with frozen(pid):
        process.send_signal(signal.SIGCONT)
        begin = time.monotonic()
        _, stderr = process.communicate(timeout=120)
        assert time.monotonic() - begin < FROZEN
        assert process.returncode == 2
        assert failure(stderr).startswith(f"{ID}: "), stderr
        begin = time.monotonic()
        ran = vm.reconciler("diff", path)
        assert time.monotonic() - begin < FROZEN
        assert ran.status == 2
        assert failure(ran.stderr).startswith(f"{ID}: ")
    # A guest that had to wait for a busy host may need another run: what it has is what the next begins with.
    assert any(vm.reconciler("apply", path).status == 0 for _ in range(3))
    assert sorted(vm.saved()) == sorted(MANY)


@pytest.fixture
def mortal(root: None, tmp_path: Path) -> Iterator[Vm]:
    """A machine of its own."""
    with resumed.started(f"mortal-{os.getpid()}") as guest:
        yield Vm("vm", guest=guest, folder=tmp_path)


def test_a_machine_that_dies_is_an_error_at_once(mortal: Vm) -> None:
    mortal.shell("ip address add 10.9.9.9/32 dev lo")
    path = mortal.manifest(rules="\n".join(MANY))
    pid = mortal.guest.sandbox.pid()
    assert pid
    process = halted(2, path)
    os.kill(pid, signal.SIGKILL)
    mortal.guest.await_end()
    process.send_signal(signal.SIGCONT)
    begin = time.monotonic()
    _, stderr = process.communicate(timeout=120)
    assert time.monotonic() - begin < AT_ONCE
    assert process.returncode == 2
    assert "Traceback" not in stderr
    assert failure(stderr).startswith(f"{ID}: "), stderr
    begin = time.monotonic()
    ran = mortal.reconciler("apply", path)
    assert time.monotonic() - begin < AT_ONCE
    assert ran.status == 2
    assert "the sandbox is not running" in ran.stderr
