"""The real ipvsadm in a real guest takes what we write, and writes it as we do."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings

from reconciler.formats.ipvsadm.rules import parse_rules
from reconciler.formats.ipvsadm.write import save_rules
from reconciler.model.ipvs import SCHEDULER_FLAGS, Service
from reconciler.values import replace
from tests.examples import examples
from tests.formats.strategies import services
from tests.formats.table import FULL as WITH_THRESHOLDS
from tests.machine import Guest

# In a namespace of its own, where an address brings the local table that IPv4 servers need.
LOAD = "ip link set lo up && ip address add 10.9.9.9/32 dev lo && ipvsadm -R && ipvsadm -Sn"

# But for thresholds, which it does not save.
FULL = re.sub(r" -[xy] \d+", "", WITH_THRESHOLDS)


def load(guest: Guest, text: str) -> list[str]:
    """Load rules with the real ipvsadm; give what it saves."""
    ran = guest.run("unshare", "--net", "sh", "-c", LOAD, stdin=text.encode())
    assert (ran.status, ran.stderr) == (0, b""), ran
    return ran.stdout.decode().splitlines()


def parse(text: str) -> list[Service]:
    refused: list[tuple[int, str]] = []
    found = parse_rules(text, lambda number, message: refused.append((number, message)))
    assert not refused
    return found


def test_a_table_of_everything_is_written_as_by_the_real_one(guest: Guest) -> None:
    real = load(guest, FULL)
    assert list(save_rules(parse("\n".join(real)))) == real


def test_rules_mean_what_they_mean_to_the_real_one(guest: Guest) -> None:
    """Defaults and ports that are rewritten: what we read from a text is what the real one has made of it."""
    assert sorted(save_rules(parse(FULL))) == sorted(load(guest, FULL))


# A start in the guest takes a while, so few tables, each large.
@settings(max_examples=examples(10), deadline=None, suppress_health_check=list(HealthCheck))
@given(table=services(most=40))
def test_the_real_one_takes_what_is_saved(guest: Guest, table: list[Service]) -> None:
    real = load(guest, "".join(f"{line}\n" for line in save_rules(table)))
    # What is left of a flag without a name.
    real = [line.removesuffix(" -b ") for line in real]
    assert sorted(real) == sorted(save_rules(map(as_saved, table)))


def as_saved(service: Service) -> Service:
    """Leave out what `ipvsadm -Sn` does not save: thresholds, and flags of `sh` and `mh` without a name."""
    flags = service.scheduler_flags
    if service.scheduler in {"sh", "mh"}:
        flags = tuple(flag for flag in flags if flag not in SCHEDULER_FLAGS)
    servers = tuple(replace(server, upper_threshold=0, lower_threshold=0) for server in service.servers)
    return replace(service, scheduler_flags=flags, servers=servers)


REFUSED = (
    "-A -t 10.0.0.1:80 -p 0",
    "-A -t 10.0.0.1:80 -p 2678401",
    "-A -t 10.0.0.1:0",
    "-A -t 10.0.0.1:65536",
    "-A -t [fd00::1]:80 -p 5 -M 129",
    "-A -t 10.0.0.1:80 -o",
    "-A -t 10.0.0.1:80 -6",
    "-A -f 0",
    "-A -t 10.0.0.1:80 -s mh -b sh-port",
    "-A -t 10.0.0.1:80 -s rr -s rr",
    "-A -t 10.0.0.1:80 -s rr -u 10.0.0.1:80",
    "-A -t 10.0.0.1:80 -w 1",
    "-A -t 10.0.0.1:80 --sched rr",
    "-A -t 10.0.0.1:80 -p -5",
    "-A -u 10.0.0.1:80 -o=1",
)
REFUSED_SERVERS = (
    "-r 10.9.9.1 -m -g",
    "-r 224.0.0.1 -m",
    "-r [fd00::9]:80 -m",
    "-r 10.9.9.1 -x 5 -y 6",
    "-r 10.9.9.1 -y 1",
    "-r 10.9.9.1 -m --tun-type ipip",
    "-r 10.9.9.1 -i --tun-type gue",
    "-r 10.9.9.1 -i --tun-type gre --tun-remcsum",
    "-r 10.9.9.1 -i --tun-port 80",
    "-r 10.9.9.1 -s rr",
    "-r 10.9.9.1:65536 -m",
    "-w 1",
)


@pytest.mark.parametrize(
    "lines",
    [[line] for line in REFUSED] + [["-A -t 10.0.0.9:80", f"-a -t 10.0.0.9:80 {each}"] for each in REFUSED_SERVERS],
)  # fmt: skip
def test_what_the_real_one_refuses_is_refused(guest: Guest, lines: list[str]) -> None:
    text = "\n".join(lines)
    refused: list[int] = []
    parse_rules(text, lambda number, _: refused.append(number))
    assert refused == [len(lines)]
    assert guest.run("unshare", "--net", "sh", "-c", LOAD, stdin=f"{text}\n".encode()).status != 0
