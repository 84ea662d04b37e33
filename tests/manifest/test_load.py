"""Which files and documents are read, in which order, and where their fields stand."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from reconciler.manifest.beneath import Source
from reconciler.manifest.files import Found, find
from reconciler.manifest.load import Manifest, load
from reconciler.model.sandbox import NetnsAddress, Sandbox
from tests.manifest.texts import manifest, nic, route

REPOSITORY = Path(__file__).parents[2]


def text_of(number: int) -> str:
    return manifest(f"sandbox: s{number}", f"driver: {{netns: {{name: n{number}}}}}")


def sandbox_of(number: int) -> Sandbox:
    return Sandbox(id=f"s{number}", driver=NetnsAddress(name=f"n{number}"))


def test_a_manifest_knows_where_it_was_read(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    text = text_of(1) + "---\n" + text_of(2)
    file.write_text(text)
    assert load([str(file)]) == [
        Manifest(file=str(file), text=text, document=0, sandbox=sandbox_of(1)),
        Manifest(file=str(file), text=text, document=1, sandbox=sandbox_of(2)),
    ]


def test_folders_are_searched_in_order_without_hidden_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["b.yml", "a.yaml", "c.json", "d.txt", ".e.yaml", "f/b.yaml", "f/a/a.yaml", ".g/a.yaml", "..data/a.yaml"]
    for number, name in enumerate(names, start=1):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text_of(number))
    monkeypatch.chdir(tmp_path)
    assert [(each.file, each.sandbox.id) for each in load(["f", "c.json"])] == [
        ("f/b.yaml", "s6"),
        ("f/a/a.yaml", "s7"),
        ("c.json", "s3"),
    ]
    assert [each.file for each in load(["."])] == ["./a.yaml", "./b.yml", "./c.json", "./f/b.yaml", "./f/a/a.yaml"]


def test_a_path_named_twice_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text_of(1))
    assert [each.sandbox for each in load([str(file), str(file)])] == [sandbox_of(1)]


def test_empty_documents_are_skipped_anywhere(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("---\n---\n" + text_of(1) + "---\n# nothing\n---\n" + text_of(2) + "---\n")
    found = load([str(file)])
    assert [(each.sandbox.id, each.where(("sandbox",))) for each in found] == [
        ("s1", f"{file}:4:10"),
        ("s2", f"{file}:10:10"),
    ]


def test_a_file_by_several_paths_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "a.yaml").write_text(text_of(1))
    (folder / "b.yaml").symlink_to("a.yaml")
    (folder / "c.yaml").hardlink_to(folder / "a.yaml")
    (tmp_path / "link").symlink_to("m")
    for paths in (
        ["m/a.yaml", "./m/a.yaml", str(folder / "a.yaml")],
        ["m/a.yaml", "m", "link", "link/a.yaml", "link/../m/b.yaml"],
        ["m/a.yaml", "m/c.yaml", "m/b.yaml"],
    ):
        assert [(each.file, each.sandbox.id) for each in load(paths)] == [("m/a.yaml", "s1")]


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("m/.elsewhere/below", "m/.git", "m/.hides/..data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "m/link").symlink_to(".elsewhere")
    (tmp_path / "m/again").symlink_to(tmp_path / "m/.elsewhere/below")
    (tmp_path / "m/.hidden").symlink_to(".hides")
    (tmp_path / "m/round").symlink_to(".")
    (tmp_path / "m/.elsewhere/back").symlink_to("../../m")
    (tmp_path / "m/a.yaml").write_text(text_of(1))
    (tmp_path / "m/.elsewhere/b.yaml").write_text(text_of(2))
    (tmp_path / "m/.elsewhere/below/c.yaml").write_text(text_of(3))
    (tmp_path / "m/.hides/d.yaml").write_text(text_of(4))
    found = find("m")
    assert found == Found([Source(each, ("m",)) for each in ("m/a.yaml", "m/again/c.yaml", "m/link/b.yaml")], [])
    assert [each.sandbox.id for each in load(["m"])] == ["s1", "s3", "s2"]


def test_a_named_file_may_have_any_name(tmp_path: Path) -> None:
    file = tmp_path / ".manifest"
    file.write_text(text_of(1))
    assert [each.sandbox for each in load([str(file)])] == [sandbox_of(1)]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of(1)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert load(["-"]) == [Manifest(file="<stdin>", text=text, document=0, sandbox=sandbox_of(1))]


@pytest.mark.parametrize(
    "around",
    [
        "{}---\n",
        "---\n{}",
        "---\n{}---\n---\n",
        "---\n---\n# nothing\n---\n{}",
        "null\n---\n{}",
        "{}...\n",
        "\ufeff{}",
        "# first\n{}# last",
    ],
)
def test_markers_and_comments_around_a_document(around: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(around.format(text_of(1)))
    assert [each.sandbox for each in load([str(file)])] == [sandbox_of(1)]


def test_lines_that_end_as_on_windows(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(text_of(1).replace("\n", "\r\n").encode())
    assert [each.sandbox for each in load([str(file)])] == [sandbox_of(1)]


def test_absent_and_empty_sections_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(manifest("interfaces: []"))
    (read,) = load([str(file)])
    assert (read.sandbox.interfaces, read.sandbox.routes) == ((), None)


def test_fields_are_found_in_their_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    second = manifest("sandbox: s2", "driver: {netns: {name: n2}}", nics=[nic()], routes=[route()])
    Path("a.yaml").write_text(text_of(1) + "---\n" + second)
    found = load(["a.yaml"])[1]
    paths = [(), ("routes", 0), ("routes", 0, "gateway"), ("routes", 0, "metric"), ("interfaces", 0, "addresses", 1)]
    places = ["a.yaml:5:1", "a.yaml:15:3", "a.yaml:16:12", "a.yaml:15:3", "a.yaml:13:28"]
    assert [found.where(path) for path in paths] == places


@pytest.mark.parametrize("file", sorted(REPOSITORY.glob("examples/*.yaml")), ids=lambda file: file.name)
def test_examples_are_right(file: Path) -> None:
    assert {each.file for each in load([str(file)])} == {str(file)}
