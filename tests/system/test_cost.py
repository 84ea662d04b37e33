"""What `diff` says that a change cuts is what a generator of traffic then loses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.values import dataclass
from tests.conftest import Kernel, ip
from tests.system import calls
from tests.system.box import Box, nic

BOUND, ROUTED, DIRECT = 50, 20, 5
ALL = BOUND + ROUTED + DIRECT


@dataclass(frozen=True)
class Net:
    """Addresses of a family. The sandbox has `near` and `second`, the router `far`, `other` and `beyond`."""

    near: str
    second: str
    far: str
    other: str
    second_far: str
    beyond: str
    network: str
    free: str

    @property
    def length(self) -> int:
        return 64 if ":" in self.near else 24

    @property
    def host(self) -> int:
        return 128 if ":" in self.near else 32


NETS = {
    4: Net("10.0.0.2", "10.0.1.2", "10.0.0.1", "10.0.0.9", "10.0.1.1", "192.168.7.7", "192.168.0.0/16", "10.0.7.7"),
    6: Net("fd00::2", "fd01::2", "fd00::1", "fd00::9", "fd01::1", "2001:db8::7", "2001:db8::/32", "fd07::7"),
}


@dataclass
class World:
    """A sandbox with connections to a router. `proven` counts those that still carry a byte."""

    box: Box
    net: Net
    device: str
    holder: subprocess.Popen[str]

    def sections(self) -> dict[str, Any]:
        addresses = [self.address(each) for each in (self.net.near, self.net.second)]
        route = {"dest": self.net.network, "gateway": self.net.far, "device": "eth0"}
        return {"interfaces": [nic(self.device, addresses=addresses)], "routes": [route]}

    def address(self, address: str) -> Any:
        text = f"{address}/{self.net.length}"
        return {"address": text, "dad": False} if ":" in address else text

    def proven(self, expected: int) -> int:
        assert self.holder.stdin
        assert self.holder.stdout
        self.holder.stdin.write(f"prove {1 if expected < ALL else 0} {expected}\n")
        self.holder.stdin.flush()
        return int(self.holder.stdout.readline())

    def cost(self, capsys: pytest.CaptureFixture[str], **sections: Any) -> dict[str, Any]:
        capsys.readouterr()
        main(["diff", "-o", "json", self.box.write(**sections)])
        (sandbox,) = json.loads(capsys.readouterr().out)["sandboxes"]
        found: dict[str, Any] = sandbox
        return found


def process(stack: ExitStack, namespace: str, *words: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-I", "-S", calls.__file__, *words]
    made = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    stack.callback(made.kill)
    assert made.stdout
    assert made.stdout.readline() == "ready\n"
    return made


@pytest.fixture(params=[4, 6])
def world(request: pytest.FixtureRequest, kernel: Kernel, box: Box) -> Iterator[World]:
    net = NETS[request.param]
    near, far = kernel.veth()
    router = kernel.namespace()
    ip("link", "set", "dev", far, "netns", router, "name", "eth0")
    made = World(box, net, near, None)  # type: ignore[arg-type]
    box.apply(**made.sections())
    nodad = ["nodad"] if ":" in net.near else []
    lines = [f"address add {each}/{net.length} dev eth0 {' '.join(nodad)}" for each in (net.far, net.other)]
    lines += [f"address add {net.second_far}/{net.length} dev eth0 {' '.join(nodad)}"]
    lines += [f"address add {net.beyond}/{net.host} dev lo", "link set lo up", "link set eth0 up"]
    ip("-batch", "-", namespace=router, stdin="".join(f"{line}\n" for line in lines))
    with ExitStack() as stack:
        process(stack, router, "serve", net.far, net.second_far, net.beyond)
        held = (net.second, net.second_far, BOUND, net.near, net.beyond, ROUTED, net.near, net.far, DIRECT)
        made.holder = process(stack, box.namespace, "hold", *map(str, held))
        yield made


def test_what_is_said_is_what_is_lost(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    sections, net = world.sections(), world.net
    (interface,), (route,) = sections["interfaces"], sections["routes"]
    fewer = interface | {"addresses": [world.address(net.near)]}
    blackhole = {"dest": f"{net.beyond}/{net.host}", "type": "blackhole"}
    changes: list[tuple[str, dict[str, Any], int, int]] = [
        # What is changed, how many that cuts, and how many it may cut beside.
        (
            "address",
            {"interfaces": [fewer], "routes": [route]},
            BOUND,
            0,
        ),
        ("route", {"interfaces": [interface], "routes": []}, ROUTED, 0),
        ("blackhole", {"interfaces": [interface], "routes": [route, blackhole]}, ROUTED, 0),
        ("nothing there", {"interfaces": [interface], "routes": [{"dest": net.network, "type": "unreachable"}]}, 20, 0),
        ("gateway", {"interfaces": [interface], "routes": [route | {"gateway": net.other}]}, 0, ROUTED),
        ("metric", {"interfaces": [interface], "routes": [route | {"metric": 77}]}, 0, 0),
        ("NIC", {"interfaces": [], "routes": []}, ALL, 0),
    ]
    assert world.proven(ALL) == ALL
    for name, changed, sure, perhaps in changes:
        found = world.cost(capsys, **changed)
        cuts = found["cuts"]
        assert (cuts["least"], cuts["most"]) == (sure, sure + perhaps), (name, found)
        assert cuts["connections"] == (None if perhaps else sure), name
        world.box.apply("--allow-delete", "all", **changed)
        lives = ALL - sure
        assert world.proven(lives) == lives, name
        world.box.apply(**sections)
        assert world.proven(ALL) == ALL, name
