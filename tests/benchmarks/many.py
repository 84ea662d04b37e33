"""`apply` and `diff` of a folder of sandboxes in one call, beside a shell loop of `ip -batch` in each namespace."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.measure import RECONCILER, Figure, measure, seconds
from tests.conftest import Kernel, ip

SANDBOXES, ROUTES = 200, 50
ROUNDS = 3
MANIFEST = """\
apiVersion: reconciler/v1
sandbox: {name}
driver: {{netns: {{name: {name}}}}}
interfaces:
  - {{name: eth0, device: {device}, hwAddr: "{hw_addr}", mtu: 1500, addresses: [172.16.0.3/16]}}
routes:
"""
_SHELL = "/bin/sh"


def run(kernel: Kernel, folder: Path) -> list[Figure]:
    """Time each in turn; the routes go in between, the interfaces stay."""
    manifests, batches = folder / "many", folder / "batches"
    manifests.mkdir()
    batches.mkdir()
    names = [kernel.namespace() for _ in range(SANDBOXES)]
    for name in names:
        ip("link", "set", "lo", "up", namespace=name)
    for number, name in enumerate(names):
        destinations = [f"10.{number}.{each}.0/24" for each in range(ROUTES)]
        hops = [f"172.16.0.{each % 3 + 1}" for each in range(ROUTES)]
        routes = zip(destinations, hops, strict=True)
        lines = [f"  - {{dest: {dest}, gateway: {gateway}, device: eth0}}\n" for dest, gateway in routes]
        (manifests / f"{name}.yaml").write_text(
            MANIFEST.format(name=name, device=kernel.tap(), hw_addr=f"02:42:20:6f:a3:{number:02x}") + "".join(lines)
        )
        (batches / name).write_text(
            "".join(f"route add {dest} via {hop} dev eth0\n" for dest, hop in zip(destinations, hops, strict=True))
        )
    loop = f'cd {batches}; for each in *; do ip -n "$each" -batch "$each" || exit 1; done'
    by_shell, apply, diff = [], [], []
    seconds([*RECONCILER, "apply", str(manifests)])
    for _ in range(ROUNDS):
        _flush(names, "200")
        by_shell.append(measure([_SHELL, "-c", loop]))
        _flush(names, "boot")
        apply.append(measure([*RECONCILER, "apply", str(manifests)]))
        diff.append(measure([*RECONCILER, "diff", str(manifests)]))
    assert not any(each.code for each in (*by_shell, *apply, *diff))
    other, whole, look = (min(each.wall for each in figures) for figures in (by_shell, apply, diff))
    detail = f"`ip -batch` in each namespace {other:.2f} s"
    name = f"{SANDBOXES} sandboxes of {ROUTES} routes in one call, beside a loop of `ip -batch`"
    return [
        Figure(
            name=f"apply of {name}",
            detail=f"apply {whole:.2f} s, {detail}; {max(each.memory for each in apply) >> 10} MiB",
            ratio=whole / other,
            bar=0.5,
            aim=0.5,
        ),
        Figure(
            name=f"no-op diff of {name}", detail=f"diff {look:.2f} s, {detail}", ratio=look / other, bar=0.5, aim=0.5
        ),
    ]


def _flush(names: list[str], protocol: str) -> None:
    for name in names:
        ip("route", "flush", "proto", protocol, namespace=name)
