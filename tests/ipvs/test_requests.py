"""What a look asks a machine for: of a section that no manifest has, nothing beyond what warnings need."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import pytest

from reconciler.guest import agent
from reconciler.guest.client import AgentClient
from tests.ipvs.place import ID, Vm

# What a guest is asked for, by a request's kind, or by netlink's family and its type of message.
_TYPES = {18: "links", 22: "addresses", 26: "routes", 30: "neighbours", 34: "rules"}
_KINDS = {agent.SYSCTL_GET: "sysctls", agent.SERVERS: "servers", agent.DUMPS: "ipvs", agent.UNMANAGED_GET: "managers"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is asked for."""
    found: list[str] = []
    push = AgentClient._push

    def note(self: AgentClient, kind: int, payload: bytes, deadline: float) -> int:
        found.append(_KINDS.get(kind) or _netlink(payload))
        return push(self, kind, payload, deadline)

    monkeypatch.setattr(AgentClient, "_push", note)
    return found


def _netlink(payload: bytes) -> str:
    protocol, _ = agent.NETLINK_HEAD.unpack_from(payload)
    (kind,) = struct.unpack_from("=H", payload, agent.NETLINK_HEAD.size + 4)
    return _TYPES.get(kind, str(kind)) if protocol == agent.ROUTE else "ipvs"


def test_each_section_asks_for_its_own(vm: Vm, asked: list[str]) -> None:
    rules = "-A -t 10.9.9.9:80 -s rr\n-a -t 10.9.9.9:80 -r 10.9.9.1:80 -m"
    assert vm.reconciler("diff", vm.manifest(timeouts={"tcp": 900})).status == 0
    assert set(asked) == {"links", "sysctls", "ipvs"}
    asked.clear()
    assert vm.reconciler("diff", vm.manifest(rules=rules)).status == 1
    # Whether the address of a service is one of the machine's own decides a warning.
    assert set(asked) == {"links", "addresses", "sysctls", "ipvs"}
    asked.clear()
    network = {"apiVersion": "reconciler/v1", "sandbox": ID, "driver": vm.driver, "interfaces": [], "routes": []}
    assert vm.reconciler("diff", vm.file("network.yaml", json.dumps(network))).status == 0
    assert set(asked) == {"links", "addresses", "neighbours", "routes", "managers"}


def test_a_manifest_without_ipvs_loads_no_code_for_it(vm: Vm) -> None:
    network = {"apiVersion": "reconciler/v1", "sandbox": ID, "driver": vm.driver, "interfaces": [], "routes": []}
    words = ["reconciler", "diff", vm.file("network.yaml", json.dumps(network))]
    code = (
        f"import sys; sys.argv = {words!r}; from reconciler.cli.main import main; assert main() == 0; "
        "print([each for each in sys.modules if 'ipvs' in each])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.stderr, done.stdout.splitlines()[-1:]) == ("", ["[]"])
