"""A machine that was recorded once for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.manifest.load import load
from tests.conftest import Kernel
from tests.fuzz.recording import Recording, record
from tests.machine import Guest
from tests.system.box import VmBox, nic

IPVS = {
    "timeouts": {"tcp": 100, "tcpfin": 100, "udp": 200},
    "services": [
        {
            "tcp": "10.0.0.7:80",
            "scheduler": "wrr",
            "persistent": 300,
            "servers": [{"address": f"10.0.1.{number}:80", "weight": number} for number in range(1, 6)],
        },
        {"udp": "[fd00::7]:53", "scheduler": "rr", "servers": [{"address": "[fd00::8]:53", "forward": "dr"}]},
        {"fwmark": 7, "scheduler": "mh", "servers": [{"address": "10.0.1.9:0", "upperThreshold": 9}]},
    ],
}


@pytest.fixture(scope="session")
def recording(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    kernel = Kernel()
    box = VmBox(kernel, tmp_path_factory.mktemp("fuzz") / "box.yaml", guest)
    sections = {
        "interfaces": [
            nic(box.device(), addresses=["10.0.0.2/16", {"address": "fd00::2/64", "dad": False}]),
            nic(box.device(), "eth1", 1),
        ],
        "routes": [
            {"dest": "default", "gateway": "10.0.0.1", "device": "eth0"},
            {"dest": "fd01::/64", "gateway": "fd00::1", "device": "eth0"},
            {"dest": "10.9.0.0/16", "type": "blackhole"},
        ],
        "rules": [{"priority": 100, "from": "10.1.0.0/16", "iif": "eth0", "table": 100}],
        "neighbours": [{"address": "10.0.0.1", "device": "eth0", "hwAddr": "02:42:20:6f:a3:f1"}],
        "sysctls": {"net.ipv4.ip_forward": 1},
        "ipvs": IPVS,
    }
    box.apply(**sections)
    (manifest,) = load([str(box.file)])
    with pytest.MonkeyPatch.context() as patched:
        made = record(manifest.sandbox, patched)
    # It answers from now on, and the machine is that of other tests again.
    nothing = {"services": [], "timeouts": {"tcp": 900, "tcpfin": 120, "udp": 300}}
    box.apply("--allow-delete", "all", interfaces=[], routes=[], rules=[], neighbours=[], ipvs=nothing)
    guest.output("sysctl", "-q", "-w", "net.ipv4.ip_forward=0")
    yield made
    # The TAPs are looked for on the host.
    kernel.remove()
