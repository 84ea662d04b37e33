"""A flag that any thread sets and one waits for."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator

import pytest

from reconciler.watch.wake import Wake


@pytest.fixture
def wake() -> Iterator[Wake]:
    made = Wake()
    yield made
    made.close()


def is_set(wake: Wake) -> bool:
    return select.select([wake], [], [], 0)[0] == [wake]


def test_it_can_be_read_while_it_is_set(wake: Wake) -> None:
    seen = [is_set(wake)]
    for change in (wake.set, wake.set, wake.clear, wake.clear, wake.set):
        change()
        seen.append(is_set(wake))
    assert seen == [False, True, True, False, False, True]


@pytest.mark.parametrize("seconds", [0.0, 60.0, 30 * 86400.0, 999_999 * 86400.0])
def test_what_was_set_before_is_not_waited_for_and_cleared(seconds: float, wake: Wake) -> None:
    wake.set()
    wake.wait(seconds)
    assert not is_set(wake)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.05])
def test_what_is_never_set_is_waited_for_no_longer_than_asked(seconds: float, wake: Wake) -> None:
    begin = time.monotonic()
    wake.wait(seconds)
    assert time.monotonic() - begin >= seconds
    assert not is_set(wake)


def test_another_thread_wakes_it(wake: Wake) -> None:
    woken = threading.Event()

    def wait() -> None:
        wake.wait(600.0)
        woken.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert not woken.wait(0.1)
    wake.set()
    assert woken.wait(60)
    thread.join()
    assert not is_set(wake)


def test_nothing_that_is_set_during_a_wait_is_lost(wake: Wake) -> None:
    count = 2000
    done: list[int] = []
    to_do: list[int] = []

    def work() -> None:
        while len(done) < count:
            wake.wait(60.0)
            done.extend(to_do[len(done) :])

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    for number in range(count):
        to_do.append(number)
        wake.set()
    thread.join(60)
    assert not thread.is_alive()
    assert done == list(range(count))


def test_it_is_not_inherited_and_closed_with_it() -> None:
    descriptors = os.listdir("/proc/self/fd")
    wake = Wake()
    assert not os.get_inheritable(wake.fileno())
    wake.close()
    assert os.listdir("/proc/self/fd") == descriptors
