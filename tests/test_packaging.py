"""sdist and wheel are complete, and work where nothing else of ours is.

`make dist` installs them into empty environments, and tests/debian.py the Debian package.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

from reconciler.manifest import policy_text
from reconciler.model.policy import DEFAULTS
from reconciler.values import replace

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


class Built(NamedTuple):
    """The names in an sdist and in the wheel that was built from it, and the wheel's metadata and content."""

    sdist: set[str]
    wheel: set[str]
    metadata: Message
    folder: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    hatchling(ROOT, "build", "--target", "sdist", "--directory", str(folder))
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    subprocess.run(["tar", "--directory", str(folder), "-xf", str(archive)], check=True)
    hatchling(folder / archive.name.removesuffix(".tar.gz"), "build", "--target", "wheel", "--directory", str(folder))
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "installed")
        [metadata] = [name for name in file.namelist() if name.endswith("/METADATA")]
        return Built(names, set(file.namelist()), Parser().parsestr(file.read(metadata).decode()), folder / "installed")


def test_the_sdist_has_every_file_of_the_tree(built: Built) -> None:
    assert built.sdist == sources() | {"PKG-INFO"}


def test_the_wheel_has_every_file_of_the_package_and_the_schemas(built: Built) -> None:
    expected = {name for name in sources() if name.startswith("reconciler/")}
    expected |= {f"reconciler/{name}" for name in sources() if name.startswith("schemas/")}
    assert {name for name in built.wheel if ".dist-info/" not in name} == expected
    assert "reconciler/py.typed" in expected


def test_the_metadata_say_what_an_index_shows(built: Built) -> None:
    assert built.metadata["Author"] == "reconciler maintainers"
    assert built.metadata["License-Expression"] == "Apache-2.0"
    assert set(built.metadata.get_all("Classifier", [])) == set(PROJECT["classifiers"])
    urls = [text.partition(", ")[2] for text in built.metadata.get_all("Project-URL", [])]
    assert urls
    assert all(re.match(r"https://reconciler\.example(/|$)", url) for url in urls), urls


def test_the_content_of_the_wheel_works(built: Built, tmp_path: Path) -> None:
    program = tmp_path / "reconciler"
    program.write_text(
        f"#!{sys.executable} -I\nimport sys\nsys.path.insert(0, {str(built.folder)!r})\n"
        "import reconciler\nassert reconciler.__file__.startswith(sys.path[0])\n"
        "from reconciler.cli.main import entry\nentry()\n"
    )
    program.chmod(0o755)
    (tmp_path / "web.yaml").write_text(
        "apiVersion: reconciler/v1\nsandbox: a\ndriver: {netns: {name: a}}\nroutes: []\n"
    )
    words = ["sh", str(ROOT / "packaging/try.sh"), str(program), str(tmp_path)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"reconciler {built.metadata['Version']}\n", "")


def test_the_version_is_that_of_the_tag(tmp_path: Path) -> None:
    (tmp_path / "reconciler").mkdir()
    (tmp_path / "reconciler/__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    assert hatchling(tmp_path, "version") == "0.0"
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    assert re.fullmatch(r"0\.1\.dev1\+g[0-9a-f]{7,}", hatchling(tmp_path, "version"))
    git(tmp_path, "tag", "v1.2.0")
    assert hatchling(tmp_path, "version") == "1.2.0"
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "second")
    assert re.fullmatch(r"1\.2\.1\.dev1\+g[0-9a-f]{7,}", hatchling(tmp_path, "version"))


def test_the_policy_of_the_debian_package_is_what_holds_without_it() -> None:
    read = policy_text.parse(DEFAULTS.file, (ROOT / "debian/policy.yaml").read_text())
    assert replace(read, lines=DEFAULTS.lines) == DEFAULTS
    # Whoever wants another value finds the line.
    schema = json.loads((ROOT / "schemas/reconciler-policy-v1.schema.json").read_text())
    assert set(read.lines) == set(schema["properties"])


def test_the_debian_package_has_or_needs_each_library() -> None:
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["ui"]]
    asked += [each for each in metadata.requires("uvicorn") or () if ";" not in each]
    needed = {re.split(r"[<>=]", each)[0] for each in asked}
    inside = re.search(r"/\^\(([a-z0-9|-]+)\)==/", (ROOT / "packaging/debian.sh").read_text())
    assert inside
    debian = {"python3-yaml": "pyyaml", "python3-prometheus-client": "prometheus-client"}
    assert needed == {*inside[1].split("|"), *debian.values()}
    depends = re.search(r"^Depends: (.*)", (ROOT / "debian/control").read_text(), re.MULTILINE)
    assert depends
    assert set(re.findall(r"python3-[a-z-]+", depends[1])) == set(debian)
    # Only who has a fleet needs these, and Debian's own will do.
    suggests = re.search(r"^Suggests: (.*)", (ROOT / "debian/control").read_text(), re.MULTILINE)
    assert suggests
    fleet = {re.split(r"[<>=]", each)[0] for each in PROJECT["optional-dependencies"]["fleet"]}
    assert set(re.findall(r"python3-([a-z-]+)", suggests[1])) == fleet - needed


def sources() -> set[str]:
    """Return the files of the tree that git would keep."""
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    return {name for name in listed if name and (ROOT / name).exists()}


def hatchling(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "hatchling", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout.strip()


def git(folder: Path, *words: str) -> str:
    author = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", f"safe.directory={folder}")
    return subprocess.run(["git", *author, *words], check=True, capture_output=True, text=True, cwd=folder).stdout
