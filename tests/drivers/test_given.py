"""The record of given devices: what it proves, what it does not, and that no run that is killed leaves it wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from reconciler import rundir
from reconciler.drivers import given
from reconciler.drivers.given import Given, GivenDevices, Recognised, find_given, find_namespaces
from reconciler.errors import HostError
from reconciler.model.interface import Origin
from reconciler.netlink.interface import Link
from reconciler.values import dataclass, field, replace

ORIGIN = Origin(device="tap0", hw_addr="02:00:00:00:00:01", mtu=1400, alias="uplink of rack 7", up=True)
ETH0 = Link(7, "eth0", "02:00:00:00:00:02", 1500, up=True, carrier=True, alias="", kind="tun", queues=1)
MARKED = replace(ETH0, alias=ORIGIN.to_alias())
OTHER = replace(ETH0, index=8, name="other0")
MOVING = Given(index=7, kind="tun", number=700, origin=ORIGIN, moving=True)
OURS = Recognised({"tap0": (ETH0, ORIGIN)}, {})


@dataclass
class Numbers:
    """A namespace whose devices have these numbers."""

    is_of: dict[int, int] = field(default_factory=lambda: {7: 700, 8: 800, 9: 900})
    cookie: int = 42

    def device_numbers(self, names: Mapping[int, str]) -> dict[int, int]:
        return {index: self.is_of[index] for index in names if index in self.is_of}


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


@pytest.fixture
def namespace() -> Iterator[int]:
    file = os.open("/proc/self/ns/net", os.O_RDONLY)
    yield file
    os.close(file)


@pytest.fixture
def record(namespace: int, numbers: Numbers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GivenDevices:
    monkeypatch.setattr(rundir, "ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(given, "FOLDER", str(tmp_path / "run" / "devices"))
    return GivenDevices(namespace, numbers)


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


def test_another_link_is_not_recognised(record: GivenDevices, numbers: Numbers) -> None:
    record.begin(MOVING, [])
    record.end([MARKED])
    # The device was deleted, and another one made with its index, kind, name, MAC address and alias.
    numbers.is_of[7] = 701
    assert record.recognise([MARKED]) == Recognised({}, {"eth0": replace(ORIGIN, up=False)})
    assert record.recognise([ETH0]) == Recognised({}, {})
    assert record.find(ETH0) is None
    del numbers.is_of[7]
    assert record.recognise([ETH0]) == Recognised({}, {})


def test_a_device_that_moves_is_recognised_where_it_is(record: GivenDevices, numbers: Numbers) -> None:
    # A link of another program may have got the index that the device should have.
    numbers.is_of[7] = 701
    record.begin(MOVING, [OTHER])
    assert record.moving() == [MOVING]
    assert record.recognise([MARKED, OTHER]).ours == {}
    numbers.is_of[7] = 700
    assert record.recognise([ETH0, OTHER]) == OURS


@pytest.mark.parametrize("links", [[], [OTHER]], ids=["not moved", "another link"])
def test_a_run_that_was_killed_before_the_move_leaves_nothing(record: GivenDevices, links: list[Link]) -> None:
    record.begin(MOVING, [])
    record.end(links)
    assert record.recognise([ETH0]) == Recognised({}, {})
    assert list(Path(given.FOLDER).iterdir()) == []


def test_who_has_the_lock_sees_what_it_writes_and_afterwards_what_others_wrote(
    namespace: int, numbers: Numbers, record: GivenDevices
) -> None:
    for _ in range(2):
        with record.locked():
            assert record.recognise([ETH0]) == Recognised({}, {})
            record.begin(MOVING, [])
            assert record.moving() == [MOVING]
            record.end([ETH0])
            assert record.recognise([ETH0]) == OURS
        with GivenDevices(namespace, numbers).locked():
            GivenDevices(namespace, numbers).end([])
        assert record.recognise([ETH0]) == Recognised({}, {})


def test_a_run_that_was_killed_after_the_move_is_finished(record: GivenDevices) -> None:
    record.begin(MOVING, [])
    record.end([ETH0])
    assert record.recognise([ETH0]) == OURS
    assert record.moving() == []


def test_a_device_that_returns_is_forgotten_and_the_others_are_not(record: GivenDevices) -> None:
    second = replace(MOVING, index=8, number=800, origin=replace(ORIGIN, device="tap1"))
    marked = replace(OTHER, alias=second.origin.to_alias())
    record.begin(MOVING, [])
    record.end([MARKED])
    record.begin(second, [MARKED])
    record.end([MARKED, marked])
    assert record.recognise([ETH0, OTHER]).ours.keys() == {"tap0", "tap1"}
    assert record.find(ETH0) == replace(MOVING, moving=False)
    assert find_given(["tap1", "tap9"]) == [replace(second, moving=False)]
    record.begin(replace(MOVING, moving=True), [MARKED, marked])
    record.end([marked])
    assert record.recognise([ETH0, OTHER]).ours.keys() == {"tap1"}
    assert record.find(ETH0) is None


def test_who_asks_before_a_device_is_given_finds_it_afterwards(record: GivenDevices, namespace: int) -> None:
    found = os.fstat(namespace)
    for number in range(20):
        device = f"tap{number}"
        assert (find_given([device]), find_namespaces([device])) == ([], set())
        moving = replace(MOVING, origin=replace(ORIGIN, device=device))
        record.begin(moving, [ETH0])
        assert find_given([device]) == [moving]
        assert find_namespaces([device, "tap99"]) == {(found.st_dev, found.st_ino)}


def test_records_that_did_not_change_are_not_read_again(record: GivenDevices, monkeypatch: pytest.MonkeyPatch) -> None:
    record.begin(MOVING, [])
    os.utime(given.FOLDER, (1, 1))
    assert find_given(["tap0"]) == [MOVING]
    monkeypatch.setattr(given, "_load", lambda *_: pytest.fail("read again"))
    assert (find_given(["tap0"]), find_given(["tap1"])) == ([MOVING], [])


def test_a_move_that_fails_leaves_the_device_ours(record: GivenDevices) -> None:
    record.begin(MOVING, [])
    record.end([MARKED])
    record.begin(MOVING, [MARKED])
    record.end([MARKED])
    assert record.recognise([ETH0]) == OURS


def test_the_record_of_another_namespace_or_of_an_earlier_boot_proves_nothing(
    record: GivenDevices, namespace: int, numbers: Numbers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.begin(MOVING, [])
    record.end([MARKED])
    # Another namespace has the same number now.
    assert GivenDevices(namespace, replace(numbers, cookie=43)).recognise([ETH0]) == Recognised({}, {})
    boot = tmp_path / "boot_id"
    boot.write_text("11111111-2222-3333-4444-555555555555\n")
    with monkeypatch.context() as context:
        context.setattr(rundir, "_BOOT", str(boot))
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


def test_a_folder_that_others_can_read_is_closed_to_them(record: GivenDevices) -> None:
    record.begin(MOVING, [])
    os.chmod(given.FOLDER, 0o755)
    record.end([ETH0])
    assert record.recognise([ETH0]) == OURS
    assert os.stat(given.FOLDER).st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("place", ["folder", "above", "file"])
@pytest.mark.parametrize("forged", ["owner", "mode"])
def test_what_others_could_have_written_proves_nothing(record: GivenDevices, place: str, forged: str) -> None:
    record.begin(MOVING, [])
    record.end([ETH0])
    path = {"folder": Path(given.FOLDER), "above": Path(given.FOLDER).parent, "file": only_file()}[place]
    if forged == "owner":
        os.chown(path, 65534, 65534)
    else:
        os.chmod(path, 0o777)
    for use in (lambda: record.recognise([ETH0]), lambda: find_given(["tap0"])):
        said = "belongs to user 65534, not to user 0" if forged == "owner" else "other users can write to it"
        with pytest.raises(HostError, match=f"{path}:? {said}"):
            use()


@pytest.mark.parametrize("place", ["folder", "file"])
def test_a_link_in_place_of_the_record_is_not_followed(record: GivenDevices, tmp_path: Path, place: str) -> None:
    record.begin(MOVING, [])
    record.end([ETH0])
    path = Path(given.FOLDER) if place == "folder" else only_file()
    os.rename(path, tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    if place == "file":
        assert record.recognise([ETH0]).ours == {}
        record.begin(MOVING, [])
        assert not path.is_symlink()
        return
    with pytest.raises(HostError, match="devices is not a folder, but a file or a link; remove it"):
        record.recognise([ETH0])


def test_a_pipe_in_place_of_the_record_does_not_block(record: GivenDevices) -> None:
    record.begin(MOVING, [])
    path = only_file()
    path.unlink()
    os.mkfifo(path)
    assert record.recognise([ETH0]).ours == {}
