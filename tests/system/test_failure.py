"""An operation fails: it is named with the kernel's words, and all that does not depend on it is done and stays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from reconciler import recover
from reconciler.cli.main import main
from reconciler.converge import repair
from reconciler.drivers import connect
from reconciler.drivers.netns import NetnsDriver
from reconciler.manifest.load import load
from reconciler.netlink import interface
from reconciler.operations.interface import RenameInterface
from reconciler.operations.outcome import Outcome
from reconciler.operations.segment import Segment, flat
from reconciler.values import replace
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.monitor import monitored_routes
from tests.system.box import Box, errors, nic

# Nothing in a manifest can tell that the kernel has no source address like this: the section of NICs is absent.
REFUSED = {"dest": "192.168.9.0/24", "gateway": "10.0.0.1", "device": "eth0", "source": "198.51.100.77"}


@pytest.fixture
def changed(box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> str:
    """Write a manifest of six operations of which one fails; give its path."""
    device = kernel.tap()
    box.apply(interfaces=[nic(device)], routes=[{"dest": "192.168.1.0/24", "gateway": "10.0.0.1", "device": "eth0"}])
    capsys.readouterr()
    routes = [
        {"dest": "192.168.1.0/24", "gateway": "10.0.0.9", "device": "eth0"},
        {"dest": "192.168.2.0/24", "gateway": "10.0.0.9", "device": "eth0"},
        REFUSED,
        {"dest": "192.168.3.0/24", "gateway": "10.0.0.9", "device": "eth0"},
    ]
    return box.write(interfaces=[nic(device, mtu=1400, addresses=["10.0.0.2/16", "10.7.0.2/16"])], routes=routes)


def place_of_the_refused(box: Box) -> str:
    lines = box.file.read_text().splitlines()
    return f"{box.file}:{1 + next(n for n, text in enumerate(lines) if '198.51.100.77' in text)}:3, routes[2]"


def test_what_hangs_on_a_name_that_has_to_wait_may_differ(box: Box, kernel: Kernel) -> None:
    """A watch that finds that somebody renames a NIC again and again waits; what is on the NIC follows its name."""
    device = kernel.tap()
    box.apply(
        interfaces=[nic(device)],
        routes=[{"dest": "192.168.1.0/24", "gateway": "10.0.0.1", "device": "eth0"}],
        rules=[{"priority": 100, "iif": "eth0", "table": 100}],
        neighbours=[{"address": "10.0.0.1", "device": "eth0", "hwAddr": "02:42:20:6f:a3:f1"}],
    )
    box.ip("link", "set", "eth0", "name", "eth7")
    (manifest,) = load([str(box.file)])
    with connect(manifest.sandbox, POLICY) as driver:
        waiting = repair(
            driver, manifest.sandbox, quick=False, postpones=lambda each: isinstance(each, RenameInterface)
        )
        assert [each for each in waiting.postponed if isinstance(each, RenameInterface)] != []
        assert (waiting.operations, waiting.failure) == ((), None)
        assert repair(driver, manifest.sandbox, quick=False).postponed == ()
    assert box.plan(manifest.sandbox) == ()


def test_what_does_not_depend_on_it_is_kept(box: Box, changed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", changed]) == 2
    command = "ip route add 192.168.9.0/24 via 10.0.0.1 dev eth0 src 198.51.100.77 proto 200"
    assert errors(capsys) == (
        f"box: 1 of 6 operations failed: {command}\n"
        "  the kernel: Invalid argument: Invalid prefsrc address\n"
        f"  from {place_of_the_refused(box)}\n"
        "  kept:\n"
        "    ~ ip link set dev eth0 mtu 1400\n"
        "    + ip address add 10.7.0.2/16 dev eth0\n"
        "    ~ ip route replace 192.168.1.0/24 via 10.0.0.9 dev eth0 proto 200\n"
        "    + ip route add 192.168.2.0/24 via 10.0.0.9 dev eth0 proto 200\n"
        "    + ip route add 192.168.3.0/24 via 10.0.0.9 dev eth0 proto 200\n"
        "  5 done and kept; 1 left to do. To have all or nothing: --all-or-nothing.\n"
    )
    (manifest,) = load([changed])
    assert [operation.command for operation in box.plan(manifest.sandbox)] == [command]


def test_everything_is_undone_if_that_is_asked_for(box: Box, changed: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = box.state()
    assert main(["apply", "--all-or-nothing", changed]) == 2
    assert errors(capsys) == (
        "box: failed at operation 5 of 6: "
        "ip route add 192.168.9.0/24 via 10.0.0.1 dev eth0 src 198.51.100.77 proto 200\n"
        "  the kernel: Invalid argument: Invalid prefsrc address\n"
        f"  from {place_of_the_refused(box)}\n"
        "  5 done, all 5 undone; 0 not begun. box is as it was before.\n"
    )
    assert box.state() == before


def test_nothing_is_deleted_whose_replacement_failed(
    box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    """A default route gets another metric, which fails: the old one stays all the time. What is unrelated goes."""
    interfaces = [nic(kernel.tap(), addresses=["10.0.0.2/16", "fd00::2/64"])]
    old = [
        {"dest": "default", "gateway": "10.0.0.1", "device": "eth0"},
        {"dest": "default", "gateway": "fd00::1", "device": "eth0"},
        {"dest": "fd07::/64", "gateway": "fd00::1", "device": "eth0"},
        {"dest": "192.168.1.0/24", "gateway": "10.0.0.1", "device": "eth0", "table": 100},
    ]
    new = [
        {"dest": "default", "gateway": "10.0.0.1", "device": "eth0", "metric": 7, "source": "198.51.100.77"},
        {"dest": "default", "gateway": "fd00::1", "device": "eth0", "metric": 7, "source": "2001:db8::77"},
    ]
    box.apply(interfaces=interfaces, routes=old)
    capsys.readouterr()
    file = box.write(interfaces=interfaces, routes=new)
    with monitored_routes(box.namespace) as changes:
        assert main(["apply", "--allow-delete", "all", file]) == 2
        assert [line for line in changes() if "default" in line] == []
    left = {(each["dst"], each.get("metric")) for each in box.routes_and_rules()[0] if each["protocol"] == "200"}
    assert left == {("default", None), ("default", 1024), ("fd07::/64", 1024)}
    error = capsys.readouterr().err
    assert "  kept:\n    - ip route del 192.168.1.0/24 via 10.0.0.1 dev eth0 table 100 proto 200\n" in error
    assert "  not tried, as they need what failed or remove what it replaces:\n    - ip" in error
    assert "  1 done and kept; 3 not tried; 5 left to do." in error


def test_the_first_apply_keeps_the_nic(box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    default = {"dest": "default", "gateway": "10.0.0.1", "device": "eth0"}
    assert main(["apply", box.write(interfaces=[nic(kernel.tap())], routes=[REFUSED, default])]) == 2
    assert "  4 done and kept; 1 left to do." in capsys.readouterr().err
    assert [each["dst"] for each in box.routes_and_rules()[0] if each["protocol"] == "200"] == ["default"]


def test_a_nic_that_was_given_is_given_back(box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    device = kernel.tap()
    ip("link", "set", "dev", device, "mtu", "1234", "alias", "somebody's words", "up")
    before, host = box.state(), ip("-o", "link", "show", "dev", device)
    assert main(["apply", "--all-or-nothing", box.write(interfaces=[nic(device)], routes=[REFUSED])]) == 2
    assert "box is as it was before" in capsys.readouterr().err
    assert box.state() == before
    assert ip("-o", "link", "show", "dev", device).partition(": ")[2] == host.partition(": ")[2]


def test_a_nic_that_cannot_be_set_up_is_given_back_and_the_other_one_stays(
    box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bridge of the host limits the MTU of no device, but a macvlan has no MTU above that of the link below it."""
    device, near = kernel.tap(), kernel.tap()
    upper = kernel.device("link", near, "type", "macvlan")
    host = ip("-o", "link", "show", "dev", upper)
    interfaces = [nic(upper, "eth1", 1, mtu=1600), nic(device)]
    routes = [
        {"dest": "192.168.1.0/24", "gateway": "10.1.0.1", "device": "eth1"},
        {"dest": "default", "gateway": "10.0.0.1", "device": "eth0"},
    ]
    assert main(["apply", box.write(interfaces=interfaces, routes=routes)]) == 2
    assert ip("-o", "link", "show", "dev", upper).partition(": ")[2] == host.partition(": ")[2]
    assert set(box.state()["links"]) == {"lo", "eth0"}
    assert [each["dev"] for each in box.routes_and_rules()[0] if each["protocol"] == "200"] == ["eth0"]
    error = capsys.readouterr().err
    assert f"  undone, as what they belong to failed:\n    + ip link set dev {upper} netns" in error
    assert (
        "  not tried, as they need what failed or remove what it replaces:\n    + ip address add 10.1.0.2/16" in error
    )


@pytest.mark.parametrize(
    ("options", "fields", "place", "words"),
    [
        (
            (),
            {"mtu": 46},
            "14:8: interfaces[1].mtu",
            "interface eth0: its MTU is 46, and {} accepts one from 68 to 65521 bytes",
        ),
        ((), {"queues": 2}, "16:11: interfaces[1].queues", "{} is single-queue; interface eth0 asks for 2 queues"),
        (
            ("mode", "tun"),
            {},
            "13:11: interfaces[1].hwAddr",
            "{} has no MAC address (it is of kind tun); remove hwAddr from interface eth0",
        ),
    ],
    ids=["MTU", "queues", "no MAC address"],
)
def test_a_device_that_does_not_fit_is_refused_before_it_is_touched(
    box: Box,
    kernel: Kernel,
    options: tuple[str, ...],
    fields: dict[str, Any],
    place: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device, other = kernel.tap(*options), kernel.tap()
    before, host = box.state(), [ip("-j", "-d", "link", "show", each) for each in (device, other)]
    file = box.write(interfaces=[nic(other, "eth1", 1), nic(device, **fields)])
    for command in ("diff", "apply"):
        assert main([command, file]) == 2
        assert errors(capsys) == f"box: {file}:{place}: {words.format(device)}\n"
    assert box.state() == before
    assert [ip("-j", "-d", "link", "show", each) for each in (device, other)] == host


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let devices return with another MTU than they had: neither marks nor records tell of it."""
    encode = interface.encode_restore
    monkeypatch.setattr(
        interface,
        "encode_restore",
        lambda link, origin, sequence: encode(link, replace(origin, mtu=1300), sequence),
    )


@pytest.mark.usefixtures("forgetful")
def test_an_undo_that_is_none_is_told(box: Box, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    device = kernel.tap()
    assert main(["apply", "--all-or-nothing", box.write(interfaces=[nic(device)], routes=[REFUSED])]) == 2
    assert capsys.readouterr().err.endswith(
        f"  3 done; 0 not begun. box is NOT as it was before: 1 differs, the first: link {device} of the host: "
        "mtu is 1300, was 1500.\n"
    )
    near = kernel.tap()
    upper = kernel.device("link", near, "type", "macvlan")
    assert main(["apply", box.write(interfaces=[nic(upper, mtu=1600)])]) == 2
    assert (
        f"; 1 object of box could NOT be left as before, the first: link {upper} of the host: mtu is 1300, was 1500."
        in (capsys.readouterr().err)
    )


def test_what_another_program_changes_meanwhile_is_not_called_undone(
    box: Box, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    box.apply(interfaces=[nic(kernel.tap())])
    execute = recover.execute

    def execute_beside_another(*arguments: Any) -> Any:
        box.ip("route", "replace", "203.0.113.0/24", "via", "10.0.0.9")
        return execute(*arguments)

    monkeypatch.setattr(recover, "execute", execute_beside_another)
    capsys.readouterr()
    assert main(["apply", "--all-or-nothing", box.write(routes=[REFUSED])]) == 2
    assert "box is NOT as it was before: 1 differs, the first: route 203.0.113.0/24 dev eth0" in capsys.readouterr().err


def test_a_link_that_is_renamed_under_a_plan_is_planned_anew(
    box: Box, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ip link set eth0 down; ip link set eth0 name eth1`, and the first plan is made between the two."""
    box.apply(interfaces=[nic(kernel.tap())])
    box.ip("link", "set", "eth0", "down")
    execute = NetnsDriver.execute
    plans: list[str] = []

    def overtaken(self: NetnsDriver, segments: Sequence[Segment]) -> Iterator[list[Outcome]]:
        if not plans:
            box.ip("link", "set", "eth0", "name", "eth1")
        plans.append("; ".join(each.command for each in flat(segments)))
        return execute(self, segments)

    monkeypatch.setattr(NetnsDriver, "execute", overtaken)
    capsys.readouterr()
    assert main(["apply", str(box.file)]) == 0
    assert plans == ["ip link set dev eth0 up", "ip link set dev eth1 name eth0; ip link set dev eth0 up"]
    captured = capsys.readouterr()
    assert "applied 2 operations" in captured.out
    # It looked twice, and warns once.
    warned = captured.err.splitlines()
    assert len(warned) == len(set(warned))
    assert "UP" in json.loads(box.ip("-j", "link", "show", "dev", "eth0"))[0]["flags"]


def test_other_sandboxes_go_on(kernel: Kernel, box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    device = kernel.tap()
    box.write(interfaces=[nic(device)])
    broken = box.file.with_name("a-first.yaml")
    broken.write_text("apiVersion: reconciler/v1\nsandbox: gone\ndriver: {netns: {name: does-not-exist}}\nroutes: []\n")
    assert main(["apply", str(box.file.parent)]) == 2
    output = capsys.readouterr()
    gone = "netns does-not-exist does not exist (/run/netns/does-not-exist); `ip netns add does-not-exist` makes it"
    assert output.err.startswith(f"gone: {broken}:3:9: driver: {gone}\n")
    assert output.out.startswith("box: applied 3 operations in ")
