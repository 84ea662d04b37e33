"""How options say what may be done: how much may be deleted or cut, and by which fingerprint."""

from __future__ import annotations

import argparse
import re

from reconciler.cli.parser import checked
from reconciler.safety import Allowance, parse_allowance


def allowance(text: str) -> Allowance:
    """Return how much may be deleted."""
    return checked(parse_allowance, text)


def fingerprint(text: str) -> str:
    """Return a fingerprint, checked for its form."""
    if not re.fullmatch(r"[0-9a-f]{4}(?:-[0-9a-f]{4}){2}", text):
        raise argparse.ArgumentTypeError(
            f'"{text}" is not a fingerprint such as 41de-7f3a-91c2; `reconciler diff` prints it in its last line'
        )
    return text


def connections(text: str) -> int:
    """Return how many connections may be cut."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of connections such as 0 or 20')
    return int(text)
