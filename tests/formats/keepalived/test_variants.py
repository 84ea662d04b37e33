"""What a host with a configuration ID reads; without one, what all hosts read; and the timeouts of IPVS."""

from __future__ import annotations

import pytest

from reconciler.formats.keepalived.statements import Position
from reconciler.formats.keepalived.variants import Found, parse
from reconciler.model.ipvs import Timeouts

REAL = "real_server 10.9.9.9 80 {\n}\n}"
DEPENDS = "not imported because it depends on the configuration ID; choose one by --config-id:"


def read(text: str, config_id: str | None = None) -> tuple[Found, list[str], list[str]]:
    """Return what is found, the problems, and the notes."""
    problems: list[str] = []
    notes: list[str] = []
    found = parse(
        "a.conf",
        text,
        lambda *_: (),
        lambda position, message: problems.append(f"{position}: {message}"),
        lambda position, message: notes.append(f"{position}: {message}"),
        config_id,
    )
    return found, problems, notes


def weights(found: Found) -> list[list[int]]:
    """Return the weights of the servers of each service."""
    return [[server.weight for server in service.servers] for _, service in found.services]


CHOICES = """\
virtual_server 10.0.0.1 80 {
protocol TCP
@a weight 5
@^a weight 6
@b real_server 10.9.9.8 80 {
@b }
real_server 10.9.9.9 80 {
}
}
virtual_server 10.0.0.2 80 {
protocol TCP
@c delay_loop 3
real_server 10.9.9.9 80 {
}
}
@c virtual_server 10.0.0.3 80 {
@c real_server 10.9.9.9 80 {
@c }
@c }
"""


@pytest.mark.parametrize(
    ("config_id", "expected"),
    [
        ("a", [[5], [1]]),
        ("b", [[6, 6], [1]]),
        ("c", [[6], [1], [1]]),
        ("other", [[6], [1]]),
        (None, [[1]]),
    ],
)
def test_what_a_host_reads(config_id: str | None, expected: list[list[int]]) -> None:
    found, problems, _ = read(CHOICES, config_id)
    assert (weights(found), problems) == (expected, [])


def test_what_hosts_read_differently_is_told() -> None:
    found, problems, notes = read(CHOICES)
    assert [service.address for _, service in found.services] == ["10.0.0.2"]
    assert (problems, notes) == (
        [],
        [
            f"a.conf:1: virtual_server 10.0.0.1 80: {DEPENDS} a, b, c",
            "a.conf:12: delay_loop 3: not imported",
            f"a.conf:16: virtual_server 10.0.0.3 80: {DEPENDS} a, b, c",
        ],
    )


def test_a_problem_of_some_hosts_does_not_end_the_import() -> None:
    text = f"@a }}\n@b virtual_server_group {{\n@b }}\nvirtual_server 10.0.0.1 80 {{\nprotocol TCP\n{REAL}\n"
    found, problems, notes = read(text)
    assert (weights(found), problems) == ([[1]], [])
    assert notes == [
        "a.conf:2: virtual_server_group: a group needs a name, with some configuration IDs",
        "a.conf:1: a } that belongs to no block, with some configuration IDs",
    ]
    assert read(text, "a")[1] == ["a.conf:1: a } that belongs to no block"]


def test_a_block_of_some_hosts() -> None:
    """To the others, its lines are those of the block around it."""
    first, last = (f"virtual_server 10.0.0.{number} 80 {{\nprotocol TCP\n{REAL}\n" for number in (1, 3))
    text = f"{first}virtual_server 10.0.0.2 80 {{\n@a real_server 10.9.9.8 80 {{\nweight 2\n}}\n{REAL}\n{last}"
    found, problems, notes = read(text)
    assert [service.address for _, service in found.services] == ["10.0.0.1", "10.0.0.3"]
    assert problems == []
    assert f"a.conf:6: virtual_server 10.0.0.2 80: {DEPENDS} a" in notes
    assert weights(read(text, "a")[0]) == [[1], [2, 1], [1]]


def test_a_problem_of_all_hosts_is_one() -> None:
    _, problems, notes = read(f"virtual_server 10.0.0.1 80 {{\n@a alpha\nlb_algo x\n{REAL}")
    assert ([each.split(";")[0] for each in problems], notes) == (
        ["a.conf:3: lb_algo x: unknown"],
        [
            "a.conf:1: virtual_server 10.0.0.1 80: imported as UDP, keepalived's default protocol",
            "a.conf:2: alpha: not imported",
        ],
    )


def test_a_line_that_some_hosts_cannot_read() -> None:
    text = f"@a ~SEQ(N) alpha\nvirtual_server 10.0.0.1 80 {{\nprotocol TCP\n{REAL}"
    found, problems, _ = read(text)
    assert (found.services, problems) == ([], ["a.conf:1: not a ~SEQ; expected one such as ~SEQ(NAME, 1, 9)"])
    assert weights(read(text, "b")[0]) == [[1]]


def test_a_name_that_hosts_define_differently() -> None:
    text = "@a $W=5\n@b $W=6\nvirtual_server 10.0.0.1 80 {\nprotocol TCP\nweight $W\n" + REAL
    assert (weights(read(text, "a")[0]), weights(read(text, "b")[0])) == ([[5]], [[6]])
    found, _, notes = read(text)
    assert (found.services, notes) == ([], [f"a.conf:3: virtual_server 10.0.0.1 80: {DEPENDS} a, b"])
    assert read(text, "c")[2] == [
        "a.conf:3: virtual_server 10.0.0.1 80: not imported because weight $W at a.conf:5 uses an undefined name"
    ]


def test_too_many_ids() -> None:
    text = "".join(f"@id{number} alpha\n" for number in range(65))
    problem = "a.conf:1: too many configuration IDs to compare what each has; choose one by --config-id"
    assert read(text)[1:] == ([problem], [])
    assert read(text, "id1")[1] == []


def with_globals(*lines: str) -> str:
    """Write a configuration whose global_defs have lines, from the second on."""
    return "\n".join(("global_defs {", *lines, "}", "virtual_server 10.0.0.1 80 {", "protocol TCP", REAL))


@pytest.mark.parametrize(
    ("lines", "line", "expected"),
    [
        (["lvs_timeouts tcp 7200 tcpfin 30 udp 60"], 2, Timeouts(7200, 30, 60)),
        (["router_id A", "lvs_timeouts udp 60"], 3, Timeouts(udp=60)),
        (["lvs_timeouts tcp 900", "lvs_timeouts udp 60 tcp 1000"], 3, Timeouts(tcp=1000, udp=60)),
        (["lvs_timeouts tcp 900 udp 0"], 2, Timeouts(tcp=900)),
        (["notification_email {", "lvs_timeouts", "}", "lvs_timeouts tcp 900"], 5, Timeouts(tcp=900)),
        (["$T=900", "lvs_timeouts tcp $T"], 3, Timeouts(tcp=900)),
        (["@a lvs_timeouts tcp 1", "@^a lvs_timeouts tcp 2"], 2, Timeouts(tcp=1)),
    ],
)
def test_timeouts(lines: list[str], line: int, expected: Timeouts) -> None:
    found, problems, notes = read(with_globals(*lines), "a")
    assert found.timeouts == (Position("a.conf", line), expected)
    assert (problems, notes) == ([], ["a.conf:1: global_defs: not imported except for lvs_timeouts"])


def test_timeouts_that_are_not_imported() -> None:
    assert read(with_globals("lvs_timeouts tcp 0"))[0].timeouts is None
    found, problems, notes = read(with_globals("lvs_timeouts tcp $T"))
    assert (found.timeouts, problems) == (None, [])
    assert "a.conf:2: lvs_timeouts tcp $T: not imported because it uses an undefined name" in notes
    found, problems, notes = read(with_globals("@a lvs_timeouts tcp 900"))
    assert (found.timeouts, problems) == (None, [])
    assert f"a.conf:2: lvs_timeouts: {DEPENDS} a" in notes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "expected a timeout and its seconds, such as tcp 900"),
        (" tcp", "expected a timeout and its seconds, such as tcp 900"),
        (" tcp 1296001", "tcp 1296001: expected a number from 0 to 1296000"),
        (" tcp 900 udp", "udp : expected a number from 0 to 1296000"),
        (" fin 30", 'unknown "fin"; did you mean "tcpfin"?'),
    ],
)
def test_timeouts_that_are_wrong(words: str, message: str) -> None:
    assert read(with_globals(f"lvs_timeouts{words}"))[1] == [f"a.conf:2: lvs_timeouts{words}: {message}"]
