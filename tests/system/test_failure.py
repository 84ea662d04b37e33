"""An operation fails: it is named with the kernel's words, all others are undone, and the rest is left."""

from __future__ import annotations

import pytest

from reconciler.cli.main import main
from tests.conftest import Kernel, ip
from tests.system.box import Box, nic

# Nothing in a manifest can tell that the kernel has no source address like this: the section of NICs is absent.
REFUSED = {"dest": "192.168.9.0/24", "gateway": "10.0.0.1", "device": "eth0", "source": "198.51.100.77"}


def test_everything_is_undone(box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    device = kernel.tap()
    box.apply(interfaces=[nic(device)], routes=[{"dest": "192.168.1.0/24", "gateway": "10.0.0.1", "device": "eth0"}])
    before = box.state()
    capsys.readouterr()
    routes = [
        {"dest": "192.168.1.0/24", "gateway": "10.0.0.9", "device": "eth0"},
        {"dest": "192.168.2.0/24", "gateway": "10.0.0.9", "device": "eth0"},
        REFUSED,
        {"dest": "192.168.3.0/24", "gateway": "10.0.0.9", "device": "eth0"},
    ]
    file = box.write(interfaces=[nic(device, mtu=1400, addresses=["10.0.0.2/16", "10.7.0.2/16"])], routes=routes)
    assert main(["apply", file]) == 2
    line = 1 + next(n for n, text in enumerate(box.file.read_text().splitlines()) if "198.51.100.77" in text)
    assert capsys.readouterr().err == (
        "box: failed at operation 5 of 6: "
        "ip route add 192.168.9.0/24 via 10.0.0.1 dev eth0 src 198.51.100.77 proto 200\n"
        "  the kernel: Invalid argument: Invalid prefsrc address\n"
        f"  from {file}:{line}:3, routes[2]\n"
        "  5 done, all 5 undone; 0 not begun. box is as it was before.\n"
    )
    assert box.state() == before


def test_a_nic_that_was_given_is_given_back(box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    device = kernel.tap()
    ip("link", "set", "dev", device, "mtu", "1234", "alias", "somebody's words")
    before, host = box.state(), ip("-o", "link", "show", "dev", device)
    assert main(["apply", box.write(interfaces=[nic(device)], routes=[REFUSED])]) == 2
    assert "box is as it was before" in capsys.readouterr().err
    assert box.state() == before
    assert ip("-o", "link", "show", "dev", device).partition(": ")[2] == host.partition(": ")[2]


def test_an_mtu_that_the_kernel_refuses(box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    device = kernel.tap()
    before = box.state()
    assert main(["apply", box.write(interfaces=[nic(device, mtu=46)])]) == 2
    error = capsys.readouterr().err
    assert "box: failed at operation 2 of 3: ip link set dev eth0 address 02:42:20:6f:a3:01 mtu 46 up\n" in error
    assert "  the kernel: Invalid argument: mtu less than device minimum\n" in error
    assert error.endswith("  2 done, all 2 undone; 0 not begun. box is as it was before.\n")
    assert box.state() == before


def test_other_sandboxes_go_on(kernel: Kernel, box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    device = kernel.tap()
    box.write(interfaces=[nic(device)])
    broken = box.file.with_name("a-first.yaml")
    broken.write_text("apiVersion: reconciler/v1\nsandbox: gone\ndriver: {netns: {name: does-not-exist}}\nroutes: []\n")
    assert main(["apply", str(box.file.parent)]) == 2
    output = capsys.readouterr()
    assert output.err == "gone: netns does-not-exist does not exist (/run/netns/does-not-exist)\n"
    assert output.out.startswith("box: applied 3 operations in ")
