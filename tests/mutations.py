"""Drop each field of each object from the encoders, and look whether the tests of tests/completeness notice.

An option of a kind of link that is made in a sandbox is a field as well, such as Made.bridge.stp (tests/made).

    python -m tests.mutations [NAME…]

NAME is a class of the model or CLASS.FIELD; without one, all fields. A scratch copy of the tree is changed, and each
field is tried in a process of its own, with the tests of its object only. The encoders see the field's default in what
is to be sent and in what is expected; a field without a default has the value that its row has before. A field counts
as noticed if a test reports a failure: a crash at import, or an error in a fixture, does not count. The exit status is
1 if any field goes unnoticed, and 2 if the tests fail without a change.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from reconciler.guest import launch
from reconciler.manifest.sandbox import complete, read_sections
from reconciler.model.made import KINDS, Made
from reconciler.values import MISSING, fields, is_dataclass
from tests.completeness.rows import BALANCED, IGNORED, INSIDE, PLUGGED, ROWS, WITHOUT_ROW, Row, sections
from tests.conftest import GUEST
from tests.made.test_kinds import NEEDED, OTHERS
from tests.mutation import ENTRANCES, VARIABLE

ROOT = Path(__file__).parent.parent
# Seconds for the tests of one object.
TIMEOUT = 900


# The options of links that are made in a sandbox: one test has all those of a kind.
OPTIONS = [
    Row(Made, f"{kind}.{name}", {}, {}, value, "") for kind, others in OTHERS.items() for name, value in others.items()
]
ALL = [*ROWS, *OPTIONS]


class Tested(NamedTuple):
    """What the tests of an object reported: how many ran, which ones failed, and the end of their output."""

    ran: int
    failed: tuple[str, ...]
    output: str


def dropped(row: Row) -> Any:
    """Return the value that an encoder sees in the place of the field of a row."""
    if row in OPTIONS:
        kind, _, name = row.field.partition(".")
        (option,) = (each for each in KINDS[kind].options if each.name == name)
        return NEEDED[kind][name] if option.default is None else option.default
    default = defaults(row.kind)[row.field]
    return _written(row) if default is MISSING else default


def defaults(kind: Any) -> dict[str, Any]:
    """Return the fields of a class, and the default of each."""
    if is_dataclass(kind):
        return {field.name: field.default for field in fields(kind)}
    return {field: kind._field_defaults.get(field, MISSING) for field in kind._fields}


def _written(row: Row) -> Any:
    """Return the value that the manifest before has."""
    header = {"apiVersion": "reconciler/v1", "sandbox": "box", "driver": {"vm": {"name": "box"}}}
    data = header | sections(row.kind, row.before, row.variant)
    return getattr(next(_instances(complete(data, read_sections(data, [])), row.kind)), row.field)


def _instances(value: Any, kind: type) -> Iterator[Any]:
    if isinstance(value, kind):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _instances(getattr(value, field.name), kind)
    elif isinstance(value, tuple):
        for each in value:
            yield from _instances(each, kind)


def copy(to: Path) -> None:
    """Make a copy of the tree whose entrances can forget. Raise LookupError if an entrance is not there any more."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("reconciler", "schemas", "tests"):
        shutil.copytree(ROOT / name, to / name, ignore=ignored)
    # The state of a guest is named by these.
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, to)
    for place, name, _ in ENTRANCES:
        found = False
        for path in sorted((to / "reconciler").rglob("*.py")):
            module = str(path.relative_to(to / "reconciler").with_suffix(""))
            text = path.read_text(encoding="utf-8")
            if re.fullmatch(place, module) and re.search(rf"^ *def ({name})\(", text, re.MULTILINE):
                found = True
                path.write_text(
                    f"{text}\n\nfrom tests.mutation import forget\n\nforget(globals(), {module!r})\n", encoding="utf-8"
                )
        if not found:
            raise LookupError(f"tests/mutation.py: no function {name} in {place}")


def nodes(kind: type, first: str) -> list[str]:
    """Return the tests of an object by their names for pytest, those of the field `first` before the others."""
    if kind is Made:
        kinds = sorted(OTHERS, key=lambda each: each != first.partition(".")[0])
        return [f"tests/made/test_kinds.py::test_each_option_is_what_ip_reads[{each}]" for each in kinds]
    tests = {
        "test_a_namespace_has_what_the_manifest_says": INSIDE,
        "test_a_machine_has_what_the_manifest_says": PLUGGED,
        "test_a_table_has_what_the_manifest_says": BALANCED,
        "test_ignored_weights": IGNORED,
    }
    found = [
        (row, f"tests/completeness/test_kernel.py::{test}[{row.id}]") for test, rows in tests.items() for row in rows
    ]
    mine = sorted((each for each in found if each[0].kind is kind), key=lambda each: each[0].field != first)
    return [name for _, name in mine]


def run(tree: Path, kind: type, environment: dict[str, str], first: str = "") -> Tested:
    """Run the tests of an object in a copy of the tree, those of the field `first` first, up to the first failure."""
    report = tree / "report.xml"
    report.unlink(missing_ok=True)
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--junitxml={report}"]
    words += nodes(kind, first)
    paths = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        words,
        check=False,
        cwd=tree,
        env=os.environ | paths | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    if not report.exists():
        return Tested(0, (), done.stdout[-2000:])
    return Tested(*judged(report.read_text(encoding="utf-8")), done.stdout[-2000:])


def judged(report: str) -> tuple[int, tuple[str, ...]]:
    """Return how many tests a JUnit report has, and the names of those that failed: an error is no failure."""
    cases = list(ET.fromstring(report).iter("testcase"))
    return len(cases), tuple(case.get("name", "") for case in cases if case.find("failure") is not None)


@contextmanager
def guest(rows: Sequence[Row]) -> Iterator[dict[str, str]]:
    """Run a virtual machine for the rows that need one, and yield the environment that names it."""
    if not {*map(_name, rows)} & {*map(_name, (*PLUGGED, *BALANCED, *IGNORED, *OPTIONS))}:
        yield {}
        return
    name = f"mutations-{os.getpid()}"
    launch.start(name, kernel=os.environ.get("GUEST_KERNEL", "6.1"))
    try:
        yield {GUEST: name}
    finally:
        launch.stop(name)


def _name(row: Row) -> str:
    return f"{row.kind.__name__}.{row.field}"


def chosen(names: Sequence[str]) -> list[Row]:
    """Return a row for each field that is named, or for all. Raise LookupError for an unknown name."""
    rows = {_name(row): row for row in reversed(ALL)}
    for name in names:
        if not any(name in {each, each.partition(".")[0]} for each in rows):
            raise LookupError(
                f"{name} is neither a class of the model nor CLASS.FIELD with a row in tests/completeness"
            )
    wanted = [row for each, row in rows.items() if not names or {each, each.partition(".")[0]} & {*names}]
    return sorted(wanted, key=ALL.index)


def main(names: Sequence[str]) -> int:
    """Try the fields and print a line for each, then how many were noticed; return the exit status."""
    rows = chosen(names)
    noticed = 0
    with ExitStack() as stack:
        tree = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reconciler-mutations-")))
        copy(tree)
        environment = stack.enter_context(guest(rows))
        for kind in dict.fromkeys(row.kind for row in rows):
            whole = run(tree, kind, environment)
            if whole.failed or not whole.ran or "error" in whole.output.splitlines()[-1]:
                print(f"{kind.__name__}: its tests fail without a change\n{whole.output}", flush=True)
                return 2
            for row in rows:
                if row.kind is kind:
                    noticed += _try(tree, row, environment)
    print(f"{noticed} of {len(rows)} fields: a test fails if encoders drop it")
    if not names:
        print(
            "".join(f"without a row: {kind.__name__}.{name}: {why}\n" for (kind, name), why in WITHOUT_ROW.items()),
            end="",
        )
    return 0 if noticed == len(rows) else 1


def _try(tree: Path, row: Row, environment: dict[str, str]) -> bool:
    """Drop the field of a row, and print and return whether a test noticed."""
    begin = time.monotonic()
    value = (row.kind.__module__, row.kind.__name__, row.field, dropped(row))
    found = run(tree, row.kind, environment | {VARIABLE: b64encode(pickle.dumps(value)).decode()}, row.field)
    seconds = f"{time.monotonic() - begin:.1f} s"
    if found.failed:
        print(f"{_name(row)}: noticed by {found.failed[0]} ({seconds})", flush=True)
    else:
        print(f"{_name(row)}: NOT NOTICED ({found.ran} tests, {seconds})\n{found.output}", flush=True)
    return bool(found.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
