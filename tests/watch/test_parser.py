"""A file is read in a process of its own, which may take so much and no more, and which is not believed everything."""

from __future__ import annotations

import os
import pickle
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.manifest.beneath import named
from reconciler.manifest.load import Contents, read_file
from reconciler.model.policy import DEFAULTS
from reconciler.watch import parser
from reconciler.watch.parser import Parser
from tests.manifest.texts import manifest, nic, route, with_ipvs
from tests.watch.story import Start, same, text, versions, write

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(contents: Contents) -> list[str]:
    return [str(each) for each in contents.problems]


def test_it_reads_what_is_read_here() -> None:
    (Path("all.rules")).write_text("-A -t 10.0.0.1:80 -s rr -p 60\n-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m\n")
    Path("rules.yaml").write_text(with_ipvs("rulesFile: all.rules", "timeouts: {tcp: 9}", "exclude: [{fwmark: 7}]"))
    Path("two.yaml").write_text(manifest(nics=[nic()], routes=[route()]) + "---\n" + manifest("sandbox: b"))
    Path("wrong.yaml").write_text(manifest("sandbox: {}"))
    Path("syntax.yaml").write_text("sandbox: [")
    Path("other.yaml").write_text("hush: hush\n")
    files = [*map(str, REPOSITORY.glob("examples/*.yaml")), *map(str, Path().glob("*.yaml")), "missing.yaml"]
    with Parser() as read:
        assert [read.read(named(file), DEFAULTS) for file in files] == [read_file(named(file)) for file in files]


def test_it_begins_with_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_SECRET", "hush")
    Path("a.yaml").write_text(manifest())
    with open(os.devnull) as extra, Parser() as read:
        os.set_inheritable(extra.fileno(), True)
        read.read(named("a.yaml"), DEFAULTS)
        assert read._process
        process = Path("/proc") / str(read._process.pid)
        assert b"hush" not in (process / "environ").read_bytes()
        assert sorted(int(each.name) for each in (process / "fd").iterdir()) == [0, 1, 2]
        limits = (process / "limits").read_text()
        assert f"Max address space         {parser.MEMORY}" in limits
    assert not process.exists()


@pytest.mark.parametrize(
    ("memory", "seconds", "reason"),
    [
        (150 << 20, 20, "reading it takes more than 150 MiB of memory, or is a defect of reconciler (status 1)"),
        (768 << 20, 1, "reading it takes more than 1 s of a processor"),
    ],
)
def test_a_file_that_takes_too_much_harms_no_other(
    memory: int, seconds: int, reason: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = parser._COMMAND.replace(f"{parser.MEMORY}, {parser.SECONDS}", f"{memory}, {seconds}")
    monkeypatch.setattr(parser, "MEMORY", memory)
    monkeypatch.setattr(parser, "SECONDS", seconds)
    monkeypatch.setattr(parser, "_COMMAND", command)
    write("m", [1, 3], 0)
    Path("m/s2.yaml").write_text(manifest("sandbox: s2") + "routes:\n" + "- abc\n" * 1_900_000)
    watch = start("m", rescan=1.0)
    reading = watch.until(lambda _: True)
    assert (versions(reading), reading.broken) == (same([1, 3], 0), {"m/s2.yaml": f"m/s2.yaml: {reason}"})
    # It is not tried again until it is another one.
    begin = time.process_time()
    assert watch.run(3.0) == []
    assert time.process_time() - begin < 1.0
    write("m", [2], 1)
    assert watch.until_versions(same([1, 3], 0) | {"s2": 1}).broken == {}


def test_a_process_that_is_killed_is_replaced(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []

    class Killed(Parser):
        def _ask(self, *words: object) -> Contents:
            if self._process and not killed:
                killed.append(self._process.pid)
                self._process.kill()
                self._process.wait()
            return super()._ask(*words)  # type: ignore[arg-type]

    monkeypatch.setattr("reconciler.watch.manifests.Parser", Killed)
    write("m", [1, 2, 3], 0)
    watch = start("m", rescan=0.5)
    assert watch.until_versions(same([1, 2, 3], 0)).broken == {}
    assert len(killed) == 1


def test_one_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "PATIENCE", 0.3)
    monkeypatch.setattr(parser, "_COMMAND", "import time; time.sleep(60)")
    begin = time.monotonic()
    with Parser() as read:
        assert problems(read.read(named("a.yaml"), DEFAULTS)) == ["a.yaml: reading it takes longer than 0.3 s"]
    assert time.monotonic() - begin < 50


class _Evil:
    def __init__(self, call: Callable[..., object], *words: object) -> None:
        self._call, self._words = call, words

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call, self._words


@pytest.mark.parametrize(
    "value",
    [
        _Evil(os.system, "touch proof"),
        _Evil(eval, "open('proof', 'w')"),
        _Evil(subprocess.Popen, ["touch", "proof"]),
        _Evil(read_file, "a.yaml"),
        _Evil(Parser),
        [Contents([], [], {}), _Evil(os.system, "touch proof")],
        7,
        [],
        {"manifests": []},
    ],
)
def test_an_answer_that_is_no_contents_is_refused(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.yaml").write_text(manifest())
    answer = pickle.dumps(value)
    program = f"import sys, os; os.write(1, {len(answer).to_bytes(8, 'big') + answer!r}); sys.stdin.read()"
    monkeypatch.setattr(parser, "_COMMAND", program)
    with Parser() as read:
        found = read.read(named("a.yaml"), DEFAULTS)
    assert found.manifests == []
    assert problems(found)[0].startswith("a.yaml: what was read from it is no manifest")
    assert not Path("proof").exists()


@pytest.mark.parametrize("answer", [b"\xff" * 8, b"\0" * 8, b"\0" * 7 + b"\3abc", b"abc"])
def test_an_answer_that_is_noise_is_refused(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.yaml").write_text(manifest())
    monkeypatch.setattr(parser, "_COMMAND", f"import os; os.write(1, {answer!r})")
    with Parser() as read:
        found = read.read(named("a.yaml"), DEFAULTS)
    assert (found.manifests, len(found.problems)) == ([], 1)


def test_what_a_file_of_another_claims_to_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.yaml").write_text(text(1))
    Path("b.yaml").write_text(text(2))
    answer = pickle.dumps(read_file(named("b.yaml")))
    monkeypatch.setattr(parser, "_COMMAND", f"import os; os.write(1, {len(answer).to_bytes(8, 'big') + answer!r})")
    with Parser() as read:
        assert read.read(named("a.yaml"), DEFAULTS).manifests == []
