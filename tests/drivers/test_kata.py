"""The driver over a runtime that says what a test wants: what it is called with, and what its answers come to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler import rundir
from reconciler.drivers import Driver, connect, process
from reconciler.drivers.kata import SINGLES, KataDriver
from reconciler.errors import BusyError, ChannelError, HostError, ProtocolError
from reconciler.model.interface import Address, Interface
from reconciler.model.ipvs import Excluded, Ipvs, Server, Service
from reconciler.model.policy import Policy
from reconciler.model.route import NextHop, Route
from reconciler.model.sandbox import KataAddress, Sandbox
from reconciler.operations import Operation
from reconciler.operations.ipvs import AddServer, AddService, DeleteConntrack, DeleteService
from reconciler.operations.outcome import Outcome, Status
from reconciler.operations.runtime import (
    AddContainerRoute,
    DeleteContainerRoute,
    ImportedRule,
    PlugInterface,
    RuleCommand,
    RuleOperation,
    UnplugInterface,
)
from reconciler.operations.segment import Moves, Network, Plugs, Segment, Table
from reconciler.values import replace
from tests.segments import segments

LISTING = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.1.0.1:80 rr persistent 300
  -> 10.0.0.9:8080                Masq    5      0          0
UDP  10.2.0.1:53 wlc
"""
WEB = Service(
    protocol="tcp",
    address="10.1.0.1",
    port=80,
    scheduler="rr",
    persistent=300,
    servers=(Server(address="10.0.0.9", port=8080, weight=5),),
)
DNS = Service(protocol="udp", address="10.2.0.1", port=53)
NIC = Interface(
    name="eth0",
    device="tap0",
    hw_addr="02:42:20:6f:a3:69",
    mtu=1500,
    addresses=(Address(address="10.0.0.2/16"),),
    queues=2,
)
LISTED = {"name": "eth0", "mac": "02:42:20:6F:A3:69", "ip": ["10.0.0.2/16"], "mtu": 1500}
ROUTE = Route(dest="10.8.0.0/16", nexthops=(NextHop(device="eth0", gateway="10.0.0.1"),))
SAID = {"dest": "10.8.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}

PROGRAM = f"""\
#!{sys.executable}
import json, os, sys, time
folder = os.path.dirname(os.path.abspath(__file__))
stdin = sys.stdin.read()
with open(folder + "/calls", "a") as file:
    file.write(json.dumps([sys.argv[1:], stdin, os.environ.get("LC_ALL")]) + chr(10))
with open(folder + "/answers") as file:
    answers = json.load(file)
action = sys.argv[2] if sys.argv[1] == "kata-network" else sys.argv[1]
if action == "kata-ipvs":
    special = "restore" if "--restore" in sys.argv else "listing" if "--list" in sys.argv[4] else ""
    action = special if special in answers else action
answer = answers.get(action, {{}})
time.sleep(answer.get("sleep", 0))
sys.stdout.write(answer.get("out", "null") * answer.get("times", 1))
sys.stderr.write(answer.get("err", ""))
sys.exit(answer.get("status", 0))
"""


class Runtime:
    """A program that notes how it is called."""

    def __init__(self, folder: Path) -> None:
        self.file, self._folder = folder / "kata-runtime", folder
        self.file.write_text(PROGRAM)
        self.file.chmod(0o755)
        self.answer()

    def answer(self, **answers: dict[str, Any]) -> None:
        """Set its answer to an action.

        That is an action of kata-network, with `_` for `-`, or `kata_ipvs`, or `restore` and `listing` of it.
        """
        (self._folder / "answers").write_text(
            json.dumps({key.replace("_", "-"): each for key, each in answers.items()})
        )

    @property
    def address(self) -> KataAddress:
        return KataAddress(id="6ec7a98", runtime=str(self.file))

    def calls(self) -> list[tuple[list[str], str]]:
        """Give the words and the input of each call."""
        lines = map(json.loads, (self._folder / "calls").read_text().splitlines())
        found = []
        for words, stdin, locale in lines:
            assert locale == "C"
            found.append((words, stdin))
        return found


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock a file of the test's own: the real one is root's."""
    monkeypatch.setattr(rundir, "ROOT", str(tmp_path / "run"))


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(tmp_path)


def connected(address: KataAddress) -> AbstractContextManager[Driver]:
    """Connect to a container by a runtime that the operator allows."""
    return connect(Sandbox(id="box", driver=address), Policy(runtimes=(address.runtime,)))


def observe(runtime: Runtime, **sections: Any) -> Sandbox:
    with connected(runtime.address) as driver:
        return driver.observe(Sandbox(id="box", driver=runtime.address, **sections)).sandbox


def execute(runtime: Runtime, *operations: Operation) -> list[Outcome]:
    with connected(runtime.address) as driver:
        return [outcome for batch in driver.execute(segments(operations)) for outcome in batch]


def rule(operation: RuleOperation) -> RuleCommand:
    return RuleCommand(container="6ec7a98", operation=operation)


def imported(operation: AddService | AddServer) -> ImportedRule:
    return ImportedRule(container="6ec7a98", operation=operation)


def test_what_is_listed_is_observed(runtime: Runtime) -> None:
    runtime.answer(
        list_ifaces={"out": json.dumps([LISTED])}, list_routes={"out": json.dumps([SAID])}, kata_ipvs={"out": LISTING}
    )
    found = observe(runtime)
    assert found.interfaces == (replace(NIC, device="?eth0", queues=0),)
    assert (found.routes, found.ipvs) == ((ROUTE,), None)
    # The device and the queues are what the manifest says.
    assert observe(runtime, interfaces=(NIC,), ipvs=Ipvs()) == Sandbox(
        id="box", driver=runtime.address, interfaces=(NIC,), routes=(ROUTE,), ipvs=Ipvs(services=(WEB, DNS))
    )
    assert (["kata-ipvs", "ipvsadm", "--parameters", "--list -n", "6ec7a98"], "") in runtime.calls()


def test_an_interface_is_known_by_its_mac_address_or_else_its_name(runtime: Runtime) -> None:
    second = LISTED | {"name": "eth1", "mac": "02:42:20:6f:a3:70"}
    runtime.answer(list_ifaces={"out": json.dumps([LISTED, second])}, list_routes={"out": "[]"})
    # One was renamed, and its name was given to one that is new.
    renamed, new = replace(NIC, name="eth1"), replace(NIC, device="tap9", hw_addr="02:42:20:6f:a3:99")
    found = observe(runtime, interfaces=(renamed, new))
    assert found.interfaces is not None
    assert [(each.name, each.device) for each in found.interfaces] == [("eth0", "tap0"), ("eth1", "?eth1")]
    # One has another address.
    found = observe(runtime, interfaces=(NIC, replace(NIC, name="eth1", device="tap9", hw_addr="02:42:20:6f:a3:99")))
    assert found.interfaces is not None
    assert [(each.name, each.device) for each in found.interfaces] == [("eth0", "tap0"), ("eth1", "tap9")]


def test_nothing_is_listed(runtime: Runtime) -> None:
    runtime.answer(list_routes={"out": "[]"})
    found = observe(runtime)
    assert (found.interfaces, found.routes) == ((), ())
    assert runtime.calls() == [
        (["kata-network", "list-ifaces", "6ec7a98"], ""),
        (["kata-network", "list-routes", "6ec7a98"], ""),
    ]


def test_what_is_excluded_is_somebody_elses(runtime: Runtime) -> None:
    runtime.answer(kata_ipvs={"out": LISTING})
    exclude = (Excluded(prefix="10.2.0.0/16"),)
    with connected(runtime.address) as driver:
        found = driver.observe(Sandbox(id="box", driver=runtime.address, ipvs=Ipvs(exclude=exclude)))
    assert found.sandbox.ipvs == Ipvs(services=(WEB,), exclude=exclude)
    assert found.around.services == (DNS,)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ({"status": 1, "err": "no such container\n"}, HostError, "kata-network list-ifaces: no such container"),
        ({"status": 7}, HostError, "kata-network list-ifaces: exit status 7"),
        ({"out": "nix"}, ProtocolError, "kata 6ec7a98: cannot parse the output of list-ifaces"),
        ({"out": "7"}, ProtocolError, "kata 6ec7a98: cannot parse the output of list-ifaces"),
        ({"out": "[7]"}, ProtocolError, "expected an object"),
        ({"out": json.dumps([LISTED | {"name": "a b"}])}, ProtocolError, "name: "),
        ({"out": json.dumps([LISTED | {"ip": ["10.0.0.2/33"]}])}, ProtocolError, "no valid prefix length"),
        ({"out": json.dumps([LISTED | {"ip": 7}])}, ProtocolError, "ip: expected a list of texts"),
        ({"out": "x" * 1000, "times": 100}, ProtocolError, "printed more than 0 MiB"),
        ({"sleep": 60}, ChannelError, "did not end within 1 s"),
    ],
)
def test_an_answer_that_is_none(
    answer: dict[str, Any],
    error: type[Exception],
    message: str,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "LIMIT", 10_000)
    monkeypatch.setattr(process, "TIMEOUT", 1.0 if "sleep" in answer else 30.0)
    runtime.answer(list_ifaces=answer)
    with pytest.raises(error, match=message):
        observe(runtime)


def test_a_listing_that_is_none(runtime: Runtime) -> None:
    runtime.answer(kata_ipvs={"out": "TCP  web:http rr\n"})
    with pytest.raises(ProtocolError, match="cannot parse the listing of IPVS: line 1: TCP  web:http rr"):
        observe(runtime, ipvs=Ipvs())


def test_a_runtime_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="/none: no such program"):
        KataDriver(KataAddress(id="6ec7a98", runtime=str(tmp_path / "none")), Policy())
    text = tmp_path / "text"
    text.write_text("no program")
    text.chmod(0o755)
    with (
        connected(KataAddress(id="6ec7a98", runtime=str(text))) as driver,
        pytest.raises(HostError, match="Exec format"),
    ):
        driver.ipvs_listing()


def test_one_run_at_a_time(runtime: Runtime) -> None:
    with connected(runtime.address) as driver, connected(runtime.address) as other, driver.lock():
        with pytest.raises(BusyError, match="another reconciler is changing kata 6ec7a98"), other.lock():
            raise AssertionError
        with connected(replace(runtime.address, id="6ec7a99")) as neighbour, neighbour.lock():
            pass
        # The same may lock again within, and the end of any is the end of all.
        with driver.lock():
            pass
        with other.lock():
            pass


def test_each_change_is_a_command(runtime: Runtime) -> None:
    server = WEB.servers[0]
    operations: Sequence[Operation] = (
        PlugInterface(container="6ec7a98", interface=NIC),
        UnplugInterface(container="6ec7a98", name="eth0"),
        AddContainerRoute(container="6ec7a98", route=ROUTE),
        DeleteContainerRoute(container="6ec7a98", route=ROUTE),
        rule(AddService(service=WEB)),
        rule(AddServer(service=WEB.key, server=server)),
        rule(DeleteService(service=DNS)),
        rule(DeleteConntrack(address="10.2.0.1", protocol="udp")),
    )
    assert execute(runtime, *operations) == [Outcome(each, Status.DONE) for each in operations]
    said = {
        "device": "tap0",
        "name": "eth0",
        "IPAddresses": [{"address": "10.0.0.2", "mask": "16"}],
        "mtu": 1500,
        "hwAddr": "02:42:20:6f:a3:69",
        "queues": 2,
    }
    network, ipvsadm = ["kata-network"], ["kata-ipvs", "ipvsadm", "--parameters"]
    calls = [(words, json.loads(stdin) if stdin else None) for words, stdin in runtime.calls()]
    assert calls == [
        ([*network, "add-iface", "6ec7a98", "-"], said),
        ([*network, "del-iface", "6ec7a98", "-"], {"name": "eth0"}),
        ([*network, "add-route", "6ec7a98", "-"], SAID),
        ([*network, "del-route", "6ec7a98", "-"], SAID),
        ([*ipvsadm, "-A -t 10.1.0.1:80 -s rr -p 300", "6ec7a98"], None),
        ([*ipvsadm, "-a -t 10.1.0.1:80 -r 10.0.0.9:8080 -m -w 5", "6ec7a98"], None),
        ([*ipvsadm, "-D -u 10.2.0.1:53", "6ec7a98"], None),
        (["kata-ipvs", "cleanup", "--parameters", "--orig-dst 10.2.0.1 --protonum udp", "6ec7a98"], None),
    ]


def many(count: int) -> list[ImportedRule]:
    services = [replace(WEB, port=port) for port in range(1, count + 1)]
    adds = [imported(AddService(service=each)) for each in services]
    return [*adds, *(imported(AddServer(service=each.key, server=WEB.servers[0])) for each in services)]


def test_many_rules_are_imported_at_once(runtime: Runtime) -> None:
    other = rule(AddServer(service=DNS.key, server=Server(address="10.0.0.9", port=53)))
    operations: list[Operation] = [*many(6), other]
    assert execute(runtime, *operations) == [Outcome(each, Status.DONE) for each in operations]
    (words, rules), (single, _) = runtime.calls()
    assert words == ["kata-ipvs", "ipvsadm", "--restore", "-", "6ec7a98"]
    assert rules.splitlines() == [
        line
        for port in range(1, 7)
        for line in (
            f"-A -t 10.1.0.1:{port} -s rr -p 300",
            f"-a -t 10.1.0.1:{port} -r 10.0.0.9:8080 -m -w 5",
        )
    ]
    assert single[3] == "-a -u 10.2.0.1:53 -r 10.0.0.9:53 -m -w 1"


@pytest.mark.parametrize("answer", [{"status": 1, "err": "Killed"}, {"sleep": 600}])
def test_an_import_that_went_half_way_is_finished(
    answer: dict[str, Any], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TIMEOUT", 5.0 if "sleep" in answer else 30.0)
    there = [imported(AddService(service=WEB)), imported(AddServer(service=WEB.key, server=WEB.servers[0]))]
    missing = many(6)
    runtime.answer(restore=answer, listing={"out": LISTING})
    outcomes = execute(runtime, *there, *missing)
    assert [(each.operation, each.status) for each in outcomes] == [(each, Status.DONE) for each in (*there, *missing)]
    singles = [words[3] for words, _ in runtime.calls()[2:]]
    assert singles == [each.operation.parameters for each in missing]


def test_an_import_of_which_nothing_is_known_is_unknown(runtime: Runtime) -> None:
    runtime.answer(restore={"status": 1, "err": "Killed"}, listing={"status": 1, "err": "Gone"})
    assert {each.status for each in execute(runtime, *many(6))} == {Status.UNKNOWN}


def test_an_import_of_which_nothing_came_is_not_tried_rule_by_rule(runtime: Runtime) -> None:
    heading = "".join(LISTING.splitlines(keepends=True)[:3])
    runtime.answer(restore={"status": 1, "err": "No room"}, listing={"out": heading})
    outcomes = execute(runtime, *many(SINGLES))
    assert {(each.status, each.reason) for each in outcomes} == {(Status.FAILED, "kata-ipvs ipvsadm: No room")}
    assert len(runtime.calls()) == 2


def test_what_fails_says_why_and_stops_what_depends_on_it(runtime: Runtime) -> None:
    runtime.answer(add_route={"status": 1, "err": "File exists\n"}, kata_ipvs={"status": 1, "err": "No such service\n"})
    add, delete = AddContainerRoute(container="6ec7a98", route=ROUTE), rule(DeleteService(service=DNS))
    another: Operation = rule(AddService(service=WEB))
    assert execute(runtime, add, delete) == [Outcome(add, Status.FAILED, "kata-network add-route: File exists")]
    # Rules of IPVS do not depend on each other.
    assert execute(runtime, delete, another) == [
        Outcome(delete, Status.FAILED, "kata-ipvs ipvsadm: No such service"),
        Outcome(another, Status.FAILED, "kata-ipvs ipvsadm: No such service"),
    ]
    assert {each.status for each in execute(runtime, *many(6))} == {Status.UNKNOWN}


@pytest.mark.parametrize("segment", [Moves(()), Network(()), Table(()), Plugs(())])
def test_no_segment_for_a_kernel_or_a_machine_is_executed(runtime: Runtime, segment: Segment) -> None:
    with (
        connected(runtime.address) as driver,
        pytest.raises(TypeError, match="a runtime's command line cannot execute"),
    ):
        list(driver.execute([segment]))


def test_what_gives_no_answer_is_unknown_and_ended(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TIMEOUT", 1.0)
    runtime.answer(add_route={"sleep": 600})
    operation = AddContainerRoute(container="6ec7a98", route=ROUTE)
    (outcome,) = execute(runtime, operation, UnplugInterface(container="6ec7a98", name="eth0"))
    assert (outcome.operation, outcome.status) == (operation, Status.UNKNOWN)
    assert "did not end within 1 s" in outcome.reason
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        # Others end meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            assert str(runtime.file).encode() not in Path("/proc", pid, "cmdline").read_bytes()
