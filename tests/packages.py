"""Programs of Debian packages, unpacked as the guest's image is: installed, they would bring hundreds of packages."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from reconciler.guest import image

_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
# Seconds.
_TIMEOUT = 300.0


def unpacked(name: str, packages: Sequence[str], finish: Callable[[Path], None] = lambda _: None) -> Path:
    """Return a folder with packages and what they are linked to; make it if there is none of these versions.

    `finish` changes a new folder.
    """
    listing = _offered(*packages)
    cache_folder = Path(image.cache_folder())
    folder = cache_folder / f"{name}-{hashlib.sha256(listing.encode()).hexdigest()[:16]}"
    cache_folder.mkdir(parents=True, exist_ok=True)
    with (cache_folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            (new / "packages").mkdir(parents=True)
            run("apt-get", "download", *packages, folder=new / "packages")
            for package in (new / "packages").iterdir():
                run("dpkg-deb", "--extract", str(package), str(new))
            shutil.rmtree(new / "packages")
            finish(new)
            new.rename(folder)
    return folder


@cache
def _offered(*packages: str) -> str:
    """Return what apt would download, which takes it a second to say."""
    return run("apt-get", "download", "--print-uris", *packages)


def loader(root: Path) -> tuple[str, ...]:
    """Return the words before a program of a folder, so that it finds only the libraries of the folder."""
    libraries = ":".join(str(root / folder) for folder in _LIBRARIES)
    return (str(root / "lib64/ld-linux-x86-64.so.2"), "--inhibit-cache", "--library-path", libraries)


def run(*words: str, folder: Path | None = None) -> str:
    """Run a program that has to succeed. Return what it prints."""
    done = subprocess.run(
        words,
        check=False,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{' '.join(words[:2])}: {done.stderr[-1000:]}"
    return done.stdout
