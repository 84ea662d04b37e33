"""What `diff --prove` says of the plan of a machine is what `apply` then finds: another machine has tried it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from reconciler import converge
from reconciler.cli.main import main
from reconciler.drivers import connect
from reconciler.drivers.rehearsal import Rehearsal, rehearse
from reconciler.errors import ApplyError, HostError, RefusedError, VerifyError
from reconciler.guest.throwaway import Throwaways
from reconciler.manifest.load import load
from reconciler.model.ipvs import Ipvs, Server, Service
from reconciler.model.route import NextHop, Route
from reconciler.model.sandbox import Sandbox, VmAddress
from reconciler.plan import Plan
from reconciler.preview import captured, preview, rehearsed
from reconciler.safety import Allowance
from reconciler.values import replace
from tests import resumed
from tests.allowed import FILE, POLICY
from tests.conftest import Kernel
from tests.examples import examples
from tests.machine import Guest
from tests.manifest.services import services
from tests.strategies import interfaces, neighbours, routes, rules
from tests.system.box import nic
from tests.terminal import terminal
from tests.vm.vm import Vm, make_tap

KERNEL = os.environ.get("GUEST_KERNEL", "6.1")
# Everything that a plan changes, as the programs of others see it.
STATE = """ip address; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule
ip neigh show nud permanent; ip neigh show proxy; ipvsadm -Sn; sysctl -a 2>/dev/null | grep net.ipv4.vs"""


@pytest.fixture(scope="module")
def throwaways(root: None) -> Iterator[Throwaways]:
    """The machines in which plans are tried; the first plan starts one."""
    with resumed.throwaways(KERNEL) as made:
        yield made


def state(guest: Guest) -> list[str]:
    lines = guest.output("sh", "-c", STATE).splitlines()
    # What comes and goes by itself: link-local addresses, their lifetimes and routes, and what a carrier changes.
    lines = [line for line in lines if not any(word in line for word in ("fe80::", "ff00::", "valid_lft"))]
    return [re.sub(r" tentative| linkdown|<[^>]*>| state \w+| qdisc \w+| qlen \d+", "", line) for line in lines]


# What others may have done to a machine, after which its kernel refuses some changes.
FAULTS = (
    "true",
    "ip route add blackhole 10.0.0.0/8 metric 7",
    "ip rule add priority 150 from 10.1.0.0/16 prohibit; ip -6 rule add priority 150 table 99",
    "ip link add bridge0 type bridge; ip address add 10.99.0.1/24 dev bridge0; ip link set bridge0 up",
    "ip link add foreign0 type veth peer name foreign1; ip link set foreign0 up mtu 1300",
    "ipvsadm -A -t 10.0.0.1:80 -s rr; ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.7 -m",
    "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1",
    "ip link set dev lo down",
)
MENDED = """ip link del bridge0; ip link del foreign0; ip link set dev lo up
ip route flush proto boot; ip rule del priority 150; ip -6 rule del priority 150
sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ipvsadm -C; true"""
# What a kernel refuses, and no plan: a source and a gateway that it does not have, an MTU of no link, one at which it
# takes IPv6 off, a scheduler without a module, a family that only a tunnel has, servers that are no single host.
_REFUSED = ("source", "gateway", "mtu", "small mtu", "scheduler", "family", "broadcast", "multicast")
# `none`, which is no scheduler, needs no module.
SPOILT = (*_REFUSED, "", "", "", "no scheduler")
_VIP = Service(protocol="tcp", address="172.17.0.9", port=81)


def spoilt(wanted: Sandbox, how: str) -> Sandbox:
    first, *others = wanted.interfaces or ()
    hop = NextHop(device="eth0", gateway="203.0.113.77")
    route = Route(dest="192.0.2.0/24", nexthops=(hop,))
    match how:
        case "gateway":
            return replace(wanted, routes=(*(wanted.routes or ()), route))
        case "source":
            odd = replace(route, nexthops=(replace(hop, gateway=None),), source="192.0.2.77")
            return replace(wanted, routes=(*(wanted.routes or ()), odd))
        case "mtu" | "small mtu":
            return replace(wanted, interfaces=(replace(first, mtu=70000 if how == "mtu" else 1000), *others))
        case "scheduler" | "no scheduler":
            return with_service(wanted, replace(_VIP, scheduler="absent" if how == "scheduler" else "none"))
        case "family" | "broadcast" | "multicast":
            address = {"family": "fd00::7", "broadcast": "255.255.255.255", "multicast": "224.0.0.7"}[how]
            return with_service(wanted, replace(_VIP, servers=(Server(address=address, port=81),)))
        case _:
            return wanted


def with_service(wanted: Sandbox, service: Service) -> Sandbox:
    assert wanted.ipvs
    assert wanted.ipvs.services is not None
    return replace(wanted, ipvs=replace(wanted.ipvs, services=(*wanted.ipvs.services, service)))


@pytest.fixture
def shared(throwaways: Throwaways, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands of this process use those machines, too."""
    monkeypatch.setattr("reconciler.guest.throwaway.Throwaways", lambda _: nullcontext(throwaways))


SERVICE = {"tcp": "172.17.0.7:80", "scheduler": "rr", "servers": [{"address": "172.17.0.4:80", "weight": 1}]}


def proof(capsys: pytest.CaptureFixture[str], path: str) -> dict[str, Any]:
    """Return what the command says of the only sandbox."""
    main(["diff", "--prove", "-o", "json", path])
    (sandbox,) = json.loads(capsys.readouterr().out)["sandboxes"]
    found: dict[str, Any] = sandbox["proof"]
    return found


@pytest.mark.usefixtures("shared", "quick")
def test_it_says_on_which_kernel_and_what_that_refused(
    vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    device = make_tap(kernel)
    vm.apply(interfaces=[nic(device)])
    capsys.readouterr()
    release = vm.guest.output("uname", "-r").strip()
    route = {"dest": "192.168.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}
    before = state(vm.guest)
    path = vm.write(interfaces=[nic(device)], routes=[route], ipvs={"services": [SERVICE]})
    assert main(["diff", "--prove", path]) == 1
    out = capsys.readouterr().out
    assert f"  # proven: kernel {release} has carried out 3 operations in a copy of the sandbox\n" in out
    assert "  # eth0 is a veth in the copy: what its own driver refuses is not seen\n" in out

    path = vm.write(interfaces=[nic(device)], routes=[route | {"source": "192.0.2.77"}])
    assert main(["diff", "--prove", path]) == 2
    out, err = capsys.readouterr()
    assert "  # NOT possible: ip route add 192.168.0.0/16 via 10.0.0.1 dev eth0 src 192.0.2.77" in out
    assert "  the kernel: Invalid argument: Invalid prefsrc address\n" in err
    assert f"  from {path}:" in err

    # What QEMU does is not tried: veths come and go.
    path = vm.write(interfaces=[nic(device), nic(make_tap(kernel), "eth1", 1)])
    found = proof(capsys, path)
    assert (found["proven"], found["failed"]) == (None, [])
    assert found["untried"] == ["no NIC is plugged into or out of a machine: veths come and go in the copy"]
    assert state(vm.guest) == before


@pytest.mark.usefixtures("quick")
def test_another_kernel_is_never_a_plain_yes(vm: Vm, throwaways: Throwaways) -> None:
    vm.write(ipvs={"services": [SERVICE]})
    (manifest,) = load([str(vm.file)], POLICY)
    with connect(manifest.sandbox, POLICY) as driver:
        found = preview(driver, manifest.sandbox)
        seen = captured(found, driver)
    assert seen
    release = found.observed.around.release

    def tried(own: str, plan: Plan = found.plan, modules: Mapping[str, bool] = seen.modules) -> Rehearsal:
        observed = replace(seen.observed, around=replace(seen.observed.around, release=own))
        return rehearse(seen._replace(observed=observed, modules=modules), plan, throwaways)

    other = tried(f"{release}-another")
    assert (other.proven, other.untried, other.kernel) == (True, (), release)
    assert other.lacks[0] == f"the sandbox has kernel {release}-another, another build of the same series"
    later = "6.6.7" if KERNEL == "6.1" else "6.13.1"
    other = tried(later)
    assert (other.proven, other.failed, other.kernel) == (None, (), release)
    assert other.untried == (f"it was tried on kernel {release}, and the sandbox has {later}",)
    # Nor is a refusal a plain no.
    other = tried(later, modules={"ip_vs_rr": False})
    assert other.failed
    assert other.proven is None
    # The kernel of this host is good enough for those of its own series, where the plan needs no IPVS.
    vm.write(routes=[{"dest": "192.0.2.0/24", "type": "blackhole"}])
    (manifest,) = load([str(vm.file)], POLICY)
    with connect(manifest.sandbox, POLICY) as driver:
        own = tried(os.uname().release, preview(driver, manifest.sandbox).plan)
    assert (own.proven, own.kernel) == (True, os.uname().release)


@pytest.mark.usefixtures("quick")
def test_without_qemu_or_its_image_nothing_is_proven(
    vm: Vm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = vm.write(ipvs={"services": [SERVICE]})
    with monkeypatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert main(["diff", "--prove", path]) == 1
    out = capsys.readouterr().out
    assert "  # not proven, as nothing could be tried:\n" in out
    assert f"whose image is not built yet: `reconciler sandbox start NAME --kernel {KERNEL}` builds it once\n" in out
    assert not list(tmp_path.glob("reconciler"))
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        found = proof(capsys, path)
    assert (found["proven"], found["kernel"]) == (None, None)
    (reason,) = found["untried"]
    assert reason.endswith("qemu-system-x86_64 is missing: install the Debian package qemu-system-x86")


@pytest.mark.usefixtures("shared", "quick")
def test_a_whole_table_is_in_the_copy(
    vm: Vm, capsys: pytest.CaptureFixture[str], repeats: Callable[[int], int]
) -> None:
    """In `make soak` as many rules as a table may have: 20,000. All are of others, so one service is added."""
    count = min(repeats(800), 5000)
    lines = []
    for number in range(count):
        place = f"-t 10.1.{number // 250}.{number % 250 + 1}:80"
        lines += [f"-A {place} -s wlc", *(f"-a {place} -r 10.2.{number // 250}.{each}:80 -m" for each in range(1, 4))]
    path = vm.write(ipvs={"services": [SERVICE]})
    vm.guest.output("ip", "address", "add", "10.9.9.9/32", "dev", "lo")
    vm.guest.output("ipvsadm", "-R", stdin="".join(f"{line}\n" for line in lines).encode())
    try:
        found = proof(capsys, path)
        assert len(vm.guest.output("ipvsadm", "-Sn").splitlines()) == len(lines)
    finally:
        vm.guest.output("ipvsadm", "-C")
        vm.guest.output("ip", "address", "del", "10.9.9.9/32", "dev", "lo")
    release = vm.guest.output("uname", "-r").strip()
    assert (found["proven"], found["kernel"], found["sandboxKernel"]) == (True, release, release)
    assert (found["failed"], found["untried"], found["lacks"]) == ([], [], [])


@pytest.mark.usefixtures("shared", "quick")
def test_a_scheduler_whose_module_is_missing_is_no_yes(vm: Vm, capsys: pytest.CaptureFixture[str]) -> None:
    """The throwaway machine has all modules; the kernel of the sandbox is the one that counts."""
    path = vm.write(ipvs={"services": [SERVICE | {"scheduler": "mh"}]})
    modules = "/lib/modules/$(uname -r)"
    hide = f"cd {modules}; mv $(find . -name 'ip_vs_mh.ko*') /root"
    vm.guest.output("sh", "-c", f"rmmod ip_vs_mh 2>/dev/null; {hide}")
    try:
        found = proof(capsys, path)
        assert found["proven"] is False
        assert [each["reason"] for each in found["failed"]] == ["the sandbox's kernel has no module ip_vs_mh"]
        assert main(["apply", path]) == 2
        # Where nobody knows, that is said.
        vm.guest.output("sh", "-c", f"mv {modules}/modules.builtin /root")
        found = proof(capsys, path)
        assert (found["proven"], found["failed"]) == (None, [])
        assert found["untried"] == ["whether the sandbox's kernel has the module ip_vs_mh is unknown"]
    finally:
        back = "mv /root/ip_vs_mh.ko* kernel/net/netfilter/ipvs; mv /root/modules.* ."
        vm.guest.output("sh", "-c", f"cd {modules}; {back}")
    found = proof(capsys, path)
    assert (found["proven"], found["untried"]) == (True, [])


def processes(mark: str) -> list[str]:
    """Return the command lines of all processes that have inherited a word in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.usefixtures("quick", "throwaways")
def test_it_tells_a_person_how_far_it_is_and_leaves_nothing(vm: Vm, tmp_path: Path) -> None:
    path = vm.write(ipvs={"services": [SERVICE]})
    mark = f"RECONCILER_TEST={tmp_path}"
    with terminal("diff", "--prove", "--policy", FILE, path, columns=60, environment=environment(tmp_path)) as found:
        found.read(f"{vm.name}: booting kernel {KERNEL} under ".encode())
        while not any("qemu-system" in line for line in processes(mark)):
            assert found.process.poll() is None
        code, shown = found.finish()
    assert code == 1
    # The line is erased, and what stays begins in its place.
    last = shown.decode().replace("\r\n", "\n").rpartition("\r")[2]
    assert "booting" not in last
    assert "  # proven: kernel " in last
    assert_nothing(mark, tmp_path)


def environment(folder: Path) -> dict[str, str]:
    """Return what marks a command and all that it starts, with temporary files in a folder."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    return {"RECONCILER_TEST": str(folder), "TMPDIR": str(files)}


def assert_nothing(mark: str, folder: Path) -> None:
    """Look that all processes end, and that no file is left."""
    deadline = time.monotonic() + 180
    while left := processes(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    assert list((folder / "files").iterdir()) == []


@pytest.mark.usefixtures("quick", "throwaways")
def test_killed_at_any_point_it_leaves_nothing(vm: Vm, tmp_path: Path, repeats: Callable[[int], int]) -> None:
    path = vm.write(ipvs={"services": [SERVICE]})
    words = [sys.executable, "-m", "reconciler", "diff", "--prove", "--policy", FILE, path]
    mark, before = f"RECONCILER_TEST={tmp_path}", state(vm.guest)
    count = repeats(4)
    for number in range(count):
        with subprocess.Popen(
            words,
            env=os.environ | environment(tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            # From the very moment at which there is a QEMU, or what becomes one.
            while process.poll() is None and not any("qemu-system" in line for line in processes(mark)):
                time.sleep(0.005)
            with suppress(subprocess.TimeoutExpired):
                process.wait(7 * (number + 0.5) / count)
            process.send_signal(signal.SIGKILL)
        assert_nothing(mark, tmp_path)
        assert state(vm.guest) == before


@st.composite
def states(draw: st.DrawFn, devices: list[str]) -> Sandbox:
    """All sections of a machine that has these NICs already."""
    given_ = enumerate(zip(devices, ("eth0", "eth1"), strict=True))
    nics = tuple(
        draw(interfaces(number, device, name=name, hw_addr=nic(device, name, number)["hwAddr"]))
        for number, (device, name) in given_
    )
    return Sandbox(
        id="box",
        driver=VmAddress(name="replaced"),
        interfaces=nics,
        neighbours=tuple(draw(st.lists(neighbours(nics), max_size=4, unique_by=lambda each: each.key))),
        routes=tuple(draw(st.lists(routes(nics), max_size=6, unique_by=lambda each: each.key))),
        rules=tuple(draw(st.lists(rules(), max_size=4, unique_by=lambda each: replace(each, invert=False, goto=0)))),
        ipvs=Ipvs(services=tuple(draw(st.lists(services(), max_size=4, unique_by=lambda each: each.key)))),
    )


@pytest.mark.usefixtures("quick")
def test_it_is_proven_exactly_if_apply_succeeds(vm: Vm, kernel: Kernel, throwaways: Throwaways) -> None:
    devices = [make_tap(kernel), make_tap(kernel)]
    vm.apply(interfaces=[nic(device, f"eth{number}", number) for number, device in enumerate(devices)])
    answers: list[bool | None] = []

    @settings(
        max_examples=examples(8),
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        pair=st.tuples(states(devices), states(devices)),
        fault=st.sampled_from(FAULTS),
        how=st.sampled_from(SPOILT),
    )
    def run(pair: tuple[Sandbox, Sandbox], fault: str, how: str) -> None:
        first, second = (replace(each, driver=VmAddress(name=vm.name)) for each in pair)
        allowance = Allowance()
        try:
            with suppress(ApplyError, VerifyError), connect(first, POLICY) as driver:
                converge.apply(driver, first, allowance=allowance)
            vm.guest.run("sh", "-c", fault)
            before = state(vm.guest)
            second = spoilt(second, how)
            with connect(second, POLICY) as driver:
                try:
                    found = preview(driver, second)
                except (HostError, RefusedError):
                    return
                proof = rehearsed(found, captured(found, driver), throwaways).rehearsal
                assert state(vm.guest) == before
                if proof is None:
                    assert not found.plan.operations
                    return
                succeeds, reason = True, ""
                try:
                    converge.apply(driver, second, allowance=allowance)
                except (ApplyError, VerifyError) as error:
                    succeeds, reason = False, str(error)
            # Nobody knows about the module of a scheduler that does not exist; the copy refuses it.
            assert proof.proven == succeeds, (reason, proof)
            assert how == "scheduler" or not proof.untried, proof
            answers.append(proof.proven)
        finally:
            vm.guest.run("sh", "-c", MENDED)

    try:
        run()
    finally:
        vm.apply(interfaces=[], neighbours=[], routes=[], rules=[], ipvs={"services": []})
    # For `pytest -s`.
    print(f"proven: {answers.count(True)}, refused: {answers.count(False)}")
