"""The release of a kernel, as `uname -r` prints it."""

from __future__ import annotations


def series(release: str) -> tuple[int, int]:
    """Return major and minor of a release, such as (6, 1) of 6.1.0-56-cloud-amd64; 0 for what is no number."""
    major, minor, *_ = [*release.split("."), "0", "0"]
    digits = "".join(filter(str.isdecimal, minor[:4]))
    return int(major) if major.isdecimal() else 0, int(digits or 0)
