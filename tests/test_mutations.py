"""The check that encoders are tested is itself honest: one field of each outcome, and how reports are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.model.ipvs import Server, Service
from reconciler.model.made import Made, made
from reconciler.model.route import NextHop, Route
from reconciler.operations.ipvs import AddServer
from reconciler.operations.made import AddLink, ChangeLink
from reconciler.operations.route import AddRoute
from reconciler.values import replace
from tests import mutations
from tests.completeness.rows import ROWS, Row
from tests.conftest import Kernel
from tests.mutation import replaced


def test_a_field_that_encoders_forget_is_noticed(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    del kernel
    assert mutations.main(["Address.dad"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Address.dad: noticed by test_a_namespace_has_what_the_manifest_says[Address.")
    assert lines[1:] == ["1 of 1 fields: a test fails if encoders drop it"]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(LookupError, match=r"^Route\.mut is neither a class of the model nor CLASS\.FIELD with a row"):
        mutations.chosen(["Route", "Route.mut"])


def test_the_tests_of_an_object_begin_with_those_of_the_field() -> None:
    names = mutations.nodes(Route, "mtu")
    assert len(names) == sum(row.kind is Route for row in ROWS)
    assert [name.rpartition("::")[2] for name in names[:3]] == [
        "test_a_namespace_has_what_the_manifest_says[Route.mtu]",
        "test_a_namespace_has_what_the_manifest_says[Route.mtu.ipv6]",
        "test_a_namespace_has_what_the_manifest_says[Route.dest]",
    ]


def test_each_field_is_tried_once() -> None:
    chosen = mutations.chosen([])
    assert {(row.kind, row.field) for row in chosen} == {(row.kind, row.field) for row in mutations.ALL}
    assert len({(row.kind, row.field) for row in chosen}) == len(chosen)


@pytest.mark.parametrize("row", mutations.chosen([]), ids=lambda row: row.id)
def test_what_is_dropped_is_another_value(row: Row) -> None:
    assert mutations.dropped(row) != row.value


def test_a_field_is_replaced_wherever_its_object_is() -> None:
    hops = (NextHop(device="eth0", weight=5), NextHop(device="eth1"))
    operation = AddRoute(route=Route(dest="10.0.0.0/8", nexthops=hops))
    assert replaced(operation, NextHop, "weight", 1).route.nexthops == (NextHop(device="eth0"), hops[1])
    assert replaced(operation, Route, "mtu", 0) is operation
    server = AddServer(service=("udp", "10.0.0.1", 53), server=Server(address="10.0.0.2", port=53))
    assert replaced(server, Service, "port", 54) == AddServer(service=("udp", "10.0.0.1", 54), server=server.server)
    assert replaced(server, Server, "port", 54).server.port == 54


def test_an_option_is_replaced_in_a_link_and_in_its_change() -> None:
    stp = made("bridge", {"stp": True})
    change = ChangeLink(name="br0", made=stp, changes=(("stp", True), ("ageingTime", 60)))
    found = replaced((AddLink(name="br0", made=stp), change), Made, "bridge.stp", False)
    assert found == (
        AddLink(name="br0", made=made("bridge", {})),
        replace(change, made=made("bridge", {}), changes=(("stp", False), ("ageingTime", 60))),
    )
    assert replaced(change, Made, "bond.stp", False) == change


def test_an_error_is_no_failure(tmp_path: Path) -> None:
    report = (
        '<testsuites><testsuite><testcase name="one"/><testcase name="two"><error message="setup"/></testcase>'
        '<testcase name="three"><failure message="assert"/></testcase></testsuite></testsuites>'
    )
    assert mutations.judged(report) == (3, ("three",))
    # A copy that cannot be imported has no report of a failure.
    mutations.copy(tmp_path)
    (tmp_path / "reconciler/netlink/route.py").write_text("raise SystemExit(3)\n")
    found = mutations.run(tmp_path, Route, {})
    assert found.failed == ()
