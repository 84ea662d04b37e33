"""Our command line for a guest, as two archives: all that it runs on, and our own code.

It runs on this very Python, libraries, and the C library. The guest's own Python is a minimal one, for the agents
alone. Modules go as bytecode, as a guest compiles slowly. The first archive takes a guest 8 seconds to unpack, and
changes rarely: tests/resumed.py has it in a saved state.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import compile as compile_module

import reconciler

# Where it lies below the guest's root.
HOME = "opt/reconciler"
# The command, and a Python that can import it.
COMMAND, PYTHON = f"/{HOME}/bin/reconciler", f"/{HOME}/bin/python"

_SCRIPT = f"""#!/bin/sh
export PYTHONHOME=/{HOME} PYTHONPATH=/{HOME}/site PYTHONDONTWRITEBYTECODE=1
exec /{HOME}/lib/loader --library-path /{HOME}/lib /{HOME}/bin/interpreter -s %s "$@"
"""
_ENTRY = "-c 'from reconciler.cli.main import entry; entry()'"
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
# What no command line needs of the standard library and of others: nearly all of its bytes.
_LEFT_OUT = {
    *("site-packages", "lib-dynload", "test", "tests", "idlelib", "ensurepip", "lib2to3", "pydoc_data", "tkinter"),
    *("turtledemo", "distutils", "venv", "curses", "dbm", "__pycache__", "benchmarks"),
}
_NO_EXTENSIONS = (
    "_test",
    "_xxtest",
    "_tkinter",
    "_curses",
    "_ssl",
    "_dbm",
    "_gdbm",
    "_codecs_",
    "readline",
    "_elementtree",
)


def key() -> str:
    """Return a name for what `build_base` would make: the same for all checkouts with the same Python and packages."""
    locked = Path(__file__).parents[2].joinpath("requirements.txt").read_text(encoding="utf-8")
    return hashlib.sha256(repr((sys.version, locked, sorted(_base()))).encode()).hexdigest()


def build_base() -> bytes:
    """Return a tar archive, compressed, for the root of the guest: Python, what we require, and the commands."""
    files = _base()
    files |= _libraries([path for name, path in files.items() if name.endswith((".so", "interpreter"))])
    return _archive(files, {"bin/reconciler": _SCRIPT % _ENTRY, "bin/python": _SCRIPT % ""})


def build_own() -> bytes:
    """Return a tar archive, compressed, for the root of the guest: our package."""
    with tempfile.TemporaryDirectory() as scratch:
        return _archive(dict(_own(Path(scratch))), {})


def _archive(files: dict[str, Path], scripts: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", dereference=True) as archive:
        for name, path in files.items():
            archive.add(path, f"{HOME}/{name}")
        for name, text in scripts.items():
            _add_script(archive, f"{HOME}/{name}", text)
    # Busybox unpacks as it receives; less to receive is less to wait for.
    return gzip.compress(stream.getvalue(), 1)


def _base() -> dict[str, Path]:
    stdlib, interpreter = Path(sysconfig.get_path("stdlib")), Path(sys.executable).resolve()
    return {
        "bin/interpreter": interpreter,
        **dict(_modules(stdlib, _below(stdlib), f"lib/{_VERSION}", cached=True)),
        **{f"lib/{_VERSION}/lib-dynload/{each.name}": each for each in _extensions(stdlib / "lib-dynload")},
        **dict(_requirements()),
    }


def _below(root: Path) -> Iterator[Path]:
    """Give the files below a folder, as paths relative to it."""
    for path in sorted(root.iterdir()):
        if path.name in _LEFT_OUT or path.name.startswith("config-"):
            continue
        if path.is_dir():
            yield from (Path(path.name, below) for below in _below(path))
        else:
            yield Path(path.name)


def _modules(root: Path, files: Iterator[Path], to: str, *, cached: bool) -> Iterator[tuple[str, Path]]:
    """Give files by their names in the archive, each module as bytecode in its place."""
    for file in files:
        if file.suffix == ".py":
            bytecode = Path(cache_from_source(str(root / file)))
            if not (cached and bytecode.exists()):
                compile_module(str(root / file), str(bytecode), doraise=True)
            yield f"{to}/{file.with_suffix('.pyc')}", bytecode
        elif file.suffix not in {".pyc", ".pyi"}:
            yield f"{to}/{file}", root / file


def _extensions(folder: Path) -> Iterator[Path]:
    return (each for each in folder.glob("*.so") if not each.name.startswith(_NO_EXTENSIONS))


def _requirements() -> Iterator[tuple[str, Path]]:
    """Give what our distribution requires, and what that requires, as far as it is installed."""
    left, seen = ["reconciler"], set()
    while left:
        name = left.pop()
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            # Of another platform or version.
            continue
        needed = [each for each in found.requires or () if "extra ==" not in each]
        left += {match[0] for each in needed if (match := re.match(r"[\w.-]+", each))} - seen
        if name != "reconciler":
            root = Path(str(found.locate_file("")))
            files = (Path(str(file)) for file in found.files or ())
            kept = (file for file in files if not (_LEFT_OUT & set(file.parts) or ".." in file.parts))
            yield from _modules(root, kept, "site", cached=True)


def _own(scratch: Path) -> Iterator[tuple[str, Path]]:
    """Give our package, compiled now: it may have changed a moment ago; and the schemas, where a wheel has them."""
    (package,) = map(Path, reconciler.__path__)
    for file in _below(package):
        if file.suffix == ".py":
            bytecode = scratch / file.with_suffix(".pyc")
            compile_module(str(package / file), str(bytecode), doraise=True)
            yield f"site/reconciler/{file.with_suffix('.pyc')}", bytecode
        else:
            yield f"site/reconciler/{file}", package / file
    for schema in (package.parent / "schemas").iterdir():
        yield f"site/reconciler/schemas/{schema.name}", schema


def _libraries(programs: list[Path]) -> dict[str, Path]:
    """Give the shared libraries of programs, and the loader, as ldd finds them here."""
    words = ["ldd", *map(str, programs)]
    listing = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found = {name: Path(path) for name, path in re.findall(r"^\t(\S+) => (/\S+) ", listing, re.MULTILINE)}
    loaders = set(re.findall(r"^\t(/\S*/ld-\S+) \(", listing, re.MULTILINE))
    (loader,) = {Path(each).resolve() for each in loaders}
    return {f"lib/{name}": path for name, path in found.items()} | {"lib/loader": loader}


def _add_script(archive: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o755, len(text.encode())
    archive.addfile(entry, io.BytesIO(text.encode()))
