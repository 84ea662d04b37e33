from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pytest

from reconciler.cli.output import Line, say
from reconciler.cli.render import (
    plan_data,
    render_failure,
    render_operations,
    render_plan,
    render_summary,
)
from reconciler.cli.script import render_script
from reconciler.errors import ApplyError
from reconciler.manifest.load import Manifest
from reconciler.model.interface import Address, Origin
from reconciler.model.route import NextHop, Route
from reconciler.model.sandbox import NetnsAddress, Observed, Sandbox
from reconciler.operations import Operation
from reconciler.operations.address import AddAddress, AwaitAddress
from reconciler.operations.interface import AttachInterface, DetachInterface, SetLink
from reconciler.operations.route import AddRoute, DeleteRoute, ReplaceRoute
from reconciler.plan import Plan
from reconciler.preview import Preview
from tests.segments import segments

SANDBOX = Sandbox(id="web-1", driver=NetnsAddress(name="web-1"))
TEXT = "sandbox: web-1\nroutes:\n  - {dest: 10.0.0.0/24}\n  - {dest: 10.0.1.0/24}\n"
MANIFEST = Manifest(file="web-1.yaml", text=TEXT, document=0, sandbox=SANDBOX)
ORIGIN = Origin(device="tap0", hw_addr="02:00:00:00:00:01", mtu=1500)


def preview(operations: Sequence[Operation], sandbox: Sandbox = SANDBOX) -> Preview:
    return Preview(desired=sandbox, observed=Observed(sandbox=sandbox), plan=Plan(segments(operations)))


def route(number: int, gateway: str = "192.0.2.1") -> Route:
    return Route(dest=f"10.0.{number}.0/24", nexthops=(NextHop(device="eth0", gateway=gateway),))


def route6(number: int) -> Route:
    return Route(dest=f"fd00:{number}::/64", nexthops=(NextHop(device="eth0", gateway="fd00::1"),), metric=1024)


def texts(lines: Iterable[Line]) -> list[str]:
    return [each if isinstance(each, str) else each.before + each.text + each.after for each in lines]


def lines(operations: Sequence[Operation], *, verbose: bool = False) -> list[str]:
    return texts(render_operations(operations, verbose=verbose))


def added(count: int) -> list[AddRoute]:
    return [AddRoute(route=route(number)) for number in range(count)]


def added_lines(count: int) -> list[str]:
    return [f"  + ip route add 10.0.{number}.0/24 via 192.0.2.1 dev eth0 proto 200" for number in range(count)]


def test_six_operations_of_a_kind_are_printed() -> None:
    assert lines(added(6)) == added_lines(6)


def test_seven_are_folded_to_three_and_a_count() -> None:
    assert lines(added(7)) == [*added_lines(3), "  + … 4 more `ip route add` (-v prints them)"]


def test_all_are_printed_if_asked_for() -> None:
    assert lines(added(7), verbose=True) == added_lines(7)


def test_a_count_has_thousands_separators() -> None:
    operations = [DeleteRoute(route=route(1))] * 1237
    assert lines(operations) == [
        *["  - ip route del 10.0.1.0/24 via 192.0.2.1 dev eth0 proto 200"] * 3,
        "  - … 1,234 more `ip route del` (-v prints them)",
    ]


def test_what_is_folded_is_named_by_its_command() -> None:
    runs: list[tuple[Operation, str]] = [
        (AddRoute(route=route6(1)), "ip -6 route add"),
        (ReplaceRoute(route=route(1), before=route(2)), "ip route replace"),
        (AddAddress(device="eth0", address=Address(address="10.0.0.2/24")), "ip address add"),
        (SetLink(name="eth0", up=True), "ip link set"),
    ]
    for operation, words in runs:
        assert lines([operation] * 9)[-1] == f"  {operation.sign} … 6 more `{words}` (-v prints them)"


def test_only_what_is_alike_and_in_a_row_is_folded() -> None:
    delete = DeleteRoute(route=route(1))
    assert len(lines([*added(4), delete, *added(4)])) == 9
    comes = [SetLink(name="eth0", mtu=1400, sign="+")] * 4
    changes = [SetLink(name="eth0", mtu=1400)] * 4
    assert (
        lines([*comes, *changes])
        == ["  + ip link set dev eth0 mtu 1400"] * 4 + ["  ~ ip link set dev eth0 mtu 1400"] * 4
    )


def test_a_change_tells_what_was() -> None:
    operations: list[Operation] = [
        ReplaceRoute(route=route(1), before=route(1, "192.0.2.9")),
        SetLink(name="eth0", mtu=1400, was="mtu 1500"),
        SetLink(name="eth0", up=False),
    ]
    assert lines(operations) == [
        (
            "  ~ ip route replace 10.0.1.0/24 via 192.0.2.1 dev eth0 proto 200      # was 10.0.1.0/24 via 192.0.2.9 "
            "dev eth0"
        ),
        "  ~ ip link set dev eth0 mtu 1400      # was mtu 1500",
        "  ~ ip link set dev eth0 down",
    ]


def test_colours_are_those_of_the_signs_and_not_of_the_comments(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    operations: list[Operation] = [
        AddRoute(route=route(1)),
        SetLink(name="eth0", mtu=1400, was="mtu 1500"),
        *[DeleteRoute(route=route(1))] * 7,
    ]
    delete = "\x1b[1;31m  - ip route del 10.0.1.0/24 via 192.0.2.1 dev eth0 proto 200\x1b[0m"
    say(*render_operations(operations, verbose=False), color=True)
    assert capsys.readouterr().out.splitlines() == [
        "\x1b[32m  + ip route add 10.0.1.0/24 via 192.0.2.1 dev eth0 proto 200\x1b[0m",
        "\x1b[33m  ~ ip link set dev eth0 mtu 1400\x1b[0m      # was mtu 1500",
        *[delete] * 3,
        "\x1b[1;31m  - … 4 more `ip route del` (-v prints them)\x1b[0m",
    ]


def test_a_plan_begins_with_whose_it_is() -> None:
    found = render_plan(MANIFEST, preview(added(1)), verbose=False)
    assert texts(found) == ["web-1 · netns web-1 · web-1.yaml", *added_lines(1)]


def test_a_plan_without_operations_is_one_line() -> None:
    assert render_plan(MANIFEST, preview([]), verbose=False) == ["web-1 · netns web-1 · web-1.yaml: in sync"]


def test_a_summary_of_one_sandbox_is_singular() -> None:
    assert render_summary([preview([])]) == "1 sandbox: nothing to do."
    one = preview([*added(1), SetLink(name="eth0", up=True), DeleteRoute(route=route(1))])
    assert render_summary([one]) == f"1 sandbox: 1 to add, 1 to change, 1 to delete. Fingerprint {one.fingerprint}"


def test_a_summary_of_several_is_plural_and_has_thousands_separators() -> None:
    assert render_summary([preview([]), preview([])]) == "2 sandboxes: nothing to do."
    summary = render_summary([preview(added(3)), preview([*added(12_342), *[DeleteRoute(route=route(1))] * 1000])])
    counts, _, print_ = summary.partition(" Fingerprint ")
    assert counts == "2 sandboxes: 12,345 to add, 0 to change, 1,000 to delete."
    assert re.fullmatch(r"[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}", print_)


def test_plain_data_has_every_operation_however_many() -> None:
    each = preview([*added(9), SetLink(name="eth0", mtu=1400, was="mtu 1500"), DeleteRoute(route=route6(1))])
    commands = [line.removeprefix("  + ") for line in added_lines(9)]
    assert plan_data(MANIFEST, each) == {
        "sandbox": "web-1",
        "driver": "netns web-1",
        "file": "web-1.yaml",
        "fingerprint": each.fingerprint,
        "draining": 0,
        "operations": [
            *({"action": "add", "operation": "AddRoute", "command": command} for command in commands),
            {
                "action": "change",
                "operation": "SetLink",
                "command": "ip link set dev eth0 mtu 1400",
                "comment": "was mtu 1500",
            },
            {
                "action": "delete",
                "operation": "DeleteRoute",
                "command": "ip -6 route del fd00:1::/64 via fd00::1 dev eth0 metric 1024 proto 200",
            },
        ],
    }


EVERY_KIND: list[Operation] = [
    AttachInterface(host_name="tap0", namespace="web-1", name="eth0", origin=ORIGIN),
    SetLink(name="eth0", up=True, sign="+"),
    AwaitAddress(device="eth0", address=Address(address="fd00::2/64")),
    AddRoute(route=route(1)),
    DetachInterface(name="eth1", origin=ORIGIN),
]


@pytest.mark.parametrize(
    ("driver", "within"),
    [
        (NetnsAddress(name="web-1"), "nsenter --net=/run/netns/web-1"),
        (NetnsAddress(path="/srv/my netns"), "nsenter --net='/srv/my netns'"),
        (NetnsAddress(pid=17), "nsenter --net=/proc/17/ns/net"),
    ],
    ids=["name", "path", "pid"],
)
def test_a_script_is_for_a_shell_on_the_host(driver: NetnsAddress, within: str) -> None:
    sandbox = Sandbox(id="web-1", driver=driver)
    manifest = MANIFEST._replace(sandbox=sandbox)
    assert render_script(manifest, preview(EVERY_KIND, sandbox)).splitlines() == [
        f"# web-1 ({driver}), from web-1.yaml",
        "ip link set dev tap0 netns web-1 name eth0 alias 'reconciler: device=tap0 hwaddr=02:00:00:00:00:01 mtu=1500'",
        f"{within} ip link set dev eth0 up",
        (
            f"{within} sh -c 'while ip -6 address show dev eth0 tentative | grep -qF '\"'\"' fd00::2/64 '\"'\"'; "
            "do sleep 0.1; done'"
        ),
        f"{within} ip route add 10.0.1.0/24 via 192.0.2.1 dev eth0 proto 200",
        f"{within} ip link set dev eth1 netns $$ name tap0 address 02:00:00:00:00:01 mtu 1500 alias ''",
    ]


def test_a_script_of_nothing_is_a_comment() -> None:
    assert render_script(MANIFEST, preview([])) == "# web-1 (netns web-1), from web-1.yaml"


def test_a_comment_of_a_script_stays_one_line() -> None:
    manifest = MANIFEST._replace(file="a\nreboot\n.yaml")
    assert all(line.startswith("#") for line in render_script(manifest, preview([])).splitlines())


def test_a_failure_tells_what_why_and_where() -> None:
    error = ApplyError(
        headline="failed at operation 7 of 12: ip route add 10.0.1.0/24 via 192.0.2.1 dev eth0 proto 200",
        reason="the kernel: Network is unreachable: Nexthop has invalid gateway",
        path=("routes", 1),
        counts="6 done, all 6 undone; 5 not begun. web-1 is as it was before.",
    )
    assert render_failure(MANIFEST, error) == [
        "web-1: failed at operation 7 of 12: ip route add 10.0.1.0/24 via 192.0.2.1 dev eth0 proto 200",
        "  the kernel: Network is unreachable: Nexthop has invalid gateway",
        "  from web-1.yaml:4:5, routes[1]",
        "  6 done, all 6 undone; 5 not begun. web-1 is as it was before.",
    ]


def test_a_failure_of_what_is_in_no_manifest_tells_no_place() -> None:
    error = ApplyError(headline="failed", reason="the kernel: No such process", path=(), counts="0 done.")
    assert render_failure(MANIFEST, error) == ["web-1: failed", "  the kernel: No such process", "  0 done."]
