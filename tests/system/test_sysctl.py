"""Sysctls on a real kernel: of the sandbox and of interfaces, read back by `cat` alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.converge import apply
from reconciler.drivers import connect
from reconciler.errors import ApplyError
from reconciler.manifest.dump import dump
from reconciler.manifest.load import load
from reconciler.manifest.schema import schema_text
from reconciler.model.sysctl import OF_NIC, OF_SANDBOX, effects, full_name
from reconciler.values import replace
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.machine import Guest
from tests.system.box import Box, SandboxPlace, VmBox, make_box, nic

SCHEMA = json.loads(schema_text())
FORWARD = "net.ipv4.ip_forward"
TTL = "net.ipv4.ip_default_ttl"
ALL_OFF = "net.ipv6.conf.all.disable_ipv6"
LIST = "cd /proc/sys/net && grep -H . ipv4/* ipv4/conf/*/* ipv6/* ipv6/icmp/* ipv6/conf/*/* 2>/dev/null; true"
# A route that the kernel refuses, after all sysctls are set.
REFUSED = {"dest": "192.168.9.0/24", "gateway": "10.0.0.1", "device": "eth0", "source": "198.51.100.77"}


def relative(name: str) -> str:
    return name if "/" in name else name.replace(".", "/")


def file_of(name: str) -> str:
    return f"/proc/sys/{relative(name)}"


@pytest.fixture(params=["netns", "vm"])
def place(request: pytest.FixtureRequest, kernel: Kernel, tmp_path: Path) -> Iterable[SandboxPlace]:
    """Give a sandbox of each kind that has sysctls; a guest has those of before at the end."""
    if request.param == "netns":
        yield make_box(kernel, tmp_path)
        return
    box = VmBox(kernel, tmp_path / "box.yaml", request.getfixturevalue("guest"))
    before = all_of(box)
    assert len(before) > 200
    yield box
    box.empty()
    found = all_of(box)
    write(box, {name: value for name, value in before.items() if found[name] != value})
    assert all_of(box) == before


def shell(place: SandboxPlace, script: str) -> str:
    """Run a script of `sh` within."""
    if isinstance(place, VmBox):
        return place._machine.output("sh", "-c", script)
    words = ["ip", "netns", "exec", place.file.stem, "sh", "-c", script]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def read(place: SandboxPlace, names: Iterable[str]) -> dict[str, int]:
    names = list(names)
    return dict(zip(names, map(int, shell(place, "cat " + " ".join(map(file_of, names))).split()), strict=True))


def write(place: SandboxPlace, values: Mapping[str, int]) -> None:
    files = {file_of(name): value for name, value in values.items()}
    # Those that change others first.
    ordered = sorted(files, key=lambda file: ("ip_forward" not in file, "/all/" not in file, "/default/" not in file))
    # A line end has some kernels refuse what they have done: ignore_routes_with_linkdown is set, and 1 byte is taken.
    shell(place, "\n".join(f"printf %d {files[file]} >{file}" for file in ordered) or "true")


def all_of(place: SandboxPlace) -> dict[str, int]:
    """Return every sysctl of the network that is a number, of every link, by its path."""
    return parsed(shell(place, LIST))


def parsed(listed: str) -> dict[str, int]:
    """Read what LIST prints."""
    parts = (line.partition(":") for line in listed.splitlines())
    return {
        f"net/{name}": int(value)
        for name, _, value in parts
        if value.lstrip("-").isdecimal() and not name.endswith(("/mc_forwarding", "/mtu"))
    }


def limits(properties: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Return the least and the largest value of a sysctl in the schema."""
    part = properties[name]
    part = SCHEMA["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    return (min(part["enum"]), max(part["enum"])) if "enum" in part else (part["minimum"], part["maximum"])


@pytest.mark.parametrize("end", [0, 1])
def test_every_one_can_have_its_limits(place: SandboxPlace, end: int) -> None:
    top = SCHEMA["properties"]["sysctls"]["properties"]
    below = SCHEMA["$defs"]["interface"]["properties"]["sysctls"]["properties"]
    everywhere = {name: limits(top, name)[end] for name in OF_SANDBOX}
    own = {name: limits(below, name)[end] for name in OF_NIC}
    sections = {"sysctls": everywhere, "interfaces": [nic(place.device(), sysctls=own)]}
    before = read(place, OF_SANDBOX)
    place.apply(**sections)
    assert read(place, OF_SANDBOX) == everywhere
    assert read(place, (full_name("eth0", name) for name in OF_NIC)) == {
        full_name("eth0", n): v for n, v in own.items()
    }
    assert place.diff(**sections) == []
    # Each of the NIC is seen when it differs, and all come back at once; so do those of the sandbox.
    other = {full_name("eth0", name): limits(below, name)[1 - end] for name in OF_NIC}
    write(place, other)
    assert {*place.diff(**sections)} >= {f"sysctl -w {full_name('eth0', name)}={own[name]}" for name in OF_NIC}
    write(place, before)
    place.apply(**sections)
    assert read(place, OF_SANDBOX) == everywhere
    assert place.diff(**sections) == []
    write(place, before)


@pytest.mark.parametrize("name", ["eth0", "eth0.100"])
def test_a_nic_has_them_from_the_beginning(place: SandboxPlace, name: str) -> None:
    sysctls = {"accept_ra": 0, "ipv4.forwarding": 1, "ipv6.forwarding": 1, "proxy_arp": 1, "rp_filter": 2}
    sections = {"interfaces": [nic(place.device(), name, sysctls=sysctls)]}
    place.apply(**sections)
    full = {full_name(name, short): value for short, value in sysctls.items()}
    assert read(place, full) == full
    assert place.diff(**sections) == []
    # A rename keeps them; what leaves the manifest stays as it is.
    sections["interfaces"][0] |= {"name": "net0", "sysctls": {"accept_ra": 1}}
    place.apply(**sections)
    full = {full_name("net0", short): value for short, value in (sysctls | {"accept_ra": 1}).items()}
    assert read(place, full) == full


def test_the_kernel_changes_along_what_the_model_says(place: SandboxPlace) -> None:
    top = SCHEMA["properties"]["sysctls"]["properties"]
    below = SCHEMA["$defs"]["interface"]["properties"]["sysctls"]["properties"]
    # One that was set by itself, which a default does not change.
    place.apply(interfaces=[nic(place.device(), sysctls={"rp_filter": 1})])
    every = {full_name("eth0", name): limits(below, name) for name in OF_NIC}
    every |= {name: limits(top, name) for name in OF_SANDBOX}
    # Of those that change nothing along, some.
    names = [*(name for name in every if [*effects(name, 1, ["lo"])]), *[*every][:: 5 * place.differences.stride]]
    moves = (
        f"if [ $(cat {file_of(name)}) = {most} ]; then printf %d {least}; else printf %d {most}; fi >{file_of(name)}"
        for name in names
        for least, most in (every[name],)
    )
    states = [parsed(each) for each in shell(place, f"\necho //\n{LIST}\n".join(("true", *moves, ""))).split("//\n")]
    for name, before, after in zip(names, states[1:-1], states[2:], strict=True):
        file = relative(name)
        changed = {each: found for each, found in after.items() if found != before[each]}
        value = changed.pop(file)
        assert value in every[name]
        if name == FORWARD:
            # Its second name.
            assert changed.pop("net/ipv4/conf/all/forwarding") == value
        along = {relative(each.name): each for each in effects(name, value, ["lo", "eth0"])}
        assert changed == {each: along[each].value for each in changed if each in along}, name
        sure = {each: effect.value for each, effect in along.items() if effect.sure and before[each] != effect.value}
        assert sure.items() <= changed.items(), name


def test_what_is_not_named_is_left_alone(place: SandboxPlace) -> None:
    device = place.device()
    place.apply(interfaces=[nic(device)])
    before = all_of(place)
    place.apply(sysctls={}, interfaces=[nic(device, sysctls={})])
    place.apply(sysctls={"net.ipv6.bindv6only": 1}, interfaces=[nic(device, sysctls={"rp_filter": 2})])
    expected = before | {"net/ipv6/bindv6only": 1, "net/ipv4/conf/eth0/rp_filter": 2}
    assert all_of(place) == expected
    place.apply(interfaces=[nic(device)])
    assert all_of(place) == expected


def test_a_failure_restores_what_the_kernel_changed_along(
    place: SandboxPlace, capsys: pytest.CaptureFixture[str]
) -> None:
    # A manifest without NICs cannot be checked for the source of its route.
    place.apply(interfaces=[nic(place.device(), sysctls={"rp_filter": 1})])
    odd = {"net.ipv4.conf.all.accept_redirects": 0, "net.ipv4.conf.lo.forwarding": 1}
    write(place, {FORWARD: 0})
    write(place, {**odd, "net.ipv4.conf.eth0.forwarding": 1, "net.ipv4.conf.default.log_martians": 0})
    before = all_of(place)
    sysctls = {
        FORWARD: 1,
        "net.ipv4.conf.default.log_martians": 1,
        "net.ipv6.conf.all.forwarding": 1,
        "net.ipv6.conf.all.ignore_routes_with_linkdown": 1,
    }
    capsys.readouterr()
    assert main(["apply", "--all-or-nothing", place.write(sysctls=sysctls, routes=[REFUSED])]) == 2
    assert "box is as it was before" in capsys.readouterr().err
    assert all_of(place) == before


def test_a_failure_restores_those_of_a_nic_that_left(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    # Its MTU cannot be above that of the link below it.
    first, other = box.device(), box.kernel.device("link", box.device(), "type", "macvlan")
    box.apply(interfaces=[nic(first, sysctls={"rp_filter": 1, "accept_ra": 0, "ipv6.accept_redirects": 0})])
    write(box, {"net.ipv4.conf.eth0.log_martians": 1})
    before = all_of(box)
    # Its name is needed, so it leaves before the failure.
    assert main(["apply", "--all-or-nothing", box.write(interfaces=[nic(other, mtu=1600)])]) == 2
    assert "box is as it was before" in capsys.readouterr().err
    assert all_of(box) == before


def test_sysctls_of_ipv6_come_with_its_mtu(box: Box) -> None:
    # IPv6 leaves a link whose MTU becomes too small, with all its sysctls; with the MTU they come back, in one apply.
    device = box.device()
    box.apply(interfaces=[nic(device, mtu=1000, sysctls={"rp_filter": 1})])
    assert "net/ipv6/conf/eth0/accept_ra" not in all_of(box)
    box.apply(interfaces=[nic(device, sysctls={"accept_ra": 0})])
    assert read(box, ["net.ipv6.conf.eth0.accept_ra"]) == {"net.ipv6.conf.eth0.accept_ra": 0}


def show(place: SandboxPlace, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["show", "-o", "json", str(place.file)]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_show_has_what_the_manifest_names(place: SandboxPlace, capsys: pytest.CaptureFixture[str]) -> None:
    device = place.device()
    sections = {
        "sysctls": {"net.ipv6.bindv6only": 1},
        "interfaces": [nic(device, sysctls={"ipv4.forwarding": 1, "rp_filter": 2})],
    }
    place.apply(**sections)
    write(place, {"net.ipv4.conf.eth0.rp_filter": 1})
    found = show(place, capsys)
    assert found["sysctls"] == {"net.ipv6.bindv6only": 1}
    assert found["interfaces"][0]["sysctls"] == {"ipv4.forwarding": 1, "rp_filter": 1}
    assert main(["show", "-o", "text", str(place.file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  net.ipv6.bindv6only = 1"
    assert [line for line in lines if "conf.eth0" in line] == [
        "    net.ipv4.conf.eth0.forwarding = 1",
        "    net.ipv4.conf.eth0.rp_filter = 1",
    ]
    # What is shown is what is there.
    place.file.write_text(dump([found]))
    assert main(["diff", str(place.file)]) == 0


def test_one_that_the_kernel_refuses_is_named_with_its_place(box: Box) -> None:
    before = all_of(box)
    # A manifest cannot say this value.
    (manifest,) = load([box.write(sysctls={FORWARD: 1})])
    sandbox = replace(manifest.sandbox, sysctls=((FORWARD, 1), (TTL, 0)))
    with connect(sandbox, POLICY) as driver, pytest.raises(ApplyError) as caught:
        apply(driver, sandbox, all_or_nothing=True)
    assert str(caught.value) == (
        f"failed at operation 2 of 2: sysctl -w {TTL}=0: sysctl {TTL}=0: Invalid argument. "
        "1 done and undone; 0 not begun. box is as it was before."
    )
    assert caught.value.path == ("sysctls", TTL)
    assert all_of(box) == before
    # Without that, the other one is kept.
    with connect(sandbox, POLICY) as driver, pytest.raises(ApplyError) as caught:
        apply(driver, sandbox)
    assert caught.value.counts == "1 done and kept; 1 left to do."
    assert all_of(box) != before


def test_a_script_sets_them(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    sections = {
        "sysctls": {FORWARD: 1, "net.ipv4.conf.all.accept_redirects": 1},
        "interfaces": [nic(box.device(), "eth0.7", sysctls={"ipv4.forwarding": 0, "accept_ra": 0})],
    }
    capsys.readouterr()
    assert main(["diff", "-o", "shell", box.write(**sections)]) == 1
    subprocess.run(["sh"], input=capsys.readouterr().out, check=True, text=True, stdout=subprocess.DEVNULL)
    # A script leaves no record of the device, so what it set is compared without the interface.
    by_script = box.state(), all_of(box)
    assert main(["diff", str(box.file)]) == 3
    command = capsys.readouterr().err.partition("apply again: ")[2].partition("\n")[0]
    subprocess.run(["sh", "-c", command], check=True)
    box.apply(**sections)
    assert (box.state(), all_of(box)) == by_script


def addresses(place: SandboxPlace) -> dict[str, Any]:
    return {name: link["addresses"] for name, link in place.state()["links"].items()}


def test_ipv6_is_turned_off_and_on(place: SandboxPlace) -> None:
    device = place.device()
    six = {"address": "fd00::2/64", "dad": False}
    both = nic(device, addresses=["10.0.0.2/16", six])
    ways = [{"dest": "10.8.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}]
    ways6 = [{"dest": "2001:db8::/32", "gateway": "fd00::1", "device": "eth0"}]
    place.apply(interfaces=[both | {"sysctls": {"disable_ipv6": 0}}], routes=[*ways, *ways6])
    on = place.state()
    # Another program turns it off: the addresses and routes are back in one apply.
    write(place, {"net.ipv6.conf.eth0.disable_ipv6": 1})
    place.apply(interfaces=[both | {"sysctls": {"disable_ipv6": 0}}], routes=[*ways, *ways6])
    assert place.state() == on
    # The manifest turns it off.
    four = {"interfaces": [nic(device, sysctls={"disable_ipv6": 1})], "routes": ways}
    place.apply("--allow-delete", "all", **four)
    assert addresses(place)["eth0"] == ["10.0.0.2/16"]
    assert place.diff(**four) == []
    place.apply(interfaces=[both | {"sysctls": {"disable_ipv6": 0}}], routes=[*ways, *ways6])
    assert place.state() == on


def test_ipv6_is_off_but_for_one_nic(place: SandboxPlace) -> None:
    six = {"address": "fd00::2/64", "dad": False}
    ways6 = [{"dest": "2001:db8::/32", "gateway": "fd00::1", "device": "eth0"}]
    sections: dict[str, Any] = {
        "sysctls": {ALL_OFF: 1},
        "interfaces": [
            nic(place.device(), addresses=[six], sysctls={"disable_ipv6": 0}),
            nic(place.device(), "eth1", 1),
        ],
        "routes": ways6,
    }
    place.apply(**sections)
    expected = {ALL_OFF: 1, "net.ipv6.conf.eth0.disable_ipv6": 0, "net.ipv6.conf.eth1.disable_ipv6": 1}
    assert read(place, expected) == expected
    state = place.state()
    # Turned on everywhere, and off again: what it cuts on the way is back in one apply.
    write(place, {ALL_OFF: 0})
    place.apply(**sections)
    assert (read(place, expected), place.state()) == (expected, state)
    write(place, {ALL_OFF: 0})


def test_a_failure_after_ipv6_was_turned_off(place: SandboxPlace, capsys: pytest.CaptureFixture[str]) -> None:
    six = {"address": "fd00::2/64", "dad": False}
    place.apply(
        interfaces=[nic(place.device(), addresses=["10.0.0.2/16", six])],
        routes=[{"dest": "2001:db8::/32", "gateway": "fd00::1", "device": "eth0"}],
    )
    before = place.state(), all_of(place)
    capsys.readouterr()
    file = place.write(sysctls={ALL_OFF: 1}, routes=[REFUSED])
    assert main(["apply", "--all-or-nothing", "--allow-delete", "all", file]) == 2
    assert "box is as it was before" in capsys.readouterr().err
    assert (place.state(), all_of(place)) == before


def test_a_nic_of_a_machine_that_is_plugged_again_has_them(kernel: Kernel, tmp_path: Path, guest: Guest) -> None:
    box = VmBox(kernel, tmp_path / "box.yaml", guest)
    many = box.device("multi_queue")
    sysctls = {"accept_ra": 0, "rp_filter": 2}
    box.apply(interfaces=[nic(many, queues=2, sysctls=sysctls)])
    box.apply(interfaces=[nic(many, queues=3, sysctls=sysctls)])
    full = {full_name("eth0", name): value for name, value in sysctls.items()}
    assert read(box, full) == full
    box.empty()


def test_ip_of_the_host_is_left_alone(kernel: Kernel, box: Box) -> None:
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii")
    box.apply(sysctls={FORWARD: 1})
    assert read(box, [FORWARD]) == {FORWARD: 1}
    box.apply(sysctls={FORWARD: 0})
    assert read(box, [FORWARD]) == {FORWARD: 0}
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii") == before
    assert ip("-o", "link") != ""
