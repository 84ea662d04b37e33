"""`--only`: some of the sandboxes whose manifests are read together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from reconciler.errors import HostError
from reconciler.manifest.load import Manifest
from reconciler.wording import select, suggest


def add_only(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="ID",
        help="only this sandbox, several times for several; `web-*` stands for all that match. All manifests are "
        "checked nevertheless",
    )


def chosen(manifests: Sequence[Manifest], patterns: Sequence[str]) -> list[Manifest]:
    """Return the manifests that patterns of IDs choose; all without any. HostError if a pattern chooses none."""
    ids = [each.sandbox.id for each in manifests]
    for pattern in patterns:
        if not select([pattern], ids):
            raise HostError(f'--only: no manifest is of a sandbox "{pattern}"; {suggest(pattern, ids, listed_by="")}')
    kept = set(select(patterns, ids)) if patterns else set(ids)
    return [each for each in manifests if each.sandbox.id in kept]
