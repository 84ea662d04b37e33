"""Rules in a file of their own are found beside the manifest, and their lines are told as that file's."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from reconciler.errors import ManifestError, Problem
from reconciler.manifest.files import MAX_BYTES
from reconciler.manifest.load import load
from reconciler.manifest.place import RulesFile
from reconciler.model.ipvs import Ipvs, Server, Service
from tests.manifest.texts import with_ipvs

RULES = "-A -t 10.10.11.12:100 -s rr -p 3000\n-a -t 10.10.11.12:100 -r 172.16.0.1:80 -m\n"
SECTION = Ipvs(
    services=(
        Service(
            protocol="tcp",
            address="10.10.11.12",
            port=100,
            scheduler="rr",
            persistent=3000,
            servers=(Server(address="172.16.0.1", port=80),),
        ),
    )
)
MANIFEST = with_ipvs("rulesFile: web-1.rules")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()
    return tmp_path


def problems(file: str) -> list[Problem]:
    with pytest.raises(ManifestError) as caught:
        load([file])
    return caught.value.problems


@pytest.mark.parametrize(
    ("rules", "named"),
    [("below/web-1.rules", "web-1.rules"), ("web-1.rules", "../web-1.rules"), ("below/a/b", "a/b")],
)
def test_it_is_relative_to_the_folder_of_the_manifest(rules: str, named: str) -> None:
    Path("below/a").mkdir()
    Path(rules).write_text(RULES)
    Path("below/web-1.yaml").write_text(with_ipvs(f"rulesFile: {named}"))
    (read,) = load(["."])
    assert (read.sandbox.ipvs, read.rules) == (SECTION, RulesFile(f"./below/{named}", RULES))


def test_it_is_relative_to_the_working_directory_for_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("web-1.rules").write_text(RULES)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(MANIFEST.encode())))
    (read,) = load(["-"])
    assert read.sandbox.ipvs == SECTION


@pytest.mark.parametrize("spelling", ["\ufeff{}", "# first\n\n{}", "{}\n\n"])
def test_marks_and_comments_around_rules(spelling: str) -> None:
    Path("web-1.rules").write_text(spelling.format(RULES))
    Path("web-1.yaml").write_text(MANIFEST)
    assert load(["web-1.yaml"])[0].sandbox.ipvs == SECTION


def test_lines_that_end_as_on_windows() -> None:
    Path("web-1.rules").write_bytes(RULES.replace("\n", "\r\n").encode() + b"-D\r\n")
    Path("web-1.yaml").write_text(MANIFEST)
    message = "only -A and -a lines belong in a rules file"
    assert problems("web-1.yaml") == [Problem("web-1.rules", 3, 1, "", message, "-D", 2)]


def test_through_a_link() -> None:
    Path("below/true.rules").write_text(RULES)
    Path("web-1.rules").symlink_to("below/true.rules")
    Path("web-1.yaml").write_text(MANIFEST)
    assert load(["web-1.yaml"])[0].sandbox.ipvs == SECTION


def test_its_wrong_lines_are_told_with_those_of_the_manifest() -> None:
    Path("below/web-1.rules").write_text(RULES + "\n  -a -t 10.0.0.1:80 -r 10.0.0.2 -m\n-X\n")
    Path("below/web-1.yaml").write_text(with_ipvs("rulesFile: web-1.rules", "drain: -1"))
    assert problems("below/web-1.yaml") == [
        Problem("below/web-1.yaml", 6, 10, "ipvs.drain", "-1 is below the minimum of 0", "  drain: -1", 2),
        Problem(
            file="below/web-1.rules",
            line=4,
            column=3,
            path="",
            message="-a -t 10.0.0.1:80: no -A line has this service",
            excerpt="  -a -t 10.0.0.1:80 -r 10.0.0.2 -m",
            width=32,
        ),
        Problem("below/web-1.rules", 5, 1, "", "only -A and -a lines belong in a rules file", "-X", 2),
    ]


def test_a_wrong_line_at_the_end_refuses_all_of_them() -> None:
    lines = [f"-A -f {mark}" for mark in range(1, 19_999)] + ["-A -f x", "-A -f 20000"]
    Path("web-1.rules").write_text("\n".join(lines))
    Path("web-1.yaml").write_text(MANIFEST)
    (problem,) = problems("web-1.yaml")
    assert str(problem) == "web-1.rules:19999:1: -f x: expected a number from 1 to 4294967295"


def test_what_is_excluded_is_told_at_its_line() -> None:
    Path("web-1.rules").write_text("-A -t 10.9.0.1:80\n" + RULES)
    Path("web-1.yaml").write_text(with_ipvs("exclude: [10.10.0.0/16]", "rulesFile: web-1.rules"))
    assert [str(problem) for problem in problems("web-1.yaml")] == [
        "web-1.rules:2:1: 10.10.11.12:100 is excluded by ipvs.exclude[0]; remove one of the two"
    ]


def test_an_operation_is_traced_to_its_line() -> None:
    Path("web-1.rules").write_text("# saved\n" + RULES)
    Path("web-1.yaml").write_text(MANIFEST)
    (read,) = load(["web-1.yaml"])
    paths = [("ipvs", "services", 0), ("ipvs", "services", 0, "servers", 0), ("ipvs", "services"), ("ipvs", "drain")]
    assert [read.where(path) for path in paths] == [
        "web-1.rules:2:1",
        "web-1.rules:2:1",
        "web-1.yaml:5:14",
        "web-1.yaml:5:3",
    ]


UNREADABLE: dict[str, tuple[str, str]] = {
    "no file": ("rm web-1.rules", "web-1.rules: No such file or directory"),
    "a folder": ("rm web-1.rules; mkdir web-1.rules", "web-1.rules: is a folder, not a regular file"),
    "a pipe": ("rm web-1.rules; mkfifo web-1.rules", "web-1.rules: is a FIFO, not a regular file"),
    "not rules": ("echo root:x: > web-1.rules", "web-1.rules: does not begin as rules do: `-A …`, or `ipvsadm -A …`"),
    "not UTF-8": (r"printf -- '-A \377' > web-1.rules", "web-1.rules: not UTF-8 (byte 3)"),
    "too long": (f"truncate -s {MAX_BYTES + 1} web-1.rules", "web-1.rules: larger than 32 MiB"),
    "empty": (": > web-1.rules", "contains no rule; to have no services, write `services: []`"),
    "of comments": ("echo '# -C' > web-1.rules", "contains no rule; to have no services, write `services: []`"),
}


@pytest.mark.parametrize(("command", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_of_no_rules(command: str, message: str) -> None:
    Path("web-1.rules").write_text(RULES)
    Path("web-1.yaml").write_text(MANIFEST)
    assert os.system(command) == 0
    assert [str(problem) for problem in problems("web-1.yaml")] == [f"web-1.yaml:5:14: ipvs.rulesFile: {message}"]


def test_a_file_that_is_refused_by_its_name_is_not_read() -> None:
    Path("web-1.yaml").write_text(with_ipvs(f"rulesFile: {Path.cwd()}/web-1.rules"))
    (problem,) = problems("web-1.yaml")
    assert problem.message.endswith("expected the path of a file of rules, relative to the manifest's folder")
