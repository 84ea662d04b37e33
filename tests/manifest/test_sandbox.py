"""A sandbox is written and read as itself, whatever is in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.manifest.dump import dump
from reconciler.manifest.load import load
from reconciler.manifest.sandbox import write
from reconciler.model.interface import Interface
from reconciler.model.ipvs import Ipvs
from reconciler.model.route import NextHop, Route
from reconciler.model.sandbox import NO_PROCESS, DriverAddress, NetnsAddress, Sandbox, VmAddress
from tests.examples import examples
from tests.manifest.services import sections
from tests.manifest.texts import manifest
from tests.strategies import OPTIONS, sandboxes

DRIVERS = [
    NetnsAddress(name="web-1"),
    NetnsAddress(name="_:@+" + "a" * 251),
    NetnsAddress(path="/run/netns/web 1"),
    NetnsAddress(path="/" + "a" * 4094),
    NetnsAddress(pid=4194304, started=NO_PROCESS),
]
MACHINES = [
    VmAddress(name="web-1"),
    VmAddress(name="0" + "a" * 49),
    VmAddress(qmp="/run/web 1/qmp.sock", agent="/" + "~" * 106),
    VmAddress(agent="/run/a.sock"),
    VmAddress(agent="vsock://4294967294:4294967294"),
    VmAddress(qmp="/run/q.sock", agent="hvsock:///" + "~" * 106 + ":1"),
]
# Names that YAML takes for something else.
NAMES = ["7", "1e3", "0777", "on", "12_30", "2026-01-01", "n", "true", "0x1f", "1.5", "6ec7a98", "a", "a" * 64]
DEVICES = ("tap0", "true", "n", "e1")

NIC = Interface(name="eth0", device="tap0", hw_addr="02:42:20:6f:a3:69", mtu=1500)
HOP = NextHop(device="eth0")
ROUTE = Route(dest="10.8.0.0/16", nexthops=(HOP,))


def reread(sandbox: Sandbox, folder: Path, text: Callable[[dict[str, Any]], str]) -> Sandbox:
    file = folder / "written.yaml"
    file.write_text(text(write(sandbox)))
    (manifest,) = load([str(file)])
    return manifest.sandbox


def as_yaml(data: dict[str, Any]) -> str:
    return dump([data])


@pytest.mark.parametrize("text", [as_yaml, json.dumps], ids=["yaml", "json"])
@given(sandbox=st.sampled_from(DRIVERS).flatmap(lambda driver: sandboxes(DEVICES, driver, kinds=OPTIONS)))
@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_as_it_was(
    sandbox: Sandbox, text: Callable[[dict[str, Any]], str], tmp_path: Path
) -> None:
    assert reread(sandbox, tmp_path, text) == sandbox


@pytest.mark.parametrize("text", [as_yaml, json.dumps], ids=["yaml", "json"])
@given(driver=st.sampled_from([DRIVERS[0], *MACHINES]), section=sections())
@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_section_of_ipvs_is_read_as_it_was(
    driver: DriverAddress, section: Ipvs, text: Callable[[dict[str, Any]], str], tmp_path: Path
) -> None:
    sandbox = Sandbox(id="web-1", driver=driver, ipvs=section)
    assert reread(sandbox, tmp_path, text) == sandbox


@pytest.mark.parametrize("kind", [NetnsAddress, VmAddress])
@pytest.mark.parametrize("name", NAMES)
def test_names_are_written_as_text(name: str, kind: type[NetnsAddress | VmAddress], tmp_path: Path) -> None:
    sandbox = Sandbox(id=name, driver=kind(name=name[:50]))
    assert reread(sandbox, tmp_path, as_yaml) == sandbox


def test_a_machine_by_a_number(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(manifest("driver: {vm: {name: 7}}", "interfaces: []"))
    assert load([str(file)])[0].sandbox == Sandbox(id="web-1", driver=VmAddress(name="7"), interfaces=())


@pytest.mark.parametrize("interfaces", [None, (), (NIC,)])
@pytest.mark.parametrize("routes", [None, (), (ROUTE,)])
def test_absent_and_empty_sections_stay_what_they_are(
    interfaces: tuple[Interface, ...] | None, routes: tuple[Route, ...] | None, tmp_path: Path
) -> None:
    if interfaces == () and routes:
        routes = (Route(dest="10.8.0.0/16", type="blackhole"),)
    sandbox = Sandbox(id="web-1", driver=DRIVERS[0], interfaces=interfaces, routes=routes)
    assert reread(sandbox, tmp_path, as_yaml) == sandbox
