"""A manifest that was cut, emptied or mis-pointed deletes nothing beyond the limit."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.cli.main import main
from tests.system.box import SandboxPlace, errors, is_refused, nic

ROUTES: list[dict[str, Any]] = [
    {"dest": "default", "gateway": "10.0.0.1", "device": "eth0"},
    *({"dest": f"10.9.{number}.0/24", "gateway": "10.0.0.1", "device": "eth0"} for number in range(40)),
]


@pytest.fixture
def full(place: SandboxPlace) -> SandboxPlace:
    place.fill(interfaces=[nic(place.device(), f"eth{number}", number) for number in range(3)], routes=ROUTES)
    return place


def deleted(before: dict[str, Any], after: dict[str, Any]) -> int:
    left = [route for route in after["routes"] if route.get("protocol") == "200"]
    return len([route for route in before["routes"] if route.get("protocol") == "200"]) - len(left)


def test_cut_at_every_line(full: SandboxPlace) -> None:
    lines = full.file.read_text().splitlines(keepends=True)
    before = full.state()
    codes = set()
    for count in range(0, len(lines), full.differences.stride):
        full.file.write_text("".join(lines[:count]))
        code = main(["apply", str(full.file)])
        codes.add(code)
        after = full.state()
        assert deleted(before, after) <= 12, count
        assert [route for route in after["routes"] if (route["dst"], route.get("gateway")) == ("default", "10.0.0.1")]
        if code == 0:
            full.file.write_text("".join(lines))
            assert main(["apply", str(full.file)]) == 0
            assert full.state() == before
    assert codes == {0, 2, 3}


def test_emptied(full: SandboxPlace) -> None:
    before = full.state()
    for text in ("", "\n", "# nothing\n", "---\n", "{}\n", "[]\n", "null\n"):
        full.file.write_text(text)
        assert main(["apply", str(full.file)]) == 2, text
    assert full.state() == before


def test_a_folder_without_manifests(full: SandboxPlace) -> None:
    before = full.state()
    full.file.unlink()
    assert main(["apply", str(full.file.parent)]) == 2
    assert full.state() == before


def test_the_limit_and_how_to_lift_it(full: SandboxPlace, capsys: pytest.CaptureFixture[str]) -> None:
    before = full.state()
    capsys.readouterr()
    assert main(["apply", full.write(routes=ROUTES[:20])]) == 3
    assert errors(capsys) == (
        "box: refused: this would delete 21 of 41 routes; the limit is 30 % (and always 10).\n"
        "Look again with `reconciler diff`; if it is what you want: --allow-delete all\n"
    )
    assert main(["apply", "--allow-delete", "20", str(full.file)]) == 3
    assert main(["apply", "--allow-delete", "50%", str(full.file)]) == 3
    assert full.state() == before
    assert main(["apply", "--allow-delete", "21", str(full.file)]) == 0
    assert deleted(before, full.state()) == 21
    capsys.readouterr()
    assert main(["apply", full.write(routes=ROUTES[1:20])]) == 3
    assert errors(capsys) == (
        "box: refused: this would delete the last IPv4 default route.\n"
        "Look again with `reconciler diff`; if it is what you want: --allow-delete all\n"
    )
    assert main(["apply", "--allow-delete", "1", str(full.file)]) == 0


def test_expect(full: SandboxPlace, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    file = full.write(routes=ROUTES[:39])
    assert main(["diff", file]) == 1
    fingerprint = capsys.readouterr().out.split()[-1]
    changed = full.file.with_name("changed.yaml")
    changed.write_text(full.file.read_text().replace("10.9.1.0/24", "10.99.1.0/24"))
    before = full.state()
    assert main(["apply", "--expect", fingerprint, str(changed)]) == 3
    assert full.state() == before
    assert capsys.readouterr().err.startswith("reconciler: refused: the fingerprint is ")
    assert main(["apply", "--expect", fingerprint, file]) == 0
    # What it was given for is done.
    assert main(["apply", "--expect", fingerprint, file]) == 3


RULES = [{"priority": number, "from": f"10.9.{number}.0/24", "table": 100} for number in range(40)]
NEIGHBOURS = [
    {"address": f"10.0.1.{number}", "device": "eth0", "hwAddr": f"02:42:20:6f:a4:{number:02x}"} for number in range(40)
]


def test_the_limit_counts_each_kind_by_itself(place: SandboxPlace, capsys: pytest.CaptureFixture[str]) -> None:
    interfaces = [nic(place.device())]
    if is_refused(place, interfaces=interfaces, neighbours=NEIGHBOURS, rules=RULES):
        return
    place.apply(interfaces=interfaces, neighbours=NEIGHBOURS, rules=RULES)
    before = place.state()
    place.apply(neighbours=NEIGHBOURS[:30], rules=RULES[:30])
    place.apply(neighbours=NEIGHBOURS, rules=RULES)
    assert place.state() == before
    for sections, refused in (
        ({"neighbours": [], "rules": RULES}, "40 of 40 neighbours"),
        ({"neighbours": NEIGHBOURS, "rules": []}, "40 of 40 rules"),
        ({"neighbours": NEIGHBOURS[13:], "rules": RULES[13:]}, "13 of 40 neighbours and 13 of 40 rules"),
    ):
        capsys.readouterr()
        assert main(["apply", place.write(**sections)]) == 3
        assert errors(capsys) == (
            f"box: refused: this would delete {refused}; the limit is 30 % (and always 10).\n"
            "Look again with `reconciler diff`; if it is what you want: --allow-delete all\n"
        )
    assert place.state() == before
    assert main(["apply", "--allow-delete", "13", str(place.file)]) == 0
    assert (len(place.neighbours()), len([each for each in place.rules() if each["protocol"] == "200"])) == (27, 27)
