"""A real guest in which root has replaced the agent by a program that lies."""

from __future__ import annotations

import marshal
import shlex
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from reconciler.cli.main import main
from tests.allowed import FILE
from tests.benchmarks.measure import RECONCILER, measure
from tests.conftest import Kernel
from tests.machine import Guest
from tests.system.box import VmBox, nic

_FOLDER = "/usr/lib/python3.11/reconciler/guest"
# What tells the lie of the moment: a restart of the agent takes a machine without KVM two seconds of a processor.
_LIE = "/run/lie"
# The agent, which tells what _LIE has.
LIAR = f"""
import marshal, struct, sys, time
space = {{"__name__": "agent"}}
with open("{_FOLDER}/agent.real", "rb") as file:
    exec(marshal.loads(file.read()[16:]), space)
Agent, Port, NETLINK, MORE, DONE, NOTIFY = (space[each] for each in "Agent Port NETLINK MORE DONE NOTIFY".split())
handle, send = Agent.handle, Port.send
def link(name):
    attribute = struct.pack("=HH", 4 + len(name) + 1, 3) + name + bytes(1 + -(len(name) + 1) % 4)
    return struct.pack("=IHHII", 32 + len(attribute), 16, 2, 1, 0) + struct.pack("=BxHiII", 0, 1, 2, 1, 0) + attribute
class Lie:
    text = ""
    handle = handle
def handle_anyhow(self, request, kind, payload):
    with open("{_LIE}") as file:
        text = file.read()
    if text != Lie.text:
        Lie.text, Lie.handle, Port.send = text, handle, send
        exec(text, globals())
    Lie.handle(self, request, kind, payload)
Agent.handle = handle_anyhow
space["serve"](Agent(space["open_port"](space["PORT"])))
"""
_AGENT = "ps | awk '/guest.agent.pyc/ && !/awk/ {print $1}'"
# Ends the agent, and waits until the next one, which the guest starts, has opened its port.
RESTART = f"""
kill -9 $({_AGENT})
until for each in $({_AGENT}); do ls -l /proc/$each/fd; done 2>/dev/null | grep -q vport; do sleep 0.1; done
"""
# What it does, and what is said of it.
LIES = {
    "a listing of 64 MiB": (
        """
part = link(b"x") * 20000
def lie(self, request, kind, payload):
    for _ in range(80 if kind == NETLINK else 0):
        self.port.send(request, MORE, part)
    handle(self, request, kind, payload)
Lie.handle = lie
""",
        "the sandbox sent more than",
    ),
    "a name of 60 KB": (
        """
def lie(self, request, kind, payload):
    if kind == NETLINK:
        self.port.send(request, MORE, link(b"x" * 60000))
    handle(self, request, kind, payload)
Lie.handle = lie
""",
        "name of a link of 60000 bytes; the kernel allows 15",
    ),
    "notifications that nobody asked for": (
        """
def lie(self, request, kind, payload):
    for _ in range(20):
        for _ in range(1000):
            self.port.push(0, NOTIFY)
        self.port.send(0, NOTIFY)
    handle(self, request, kind, payload)
Lie.handle = lie
""",
        "the sandbox sent more than 100,000 objects in answer to one look",
    ),
}


@pytest.fixture(scope="module")
def liar(guest: Guest) -> Iterator[Guest]:
    """Replace the agent by one that lies. It comes back at the end."""
    code = MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(LIAR, "liar", "exec"))
    begin = f"echo >{_LIE}; cd {_FOLDER} && mv agent.pyc agent.real && cat >agent.pyc"
    guest.output("sh", "-c", f"{begin}; {RESTART}", stdin=code)
    yield guest
    guest.output("sh", "-c", f"cd {_FOLDER} && mv agent.real agent.pyc; rm {_LIE}; {RESTART}")


@pytest.fixture
def tell(liar: Guest) -> Iterator[Callable[[str], None]]:
    """Return what lets the agent tell a lie, from its next request until the end of the test."""

    def tell(lie: str) -> None:
        liar.output("sh", "-c", f"cat >{_LIE}", stdin=lie.encode())

    yield tell
    tell("")


@pytest.fixture
def box(kernel: Kernel, guest: Guest, tmp_path: Path) -> Iterator[VmBox]:
    made = VmBox(kernel, tmp_path / "box.yaml", guest)
    yield made
    made.empty()


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_an_error_in_time_and_memory(
    box: VmBox, tell: Callable[[str], None], lie: str, tmp_path: Path
) -> None:
    text, expected = LIES[lie]
    tell(text)
    with (tmp_path / "said").open("w+") as said:
        used = measure([*RECONCILER, "diff", "--policy", FILE, box.write(routes=[])], errors=said.fileno())
        said.seek(0)
        found = said.read()
    assert used.code == 2
    assert expected in found
    assert len(found) < 1000
    assert used.wall < 120
    assert used.memory < 150 << 10


def test_a_name_is_no_command_of_the_host(
    box: VmBox, tell: Callable[[str], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A NIC says in the guest that it is named as a command, and a script that `diff` prints is run."""
    interfaces = [nic(box.device())]
    box.apply(interfaces=interfaces)
    tell(
        """
def lie(self, request, kind, payload=b""):
    send(self, request, kind, bytes(payload).replace(b"eth0\\0", b"`id`\\0"))
Port.send = lie
"""
    )
    capsys.readouterr()
    assert main(["diff", box.write(interfaces=interfaces)]) == 1
    shown = capsys.readouterr().out
    assert shlex.quote("`id`") in shown
    assert subprocess.run(["sh", "-n"], input=shown, text=True, check=False, capture_output=True).returncode in {0, 2}
    assert not [line for line in shown.splitlines() if "`id`" in line.replace(shlex.quote("`id`"), "")]


def test_a_mac_address_that_a_guest_claims_reaches_nothing_else(
    box: VmBox, tell: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The guest says that its `lo` came with the MAC address of a NIC: QEMU knows better which NIC has which TAP."""
    interfaces = [nic(box.device()), nic(box.device(), "eth1", 1)]
    box.apply(interfaces=interfaces)
    first, second = (bytes.fromhex(each["hwAddr"].replace(":", "")) for each in interfaces)
    tell(
        f"""
first, second = {first!r}, {second!r}
def lie(self, request, kind, payload=b""):
    data = bytes(payload).replace(first, b"??????").replace(second, first).replace(b"??????", second)
    send(self, request, kind, data)
Port.send = lie
"""
    )
    capsys.readouterr()
    assert main(["diff", box.write(interfaces=interfaces)]) in {1, 2}
    shown = capsys.readouterr()
    # It only swaps its own two names; no TAP of the host is unplugged or named otherwise.
    assert "netdev" not in shown.out
    assert "device_del" not in shown.out
