"""A domain of libvirt: its NICs as libvirt, the host and the guest see them, its channel, and what is refused."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from reconciler.cli import init
from reconciler.cli.main import main
from reconciler.drivers import connect
from reconciler.drivers.vm import binding
from reconciler.drivers.vm import libvirt as board
from reconciler.errors import HostError
from reconciler.manifest.dump import dump
from reconciler.manifest.load import load
from reconciler.model.sandbox import LibvirtAddress
from reconciler.operations.domain import aliased_device, nic_alias
from reconciler.operations.outcome import Status
from reconciler.plan.adoption import taken_back
from reconciler.preview import preview
from reconciler.recover import execute
from tests import allowed
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.libvirt.daemon import Daemon, virsh
from tests.machine import PROGRAM, Guest
from tests.system.box import MACS, DomainBox, nic
from tests.system.eyes import seen, wanted

NAME = "box"


@pytest.fixture
def box(kernel: Kernel, tmp_path: Path, domain: Guest) -> Iterator[DomainBox]:
    made = DomainBox(kernel, tmp_path / "box.yaml", domain)
    yield made
    made.empty()


def devices(kind: str, *options: str) -> list[ET.Element]:
    """Return what libvirt lists."""
    return list(ET.fromstring(virsh("dumpxml", *options, NAME)).iterfind(f"devices/{kind}"))


def aliases(kind: str) -> list[str]:
    return [found.get("name", "") for each in devices(kind) if (found := each.find("alias")) is not None]


def channels() -> list[str]:
    return [found.get("name", "") for each in devices("channel") if (found := each.find("target")) is not None]


def await_untouched(box: DomainBox, before: str) -> None:
    """Wait until the domain is as it was: a channel that libvirt did not take out in time goes with the next run."""
    deadline = time.monotonic() + 60
    while virsh("dumpxml", NAME) != before:
        assert time.monotonic() < deadline
        assert main(["show", str(box.file)]) == 0


def test_a_nic_comes_and_goes_and_leaves_nothing(
    box: DomainBox, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the name of a VLAN, which libvirt would not take as an alias; and the channel comes and goes with it."""
    device = f"r{os.getpid()}.100"
    ip("tuntap", "add", "dev", device, "mode", "tap")
    kernel.adopt(device)
    ip("link", "set", "dev", device, "up")
    before = ip("-j", "-d", "link", "show", "dev", device)
    untouched = virsh("dumpxml", NAME)
    box.apply(interfaces=[nic(device, mtu=1400)])
    assert aliases("interface") == [f"ua-reconciler-r{os.getpid()}_2e100"]
    assert channels() == ["reconciler.exec", "reconciler.agent"]
    (link,) = json.loads(box.ip("-j", "-d", "address", "show", "dev", "eth0"))
    assert (link["address"], link["mtu"], link["max_mtu"]) == (MACS[0], 1400, 1500)
    assert [each["local"] for each in link["addr_info"] if each["family"] == "inet"] == ["10.0.0.2"]
    assert main(["diff", box.write(interfaces=[nic(device, mtu=1400)])]) == 0
    box.apply("--allow-delete", "all", interfaces=[])
    await_untouched(box, untouched)
    assert "eth0" not in box.ip("link")
    after = ip("-j", "-d", "link", "show", "dev", device)
    unstable = r'"(flags|operstate|qdisc|linkmode|group|txqlen|vnet_hdr)": ?("[^"]*"|\[[^]]*\]|[a-z0-9]+),?'
    assert re.sub(unstable, "", after) == re.sub(unstable, "", before)
    # Neither show nor diff leaves the channel that it looked through.
    capsys.readouterr()
    assert main(["show", str(box.file)]) == 0
    await_untouched(box, untouched)


def test_the_example(box: DomainBox, repository: Path) -> None:
    text = (repository / "examples" / "27-libvirt.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    box.file.write_text(text.replace("web-3", NAME).replace("tap-libvirt", box.device()))
    assert main(["apply", str(box.file)]) == 0
    assert main(["diff", str(box.file)]) == 0
    assert seen(lambda _, *words: box.ip(*words), document) == wanted(document)


def test_what_diff_shows_can_be_typed(box: DomainBox) -> None:
    wishes = [nic(box.device())]
    attach, *_ = box.diff(interfaces=wishes)
    subprocess.run(["bash", "-c", attach], check=True, capture_output=True)
    assert aliases("interface") == [nic_alias(wishes[0]["device"])]
    assert "attach-device" not in " ".join(box.diff(interfaces=wishes))
    (detach,) = box.diff(interfaces=[])
    subprocess.run(["bash", "-c", detach], check=True, capture_output=True)
    deadline = time.monotonic() + 60
    while aliases("interface"):
        assert time.monotonic() < deadline


@pytest.mark.parametrize("queues", [2, 4])
def test_queues(box: DomainBox, kernel: Kernel, queues: int) -> None:
    device = kernel.tap("multi_queue")
    ip("link", "set", "dev", device, "up")
    box.apply(interfaces=[nic(device, queues=queues)])
    (shown,) = devices("interface")
    assert shown.find(f"driver[@queues='{queues}']") is not None
    assert len(box.ip("-j", "-d", "link", "show", "dev", "eth0")) > 0
    box.apply(interfaces=[nic(device, queues=queues, mtu=1300)])
    assert main(["diff", str(box.file)]) == 0


def test_each_slot_takes_a_nic_and_no_more_are_refused(
    box: DomainBox, repeats: Callable[[int], int], capsys: pytest.CaptureFixture[str]
) -> None:
    count = 16 if repeats(4) > 1 else 3
    taps = [box.device() for _ in range(17)]
    wishes = [nic(tap, f"n{number}", number) for number, tap in enumerate(taps[:count])]
    random.shuffle(wishes)
    box.apply(interfaces=wishes)
    assert {*aliases("interface")} == {nic_alias(each["device"]) for each in wishes}
    assert main(["diff", str(box.file)]) == 0
    one_more = [nic(tap, f"n{number}", 0, hwAddr=f"02:42:20:6f:a4:{number:02x}") for number, tap in enumerate(taps)]
    capsys.readouterr()
    assert main(["apply", "--allow-delete", "all", box.write(interfaces=one_more)]) == 2
    assert "no PCI slot is free; this machine has 17 slots for NICs" in capsys.readouterr().err
    assert len(aliases("interface")) == count


REFUSALS: dict[str, tuple[Callable[[DomainBox, str], dict[str, Any]], str]] = {
    "no TAP": (lambda _, tap: nic(f"{tap}x"), "interfaces[0].device: {tap}x: no such device on this host"),
    "queues": (
        lambda _, tap: nic(tap, queues=2),
        "interfaces[0].queues: {tap} is single-queue; interface eth0 asks for 2 queues",
    ),
    "MTU": (
        lambda _, tap: nic(tap, mtu=1501),
        "interfaces[0].mtu: eth0: its MTU of 1501 is above the MTU of {tap} on the host, 1500",
    ),
    "backend": (
        lambda box, tap: nic(tap, vhostUserSocket=str(box.file.with_name("none.sock"))),
        "interfaces[0].vhostUserSocket: eth0: without KVM, QEMU crashes with a vhost-user NIC that libvirt has",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_libvirt_would_refuse_or_accept_in_vain(
    box: DomainBox, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = REFUSALS[case]
    tap = box.device()
    before = virsh("dumpxml", NAME)
    file = box.write(interfaces=[make(box, tap)])
    assert main(["apply", file]) == 2
    assert said.format(tap=tap, folder=box.file.parent) in capsys.readouterr().err
    box.fill(interfaces=[])
    assert virsh("dumpxml", NAME) == before


def test_a_mac_address_of_a_nic_of_another_program(box: DomainBox, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, ours = box.device(), box.device()
    virsh("attach-device", NAME, "/dev/stdin", "--live", stdin=_their_nic(theirs))
    try:
        deadline = time.monotonic() + 60
        while MACS[3] not in box.ip("link"):
            assert time.monotonic() < deadline
        assert main(["apply", box.write(interfaces=[nic(ours, "third", 3)])]) == 2
        said = f"interfaces[0].hwAddr: third: another NIC in the guest has the MAC address {MACS[3]}"
        assert said in capsys.readouterr().err
        assert len(aliases("interface")) == 1
    finally:
        virsh("detach-device", NAME, "/dev/stdin", "--live", stdin=_their_nic(theirs))


def test_a_nic_of_another_program_is_imported_and_adopted(box: DomainBox, capsys: pytest.CaptureFixture[str]) -> None:
    untouched = virsh("dumpxml", NAME)
    theirs, left = box.device(), box.device()
    virsh("attach-device", NAME, "/dev/stdin", "--live", stdin=_their_nic(theirs))
    virsh("attach-device", NAME, "/dev/stdin", "--live", stdin=_their_nic(left).replace(MACS[3], MACS[4]))
    deadline = time.monotonic() + 60
    while not all(mac in box.ip("link") for mac in MACS[3:5]):
        assert time.monotonic() < deadline
    name = next(each["ifname"] for each in json.loads(box.ip("-j", "link")) if each["address"] == MACS[3])
    box.ip("-batch", "-", stdin=f"link set dev {name} up\naddress add 192.0.2.1/24 dev {name}\n")
    box.ip("neigh", "add", "192.0.2.9", "lladdr", MACS[5], "dev", name)
    capsys.readouterr()
    assert main(["import", "--libvirt", NAME, "--live"]) == 0
    printed = capsys.readouterr()
    assert "it is down, and nothing is set on it" in printed.err
    box.file.write_text(printed.out)
    assert f"device: {theirs}" in printed.out
    assert main(["apply", str(box.file)]) == 3
    before = virsh("dumpxml", NAME)
    capsys.readouterr()
    assert main(["diff", "--adopt", str(box.file)]) == 1
    assert f"virsh metadata {NAME} --live --uri https://reconciler.example/libvirt" in capsys.readouterr().out
    (manifest,) = load([str(box.file)])
    with connect(manifest.sandbox, POLICY) as driver:
        operations = preview(driver, manifest.sandbox, adopt=True).plan.operations
    assert main(["apply", "--adopt", str(box.file)]) == 0
    with connect(manifest.sandbox, POLICY) as driver:
        # As an undo does.
        assert [each.status for each in execute(driver, taken_back(operations))] == [Status.DONE]
    assert virsh("dumpxml", NAME).replace("  <metadata/>\n", "") == before.replace("  <metadata/>\n", "")
    assert main(["apply", "--adopt", str(box.file)]) == 0
    assert main(["diff", str(box.file)]) == 0
    marks = re.compile(r" *<metadata>.*</metadata>\n", re.DOTALL)
    assert f'device="{theirs}"' in virsh("dumpxml", NAME).replace("'", '"')
    without = [marks.sub("", virsh("dumpxml", NAME)), marks.sub("", before)]
    assert [each.count("<interface") for each in without] == [2, 2]
    box.fill(interfaces=[], neighbours=[], routes=[], rules=[])
    assert len(aliases("interface")) == 1
    virsh("detach-device", NAME, "/dev/stdin", "--live", stdin=_their_nic(left).replace(MACS[3], MACS[4]))
    deadline = time.monotonic() + 60
    while aliases("interface"):
        assert time.monotonic() < deadline
    # The empty element is what libvirt leaves of metadata that were taken away.
    assert virsh("dumpxml", NAME).replace("  <metadata/>\n", "") == untouched.replace("  <metadata/>\n", "")


def _their_nic(tap: str) -> str:
    return (
        f"<interface type='ethernet'><mac address='{MACS[3]}'/><target dev='{tap}' managed='no'/>"
        "<model type='virtio'/></interface>"
    )


def test_three_runs_at_once_and_one_that_is_killed_leave_one_nic(box: DomainBox, repeats: Callable[[int], int]) -> None:
    tap = box.device()
    file = box.write(interfaces=[nic(tap)])
    words = [PROGRAM, "apply", "--policy", allowed.FILE, file]
    for _ in range(repeats(4)):
        box.fill(interfaces=[])
        box.write(interfaces=[nic(tap)])
        runs = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(3)]
        time.sleep(random.uniform(0, 1.5))
        runs[0].send_signal(signal.SIGKILL)
        for run in runs:
            run.wait()
        assert main(["apply", file]) == 0
        assert len(aliases("interface")) == 1
        assert channels().count("reconciler.agent") == 1
        assert main(["diff", file]) == 0


def test_libvirtd_that_restarts_during_an_apply(
    box: DomainBox, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = box.write(interfaces=[nic(box.device())])
    attach = board.LibvirtPlugboard._attach
    restarted: list[str] = []

    def restarting(self: board.LibvirtPlugboard, xml: str, alias: str) -> None:
        if not restarted:
            restarted.append(alias)
            daemon.stop()
            daemon.start()
        attach(self, xml, alias)

    monkeypatch.setattr(board.LibvirtPlugboard, "_attach", restarting)
    assert main(["apply", file]) == 0
    assert len(restarted) == 1
    assert main(["diff", file]) == 0


def test_domains_that_are_not_there(box: DomainBox, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing answers for them, and the message says what to do."""
    file = box.write(interfaces=[nic("tap-1")])
    text = box.file.read_text(encoding="utf-8")
    box.file.write_text(text.replace("domain: box", "domain: none"))
    assert main(["diff", file]) == 2
    said = "driver: libvirt (qemu:///system): Domain not found: no domain with matching name 'none'"
    assert said in capsys.readouterr().err
    off = "<domain type='qemu'><name>off</name><memory>9</memory><os><type>hvm</type></os></domain>"
    virsh("define", "/dev/stdin", stdin=off)
    try:
        box.file.write_text(text.replace("domain: box", "domain: 'off'"))
        assert main(["diff", file]) == 2
        assert "driver: the domain off is not running; `virsh start off` starts it" in capsys.readouterr().err
    finally:
        virsh("undefine", "off")
    virsh("suspend", NAME)
    try:
        box.file.write_text(text)
        assert main(["diff", file]) == 2
        assert "box: the domain box is paused, so nothing in it answers" in capsys.readouterr().err
    finally:
        virsh("resume", NAME)


def test_a_libvirt_that_does_not_answer_or_does_not_run(
    box: DomainBox, daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    file = box.write(interfaces=[])
    with daemon.frozen():
        assert main(["diff", file]) == 2
    assert capsys.readouterr().err == "box: libvirt (qemu:///system) did not answer within 4 s\n"
    daemon.stop()
    try:
        assert main(["diff", file]) == 2
    finally:
        daemon.start()
    said = capsys.readouterr().err
    assert "driver: cannot connect to qemu:///system: Failed to connect socket to" in said
    assert "; does libvirtd run, and may this user use it?" in said


URIS = (
    "qemu+ssh://root@host/system",
    "qemu+tcp:///system",
    "qemu:///session",
    "qemu:///embed?root=/tmp",
    "qemu:///system?command=/bin/sh",
    "qemu+unix:///system?socket=/run/a&command=/bin/sh",
    "qemu+unix:///system?socket=/run/a#",
    "qemu+ext:///system?command=/bin/sh",
    "QEMU:///system",
    "qemu:///system\n",
    "test:///default",
)


@pytest.mark.parametrize("uri", URIS)
def test_a_uri_that_leads_elsewhere_or_runs_a_command_is_never_valid(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"apiVersion": "reconciler/v1", "sandbox": "box", "driver": {"libvirt": {"domain": "box", "uri": uri}}}
    file = tmp_path / "box.yaml"
    file.write_text(dump([data]))
    policy = tmp_path / "policy.yaml"
    policy.write_text(dump([{"libvirtUris": [uri]}]))
    for words in (["apply", str(file)], ["apply", "--policy", str(policy), str(tmp_path / "none.yaml")]):
        assert main(words) == 2
        assert "a URI of libvirt on this host: qemu:///system, or qemu+unix:///system" in capsys.readouterr().err


def test_what_the_policy_does_not_allow(root: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is connected to. The line that is named allows it."""
    file, policy = tmp_path / "box.yaml", tmp_path / "policy.yaml"
    uri = "qemu+unix:///system?socket=/run/none"
    data = {"apiVersion": "reconciler/v1", "sandbox": "box", "driver": {"libvirt": {"domain": "a[b]", "uri": uri}}}
    file.write_text(dump([data]))
    policy.write_text(dump([{"libvirtDomains": {"web-*": ["*"]}}]))
    assert main(["diff", "--policy", str(policy), str(file)]) == 3
    said = capsys.readouterr().err
    assert f"driver.libvirt.uri: no domain of the libvirt at {uri} may be a sandbox; to allow it, add to" in said
    assert "driver.libvirt.domain: sandbox box may not be the domain a[b] of libvirt; to allow it, change" in said
    allowing = {"libvirtUris": [uri], "libvirtDomains": {"box": ["a[[]b]"]}}
    assert 'box: ["a[[]b]"]' in said
    policy.write_text(dump([allowing]))
    assert main(["diff", "--policy", str(policy), str(file)]) == 2
    assert f"cannot connect to {uri}" in capsys.readouterr().err


def test_the_channel_comes_and_goes_again_and_again(box: DomainBox, repeats: Callable[[int], int]) -> None:
    box.write(interfaces=[])
    for _ in range(repeats(10)):
        assert main(["show", str(box.file)]) == 0
        assert channels() == ["reconciler.exec"]
    # The monitor of QEMU was never used behind libvirt's back.
    assert "monitor" not in virsh("dominfo", NAME)


def test_init_knows_the_domains_that_run(box: DomainBox, capsys: pytest.CaptureFixture[str]) -> None:
    """It plugs no channel in, and says that it would need one."""
    untouched = virsh("dumpxml", NAME)
    assert LibvirtAddress(domain=NAME) in init._drivers()[0]
    assert main(["init", "--libvirt", NAME]) == 0
    printed = capsys.readouterr().out
    assert "driver:\n  libvirt: {domain: box}\n" in printed
    assert "the domain box has no channel for the agent of reconciler" in re.sub(r"\n# *", " ", printed)
    assert virsh("dumpxml", NAME) == untouched
    box.apply(interfaces=[nic(box.device())])
    capsys.readouterr()
    assert main(["init", "--libvirt", NAME]) == 0
    assert "name: eth0" in capsys.readouterr().out


def test_a_domain_by_its_uuid(box: DomainBox) -> None:
    file = box.write(interfaces=[nic(box.device())])
    text = box.file.read_text(encoding="utf-8")
    box.file.write_text(text.replace("domain: box", f"domain: {virsh('domuuid', NAME).strip().upper()}"))
    assert main(["apply", file]) == 0
    box.file.write_text(text)
    assert main(["diff", file]) == 0


def test_an_alias_says_which_device_whatever_its_name() -> None:
    for device in ("tap0", "tap.100", "a_b-c.d", "x" * 15, "t\xe9"):
        alias = nic_alias(device)
        assert re.fullmatch(r"ua-[A-Za-z0-9_-]+", alias)
        assert aliased_device(alias) == device
    for alias in ("net0", "ua-reconciler-", "ua-reconciler-tap.1", "ua-reconciler-_zz", "ua-reconciler-_61", "ua-x"):
        assert aliased_device(alias) is None


def test_without_the_binding_both_ways_to_get_it_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    monkeypatch.setattr(binding, "_DEBIAN", "/nowhere")
    with pytest.raises(HostError) as caught:
        binding.load()
    assert "Debian package python3-libvirt" in str(caught.value)
    assert "pip install 'reconciler[libvirt]'" in str(caught.value)
