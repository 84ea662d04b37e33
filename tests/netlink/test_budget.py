"""What one machine may cost in bytes, objects and seconds, whatever it sends and however it divides it."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.errors import BusyError, ChannelError, ProtocolError
from reconciler.model.ipvs import Service
from reconciler.netlink import budget
from reconciler.netlink.budget import BYTES, LARGE_BYTES, LARGE_OBJECTS, OBJECTS, Budget
from reconciler.netlink.ipvs_execute import more_seconds
from reconciler.operations.ipvs import AddService, EditService
from tests.benchmarks.measure import memory
from tests.conftest import Kernel, ip


def test_answers_add_up_within_a_step_and_not_beyond() -> None:
    made = Budget()
    for _ in range(3):
        with made.step():
            made.spend(BYTES - 1)
            with made.step():
                made.spend(1)
            with pytest.raises(ProtocolError, match="more than 16 MiB in answer to one look"):
                made.spend(1)


def test_objects_add_up() -> None:
    made = Budget()
    with made.step():
        made.spend(0, OBJECTS)
        with pytest.raises(ProtocolError, match="more than 100,000 objects in answer to one look"):
            made.spend(0)


def test_slow_answers_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer every 9 s would hold for ever, as each alone is in time."""
    monkeypatch.setattr(budget, "SECONDS", 1.0)
    made = Budget()
    begin = time.monotonic()
    with made.step():
        assert begin + 1.0 <= made.deadline(10) <= time.monotonic() + 1.0
        assert begin + 0.05 <= made.deadline(0.05) <= time.monotonic() + 0.05
        time.sleep(1.05)
        with pytest.raises(ChannelError, match="longer than 1 s for all answers to one look"):
            made.deadline(10)
    begin = time.monotonic()
    with made.step(2.0):
        assert begin + 3.0 <= made.deadline(10) <= time.monotonic() + 3.0


def test_a_plan_may_take_longer_the_more_it_does() -> None:
    service = Service(protocol="tcp", address="10.0.0.1", port=80)
    assert more_seconds([AddService(service=service)] * 20_000) == 100
    assert more_seconds([EditService(service=service, before=service)] * 5000) == 150


@pytest.mark.parametrize("cost", [(LARGE_BYTES + 1, 1), (0, LARGE_OBJECTS + 1)])
def test_one_large_look_at_a_time(cost: tuple[int, int]) -> None:
    first, second = Budget(), Budget()
    waited: list[float] = []
    begun = threading.Event()

    def look() -> None:
        with second.step():
            begin = time.monotonic()
            begun.set()
            second.spend(*cost)
            waited.append(time.monotonic() - begin)

    thread = threading.Thread(target=look)
    with first.step():
        first.spend(*cost)
        first.spend(1)
        thread.start()
        begun.wait(60)
        time.sleep(0.3)
        assert waited == []
    thread.join(60)
    assert waited[0] > 0.25
    # Nothing is left locked.
    with Budget().step(), suppress(ProtocolError):
        Budget().spend(*cost)


def test_a_large_look_does_not_keep_others_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SECONDS", 0.2)
    monkeypatch.setattr(budget, "LARGE_SECONDS", 0.4)
    first, second = Budget(), Budget()
    with first.step():
        first.spend(LARGE_BYTES + 1)
        assert first.deadline(10) - time.monotonic() <= 0.4

        def look() -> None:
            with second.step(), pytest.raises(BusyError, match="other sandboxes with as much to read"):
                second.spend(LARGE_BYTES + 1)

        thread = threading.Thread(target=look)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()


def test_a_namespace_with_more_than_that_is_an_error_of_it(kernel: Kernel, tmp_path: Path) -> None:
    """A tenant fills the tables of its namespace."""
    namespace = kernel.namespace()
    numbers = (f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(OBJECTS + 1000))
    ip("-batch", "-", namespace=namespace, stdin="".join(f"route add blackhole {each}\n" for each in numbers))
    file = tmp_path / "box.yaml"
    head = f"apiVersion: reconciler/v1\nsandbox: box\ndriver: {{netns: {{name: {namespace}}}}}\n"
    file.write_text(f"{head}routes: []\n")
    code = f"import sys; from reconciler.cli.main import main; sys.exit(main(['diff', {str(file)!r}]) - 2)"
    _, most = memory([sys.executable, "-c", code])
    assert most < 150 << 10
