"""Each bad manifest is refused with all that is wrong with it, and touches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.cli.main import main
from reconciler.errors import ManifestError
from reconciler.manifest.load import load
from reconciler.wording import printable
from tests.conftest import Kernel, ip
from tests.manifest.bad import (
    driver,
    empty,
    interface,
    ipvs,
    kata,
    machine,
    neighbour,
    nexthops,
    notation,
    references,
    route,
    rule,
    rules,
    server,
    several,
    sysctl,
    top,
)
from tests.manifest.texts import Row
from tests.system.box import make_box, nic

ROWS: list[Row] = [
    row
    for table in (
        notation,
        empty,
        top,
        driver,
        machine,
        kata,
        interface,
        route,
        nexthops,
        neighbour,
        rule,
        ipvs,
        server,
        rules,
        references,
        several,
        sysctl,
    )
    for row in table.ROWS
]


def encode(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


@pytest.mark.parametrize(("text", "problems"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_all_its_problems_are_reported_at_their_places(
    text: str | bytes, problems: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_bytes(encode(text))
    with pytest.raises(ManifestError) as caught:
        load(["bad.yaml"])
    assert [printable(str(problem)) for problem in caught.value.problems] == problems


def test_apply_touches_nothing(kernel: Kernel, tmp_path: Path) -> None:
    box = make_box(kernel, tmp_path)
    addresses = ["10.0.0.2/24", {"address": "fd00::2/64", "dad": False}]
    box.apply(
        interfaces=[nic(kernel.tap(), addresses=addresses)],
        routes=[
            {"dest": "default", "gateway": "10.0.0.1", "device": "eth0"},
            {"dest": "default", "gateway": "fd00::1", "device": "eth0"},
            {"dest": "10.8.0.0/16", "type": "blackhole"},
        ],
        neighbours=[{"address": "10.0.0.1", "device": "eth0", "hwAddr": "02:42:20:6f:a3:01"}],
        rules=[{"priority": 100, "table": 100}],
    )
    before = _state(box.namespace, tmp_path)
    assert [
        word
        for word in ("10.0.0.2/24", "fd00::2/64", "blackhole", "via fd00::1", "PERMANENT", "lookup 100")
        if word not in before
    ] == []
    file = tmp_path / "bad.yaml"
    outcomes = []
    for name, text, _ in ROWS:
        file.write_bytes(encode(text).replace(b"{name: web-1", f"{{name: {box.namespace}".encode()))
        code = main(["apply", str(file)])
        outcomes.append((name, code, _state(box.namespace, tmp_path)))
    assert outcomes == [(name, 2, before) for name, _, _ in ROWS]


def _state(namespace: str, folder: Path) -> str:
    """Return all that `ip` prints about the links, addresses, neighbours, routes and rules of a namespace."""
    batch, batch6 = folder / "batch", folder / "batch6"
    batch.write_text("link show\naddress show\nneigh show\nneigh show proxy\nroute show table all\nrule show\n")
    batch6.write_text("route show table all\nrule show\nneigh show proxy\n")
    return "".join(
        ip(*options, "-d", "-o", "-batch", str(file), namespace=namespace)
        for options, file in (((), batch), (("-6",), batch6))
    )
