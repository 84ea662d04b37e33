"""What is too much is refused in a few words: findings, documents, lines and names of any length."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from reconciler.cli.main import main
from reconciler.errors import MAX_LENGTH, MAX_PROBLEMS, ManifestError, Problem, bounded
from reconciler.manifest import load as loading
from reconciler.manifest.load import load
from reconciler.manifest.schema import COUNTED, MAX_FINDINGS
from tests.manifest.texts import manifest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(text: str) -> list[Problem]:
    Path("bad.yaml").write_text(text)
    with pytest.raises(ManifestError) as caught:
        load(["bad.yaml"])
    return caught.value.problems


@pytest.mark.parametrize("count", [MAX_FINDINGS - 1, MAX_FINDINGS, MAX_FINDINGS + 1, 4_421, COUNTED + 5_000])
def test_the_first_findings_and_the_number_of_the_others(count: int) -> None:
    found = problems(manifest() + "routes:\n" + "- 1\n" * count)
    listed, more = min(count, MAX_FINDINGS), min(count - MAX_FINDINGS, COUNTED)
    assert [each.line for each in found[:listed]] == list(range(5, 5 + listed))
    rest = [f"bad.yaml: at least {more:,} more problems, which are not listed"] if more > 0 else []
    assert [str(each) for each in found[listed:]] == rest
    assert sum(each.times for each in found) == listed + max(more, 0)


def test_findings_of_valid_objects_and_of_several_documents_count_together() -> None:
    routes = "routes:\n" + "".join(f"- {{dest: 10.{n}.0.0/16, device: e{n}}}\n" for n in range(60))
    text = manifest("interfaces: []") + routes
    found = problems("---\n".join([text, text.replace("web-1", "web-2"), text.replace("web-1", "web-3")]))
    assert [each.line for each in found] == [*range(6, 66), *range(72, 112), 0]


def test_all_files_together_are_bounded_and_each_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("m").mkdir()
    for number in range(150):
        Path(f"m/{number:03}.yaml").write_text(manifest() + "routes:\n" + "- 1\n" * 5)
    assert main(["validate", "m"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len({line.partition(":")[0] for line in lines if line.startswith("m/")}) == 150
    # Each but the first has the sandbox of the first, too: none of them is used.
    assert lines[-2:] == [
        f"and at least {750 - MAX_PROBLEMS} more problems, which are not listed",
        "750 problems in 150 files.",
    ]


def test_a_report_is_bounded_in_length() -> None:
    many = [Problem("f" * 4000, line, 1, "p", "m" * 600, "e" * 120) for line in range(1, 100)]
    kept = bounded(many)
    assert sum(len(str(each)) for each in kept) < MAX_LENGTH
    assert sum(each.times for each in kept) == 99


@pytest.mark.parametrize(
    "text",
    [
        manifest("sandbox: " + "x" * 500_000),
        manifest() + "? " + "k" * 500_000 + "\n: 1\n",
        manifest() + "routes: [" + "1, " * 200_000 + "]\n",
        manifest() + "ipvs:\n  rules: |\n    -A -t " + "9" * 500_000 + "\n",
    ],
)
def test_long_names_values_and_lines(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(text)
    for form in ("text", "json", "yaml"):
        assert main(["validate", "-o", form, "bad.yaml"]) == 2
        assert len("".join(capsys.readouterr())) < 100_000


def test_where_a_part_of_a_long_line_begins(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(
        manifest() + f"paused: [{'1, ' * 100}]\nroutes: [{{}}, {'{dest: default, device: a}, ' * 9}1]\n"
    )
    assert main(["validate", "-o", "json", "bad.yaml"]) == 2
    *_, found = json.loads(capsys.readouterr().out)["problems"]
    line = Path("bad.yaml").read_text().splitlines()[found["line"] - 1]
    assert line[found["start"] :].startswith(found["excerpt"])
    assert found["excerpt"][found["column"] - 1 - found["start"]] == "1"


def test_too_many_documents() -> None:
    (problem,) = problems("---\n".join([manifest()] * 501))
    assert problem.message == "more than 500 documents; write several files"


def test_each_manifest_of_a_file_is_found_at_once() -> None:
    text = "# \u6771\n---\n".join(manifest(f"sandbox: s{n}", f"driver: {{netns: {{name: n{n}}}}}") for n in range(500))
    Path("good.yaml").write_text(text)
    found = load(["good.yaml"])
    begin = time.process_time()
    assert [each.where(("driver", "netns")) for each in found] == [f"good.yaml:{3 + 5 * n}:17" for n in range(500)]
    assert time.process_time() - begin < 2


def test_all_files_together(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m").mkdir()
    for number in range(6):
        Path(f"m/{number}.yaml").write_text(manifest(f"sandbox: s{number}", f"driver: {{netns: {{name: n{number}}}}}"))
    size = len(Path("m/0.yaml").read_text())
    assert len(load(["m"])) == 6
    for name, most in (("MAX_FILES", 4), ("MAX_CHARACTERS", 4 * size)):
        with monkeypatch.context() as bound:
            bound.setattr(loading, name, most)
            with pytest.raises(ManifestError) as caught:
                load(["m"])
            found = [(each.file, each.message.partition(":")[0]) for each in caught.value.problems]
            assert found == [("m/4.yaml", "is not read"), ("m/5.yaml", "is not read")]
