"""Each field of the table changed alone, and back, as the real ipvsadm sees it; then there is nothing left to do."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import Any, NamedTuple

from reconciler.model.ipvs import SYSCTLS
from tests.ipvs.conftest import TOLD
from tests.ipvs.place import SYSCTLS as FOLDER
from tests.ipvs.place import TablePlace

Data = dict[str, Any]

TCP: Data = {
    "tcp": "10.1.0.1:80",
    "scheduler": "rr",
    "servers": [
        {"address": "10.9.9.1:8080"},
        {"address": "10.9.9.2", "forward": "dr"},
        {"address": "10.9.9.3", "forward": "tunnel"},
    ],
}
UDP: Data = {"udp": "10.1.0.1:53", "servers": [{"address": "10.9.9.1:5353", "weight": 3}]}
SCTP: Data = {"sctp": "10.1.0.1:9", "persistent": 60, "servers": [{"address": "10.9.9.1"}]}
TCP6: Data = {
    "tcp": "[fd00:1::1]:80",
    "persistent": 60,
    "servers": [
        {"address": "[fd00:9::1]:8080"},
        {"address": "fd00:9::2", "forward": "dr"},
        {"address": "10.9.9.3", "forward": "tunnel"},
    ],
}
MARK: Data = {"fwmark": 7, "servers": [{"address": "10.9.9.1:8080"}, {"address": "10.9.9.2", "forward": "dr"}]}
MARK6: Data = {"fwmark": 7, "family": "ipv6", "scheduler": "sh", "servers": [{"address": "fd00:9::1"}]}
TABLE = [TCP, UDP, SCTP, TCP6, MARK, MARK6]
SAVED = [
    "-A -t 10.1.0.1:80 -s rr",
    "-a -t 10.1.0.1:80 -r 10.9.9.1:8080 -m -w 1",
    "-a -t 10.1.0.1:80 -r 10.9.9.2:80 -g -w 1",
    "-a -t 10.1.0.1:80 -r 10.9.9.3:80 -i -w 1 --tun-type ipip",
    "-A -u 10.1.0.1:53 -s wlc",
    "-a -u 10.1.0.1:53 -r 10.9.9.1:5353 -m -w 3",
    "-A --sctp-service 10.1.0.1:9 -s wlc -p 60",
    "-a --sctp-service 10.1.0.1:9 -r 10.9.9.1:9 -m -w 1",
    "-A -t [fd00:1::1]:80 -s wlc -p 60",
    "-a -t [fd00:1::1]:80 -r [fd00:9::1]:8080 -m -w 1",
    "-a -t [fd00:1::1]:80 -r [fd00:9::2]:80 -g -w 1",
    "-a -t [fd00:1::1]:80 -r 10.9.9.3:80 -i -w 1 --tun-type ipip",
    "-A -f 7 -s wlc",
    "-a -f 7 -r 10.9.9.1:8080 -m -w 1",
    "-a -f 7 -r 10.9.9.2:0 -g -w 1",
    "-A -f 7 -6 -s sh",
    "-a -f 7 -6 -r [fd00:9::1]:0 -m -w 1",
]


class Change(NamedTuple):
    """Fields of a service, or of its first, second or third server, and what its line becomes by replacing a text."""

    service: int
    server: int | None
    fields: Data
    old: str
    new: str

    @property
    def line(self) -> int:
        """Which line of SAVED it is about."""
        begin = [number for number, line in enumerate(SAVED) if line.startswith("-A")][self.service]
        return begin if self.server is None else begin + 1 + self.server


def flags(*names: str, scheduler: str = "rr", old: str = " -s rr") -> tuple[Data, str, str]:
    """Give flags in another order than ipvsadm has them, each at the end of a line that ends with `old`."""
    return {"scheduler": scheduler, "schedulerFlags": [*reversed(names)]}, old, f" -s {scheduler} -b {','.join(names)}"


def tunnel(words: str, **fields: Any) -> tuple[Data, str, str]:
    return fields, "ipip", words


SCHEDULERS = ("wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf")
GUE = {"tunType": "gue", "tunPort": 6080}
CHANGES = [
    # The schedulers, each on one of the six.
    *(
        Change(index % 6, None, {"scheduler": name}, f"-s {TABLE[index % 6].get('scheduler', 'wlc')}", f"-s {name}")
        for index, name in enumerate(SCHEDULERS)
        if name != TABLE[index % 6].get("scheduler", "wlc")
    ),
    Change(0, None, *flags("flag-1")),
    Change(0, None, *flags("flag-1", "flag-2", "flag-3")),
    Change(5, None, *flags("sh-fallback", scheduler="sh", old=" -s sh")),
    Change(5, None, {"schedulerFlags": ["flag-2"]}, "-s sh", "-s sh -b sh-port"),
    Change(4, None, *flags("mh-fallback", "mh-port", scheduler="mh", old=" -s wlc")),
    Change(0, None, {"persistent": 1}, "-s rr", "-s rr -p 1"),
    Change(4, None, {"persistent": 2678400}, "-s wlc", "-s wlc -p 2678400"),
    Change(0, None, {"persistent": 60, "netmask": "255.255.0.0"}, "-s rr", "-s rr -p 60 -M 255.255.0.0"),
    Change(2, None, {"netmask": "0.0.0.0"}, "-p 60", "-p 60 -M 0.0.0.0"),
    Change(2, None, {"persistent": 90}, "-p 60", "-p 90"),
    Change(3, None, {"netmask": 64}, "-p 60", "-p 60 -M 64"),
    Change(3, None, {"netmask": "1"}, "-p 60", "-p 60 -M 1"),
    Change(1, None, {"persistent": 60, "persistenceEngine": "sip"}, "-s wlc", "-s wlc -p 60 --pe sip"),
    Change(4, None, {"persistent": 60, "persistenceEngine": "sip"}, "-s wlc", "-s wlc -p 60 --pe sip"),
    Change(1, None, {"onePacket": True}, "-s wlc", "-s wlc -o"),
    Change(4, None, {"onePacket": True}, "-s wlc", "-s wlc -o"),
    Change(0, 0, {"weight": 0}, "-w 1", "-w 0"),
    Change(0, 0, {"weight": 65535}, "-w 1", "-w 65535"),
    Change(1, 0, {"weight": 1}, "-w 3", "-w 1"),
    Change(2, 0, {"weight": 2}, "-w 1", "-w 2"),
    Change(3, 0, {"weight": 2}, "-w 1", "-w 2"),
    Change(4, 0, {"weight": 2}, "-w 1", "-w 2"),
    Change(5, 0, {"weight": 2}, "-w 1", "-w 2"),
    Change(0, 1, {"forward": "nat"}, "-g", "-m"),
    Change(0, 1, {"forward": "tunnel"}, "-g -w 1", "-i -w 1 --tun-type ipip"),
    Change(3, 1, {"forward": "nat"}, "-g", "-m"),
    Change(3, 1, {"forward": "tunnel"}, "-g -w 1", "-i -w 1 --tun-type ipip"),
    Change(4, 1, {"forward": "nat"}, "-g", "-m"),
    Change(5, 0, {"forward": "dr"}, "-m", "-g"),
    Change(0, 2, *tunnel("gre --tun-nocsum", tunType="gre")),
    Change(3, 2, *tunnel("gre --tun-csum", tunType="gre", tunChecksum="csum")),
    Change(0, 2, *tunnel("gue --tun-port 6080 --tun-nocsum", **GUE)),
    Change(3, 2, *tunnel("gue --tun-port 6080 --tun-csum", **GUE, tunChecksum="csum")),
    Change(3, 2, *tunnel("gue --tun-port 6080 --tun-remcsum", **GUE, tunChecksum="remcsum")),
]


def rounds(changes: list[Change]) -> list[list[Change]]:
    """Put changes together that are about different services."""
    found: list[list[Change]] = []
    for change in changes:
        for each in found:
            if all(change.service != other.service for other in each):
                each.append(change)
                break
        else:
            found.append([change])
    return found


def changed(changes: list[Change]) -> list[Data]:
    table = deepcopy(TABLE)
    for change in changes:
        service = table[change.service]
        target = service if change.server is None else service["servers"][change.server]
        target |= change.fields
    return table


def saved(changes: list[Change]) -> list[str]:
    lines = SAVED.copy()
    for change in changes:
        assert change.old in lines[change.line], change
        lines[change.line] = lines[change.line].replace(change.old, change.new)
    return sorted(lines)


def apply(place: TablePlace, services: list[Data], *options: str) -> str:
    ran = place.reconciler("apply", *options, place.manifest(services=services))
    assert ran.status == 0, ran
    return ran.stdout


def split(place: TablePlace, changes: list[Change]) -> tuple[list[Change], list[list[Data]]]:
    """Give the changes that can be said here, and what each of the others would make of the services."""
    possible, impossible = [], []
    for change in changes:
        service = changed([change])[change.service]
        servers = [] if change.server is None else [service["servers"][change.server]]
        alone = [service | {"servers": servers}]
        if place.services(alone) == alone:
            possible.append(change)
        else:
            impossible.append(alone)
    return possible, impossible


def test_each_field_alone_and_back(place: TablePlace) -> None:
    """One edit each, never a deletion; each is alone in its service. What cannot be said here is refused."""
    table, lines = place.services(TABLE), sorted(place.lines(SAVED))
    apply(place, table)
    assert sorted(place.saved()) == lines
    possible, impossible = split(place, CHANGES)
    before: list[Change] = []
    # Whatever is left of a change shows in the next round, which takes it back.
    for changes in [*rounds(possible), []]:
        count = len({(each.service, each.server) for each in before + changes})
        assert f"applied {count} operation" in apply(place, place.services(changed(changes))), changes
        assert sorted(place.saved()) == sorted(place.lines(saved(changes)))
        assert place.diff(services=place.services(changed(changes))) == []
        before = changes
    for services in impossible:
        ran = place.reconciler("validate", place.manifest(services=services))
        assert ran.status == 2
        assert ": kata-runtime " in ran.stderr


THRESHOLDS = [
    ({"upperThreshold": 5}, "5", "0"),
    ({"upperThreshold": 5, "lowerThreshold": 5}, "5", "5"),
    ({"upperThreshold": 1073741823, "lowerThreshold": 1}, "1073741823", "1"),
]


@TOLD
def test_thresholds_alone_and_back(place: TablePlace) -> None:
    apply(place, TABLE)
    before = place.thresholds()
    table = deepcopy(TABLE)
    for fields, upper, lower in THRESHOLDS:
        for service in table:
            service["servers"][0] |= fields
        assert f"applied {len(TABLE)} operations" in apply(place, table)
        found = [line.split()[2:4] for line in place.thresholds() if "->" in line and " " in line]
        assert sorted(found[1:]) == sorted([[upper, lower]] * 6 + [["0", "0"]] * 5)
        assert place.diff(services=table) == []
    assert f"applied {len(TABLE)} operations" in apply(place, TABLE)
    assert place.thresholds() == before


def test_what_identifies_a_service_or_a_server(place: TablePlace) -> None:
    """Another key is another one: the new one comes before the old one goes."""
    table = place.services(TABLE)
    apply(place, table)
    moved = deepcopy(TABLE)
    moved[0]["tcp"] = "10.1.0.2:80"
    moved[1] = {"tcp": "10.1.0.1:53", "servers": moved[1]["servers"]}
    moved[2]["sctp"] = "10.1.0.1:10"
    moved[4]["fwmark"] = 8
    moved[5]["servers"][0]["address"] = "[fd00:9::1]:80"
    gone = ["-D"] * 4 + ["-d"]
    if table != TABLE:
        # Of what can be said, two services have another place.
        moved, gone = place.services(moved), ["-D"] * 2
    verbs = place.verbs(place.diff(services=moved))
    assert sorted(verbs[-len(gone) :]) == gone
    assert set(verbs[: -len(gone)]) == {"-A", "-a"}
    apply(place, moved)
    others = (
        ("-t 10.1.0.1:80 ", "-t 10.1.0.2:80 "),
        ("-u 10.1.0.1:53 ", "-t 10.1.0.1:53 "),
        ("--sctp-service 10.1.0.1:9 ", "--sctp-service 10.1.0.1:10 "),
        ("-r 10.9.9.1:9 ", "-r 10.9.9.1:10 "),
        ("-f 7 -s", "-f 8 -s"),
        ("-f 7 -r", "-f 8 -r"),
        ("[fd00:9::1]:0 ", "[fd00:9::1]:80 "),
    )
    expected = []
    for line in place.lines(SAVED):
        for old, new in others:
            line = line.replace(old, new)  # noqa: PLW2901
        expected.append(line)
    # The server that is 10.9.9.2:80 stays so: it is said without a port, and the service has the same one.
    assert sorted(place.saved()) == sorted(expected)
    assert place.diff(services=moved) == []
    apply(place, table)
    assert sorted(place.saved()) == sorted(place.lines(SAVED))


def timeouts(place: TablePlace) -> str:
    return place.output("ipvsadm", "-L", "--timeout").strip()


@TOLD
def test_timeouts_alone_and_back(place: TablePlace) -> None:
    words = "Timeout (tcp tcpfin udp):"
    assert timeouts(place) == f"{words} 900 120 300"
    for fields, numbers in (
        ({"tcp": 100}, "100 120 300"),
        ({"tcpfin": 7}, "100 7 300"),
        ({"udp": 1}, "100 7 1"),
        ({"tcp": 0, "udp": 0}, "100 7 1"),
        ({"tcp": 1296000, "tcpfin": 1296000, "udp": 1296000}, "1296000 1296000 1296000"),
        ({"tcp": 900, "tcpfin": 120, "udp": 300}, "900 120 300"),
    ):
        place.apply(timeouts=fields)
        assert timeouts(place) == f"{words} {numbers}"
    assert place.diff(timeouts={"tcp": 100}, services=[TCP])[0] == "ipvsadm --set 100 0 0"


@TOLD
def test_each_setting_alone_and_back(place: TablePlace) -> None:
    present = place.shell(f"cd {FOLDER}; ls").split()
    names = [name for name in SYSCTLS if name in present]
    assert len(names) >= len(SYSCTLS) - 1

    def values() -> dict[str, str]:
        lines = place.shell(f"cd {FOLDER}; grep . {' '.join(names)}").splitlines()
        return {name: value for name, _, value in (line.partition(":") for line in lines)}

    before = values()
    now = before.copy()
    for name in names:
        value = "0" if before[name] == "1" else "1"
        ran = place.reconciler("apply", "-v", place.manifest(sysctls={name: int(value)}))
        assert ran.status == 0, ran
        assert ran.stdout.splitlines()[1:] == [
            f"  ~ sysctl -w net.ipv4.vs.{name}={value}      # was {before[name]}",
        ]
        now |= {name: value}
        assert values() == now
    assert place.diff(sysctls={name: int(value) for name, value in now.items()}) == []
    place.apply(sysctls={name: int(value) for name, value in before.items()})
    assert values() == before


@TOLD
def test_all_settings_at_once(place: TablePlace) -> None:
    present = place.shell(f"cd {FOLDER}; ls").split()
    wanted = {name: 1 for name in SYSCTLS if name in present}
    place.apply(sysctls=wanted, timeouts={"tcp": 1, "tcpfin": 2, "udp": 3}, services=TABLE)
    assert set(place.shell(f"cd {FOLDER}; cat {' '.join(wanted)}").split()) == {"1"}
    assert timeouts(place).endswith("1 2 3")
    assert sorted(place.saved()) == sorted(SAVED)


def test_exit_codes_tell_what_happened(place: TablePlace) -> None:
    path = place.manifest(services=place.services(TABLE))
    assert place.reconciler("validate", path).status == 0
    assert place.reconciler("diff", path).status == 1
    assert place.reconciler("apply", path).status == 0
    assert place.reconciler("diff", path).status == 0
    assert place.reconciler("apply", path).status == 0
    wrong = place.manifest(services=[TCP | {"scheduler": "rrr"}])
    for command in ("validate", "diff", "apply"):
        ran = place.reconciler(command, wrong)
        assert ran.status == 2
        assert re.search(r"manifest\.yaml:\d+:16: ipvs\.services\[0\]\.scheduler", ran.stderr)
    refused = place.reconciler("apply", place.manifest(services=[]))
    assert (refused.status, refused.stdout) == (3, "")
    assert sorted(place.saved()) == sorted(place.lines(SAVED))


def test_fingerprints_hold_until_somebody_changes_the_table(place: TablePlace) -> None:
    path = place.manifest(services=place.services(TABLE))
    (sandbox,) = json.loads(place.reconciler("diff", "-o", "json", path).stdout)["sandboxes"]
    place.load("-A -t 10.1.0.1:80 -s rr\n")
    refused = place.reconciler("apply", "--expect", sandbox["fingerprint"], path)
    assert refused.status == 3
    assert place.saved() == ["-A -t 10.1.0.1:80 -s rr"]
    (sandbox,) = json.loads(place.reconciler("diff", "-o", "json", path).stdout)["sandboxes"]
    assert place.reconciler("apply", "--expect", sandbox["fingerprint"], path).status == 0
    assert sorted(place.saved()) == sorted(place.lines(SAVED))
