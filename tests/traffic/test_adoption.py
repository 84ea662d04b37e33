"""A table that somebody filled with ipvsadm becomes ours while clients talk through it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from reconciler.cli import live
from reconciler.model.sandbox import Sandbox, VmAddress
from tests.ipvs.place import MachineTable
from tests.traffic.world import PORT, S1, S2, SERVERS6, VIP, VIP6, World

# Services with three servers each: 1,000 rules with those of the traffic.
_SERVICES = 248
RULES = [
    f"-A -t {VIP}:80 -s rr",
    *(f"-a -t {VIP}:80 -r {each}:{PORT} -m -w 1" for each in (S1, S2)),
    f"-A -t [{VIP6}]:80 -s wrr",
    *(f"-a -t [{VIP6}]:80 -r [{each}]:{PORT} -m -w 1" for each in SERVERS6),
    "-A -f 7 -s sh -b sh-fallback -p 60 -M 255.255.255.0",
    "-a -f 7 -r 10.71.0.11:0 -g -w 0 -x 9 -y 3",
]
for _number in range(_SERVICES):
    _key = f"-{'tu'[_number % 2]} 10.88.{_number // 100}.{_number % 100 + 1}:53"
    RULES += [f"-A {_key} -s rr", *(f"-a {_key} -r 10.71.0.{_host}:53 -m -w {_host}" for _host in (11, 12, 13))]


def test_a_table_of_ipvsadm_is_adopted_under_traffic(
    director: MachineTable, clients: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(RULES) == 1000
    director.load("\n".join(RULES) + "\n")
    table = sorted(director.saved())
    began = {"four": clients.connect("four", 20, 80), "six": clients.connect("six", 8, 80, vip=VIP6)}
    # What `import --vm NAME --live` does; this machine may have no name.
    assert live.run(Sandbox(id="table", driver=VmAddress(**director.driver["vm"]))) == 0
    text = capsys.readouterr().out
    assert "10.73.0.0/24" in text
    path = director.file("live.yaml", text)
    assert director.reconciler("diff", "--adopt", path).status == 1
    adopted = director.reconciler("apply", "--adopt", path)
    assert adopted.status == 0, adopted
    assert director.reconciler("diff", path).status == 0
    assert sorted(director.saved()) == table
    for group, before in began.items():
        fared = clients.prove(group)
        assert fared.alive
        assert clients.look(group).servers == before.servers
    _is_ours(director, path, text)


def _is_ours(director: MachineTable, path: str, text: str) -> None:
    """What leaves the manifest is a deletion, and the limit guards that."""
    manifest: Any = yaml.safe_load(text)
    manifest["ipvs"]["services"] = manifest["ipvs"]["services"][:100]
    director.file("live.yaml", json.dumps(manifest))
    refused = director.reconciler("apply", path)
    assert refused.status == 3
    assert f"this would delete {_SERVICES + 3 - 100} of {_SERVICES + 3} IPVS services" in refused.stderr
    assert director.reconciler("apply", "--allow-delete", "all", path).status == 0
    assert sum(line.startswith("-A") for line in director.saved()) == 100
