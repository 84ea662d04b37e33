"""The table of a real machine: listed as the real ipvsadm lists it, and changed only where a command says."""

from __future__ import annotations

import pytest

from tests.ipvs.place import Vm as Table
from tests.kata.container import Container

IPVSADM = "kata-runtime kata-ipvs ipvsadm"
# In the order of ipvsadm, which sorts.
EVERYTHING = [
    "-A -t 10.1.0.1:80 -s sh -p 60 -M 255.255.0.0 -b sh-port",
    "-a -t 10.1.0.1:80 -r 10.9.9.1:80 -g -w 7",
    "-a -t 10.1.0.1:80 -r 10.9.9.2:80 -i -w 0 --tun-type ipip",
    "-a -t 10.1.0.1:80 -r 10.9.9.2:8080 -m -w 65535",
    "-A -t 10.1.0.1:443 -s wlc",
    "-A -t 10.1.0.10:80 -s wlc",
    "-A -u 10.1.0.1:53 -s rr -o",
    "-A -u 10.1.0.1:5060 -s rr -p 60 --pe sip",
    "-A -u 10.1.0.1:5061 -s wrr -p 60 -M 255.255.255.0 --pe sip -b flag-1,flag-3",
    "-A --sctp-service 10.1.0.1:80 -s rr",
    "-A -t [fd00:1::9]:80 -s wlc -p 360 -M 64",
    "-a -t [fd00:1::9]:80 -r [fd00:9::1]:80 -m -w 1",
    "-a -t [fd00:1::9]:80 -r [fd00:9:1234:5678:9abc:def0:1234:5678]:8080 -m -w 1",
    "-A -f 9 -s rr",
    "-a -f 9 -r 10.9.9.1:0 -m -w 1",
    "-A -f 10 -6 -s rr",
    "-a -f 10 -6 -r [fd00:9::1]:0 -m -w 1",
]
OTHERS = ["-A -t 10.1.0.2:80 -s rr", "-a -t 10.1.0.2:80 -r 10.9.9.1:80 -m -w 1", "-A -t 10.1.0.3:80 -s rr"]
WEB = ["-A -t 10.1.0.1:80 -s wlc", "-a -t 10.1.0.1:80 -r 10.9.9.1:8080 -m -w 1"]


def run(container: Container, parameters: str) -> str:
    return container.output(f'{IPVSADM} --parameters "{parameters}" 6ec7a98')


@pytest.fixture
def full(table: Table) -> Table:
    table.load("".join(f"{line}\n" for line in EVERYTHING))
    return table


def test_it_is_listed_as_ipvsadm_does(container: Container, full: Table) -> None:
    assert run(container, "-Ln") == full.output("ipvsadm", "-Ln")
    assert run(container, "-S -n") == full.output("ipvsadm", "-Sn")
    for service in ("-t 10.1.0.1:80", "-u 10.1.0.1:53", "-f 10 -6", "-t [fd00:1::9]:80"):
        assert run(container, f"-L -n {service}") == full.output("ipvsadm", "-L", "-n", *service.split())
    assert full.saved() == EVERYTHING


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("-A -t 10.1.0.1:80", [WEB[0], *OTHERS]),
        ("-E -t 10.1.0.2:80 -s wrr", [OTHERS[0].replace("rr", "wrr"), *OTHERS[1:]]),
        ("-D -t 10.1.0.2:80", OTHERS[2:]),
        ("-a -t 10.1.0.3:80 -r 10.9.9.3", [*OTHERS, "-a -t 10.1.0.3:80 -r 10.9.9.3:80 -m -w 1"]),
        ("-e -t 10.1.0.2:80 -r 10.9.9.1 -w 5", [OTHERS[0], OTHERS[1].replace("-w 1", "-w 5"), OTHERS[2]]),
        ("-d -t 10.1.0.2:80 -r 10.9.9.1", [OTHERS[0], OTHERS[2]]),
        ("-C", []),
    ],
)
def test_a_command_changes_what_it_names_whoever_made_it(
    container: Container, table: Table, parameters: str, expected: list[str]
) -> None:
    table.load("".join(f"{line}\n" for line in OTHERS))
    assert run(container, parameters) == ""
    assert table.saved() == expected
    # What was not named is somebody else's still.
    left = [line for line in OTHERS if line in expected and line.split()[2] not in parameters]
    shown = container.show()
    assert all(shown.index(line) > shown.index("not ours") for line in left), shown


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ("-A -t 10.1.0.2:80", "-A -t 10.1.0.2:80: this service is there already"),
        ("-E -t 10.1.0.9:80", "-E -t 10.1.0.9:80: no such service"),
        ("-a -t 10.1.0.2:80 -r 10.9.9.1", "-a -t 10.1.0.2:80 -r 10.9.9.1:80: this server is there already"),
        ("-d -t 10.1.0.2:80 -r 10.9.9.9", "-d -t 10.1.0.2:80 -r 10.9.9.9:80: no such server"),
        ("-L -t 10.1.0.9:80", "-L -t 10.1.0.9:80: no such service"),
        ("-A -f 7 -s twos", "failed at operation"),
    ],
)
def test_a_command_that_fails_changes_nothing(container: Container, table: Table, parameters: str, reason: str) -> None:
    table.load("".join(f"{line}\n" for line in OTHERS))
    ran = container.run(f'{IPVSADM} --parameters "{parameters}" 6ec7a98')
    assert (ran.returncode, ran.stdout) == (2, "")
    assert reason in ran.stderr
    assert table.saved() == OTHERS


def test_rules_are_imported_all_or_none(container: Container, table: Table) -> None:
    rules = container.folder / "rules"
    for text, reason in (
        ("-A -t 10.1.0.1:80 -s rr\n-A -t 10.1.0.2:80 -s rr\n", "clear the table"),
        ("-A -t 10.1.0.1:80 -s rr\n-A -t 10.1.0.5:80 -s nix\n", "<stdin>:2: -s nix: unknown"),
        ("", "there is no rule in it"),
    ):
        rules.write_text(text)
        table.load("".join(f"{line}\n" for line in OTHERS))
        ran = container.run(f"{IPVSADM} --restore - 6ec7a98 < rules")
        assert (ran.returncode, ran.stdout) == (2, "")
        assert reason in ran.stderr
        assert table.saved() == OTHERS
        table.clear()
    rules.write_text("\n".join(EVERYTHING))
    assert container.output(f"{IPVSADM} --restore rules 6ec7a98") == ""
    assert table.saved() == EVERYTHING
