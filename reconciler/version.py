"""The version of what is installed."""

from __future__ import annotations


def installed_version() -> str:
    """Return the version of what is installed, which the build took from git; "unknown" if nothing is."""
    # It takes 20 ms to import.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("reconciler")
    except PackageNotFoundError:
        return "unknown"
