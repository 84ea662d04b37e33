"""The image: its archive byte by byte, its name, and two builders at once."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.errors import HostError
from reconciler.guest import image
from reconciler.guest.archive import write_archive


def read_archive(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Read an archive as the kernel does: by name, its mode and content."""
    found: dict[str, tuple[int, bytes]] = {}
    position = 0
    while True:
        assert data[position : position + 6] == b"070701"
        fields = [int(data[position + at : position + at + 8], 16) for at in range(6, 110, 8)]
        name = data[position + 110 : position + 110 + fields[11] - 1].decode()
        start = position + 110 + fields[11] + 3 & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], data[start : start + fields[6]])
        position = start + fields[6] + 3 & ~3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "tool").write_bytes(b"#!abc")
    (root / "bin" / "tool").chmod(0o755)
    (root / "bin" / "alias").symlink_to("tool")
    (root / "empty").write_bytes(b"")
    return root


def test_an_archive_holds_what_the_folder_holds(folder: Path) -> None:
    file = io.BytesIO()
    write_archive(str(folder), file)
    assert read_archive(file.getvalue()) == {
        "bin": (stat.S_IFDIR | 0o755, b""),
        "bin/alias": (stat.S_IFLNK | 0o777, b"tool"),
        "bin/tool": (stat.S_IFREG | 0o755, b"#!abc"),
        "empty": (stat.S_IFREG | 0o644, b""),
    }


def test_equal_folders_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    os.utime(tmp_path / "copy" / "empty", (1, 1))
    files = [io.BytesIO(), io.BytesIO()]
    write_archive(str(folder), files[0])
    write_archive(str(tmp_path / "copy"), files[1])
    assert files[0].getvalue() == files[1].getvalue()


def test_the_name_changes_with_a_package_and_not_with_where_it_comes_from() -> None:
    line = "'{}' a_1_amd64.deb 10 SHA256:{}\n"
    assert image._key(line.format("here", 1)) == image._key("Reading…\n" + line.format("there", 1))
    assert image._key(line.format("here", 1)) != image._key(line.format("here", 2))


def test_two_builders_at_once_make_one_image(tmp_path: Path) -> None:
    image.prepare()
    # Spares the network, not the work.
    shutil.copytree(os.path.join(image.cache_folder(), "packages"), tmp_path / "reconciler" / "packages")
    build = [sys.executable, "-c", "from reconciler.guest.image import prepare; print(prepare().initramfs)"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    builders = [subprocess.Popen(build, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {builder.communicate(timeout=600)[0].strip() for builder in builders}
    assert [builder.returncode for builder in builders] == [0, 0]
    (path,) = printed
    made = tmp_path / "reconciler"
    assert sorted(each.name for each in made.iterdir()) == ["images", "lock", "offered-6.1", "packages"]
    assert [str(each) for each in made.glob("images/*/initramfs.cpio")] == [path]
    names = read_archive(Path(path).read_bytes())
    assert "init" in names
    # Compiled code alone, and no name of this host in it.
    library = {name for name in names if name.startswith("usr/lib/python3.11/reconciler/guest/")}
    assert library == {f"usr/lib/python3.11/reconciler/guest/{name}.pyc" for name in ("__init__", "agent", "runner")}
    assert not any(str(tmp_path).encode() in content for _, content in names.values())


def test_what_a_killed_builder_left_goes_with_the_next_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "reconciler" / "build-left").mkdir(parents=True)
    with image._only_builder():
        assert os.listdir(tmp_path / "reconciler") == ["lock"]


def test_apt_is_asked_again_when_what_it_goes_by_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lists = tmp_path / "lists"
    lists.mkdir()
    monkeypatch.setattr(image, "_APT", (str(lists),))
    answers = iter(["one", "two", "three", "four", "five"])
    monkeypatch.setattr(image, "_run", lambda *_: next(answers))
    assert [image._offered("6.1") for _ in range(2)] == ["one", "one"]
    assert [image._offered("6.12"), image._offered("6.1")] == ["two", "one"]
    (lists / "main").write_text("a")
    assert [image._offered("6.1") for _ in range(2)] == ["three", "three"]
    (lists / "main").write_text("a package more")
    assert [image._offered("6.1") for _ in range(2)] == ["four", "four"]
    monkeypatch.setattr(image, "PACKAGES", ("other",))
    assert image._offered("6.1") == "five"


def test_an_unknown_kernel_and_a_missing_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(HostError, match=r"^there is no image with kernel 2.4; choose one of 6.1, 6.12$"):
        image.prepare("2.4")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        HostError, match=r"^apt-get is missing on this host; the guest's image cannot be built without it$"
    ):
        image.prepare()
