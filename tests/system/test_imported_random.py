"""Whatever a namespace has by a manifest, `ip -j` lists it, and an import of that listing is the manifest."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reconciler.cli.main import main
from reconciler.manifest.dump import dump
from reconciler.manifest.load import load
from reconciler.manifest.sandbox import write
from reconciler.model.interface import Address
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.values import replace
from tests.conftest import Kernel, ip
from tests.examples import examples
from tests.strategies import INTERFACES_MAX, sandboxes

LISTINGS = (
    "-d link",
    "-d addr",
    "-N route show table all",
    "-d route show table all",
    "rule",
    "-6 rule",
    "-d neigh",
    "neigh show proxy",
)


def listed(namespace: str, routes: str) -> str:
    """Return what `ip -j` lists of a namespace, one listing after another; `routes`: the form of that of routes."""
    chosen = [each for each in LISTINGS if "route" not in each or each.startswith(routes)]
    commands = "; ".join(f"ip -n {namespace} -j {each}" for each in chosen)
    return subprocess.run(["sh", "-c", commands], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def namespace(kernel: Kernel) -> str:
    """A namespace with `lo` up: without any address, a kernel refuses gateways that are on-link."""
    name = kernel.namespace()
    ip("link", "set", "lo", "up", namespace=name)
    return name


def test_any_sandbox(kernel: Kernel, namespace: str, tmp_path: Path) -> None:
    devices = [kernel.tap() for _ in range(INTERFACES_MAX)]
    driver = NetnsAddress(name=namespace)
    manifest, listing, printed = (tmp_path / name for name in ("manifest.yaml", "listing", "printed.yaml"))

    # Shrinking would take minutes on a kernel; what fails is printed as it is.
    @settings(max_examples=examples(40), phases=[Phase.generate], report_multiple_bugs=False)
    @given(sandboxes(devices, driver, sandbox_id="box"), st.sampled_from(("-N", "-d")))
    def check(drawn: Sandbox, routes: str) -> None:
        # iproute2 6.1 does not list what a rule without a table suppresses.
        shown = tuple(each for each in drawn.rules or () if not each.l3mdev or each.suppress_prefixlength < 0)
        # Nor, as JSON, which MTU of a route is locked.
        routed = tuple(replace(each, mtu_lock=False) for each in drawn.routes or ())
        # Our own alias tells the device of the host.
        nics = tuple(
            replace(each, attributes=tuple(attribute for attribute in each.attributes if attribute[0] != "alias"))
            for each in drawn.interfaces or ()
        )
        desired = replace(drawn, interfaces=drawn.interfaces and nics, rules=shown, routes=routed)
        manifest.write_text(dump([write(desired)]))
        assert main(["apply", "--allow-delete", "all", str(manifest)]) == 0
        listing.write_text(listed(namespace, routes))
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["import", "--sandbox", "box", "--netns", namespace, "--from", "ip", str(listing)])
        if not any((desired.interfaces, desired.neighbours, desired.routes, desired.rules)):
            assert code == 2
            return
        assert code == 0, err.getvalue()
        printed.write_text(out.getvalue())
        (found,) = load([str(printed)])
        ours, theirs = _unordered(found.sandbox), _unordered(desired)
        for section in theirs:
            assert ours[section] - theirs[section] == set(), listing.read_text()
            assert theirs[section] - ours[section] == set(), err.getvalue()

    check()


def _unordered(sandbox: Sandbox) -> dict[str, set[Any]]:
    """Return the sections without their order, of which absent ones are empty ones."""
    return {
        "interfaces": {
            (each.key, each.name, each.hw_addr, each.mtu, frozenset(map(_unnumbered, each.addresses)))
            for each in sandbox.interfaces or ()
        },
        "neighbours": set(sandbox.neighbours or ()),
        "routes": set(sandbox.routes or ()),
        "rules": set(sandbox.rules or ()),
    }


def _unnumbered(address: Address) -> Address:
    """Return an address without the number that the kernel puts into its label when the link is renamed."""
    return replace(address, label=None) if re.search(r":[0-9]+$", address.label or "") else address
