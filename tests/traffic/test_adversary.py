"""Somebody with ipvsadm: whatever its commands and options can do to a table, one apply undoes, under every scheduler.

The commands are made from the options that ipvsadm itself lists; an option that no step uses fails the test. What the
table was is what the real ipvsadm tells. Clients are connected all the time, and none may be lost.
"""

from __future__ import annotations

import re
from typing import Any

from reconciler.values import dataclass, field
from tests.ipvs.place import MachineTable
from tests.traffic.test_schedulers import THERE
from tests.traffic.world import S1, S2, S3, SOURCES, VIP, VIP6, World, server

FLAGS = {"sh": ["sh-port", "flag-3"], "mh": ["mh-fallback", "mh-port"]}
FIRST = 200
# Where a server has the port of its service, its forward can be changed.
SAME = f"{VIP}:8080"


def live(number: int, scheduler: str) -> dict[str, Any]:
    """Give a service that clients are at."""
    found: dict[str, Any] = {"tcp": f"{VIP}:{FIRST + number}", "scheduler": scheduler}
    found["servers"] = [
        server(S1, weight=100, upperThreshold=900, lowerThreshold=5),
        server(S2, weight=100),
        server(S3, weight=90, upperThreshold=800),
    ]
    if scheduler in FLAGS:
        found["schedulerFlags"] = FLAGS[scheduler]
    if number % 2:
        found |= {"persistent": 300, "netmask": "255.255.0.0"}
    return found


LIVE = [live(number, scheduler) for number, scheduler in enumerate(THERE)]
TUNNELS = [
    {"address": "10.71.0.21:8080", "forward": "tunnel"},
    {"address": "10.71.0.22:8080", "forward": "tunnel", "tunType": "gue", "tunPort": 6080, "tunChecksum": "csum"},
    {"address": "10.71.0.23:8080", "forward": "tunnel", "tunType": "gre", "tunChecksum": "csum"},
    {"address": "10.71.0.24:8080", "forward": "dr"},
    {"address": "10.71.0.25:8080"},
]
OTHERS: list[dict[str, Any]] = [
    {"tcp": SAME, "scheduler": "wrr", "servers": TUNNELS},
    {"udp": f"{VIP}:5060", "persistent": 60, "persistenceEngine": "sip", "servers": [server(S1), server(S2)]},
    {"udp": f"{VIP}:53", "onePacket": True, "servers": [{"address": "10.71.0.11", "forward": "dr"}]},
    {"sctp": f"{VIP}:3868", "scheduler": "mh", "schedulerFlags": ["flag-3"], "servers": [server(S1), server(S2)]},
    {"fwmark": 7, "scheduler": "sh", "servers": [{"address": "10.71.0.11"}]},
    {"fwmark": 4294967295, "family": "ipv6", "persistent": 9, "netmask": 64, "servers": [{"address": "fd71::11"}]},
    {"tcp": f"[{VIP6}]:80", "scheduler": "wlc", "servers": [server("fd71::11"), server("fd71::12", weight=3)]},
]
MANIFEST: dict[str, Any] = {
    "services": [*LIVE, *OTHERS],
    "timeouts": {"tcp": 1000, "tcpfin": 100, "udp": 200},
    "sysctls": {"conntrack": 0},
}


def everywhere(text: str) -> str:
    """Write a command for each service that clients are at: `{key}` and `{scheduler}` stand for what it has."""
    return "".join(
        text.format(key=f"-t {each['tcp']}", scheduler=each["scheduler"], sticky="-p 300" * ("persistent" in each))
        + "\n"
        for each in LIVE
    )


# What is done, in the lines that `ipvsadm -R` reads.
STEPS: dict[str, str] = {
    "another scheduler": "".join(
        f"-E -t {each['tcp']} -s {THERE[(index + 1) % len(THERE)]}\n" for index, each in enumerate(LIVE)
    ),
    "no scheduler": everywhere("-E {key} -s none"),
    "no flags, no persistence": everywhere("-E {key} -s {scheduler}"),
    "all flags": everywhere("-E {key} -s {scheduler} {sticky} -b flag-1,flag-2,flag-3"),
    "persistence": everywhere("-E {key} -s {scheduler} -p 77"),
    "the netmask": everywhere("-E {key} -s {scheduler} -p 300 -M 255.255.255.0"),
    "weight 0": everywhere(f"-e {{key}} -r {S1}:8080 -m -w 0 -x 900 -y 5"),
    "another weight": everywhere(f"-e {{key}} -r {S2}:8080 -m -w 7"),
    "no thresholds": everywhere(f"-e {{key}} -r {S1}:8080 -m -w 100"),
    "other thresholds": everywhere(f"-e {{key}} -r {S2}:8080 -m -w 100 -x 7 -y 3"),
    "a server goes": everywhere(f"-d {{key}} -r {S2}:8080"),
    "all servers go": "".join(everywhere(f"-d {{key}} -r {each}:8080") for each in (S1, S2, S3)),
    "a server comes": everywhere("-a {key} -r 10.71.0.99:80 -m -w 5"),
    "the services go": everywhere("-D {key}"),
    "they go and come back bare": everywhere("-D {key}") + everywhere("-A {key} -s {scheduler}"),
    "to dr": f"-e -t {SAME} -r 10.71.0.25:8080 -g -w 1\n-e -t {SAME} -r 10.71.0.21:8080 -g -w 1\n",
    "to tunnels": f"-e -t {SAME} -r 10.71.0.25:8080 -i -w 1\n-e -t {SAME} -r 10.71.0.24:8080 -i -w 1\n",
    "to nat": "".join(f"-e -t {SAME} -r 10.71.0.2{n}:8080 -m -w 1\n" for n in range(1, 5)),
    "another type of tunnel": f"-e -t {SAME} -r 10.71.0.21:8080 -i -w 1 --tun-type gre --tun-nocsum\n",
    "another port of a tunnel": (f"-e -t {SAME} -r 10.71.0.22:8080 -i -w 1 --tun-type gue --tun-port 99 --tun-csum\n"),
    "another checksum of a tunnel": (
        f"-e -t {SAME} -r 10.71.0.22:8080 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum\n"
    ),
    "no engine": f"-E -u {VIP}:5060 -s wlc -p 60\n",
    "no single packets": f"-E -u {VIP}:53 -s wlc\n",
    "single packets": f"-E -u {VIP}:5060 -s wlc -p 60 --pe sip -o\n",
    "sctp": f"-E --sctp-service {VIP}:3868 -s rr\n-d --sctp-service {VIP}:3868 -r {S1}:8080\n",
    "marks": "-D -f 7\n-E -f 4294967295 -6 -s rr\n-d -f 4294967295 -6 -r [fd71::11]:0\n",
    "IPv6": f"-e -t [{VIP6}]:80 -r [fd71::12]:8080 -m -w 0\n-a -t [{VIP6}]:80 -r [fd71::13]:80 -m -w 9\n",
}
# Whole commands, beside those lines.
COMMANDS: dict[str, str] = {
    "a flush": "ipvsadm -C",
    "a flush, and another table": (
        "ipvsadm -C; ipvsadm -A -t 10.72.0.1:200 -s rr; ipvsadm -a -t 10.72.0.1:200 -r 10.71.0.12:1 -m"
    ),
    "timeouts": "ipvsadm --set 60 5 7",
}
# What does nothing to what a manifest says.
HARMLESS: dict[str, str] = {
    "counters": "ipvsadm -Z",
    "listings": "ipvsadm -Ln >/dev/null; ipvsadm -Ln --stats --exact >/dev/null; ipvsadm -Sn >/dev/null",
    "a foreign service": "ipvsadm -A -t 10.72.0.9:80 -s rr; ipvsadm -a -t 10.72.0.9:80 -r 10.71.0.12:80 -g",
}
# Options that only choose what is listed, or how; those of the daemon, which has no part in a table; and the long and
# short names of what the steps above use.
LISTED = {
    *("--numeric", "--connection", "--persistent-conn", "--thresholds", "--stats", "--rate", "--exact", "--sort"),
    *("--nosort", "--timeout", "--daemon", "--list", "--save", "--help", "--zero", "--rules", "--tun-info"),
}
DAEMON = {
    *("--start-daemon", "--stop-daemon", "--mcast-interface", "--syncid", "--sync-maxlen", "--mcast-group"),
    *("--mcast-port", "--mcast-ttl"),
}
NAMES = {
    *("--add-service", "--edit-service", "--delete-service", "--clear", "--restore", "--add-server", "--edit-server"),
    *("--delete-server", "--set", "--tcp-service", "--udp-service", "--sctp-service", "--fwmark-service", "--ipv6"),
    *("--scheduler", "--pe", "--persistent", "--netmask", "--real-server", "--gatewaying", "--ipip", "--masquerading"),
    *("--tun-type", "--tun-port", "--tun-nocsum", "--tun-csum", "--tun-remcsum", "--weight", "--u-threshold"),
    *("--l-threshold", "--ops", "--sched-flags"),
}


def test_the_steps_use_every_option_that_ipvsadm_has(director: MachineTable) -> None:
    listed = set(re.findall(r"--[a-z][a-z0-9-]+", director.output("sh", "-c", "ipvsadm --help 2>&1")))
    assert len(listed) > 30
    assert listed - (NAMES | LISTED | DAEMON) == set()


@dataclass
class Adversary:
    """A table that somebody changes, and that is put right again."""

    director: MachineTable
    clients: World
    path: str
    before: list[str]
    groups: list[str]
    seen: list[str] = field(default_factory=list)
    lost: dict[str, Any] = field(default_factory=dict)

    def told(self) -> list[str]:
        saved, thresholds = self.director.table()
        config = self.director.output("ipvsadm", "-L", "--timeout")
        return sorted(saved) + sorted(" ".join(line.split()[:4]) for line in thresholds if "->" in line) + [config]

    def change(self, name: str, command: str, lines: str = "") -> None:
        """Do something, look at what we tell of it, and put it right."""
        ran = self.director.run("sh", "-c", command, stdin=lines)
        assert ran.status == 0, (name, ran)
        assert self.told() != self.before, name
        looked = self.director.reconciler("diff", self.path)
        assert looked.status == 1, (name, looked)
        applied = self.director.reconciler("apply", self.path)
        assert applied.status == 0, (name, applied)
        assert self.told() == self.before, name
        fared = self.clients.prove(*self.groups)
        if not fared.alive:
            self.lost[name] = fared.errors
        self.seen.append(name)


def begun(director: MachineTable, clients: World) -> Adversary:
    director.apply(**MANIFEST)
    groups = []
    for each in LIVE:
        groups.append(f"live{each['scheduler']}")
        port = int(each["tcp"].rpartition(":")[2])
        # They are silent while something is wrong: packets of the last service that goes would be answered by the
        # director itself.
        assert clients.begin("tcp", groups[-1], 4, port, 0, VIP, SOURCES).errors == {}
    made = Adversary(director, clients, director.manifest(**MANIFEST), [], groups)
    made.before = made.told()
    return made


def test_whatever_ipvsadm_does_is_seen_and_undone_by_one_apply(director: MachineTable, clients: World) -> None:
    adversary = begun(director, clients)
    for name, lines in STEPS.items():
        adversary.change(name, "ipvsadm -R", lines)
    for name, command in COMMANDS.items():
        adversary.change(name, command)
    total = len(STEPS) + len(COMMANDS)
    living = len(LIVE) * 4
    print(f"{len(adversary.seen)} of {total} were seen and undone; {living} connections, lost: {adversary.lost}")
    assert (len(adversary.seen), adversary.lost) == (total, {})
    for name, command in HARMLESS.items():
        director.shell(command)
        assert "in sync" in director.reconciler("diff", adversary.path).stdout, name
    assert "10.72.0.9:80" in director.reconciler("show", "-o", "text", adversary.path).stdout
