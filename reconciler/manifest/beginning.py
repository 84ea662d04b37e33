"""Whether a text is a manifest, by its beginning. Of one that is not, messages show nothing.

A link or a name can lead to a file that its author may not read, such as one with passwords.
"""

from __future__ import annotations

import re
from itertools import islice

# Lines that are searched for the first field.
_LINES = 10_000
_LINE = re.compile(r"[^\r\n]+")
_FIELD = re.compile(r"[\"']?([A-Za-z][A-Za-z0-9_]*)[\"']?[ \t]*:[ \t]*[\"']?(.?)")
_SECTIONS = ("sysctls", "interfaces", "neighbours", "routes", "rules", "ipvs", "checks")
_FIELDS = {each.lower(): each for each in ("apiVersion", "sandbox", "driver", "paused", *_SECTIONS)}
# The likeness of a misspelt field, by difflib: `version` is not one.
_LIKENESS = 0.85


def check_beginning(text: str) -> None:
    """Raise ValueError unless a text begins with a field of a manifest, perhaps misspelt, or has nothing at all."""
    if not _is_manifest(text):
        raise ValueError(
            "is not a manifest: that begins with `apiVersion: reconciler/v1`, or another of its fields; "
            "`reconciler import` converts files of other tools"
        )


def _is_manifest(text: str) -> bool:
    for match in islice(_LINE.finditer(text), _LINES):
        line = match[0].strip(" \t\ufeff{").removeprefix("---").strip(" \t{")
        if not line or line[0] in "#%}" or line in {"null", "~", "..."}:
            continue
        field = _FIELD.match(line[:100])
        if field is None:
            return False
        close = _closest(field[1].lower())
        # Other programs have a field of that name, too: their values are v1, apps/v1 and the like.
        return close is not None and (_FIELDS[close] != "apiVersion" or field[2] in "r0123456789'\"#")
    return True


def _closest(field: str) -> str | None:
    if field in _FIELDS:
        return field
    # Few fields are misspelt.
    from difflib import get_close_matches

    return next(iter(get_close_matches(field, _FIELDS, n=1, cutoff=_LIKENESS)), None)
