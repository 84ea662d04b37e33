"""Several sandboxes of one command: beside each other, in order, and none stops another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.cli.beside import MOST, Output, beside
from reconciler.errors import HostError, RefusedError
from reconciler.manifest.load import Manifest, load


@pytest.fixture
def manifests(tmp_path: Path) -> Callable[[int], list[Manifest]]:
    def write(count: int) -> list[Manifest]:
        for number in range(count):
            text = f"apiVersion: reconciler/v1\nsandbox: s{number:03}\ndriver: {{netns: {{name: s{number:03}}}}}\n"
            (tmp_path / f"{number:03}.yaml").write_text(f"{text}routes: []\n")
        return load([str(tmp_path)])

    return write


def test_one_is_worked_on_in_the_thread_itself_and_prints_at_once(
    manifests: Callable[[int], list[Manifest]], capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def work(manifest: Manifest, output: Output) -> str:
        output.say("first")
        said.append(capsys.readouterr().out)
        return threading.current_thread().name + manifest.sandbox.id

    (ended,) = beside(manifests(1), work)
    assert (ended.result, ended.exit_code, said) == ("MainThreads000", 0, ["first\n"])


def test_a_slow_one_delays_none_and_output_is_in_order(
    manifests: Callable[[int], list[Manifest]], capsys: pytest.CaptureFixture[str]
) -> None:
    over: list[str] = []

    def work(manifest: Manifest, output: Output) -> None:
        name = manifest.sandbox.id
        output.say(f"{name} begins")
        if name == "s000":
            while len(over) < 9:
                time.sleep(0.01)
        over.append(name)
        output.warn(f"{name} says", f"{name} ends")

    found = [ended.manifest.sandbox.id for ended in beside(manifests(10), work)]
    assert found == [f"s{number:03}" for number in range(10)]
    assert over[-1] == "s000"
    output = capsys.readouterr()
    assert output.out == "".join(f"{name} begins\n" for name in found)
    assert output.err == "".join(f"{name} says\n{name} ends\n" for name in found)


def test_so_many_at_once_and_no_more(manifests: Callable[[int], list[Manifest]]) -> None:
    changed, running, most = threading.Condition(), 0, 0

    def work(_: Manifest, __: Output) -> None:
        nonlocal running, most
        with changed:
            running += 1
            most = max(most, running)
            changed.notify_all()
            # Until so many are at work beside each other, however slowly they begin.
            changed.wait_for(lambda: most > MOST / 2, 60)
        time.sleep(0.02)
        with changed:
            running -= 1

    assert len(list(beside(manifests(3 * MOST), work))) == 3 * MOST
    assert MOST / 2 < most <= MOST


@pytest.mark.parametrize("count", [1, 3])
def test_whatever_one_fails_of_the_others_go_on(manifests: Callable[[int], list[Manifest]], count: int) -> None:
    errors = [KeyError("missing"), RefusedError("no", path=("driver",)), OSError(24, "Too many open files")]

    def work(manifest: Manifest, _: Output) -> None:
        raise errors[int(manifest.sandbox.id[1:])]

    found = [(ended.exit_code, "\n".join(ended.lines())) for ended in beside(manifests(count), work)]
    expected = [
        (2, "s000: a defect of reconciler: KeyError: 'missing' (test_beside.py:88); please report it"),
        (3, "refused: "),
        (2, "s002: Too many open files"),
    ][:count]
    assert found[0] == expected[0]
    assert [code for code, _ in found] == [code for code, _ in expected]
    assert all(words in said for (_, said), (_, words) in zip(found, expected, strict=True))


def test_what_may_be_over_is_tried_once_more_after_all_others(manifests: Callable[[int], list[Manifest]]) -> None:
    worked: list[str] = []

    def work(manifest: Manifest, output: Output) -> int:
        worked.append(manifest.sandbox.id)
        output.say("tried")
        if "s002" not in worked or worked.count("s000") == 1:
            time.sleep(0.05)
            raise HostError("no such device")
        return len(worked)

    first, *_ = beside(manifests(3), work, again=lambda error: isinstance(error, HostError))
    assert (first.error, worked[:3].count("s000"), worked[3]) == (None, 1, "s000")
