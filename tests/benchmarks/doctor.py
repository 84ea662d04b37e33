"""How long a search for faults takes with many sandboxes that are well, each in a namespace and in one bridge."""

from __future__ import annotations

import time
from pathlib import Path

from tests.benchmarks.measure import Figure
from tests.conftest import Kernel
from tests.host import Host, started

MANY = 500
# Seconds that it may take.
LIMIT = 10.0
MANIFEST = """\
apiVersion: reconciler/v1
sandbox: s{number}
driver: {{netns: {{name: s{number}}}}}
interfaces:
  - {{name: eth0, device: v{number}, hwAddr: "{mac}", mtu: 1500, addresses: [10.1.{high}.{low}/16]}}
routes:
  - {{dest: default, gateway: 10.1.255.254, device: eth0}}
"""


def run(kernel: Kernel, folder: Path) -> list[Figure]:
    del kernel
    scratch, manifests = folder / "doctor-host", folder / "doctor"
    scratch.mkdir()
    manifests.mkdir()
    with started(scratch) as host:
        _make(host, manifests)
        begin = time.perf_counter()
        done = host.run("reconciler", "doctor", "-o", "json", str(manifests))
        taken = time.perf_counter() - begin
    if done.returncode != 0 or f'"sandboxes": {MANY}' not in done.stdout:
        raise RuntimeError(f"`doctor` ended with {done.returncode}: {done.stdout[:2000]}")
    return [
        Figure(
            name=f"doctor of {MANY} sandboxes, beside {LIMIT:.0f} s",
            detail=f"{taken:.1f} s",
            ratio=taken / LIMIT,
            bar=1,
            aim=0.5,
        )
    ]


def _make(host: Host, manifests: Path) -> None:
    batch = ["link add br0 type bridge", "address add 10.1.255.254/16 dev br0", "link set br0 up"]
    for number in range(MANY):
        batch += [
            f"netns add s{number}",
            f"link add v{number} type veth peer name h{number}",
            f"link set h{number} master br0 up",
        ]
        high, low = divmod(number + 1, 250)
        text = MANIFEST.format(
            number=number, mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}", high=high, low=low + 1
        )
        (manifests / f"s{number}.yaml").write_text(text)
    file = manifests.with_suffix(".batch")
    file.write_text("\n".join(batch) + "\n")
    host.output("sysctl", "-qw", "net.ipv4.ip_forward=1")
    host.output("ip", "-batch", str(file))
    host.output("sh", "-c", f"for each in $(seq 0 {MANY - 1}); do ip -n s$each link set lo up; done")
    host.output("reconciler", "apply", str(manifests))
