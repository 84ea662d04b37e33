"""The record of given devices: what it proves, what it does not, and that no run that is killed leaves it wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import rundir
from reconciler.drivers import given
from reconciler.drivers.given import Given, GivenDevices, Recognised
from reconciler.model.interface import Origin
from reconciler.netlink.interface import Link

ORIGIN = Origin(device="tap0", hw_addr="02:00:00:00:00:01", mtu=1400, alias="uplink of rack 7", up=True)
ETH0 = Link(7, "eth0", "02:00:00:00:00:02", 1500, up=True, carrier=True, alias="", kind="tun", queues=1)
MARKED = replace(ETH0, alias=ORIGIN.to_alias())
OTHER = replace(ETH0, index=8, name="other0")
MOVING = Given(index=7, kind="tun", permanent="", origin=ORIGIN, moving=True)
OURS = Recognised({"tap0": (ETH0, ORIGIN)}, {})


@pytest.fixture
def namespace() -> Iterator[int]:
    file = os.open("/proc/self/ns/net", os.O_RDONLY)
    yield file
    os.close(file)


@pytest.fixture
def record(namespace: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GivenDevices:
    monkeypatch.setattr(rundir, "ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(given, "FOLDER", str(tmp_path / "run" / "devices"))
    return GivenDevices(namespace, lambda: 42)


def only_file() -> Path:
    (found,) = Path(given.FOLDER).iterdir()
    return found


def test_what_was_never_given_is_not_ours(record: GivenDevices) -> None:
    assert record.recognise([ETH0]) == Recognised({}, {})
    assert record.recognise([MARKED]) == Recognised({}, {"eth0": replace(ORIGIN, up=False)})


@pytest.mark.parametrize("alias", ["", "uplink", "reconciler: device=tap9 hwaddr=02:00:00:00:00:09 mtu=1500"])
def test_a_given_device_is_recognised_whatever_its_name_and_alias_are(record: GivenDevices, alias: str) -> None:
    record.begin(MOVING, [])
    record.end([MARKED])
    link = replace(ETH0, alias=alias, name="x", hw_addr="02:00:00:00:00:77", mtu=68)
    assert record.recognise([OTHER, link]) == Recognised({"tap0": (link, ORIGIN)}, {})


@pytest.mark.parametrize("other", [{"index": 9}, {"kind": "veth"}, {"permanent": "02:00:00:00:00:05"}], ids=str)
def test_another_link_is_not_recognised(record: GivenDevices, other: dict[str, str | int]) -> None:
    record.begin(MOVING, [])
    record.end([MARKED])
    assert record.recognise([replace(ETH0, **other)]) == Recognised({}, {})  # type: ignore[arg-type]


def test_while_it_moves_it_is_recognised_by_the_alias_that_moves_with_it(record: GivenDevices) -> None:
    record.begin(MOVING, [OTHER])
    # A link of another program may have got the index that the device should have.
    assert record.recognise([ETH0, OTHER]) == Recognised({}, {})
    assert record.recognise([MARKED, OTHER]) == Recognised({"tap0": (MARKED, ORIGIN)}, {})


@pytest.mark.parametrize("links", [[], [ETH0]], ids=["not moved", "another link"])
def test_a_run_that_was_killed_before_the_move_leaves_nothing(record: GivenDevices, links: list[Link]) -> None:
    record.begin(MOVING, [])
    record.settle(lambda: links)
    assert record.recognise([ETH0]) == Recognised({}, {})
    assert list(Path(given.FOLDER).iterdir()) == []


def test_a_run_that_was_killed_after_the_move_is_finished(record: GivenDevices) -> None:
    record.begin(MOVING, [])
    record.settle(lambda: [MARKED])
    assert record.recognise([ETH0]) == OURS


def test_a_settled_record_is_not_compared_with_the_links(record: GivenDevices) -> None:
    record.settle(lambda: pytest.fail("read the links"))
    record.begin(MOVING, [])
    record.end([MARKED])
    record.settle(lambda: pytest.fail("read the links"))


def test_a_device_that_returns_is_forgotten_and_the_others_are_not(record: GivenDevices) -> None:
    second = replace(MOVING, index=8, origin=replace(ORIGIN, device="tap1"))
    marked = replace(OTHER, alias=second.origin.to_alias())
    record.begin(MOVING, [])
    record.end([MARKED])
    record.begin(second, [MARKED])
    record.end([MARKED, marked])
    assert record.recognise([ETH0, OTHER]).ours.keys() == {"tap0", "tap1"}
    found = record.find(7)
    assert found == replace(MOVING, moving=False)
    record.begin(replace(MOVING, moving=True), [MARKED, marked])
    record.end([marked])
    assert record.recognise([ETH0, OTHER]).ours.keys() == {"tap1"}
    assert record.find(7) is None


def test_a_move_that_fails_leaves_the_device_ours(record: GivenDevices) -> None:
    record.begin(MOVING, [])
    record.end([MARKED])
    record.begin(MOVING, [MARKED])
    record.end([MARKED])
    assert record.recognise([ETH0]) == OURS


def test_the_record_of_another_namespace_or_of_an_earlier_boot_proves_nothing(
    record: GivenDevices, namespace: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.begin(MOVING, [])
    record.end([MARKED])
    # Another namespace has the same number now.
    assert GivenDevices(namespace, lambda: 43).recognise([ETH0]) == Recognised({}, {})
    boot = tmp_path / "boot_id"
    boot.write_text("11111111-2222-3333-4444-555555555555\n")
    with monkeypatch.context() as context:
        context.setattr(given, "_BOOT", str(boot))
        assert record.recognise([ETH0]) == Recognised({}, {})
    assert record.recognise([ETH0]) == OURS


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"boot": 1}', "\xff"])
def test_a_file_that_is_no_record_proves_nothing(record: GivenDevices, text: str) -> None:
    record.begin(MOVING, [])
    record.end([MARKED])
    only_file().write_text(text, encoding="latin-1")
    assert record.recognise([MARKED]).ours == {}


def test_a_record_with_a_wrong_entry_proves_nothing(record: GivenDevices) -> None:
    record.begin(MOVING, [])
    record.end([MARKED])
    data = json.loads(only_file().read_text())
    wrong: list[object] = [[{}], [{"index": 7}], 7, [7]]
    for devices in wrong:
        only_file().write_text(json.dumps(data | {"devices": devices}))
        assert record.recognise([ETH0]) == Recognised({}, {})


def test_only_its_owner_can_read_it(record: GivenDevices) -> None:
    old = os.umask(0)
    try:
        record.begin(MOVING, [])
    finally:
        os.umask(old)
    modes = [os.stat(each).st_mode & 0o777 for each in (given.FOLDER, only_file())]
    assert modes == [0o700, 0o600]
