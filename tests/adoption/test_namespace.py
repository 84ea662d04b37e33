"""A namespace that somebody configured with `ip` becomes ours: no packet is lost, and then its manifest is in force."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.cli.main import main
from reconciler.drivers import connect, given
from reconciler.errors import HostError
from reconciler.manifest.load import load
from reconciler.model.made import KINDS
from reconciler.model.sandbox import Sandbox
from reconciler.operations import Operation
from reconciler.preview import preview
from reconciler.values import replace
from tests.adoption.conftest import MANY, ROUTER, Place, batch
from tests.allowed import POLICY
from tests.conftest import Kernel, ip
from tests.segments import segments
from tests.system.box import nic
from tests.system.test_kill import in_a_process_that_is_killed

# What the fixture makes beside the many.
DHCP = (
    "1 of the routes and rules have protocol dhcp: if the program that made them still runs, it may change them again; "
    "leave those out of the manifest then"
)
ROUTES, RULES, NEIGHBOURS = 9, 6, 4


def imported(place: Place, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """Write what is there as a manifest. Return its path, and what was said about it."""
    capsys.readouterr()
    assert main(["import", "--netns", place.name, "--live"]) == 0
    said = capsys.readouterr()
    path = place.folder / "web.yaml"
    path.write_text(said.out)
    return str(path), said.err.splitlines()


def edited(path: str, **changes: Any) -> str:
    data = yaml.load(Path(path).read_text(), yaml.CBaseLoader)
    Path(path).write_text(json.dumps(_numbers(data | changes)))
    return path


def _numbers(value: Any) -> Any:
    """Return data with numbers for the text that is one, and is no name of a device."""
    if isinstance(value, dict):
        return {name: _numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    if value in {"true", "false"}:
        return value == "true"
    return int(value) if re.fullmatch(r"[0-9]+", value) else value


def test_it_is_adopted_under_traffic_and_is_ours_then(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    path, said = imported(place, capsys)
    assert [line.split(" had on the host")[0] for line in said] == [
        f"{place.name}: interfaces: the name that eth0",
        f"{place.name}: interfaces: the name that eth1",
        f"{place.name}: {DHCP}",
    ]
    manifest = yaml.load(Path(path).read_text(), yaml.CBaseLoader)
    counts = {section: len(manifest[section]) for section in ("interfaces", "neighbours", "routes", "rules")}
    assert counts == {
        "interfaces": 2,
        "neighbours": NEIGHBOURS,
        "routes": ROUTES + MANY // 2,
        "rules": RULES + MANY // 2,
    }
    assert main(["diff", path]) == 3
    refused = capsys.readouterr().err
    assert "the name eth0, eth1 is taken in the sandbox by an interface that is not ours" in refused
    assert "If it is the interface of the manifest: --adopt" in refused
    before = place.state()
    with place.under_traffic():
        assert main(["diff", "--adopt", path]) == 1
        assert main(["apply", "--adopt", path]) == 0
        assert main(["diff", path]) == 0
    assert place.state() == before
    for family in ("-4", "-6"):
        assert place.owners(family, "rule") == {"kernel", "200"}
        assert place.owners(family, "route", "show", "table", "all") == {"kernel", "200"}
    for words in (["nud", "permanent"], ["proxy"]):
        assert place.owners("neigh", "show", *words) == {"200"}
    _is_ours(place, path, capsys)


MADE = """
link set lo up
link add br0 type bridge ageing_time 6000
link set eth0 master br0
link set br0 up
link set eth0 up
link add mv0 link br0 type macvlan mode private
link set mv0 up
address add 192.0.2.2/24 dev br0
address add 2001:db8::2/64 dev br0 nodad
address add 198.51.100.2/25 dev mv0
route add 203.0.113.0/24 via 192.0.2.1
link add br7 type bridge
address add 172.29.0.2/24 dev br7
address add 2001:db8:29::2/64 dev br7
neigh add 172.29.0.9 lladdr 02:42:20:6f:a3:77 dev br7 nud permanent
link add bare type bridge
link add one type bridge
link add link one name on-one type macvlan mode vepa
link add spare type bridge
link set spare alias rack-7
"""


def _marks(place: Place) -> dict[str, tuple[int, list[str]]]:
    """Return the index and the alternative names of each link that is made there."""
    listed = json.loads(place.ip("-d", "-j", "link"))
    return {
        each["ifname"]: (each["ifindex"], each.get("altnames", []))
        for each in listed
        if each["ifname"] in {"br0", "mv0"}
    }


def test_links_that_others_made_are_adopted_under_traffic(
    kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(kernel, kernel.namespace(), kernel.namespace(), tmp_path)
    ip("link", "add", "eth0", "netns", place.name, "type", "veth", "peer", "name", "p0", "netns", place.router)
    batch(place.router, ROUTER)
    batch(place.name, MADE)
    batch(place.name, "route add 2001:db8:7::/64 via 2001:db8::1\n", "-6")
    place.await_carriers({"eth0", "br0", "mv0"})
    path, said = imported(place, capsys)
    assert [line.split(" had on the host")[0] for line in said] == [
        f"{place.name}: left out: interfaces: bare: it is down, and nothing is set on it",
        f"{place.name}: interfaces: the name that eth0",
    ]
    interfaces = {each["name"]: each for each in yaml.load(Path(path).read_text(), yaml.CBaseLoader)["interfaces"]}
    assert {name for name, each in interfaces.items() if each.get("state") == "down"} == {
        "br7",
        "one",
        "on-one",
        "spare",
    }
    bridge = interfaces["br0"]
    # The kernel took the MAC address of the bridge from its port.
    assert (bridge["bridge"], "hwAddr" in bridge, "hwAddr" in interfaces["mv0"]) == ({"ageingTime": "60"}, False, True)
    assert main(["diff", path]) == 3
    before, made = place.state(), _marks(place)
    whole = Path(path).read_text()
    for own, words in (
        ({"bridge": {"ageingTime": "61"}}, "it differs (br0 (bridge): "),
        ({"vrf": {"table": "7"}}, "it is no vrf that is made there"),
    ):
        other = {"name": "br0", "addresses": bridge["addresses"], **own}
        capsys.readouterr()
        assert main(["apply", "--adopt", edited(path, interfaces=[other], neighbours=[], routes=[])]) == 3
        assert f"the interface br0 in the sandbox is not ours, and --adopt does not take it over: {words}" in (
            capsys.readouterr().err
        )
    Path(path).write_text(whole)

    def fail(*_: object) -> None:
        raise HostError("disk full")

    with monkeypatch.context() as patched, place.under_traffic():
        patched.setattr(given.GivenDevices, "adopt", fail)
        assert main(["apply", "--adopt", "--all-or-nothing", path]) == 2
    assert f"{place.name} is as it was before.\n" in capsys.readouterr().err
    assert (place.state(), _marks(place)) == (before, made)
    with place.under_traffic():
        assert main(["apply", "--adopt", path]) == 0
        assert main(["diff", path]) == 0
    assert _marks(place) == {name: (index, [f"reconciler.made.{name}"]) for name, (index, _) in made.items()}
    # What leaves the manifest is deleted, as it is ours now.
    kept = [each for name, each in interfaces.items() if name != "mv0"]
    assert main(["apply", "--allow-delete", "all", edited(path, interfaces=kept)]) == 0
    assert set(_marks(place)) == {"br0"}


def _is_ours(place: Place, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What leaves the manifest is deleted, and the limit guards that."""
    manifest = yaml.load(Path(path).read_text(), yaml.CBaseLoader)
    capsys.readouterr()
    assert main(["apply", edited(path, routes=manifest["routes"][:20])]) == 3
    total = ROUTES + MANY // 2
    said = capsys.readouterr().err
    assert f"refused: this would delete {total - 20} of {total} routes" in said
    assert main(["apply", "--allow-delete", "all", path]) == 0
    shown = json.loads(place.ip("-j", "route", "show", "table", "all", "proto", "200"))
    shown += json.loads(place.ip("-6", "-j", "route", "show", "table", "all", "proto", "200"))
    assert len(shown) == 20
    # The device of an interface goes to the host, with the name that the manifest says.
    (first, second) = manifest["interfaces"]
    place.kernel.adopt(first["device"])
    neighbours = [each for each in manifest["neighbours"] if each["device"] == second["name"]]
    sections = {"interfaces": [second], "neighbours": neighbours, "routes": [], "rules": []}
    assert main(["apply", "--allow-delete", "all", edited(path, **sections)]) == 0
    (found,) = json.loads(ip("-j", "link", "show", "dev", first["device"]))
    assert (found["address"], found["mtu"], "UP" in found["flags"]) == (first["hwAddr"], 1500, False)


def test_all_of_it_is_undone_if_a_step_fails(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of devices is written last. If that fails, whatever was marked is of its former owner again."""
    path, _ = imported(place, capsys)
    before = [place.owners(*words) for words in LISTS], place.state()

    def fail(*_: object) -> None:
        raise HostError("the record of given devices cannot be written: disk full")

    with monkeypatch.context() as patched:
        patched.setattr(given.GivenDevices, "adopt", fail)
        with place.under_traffic():
            assert main(["apply", "--adopt", "--all-or-nothing", path]) == 2
    assert f"{place.name} is as it was before.\n" in capsys.readouterr().err
    assert ([place.owners(*words) for words in LISTS], place.state()) == before
    assert main(["apply", "--adopt", path]) == 0
    assert main(["diff", path]) == 0


def test_all_of_it_is_undone_if_a_check_fails_after_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The NICs were recorded by then. They stay where they are, and are of their owner again."""
    path, _ = imported(place, capsys)
    before = [place.owners(*words) for words in LISTS], place.state()
    whole = Path(path).read_text()
    refusing = {"priority": "100", "to": "203.0.113.7/32", "action": "prohibit"}
    rules = [*yaml.load(whole, yaml.CBaseLoader)["rules"], refusing]
    assert main(["apply", "--adopt", edited(path, rules=rules, checks=[{"ping": "203.0.113.7"}])]) == 2
    assert f"{place.name} is as it was before.\n" in capsys.readouterr().err
    assert ([place.owners(*words) for words in LISTS], place.state()) == before
    Path(path).write_text(whole)
    assert main(["apply", "--adopt", path]) == 0
    assert main(["diff", path]) == 0


LISTS = [
    ("rule",),
    ("-6", "rule"),
    ("route", "show", "table", "all"),
    ("-6", "route", "show", "table", "all"),
    ("neigh", "show", "nud", "permanent"),
]


def test_killed_at_each_step_and_run_again(
    place: Place, capsys: pytest.CaptureFixture[str], repeats: Callable[[int], int]
) -> None:
    """The rest is adopted, and nothing is lost on the way."""
    place.forget_the_many()
    path, _ = imported(place, capsys)
    before = _sorted(place.state())
    (manifest,) = load([path])
    with connect(manifest.sandbox, POLICY) as driver:
        found = preview(driver, manifest.sandbox, adopt=True)
    operations = found.plan.operations
    assert len(operations) == NEIGHBOURS + ROUTES + 2 * RULES + 1
    with place.under_traffic():
        for number in random.sample(range(len(operations) + 1), min(repeats(24), len(operations) + 1)):
            in_a_process_that_is_killed(partial(_execute, manifest.sandbox, operations[:number]))
            assert main(["apply", "--adopt", path]) == 0
            assert main(["diff", path]) == 0, f"killed after {number} operations"
            assert place.owners("rule") == {"kernel", "200"}
            _forget(place, found.observed.sandbox)
    assert _sorted(place.state()) == before


def _sorted(state: list[Any]) -> list[Any]:
    """Order what one list has: of rules that lead to one table, a killed run may have put one before another."""
    return [sorted(map(str, each)) for each in state]


def _execute(sandbox: Sandbox, operations: Sequence[Operation]) -> None:
    with connect(sandbox, POLICY) as driver:
        for _ in driver.execute(segments(operations)):
            pass


def _forget(place: Place, before: Sandbox) -> None:
    """Make what is ours that of its former owners again, neighbours excepted: the kernel does not forget us there."""
    namespace = os.stat(f"/run/netns/{place.name}")
    Path(given.FOLDER, f"{namespace.st_dev}-{namespace.st_ino}.json").unlink()
    before = replace(before, interfaces=None, neighbours=None)
    with connect(before, POLICY) as driver:
        for _ in driver.execute(preview(driver, before).plan.segments):
            pass


SECTIONS = ("interfaces", "neighbours", "routes", "rules")
# What is otherwise in the sandbox, what takes it back, the field, and what is said of it.
NEIGHBOUR = "neigh replace 192.0.2.77 dev eth0 nud permanent lladdr 02:42:20:6f:a3:"
CONFLICTS = [
    ("link set eth1 mtu 1400", "link set eth1 mtu 1500", "interfaces[1].name", "mtu is 1400, not 1500"),
    (
        "address add 192.0.2.9/24 dev eth0",
        "address del 192.0.2.9/24 dev eth0",
        "interfaces[0].name",
        "address 192.0.2.9/24 of eth0 should not be there",
    ),
    (
        "address change 192.0.2.3/24 dev eth0 valid_lft 900 preferred_lft 900",
        "address change 192.0.2.3/24 dev eth0 valid_lft forever preferred_lft forever",
        "interfaces[0].name",
        "address 192.0.2.3/24 of eth0 is 192.0.2.3/24 dynamic, not 192.0.2.3/24",
    ),
    (
        "route replace unreachable 10.66.0.0/16",
        "route replace blackhole 10.66.0.0/16",
        "",
        "the route unreachable 10.66.0.0/16 is in its place and is not ours",
    ),
    (f"{NEIGHBOUR}00", f"{NEIGHBOUR}77", "", "is in its place and is not ours"),
]


def test_what_differs_is_not_adopted(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is touched then."""
    place.forget_the_many()
    path, _ = imported(place, capsys)
    for command, back, field, words in CONFLICTS:
        place.ip(*command.split())
        before = place.state(), place.owners("rule")
        assert main(["apply", "--adopt", path]) == 3, command
        said = capsys.readouterr().err
        assert field in said
        assert words in said
        assert (place.state(), place.owners("rule")) == before, command
        place.ip(*back.split())
    assert main(["apply", "--adopt", path]) == 0


# What no manifest can express, and what depends on that; and the beginnings of the lines about it.
BEYOND = """
address add 198.51.100.130/25 dev eth0 valid_lft 3600 preferred_lft 3600
address add 203.0.113.130/32 broadcast 203.0.113.131 dev eth1
route add 10.67.0.0/16 via 198.51.100.129 proto dhcp
route add 10.68.0.0/16 via 192.0.2.1 ssthresh 20
route append 203.0.113.7 via 192.0.2.9
rule add from 10.0.0.0/8 lookup 100 priority 1000 realms 4
link add br0 up type bridge ageing_time 6004
tuntap add tun7 mode tun
"""
OTHER_WORDS = {
    "interfaces: eth1: no manifest can express its address 203.0.113.130/32 brd 203.0.113.131",
    "interfaces: br0: no manifest can express its ageingTime 6004",
    "interfaces: tun7: nothing proves that it is a device of this host: a program in the sandbox could have made it, ",
    "neighbours: proxy 192.0.2.79 dev eth1: its interface is left out",
    "routes: 10.0.0.0/8 table 101 nexthop via 192.0.2.1 dev eth0 weight 2 nexthop via 198.51.100.1 dev eth1 weight 1: ",
    "routes: default via 198.51.100.1 dev eth1: its interface is left out",
    "routes: no manifest can express 10.68.0.0/16 via 192.0.2.1 dev eth0 ssthresh 20",
    "rules: no manifest can express priority 1000 from 10.0.0.0/8 lookup 100 realms 4",
    "routes: dest 203.0.113.7/32: dest 203.0.113.7/32: routes[",
    "routes: dest 10.67.0.0/16: gateway 198.51.100.129: no address or route of eth0 reaches 198.51.100.129; ",
}


def test_what_a_manifest_cannot_say_is_named_line_by_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """What it can say of the same sandbox is adopted."""
    place.forget_the_many()
    place.ip("-batch", "-", stdin=BEYOND)
    path, said = imported(place, capsys)
    lines = [line.removeprefix(f"{place.name}: left out: ") for line in said if ": left out: " in line]
    found = {words for words in OTHER_WORDS for line in lines if line.startswith(words)}
    assert (found, len(lines)) == (OTHER_WORDS, len(OTHER_WORDS)), lines
    before = place.state()
    assert main(["apply", "--adopt", path]) == 0
    assert main(["diff", path]) == 0
    assert place.state() == before


def test_without_any_interface_routes_are_kept(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """So the rest of a sandbox is ours whose interfaces stay with somebody else."""
    place.forget_the_many()
    for name in ("eth0", "eth1"):
        place.ip("address", "add", "203.0.113.130/32", "broadcast", "203.0.113.131", "dev", name)
    path, said = imported(place, capsys)
    assert sum("left out: interfaces: eth" in line for line in said) == 2
    manifest = yaml.load(Path(path).read_text(), yaml.CBaseLoader)
    assert "interfaces" not in manifest
    assert (len(manifest["routes"]), len(manifest["rules"]), len(manifest["neighbours"])) == (ROUTES, RULES, NEIGHBOURS)
    assert main(["apply", "--adopt", path]) == 0
    assert main(["diff", path]) == 0
    assert main(["apply", "--allow-delete", "all", edited(path, routes=[], rules=[], neighbours=[])]) == 0
    assert place.owners("rule") == {"kernel"}
    assert len(json.loads(place.ip("-j", "address", "show", "dev", "eth0"))[0]["addr_info"]) >= 5


def test_one_that_is_partly_ours(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """What was ours already stays so, and the rest becomes ours."""
    place.forget_the_many()
    path, _ = imported(place, capsys)
    whole = yaml.load(Path(path).read_text(), yaml.CBaseLoader)
    routes = [each for each in whole["routes"] if each.get("device") != "eth1"][:3]
    assert main(["apply", "--adopt", edited(path, routes=routes, rules=whole["rules"][:2], neighbours=[])]) == 0
    again, _ = imported(place, capsys)
    found = yaml.load(Path(again).read_text(), yaml.CBaseLoader)
    assert _sorted([found[name] for name in SECTIONS]) == _sorted([whole[name] for name in SECTIONS])
    assert main(["apply", "--adopt", again]) == 0
    assert main(["diff", again]) == 0
    assert place.owners("rule") == {"kernel", "200"}


def test_what_a_tenant_could_have_made_is_not_adopted(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A device of the same name, MAC address, MTU and addresses: nothing but its other end tells it apart."""
    place.forget_the_many()
    path, _ = imported(place, capsys)
    (wish,) = [
        each for each in yaml.load(Path(path).read_text(), yaml.CBaseLoader)["interfaces"] if each["name"] == "eth1"
    ]
    manifest = edited(path, interfaces=[wish], neighbours=[], routes=[], rules=[])
    kinds = {
        "veth peer name other": "its other end is there as well",
        "macvlan mode bridge": "its other end is there as well",
        "bridge": "it is of kind bridge",
    }
    place.ip("link", "set", "eth1", "name", "mine", "address", "02:42:20:6f:a3:01")
    for kind, reason in kinds.items():
        below = ["link", "mine"] if kind.startswith("macvlan") else []
        place.ip("link", "add", *below, "eth1", "address", wish["hwAddr"], "type", *kind.split())
        place.ip("link", "set", "eth1", "up")
        place.ip("address", "add", wish["addresses"][0], "dev", "eth1")
        assert main(["apply", "--adopt", manifest]) == 3, kind
        said = capsys.readouterr().err
        assert "nothing proves that it is a device of this host: a program in the sandbox could have made it" in said
        assert reason in said
        assert not given.find_given({wish["device"]})
        assert main(["import", "--netns", place.name, "--live"]) == 0
        printed = capsys.readouterr()
        listed = yaml.load(printed.out, yaml.CBaseLoader)["interfaces"]
        # What a manifest can make as well is deleted when it leaves it, and never comes to the host.
        made = [each for each in listed if each["name"] == "eth1"]
        assert [next(kind for kind in KINDS if kind in each) for each in made] == [kind.split()[0]] * len(made)
        refused = f"{place.name}: left out: interfaces: eth1: nothing proves" in printed.err
        assert (kind.split()[0] in KINDS, not refused) == (bool(made), bool(made))
        place.ip("link", "del", "eth1")


@contextmanager
def process_in_own(kind: str, option: str) -> Iterator[int]:
    """Run a process in namespaces of its own, by an option of unshare(1); yield its pid once it has that of a kind."""
    with subprocess.Popen(["unshare", option, "sleep", "60"]) as process:
        try:
            while os.readlink(f"/proc/{process.pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}"):
                assert process.poll() is None, f"unshare {option} has failed"
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


def test_one_behind_a_namespace_of_another_user_is_not_adopted(
    user_namespaces: None, kernel: Kernel, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may make namespaces of their own may put the other end of a device there, also one with a name."""
    place.forget_the_many()
    path, _ = imported(place, capsys)
    with process_in_own("user", "-Urn") as pid:
        name = f"{kernel.prefix}other"
        ip("netns", "attach", name, str(pid))
        kernel.adopt_namespace(name)
        ip("link", "set", "p0", "netns", name, namespace=place.router)
        assert main(["apply", "--adopt", path]) == 3
        words = "its other end is neither on the host nor in a namespace that root has made"
        assert words in capsys.readouterr().err


def test_one_behind_a_namespace_without_a_name_is_adopted(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as one of a container of root's: a process leads to it."""
    place.forget_the_many()
    path, _ = imported(place, capsys)
    with process_in_own("net", "-n") as pid:
        ip("link", "set", "p0", "netns", str(pid), namespace=place.router)
        assert main(["apply", "--adopt", path]) == 0


def test_a_lost_record_is_written_again(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """What the kernel proves needs no record, and an alias proves nothing."""
    device = place.kernel.veth()[0]
    interface = nic(device, "eth7")
    path = str(place.folder / "web.yaml")
    data = {"apiVersion": "reconciler/v1", "sandbox": "web", "driver": {"netns": {"name": place.name}}}
    Path(path).write_text(json.dumps(data | {"interfaces": [interface]}))
    assert main(["apply", path]) == 0
    namespace = os.stat(f"/run/netns/{place.name}")
    Path(given.FOLDER, f"{namespace.st_dev}-{namespace.st_ino}.json").unlink()
    assert main(["apply", path]) == 3
    assert "but no record proves that" in capsys.readouterr().err
    assert main(["apply", "--adopt", path]) == 0
    assert main(["diff", path]) == 0
    Path(path).write_text(json.dumps(data | {"interfaces": []}))
    assert main(["apply", path]) == 0
    assert json.loads(ip("-j", "link", "show", "dev", device))[0]["address"] == interface["hwAddr"]


def test_a_name_that_the_host_has_is_not_taken(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """It would return under that name."""
    place.forget_the_many()
    path, _ = imported(place, capsys)
    interfaces = yaml.load(Path(path).read_text(), yaml.CBaseLoader)["interfaces"]
    interfaces[0]["device"] = place.kernel.veth()[0]
    assert main(["apply", "--adopt", edited(path, interfaces=interfaces)]) == 3
    said = capsys.readouterr().err
    assert "the host has another device named" in said
    assert "choose another `device`" in said
