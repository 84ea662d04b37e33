"""10,000 routes: `apply` and a no-op `diff`, beside a bare YAML load of the file and `ip -batch` of the routes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measure import RECONCILER, Figure, best, seconds
from tests.conftest import Kernel, ip

COUNT = 10_000
ROUNDS = 5
HEAD = """\
apiVersion: reconciler/v1
sandbox: bench
driver: {{netns: {{name: {namespace}}}}}
interfaces:
  - {{name: eth0, device: {device}, hwAddr: 02:42:20:6f:a3:69, mtu: 1500, addresses: [172.16.0.3/16]}}
routes:
"""
BARE_LOAD = """
import sys, time, yaml
text = open(sys.argv[1]).read()
begin = time.perf_counter()
yaml.load(text, yaml.CSafeLoader)
print(time.perf_counter() - begin)
"""


def destinations() -> Iterator[tuple[str, str]]:
    for number in range(COUNT):
        yield f"10.{number >> 8}.{number & 255}.0/24", f"172.16.{number % 3}.1"


def bare_load(file: Path) -> float:
    """Time the load alone, in a process of its own as the others are."""
    import subprocess

    command = [sys.executable, "-c", BARE_LOAD, str(file)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run(kernel: Kernel, folder: Path) -> list[Figure]:
    namespace, device = kernel.namespace(), kernel.tap()
    head = HEAD.format(namespace=namespace, device=device)
    routes = [f"  - {{dest: {dest}, gateway: {gateway}, device: eth0}}\n" for dest, gateway in destinations()]
    small, large, batch = folder / "small.yaml", folder / "large.yaml", folder / "batch"
    small.write_text(head + routes[0])
    large.write_text(head + "".join(routes))
    batch.write_text("".join(f"route add {dest} via {gateway} dev eth0\n" for dest, gateway in destinations()))

    start, bare, by_ip, apply, diff = [], [], [], [], []
    for _ in range(ROUNDS):
        seconds([*RECONCILER, "apply", "--allow-delete", "all", str(small)])
        start.append(best(lambda: seconds([*RECONCILER, "diff", str(small)]), 3))
        bare.append(bare_load(large))
        apply.append(seconds([*RECONCILER, "apply", str(large)]))
        diff.append(seconds([*RECONCILER, "diff", str(large)]))
        ip("route", "flush", "proto", "200", namespace=namespace)
        by_ip.append(seconds(["ip", "-n", namespace, "-batch", str(batch)]))
        ip("route", "flush", "proto", "boot", namespace=namespace)
    begin, load, other, whole, look = (min(times) for times in (start, bare, by_ip, apply, diff))
    detail = f"{{}} {{:.3f}} s, less {begin:.3f} s of a small diff; bare load {load:.3f} s"
    return [
        Figure(
            name=f"apply of {COUNT:,} routes, beside a bare load and `ip -batch`",
            detail=f"{detail.format('apply', whole)}, `ip -batch` {other:.3f} s",
            ratio=(whole - begin) / (load + other),
            bar=0.4,
            aim=0.3,
        ),
        Figure(
            name=f"no-op diff of {COUNT:,} routes, beside a bare load",
            detail=detail.format("diff", look),
            ratio=(look - begin) / load,
            bar=0.3,
            aim=0.22,
        ),
    ]
