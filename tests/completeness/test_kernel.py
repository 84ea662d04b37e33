"""For each field of each object: a real kernel has what the manifest says, and a plan shows that field alone.

`ip` and `ipvsadm` read it back (`readers`), as the codec makes both what is sent and what is expected: one that forgets
a field agrees with itself. tests/mutations.py drops each field from the encoders and looks whether a test here fails.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from reconciler.model.ipvs import Ipvs, Timeouts
from reconciler.values import MISSING, fields, is_dataclass
from tests.completeness.rows import BALANCED, IGNORED, INSIDE, KINDS, PLUGGED, ROWS, WITHOUT_ROW, Row, sections
from tests.completeness.worlds import Machine, Namespace, Table, World
from tests.conftest import Kernel
from tests.vhost.backend import running


def defaults(kind: Any) -> dict[str, Any]:
    """Return the fields of a class and their defaults."""
    if is_dataclass(kind):
        return {each.name: each.default for each in fields(kind)}
    return {name: kind._field_defaults.get(name, MISSING) for name in kind._fields}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_has_a_row(kind: type) -> None:
    fields = {field for field in defaults(kind) if (kind, field) not in WITHOUT_ROW}
    assert {row.field for row in ROWS if row.kind is kind} == fields


def test_what_has_no_row_is_a_field() -> None:
    assert [(kind, field) for kind, field in WITHOUT_ROW if field not in defaults(kind)] == []


def check(world: World, row: Row) -> None:
    before, after = (world.filled(sections(row.kind, each, row.variant)) for each in (row.before, row.after))
    value, shows = world.filled(row.value), world.filled(row.shows)
    # What a plan from nothing says.
    assert shows in world.words(after)
    assert shows not in world.words(before)
    world.apply(before)
    assert world.words(before) == ""
    was = world.read(row.kind)
    assert row.field in was
    assert was[row.field] != value
    # The field alone changes.
    assert shows in world.words(after)
    world.apply(after)
    assert world.words(after) == ""
    expected = was | {row.field: value} | row.also
    assert world.read(row.kind) == expected
    # And back, and all at once. Settings that a manifest says nothing of stay as they are.
    world.apply(before)
    assert world.read(row.kind) == (expected if row.kind in {Timeouts, Ipvs} else was)
    world.empty()
    world.apply(after)
    assert world.read(row.kind) == expected


@pytest.mark.parametrize("row", INSIDE, ids=lambda row: row.id)
def test_a_namespace_has_what_the_manifest_says(namespace: Namespace, row: Row) -> None:
    check(namespace, row)


@pytest.mark.parametrize("row", PLUGGED, ids=lambda row: row.id)
def test_a_machine_has_what_the_manifest_says(plugged: Machine, kernel: Kernel, row: Row) -> None:
    with ExitStack() as stack:
        if row.field == "vhost_user_socket":
            stack.enter_context(running(plugged.vm.file.with_name("vhost.sock"), kernel.veth()[1]))
        check(plugged, row)
        plugged.empty()


@pytest.mark.parametrize("row", BALANCED, ids=lambda row: row.id)
def test_a_table_has_what_the_manifest_says(table: Table, row: Row) -> None:
    check(table, row)


@pytest.mark.parametrize("row", IGNORED, ids=lambda row: row.id)
def test_ignored_weights(table: Table, row: Row) -> None:
    before, after = (sections(row.kind, each) for each in (row.before, row.after))
    for each in (before, after):
        table.apply(each)
    table.vm.shell("ipvsadm -e -u 10.1.0.1:53 -r 10.9.9.1:53 -m -w 7")
    assert "-w 1 # was -r 10.9.9.1:53 -m -w 7" in table.words(before)
    assert table.words(after) == ""
    # Even where the service changes otherwise.
    table.apply(sections(row.kind, row.after | {"scheduler": "rr"}))
    (server,) = [line for line in table.vm.saved() if line.startswith("-a")]
    assert server.endswith("-w 7")
