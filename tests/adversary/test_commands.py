"""Every command of `ip` against a sandbox: what it breaks is seen and mended, or refused or told by name.

The proof is what `ip -d -j` shows, which is not our own code. Printed (`pytest -s`): how many of how many.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.adversary.arena import Arena, Said, State, lost
from tests.adversary.commands import OBJECTS, Attack, attacks, covered, words
from tests.conftest import Kernel
from tests.machine import Guest
from tests.system.box import VmBox, make_box

_DAD = "net.ipv6.conf.default.accept_dad"


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_option_of_ip_is_tried(kind: str) -> None:
    assert words(kind) - covered(kind) == set()


@pytest.fixture(params=["netns", "vm"])
def arena(request: pytest.FixtureRequest, kernel: Kernel, tmp_path: Path) -> Iterator[Arena]:
    """Give a sandbox with the manifest applied, in which no time is lost with duplicate address detection."""
    if request.param == "netns":
        box = make_box(kernel, tmp_path)
        subprocess.run(["ip", "netns", "exec", box.namespace, "sysctl", "-qw", f"{_DAD}=0"], check=True)
        yield Arena(box)
        return
    guest: Guest = request.getfixturevalue("guest")
    machine = VmBox(kernel, tmp_path / "box.yaml", guest)
    guest.output("sysctl", "-q", "-w", f"{_DAD}=0")
    yield Arena(machine)
    machine.empty()
    guest.output("sysctl", "-q", "-w", f"{_DAD}=1")


# A NIC, an address or a network.
_NAME = re.compile(r"^(eth0|br0|mv0)$|[.:/]")
# What may become of an attack. Of others' objects that are new and harm none of ours, nothing is said.
RIGHT = {"refused by the kernel", "no effect", "mended", "refused", "warned", "enough", "not ours", "left to others"}


def _outcome(arena: Arena, attack: Attack) -> str:
    """Return what became of an attack: one of RIGHT, or what is wrong."""
    taken = arena.run(attack.family, attack.command)
    hit = arena.state()
    if hit == arena.calm:
        return "no effect" if taken else "refused by the kernel"
    diff, apply = arena.diff(), arena.apply()
    # What nothing was planned for stays.
    after = arena.settled(arena.calm) if diff.code == 1 else arena.state()
    if after == arena.calm:
        if (diff.code, apply.code) == (0, 0):
            # What `ip` showed first was the kernel's own work, which it had not finished.
            return "no effect"
        return "mended" if (diff.code, apply.code) == (1, 0) else f"mended, but diff {diff} and apply {apply}"
    return _told(arena.calm, hit, after, attack, diff, apply)


def _told(calm: State, hit: State, after: State, attack: Attack, diff: Said, apply: Said) -> str:
    is_named = any(word in diff.err and word in apply.err for word in attack.command.split() if _NAME.search(word))
    if (diff.code, apply.code) == (3, 3) and is_named:
        return "refused"
    if diff.code in {0, 1} and apply.code == 0 and "warning: " in diff.err and "warning: " in apply.err and is_named:
        return "warned"
    if attack.expected != "mended" and (diff.code, apply.code) == (0, 0):
        return attack.expected
    if not lost(calm, hit) and (diff.code, apply.code) == (0, 0) and not lost(hit, after):
        return "left to others"
    return f"diff {diff}, apply {apply}, lost {lost(calm, after)}, new {lost(after, calm)}"


def _calm_down(arena: Arena, attack: Attack) -> None:
    """Have the sandbox as it was before the attack."""
    if arena.state() == arena.calm:
        return
    if attack.undo:
        arena.run(attack.family, attack.undo)
        arena.apply()
    after = arena.settled(arena.calm)
    assert after == arena.calm, f"{attack}: lost {lost(arena.calm, after)}, new {lost(after, arena.calm)}"


def test_an_adversary_with_ip(arena: Arena, repeats: Callable[[int], int]) -> None:
    arena.begin()
    # Each takes a fifth of a second of a processor, in a guest a second: `make soak` tries all of them.
    chosen = list(attacks())
    chosen = chosen[:: max(1, len(chosen) // repeats(40 if isinstance(arena.place, VmBox) else 800))]
    counts: Counter[str] = Counter()
    wrong = []
    for attack in chosen:
        outcome = _outcome(arena, attack)
        if outcome not in RIGHT:
            wrong.append(f"{attack.command}: {outcome}")
        counts[outcome if outcome in RIGHT else "wrong"] += 1
        _calm_down(arena, attack)
    print(f"\n{type(arena.place).__name__}: {len(chosen) - len(wrong)} of {len(chosen)}:", dict(counts))
    assert wrong == []
