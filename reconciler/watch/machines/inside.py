"""The process that keeps the machines of a watcher: a worker for each, and a main thread that takes the orders.

It begins with the first machine and ends with the watcher, however that ends.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from typing import assert_never, cast

from reconciler.drivers.claims import Claims
from reconciler.history.writer import Writer
from reconciler.model.policy import Policy
from reconciler.watch import log
from reconciler.watch.machines import wire
from reconciler.watch.machines.messages import (
    AS_FOUND,
    Alive,
    Allow,
    Ask,
    Assign,
    Begin,
    Claim,
    Done,
    Ended,
    Found,
    Order,
    Report,
    SetOrigin,
    Setup,
    Stop,
    Tick,
    Unstarted,
)
from reconciler.watch.meter import Measurement, Meter
from reconciler.watch.record import record_unstarted
from reconciler.watch.traffic import Traffic
from reconciler.watch.tuning import tune
from reconciler.watch.watched import look_at_refused
from reconciler.watch.worker import Common, Worker

# prctl(2): the signal that this process gets when the one that has started it ends.
_SET_DEATH_SIGNAL = 1


def main() -> None:
    """Keep machines, by the orders that come through the socket that is standard input."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # They are for the watcher, which says what to do. Ignored ones would be so for programs that are run here.
        signal.signal(number, lambda *_: None)
    tune()
    # Programs that are run here do not get it.
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    status = 0
    try:
        _serve(channel)
    except Exception:
        logging.getLogger(__name__).exception("defect")
        status = 1
    # Whatever threads are at: as if the watcher had been killed with them.
    os._exit(status)


def _serve(channel: socket.socket) -> None:
    orders = cast("Iterator[Order]", wire.orders(channel.makefile("rb")))
    setup = next(orders, None)
    if isinstance(setup, Setup):
        log.configure(setup.form, setup.level)
        inside = Inside(setup, channel)
        for order in orders:
            inside.take(order)


class _Terms:
    """The policy in force: what the watcher has said last."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy


class _ToldMeter(Meter):
    """Tells the watcher of each measurement."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def add(self, measurement: Measurement) -> None:
        """Tell of a measurement."""
        self._inside.tell(measurement)


class _Kept:
    """A machine that is kept, and what the watcher was told of it."""

    def __init__(self, worker: Worker, edition: int) -> None:
        self.worker, self.edition = worker, edition
        self._drifted = 0.0
        self._traffic = Traffic()

    def found(self, number: int) -> Found:
        """Return what is to be told of the machine."""
        # In this order: a manifest that is said to have taken effect is the one of the edition.
        edition, applying, status = self.edition, self.worker.is_applying, self.worker.status
        drifts = [*takewhile(lambda each: each > self._drifted, reversed(status.drifts))]
        self._drifted = drifts[0] if drifts else self._drifted
        traffic = None if status.traffic is self._traffic else status.traffic
        self._traffic = status.traffic
        return Found(
            number=number,
            edition=edition,
            applying=applying,
            rolled_back=self.worker.rolled_back,
            repairs=status.repairs,
            flushes=status.flushes,
            drifts=tuple(reversed(drifts)),
            traffic=traffic,
            **{name: getattr(status, name) for name in AS_FOUND},
        )


class Inside:
    """Keeps machines. The main thread takes orders; threads of workers tell what has become of them."""

    def __init__(self, setup: Setup, channel: socket.socket) -> None:
        self._channel, self._lock = channel, threading.RLock()
        self._terms, self._claims = _Terms(setup.policy), Claims()
        self._history = Writer(log.report_history)
        meter = _ToldMeter(self) if setup.measured else Meter()
        self._common = Common(setup.settings, self._claims, self._terms, meter, self._history)
        self._kept: dict[int, _Kept] = {}
        self._unstarted: dict[int, Begin] = {}
        # Machines whose threads have said their last word.
        self._ended: deque[int] = deque()

    def tell(self, report: Report) -> None:
        """Tell the watcher. Any thread may call this. When nobody listens any more, the main thread ends all."""
        with self._lock, suppress(OSError):
            self._channel.sendall(wire.pack_report(report))

    def _tell_found(self, number: int) -> None:
        with self._lock:
            if kept := self._kept.get(number):
                self.tell(kept.found(number))

    def _tell_end(self, number: int) -> None:
        self.tell(Ended(number))
        self._ended.append(number)

    def take(self, order: Order) -> None:
        """Do what the watcher says. Nothing here waits for a machine."""
        while self._ended:
            self._kept.pop(self._ended.popleft()).worker.join(1.0)
        match order:
            case Begin():
                self._begin(order)
            case Assign(number) | SetOrigin(number) | Ask(number) | Stop(number):
                if kept := self._kept.get(number):
                    self._order(kept, order)
                elif begin := self._unstarted.get(number):
                    self._amend(begin, order)
            case Claim(names):
                if self._claims.keep(names):
                    look_at_refused(each.worker for each in self._kept.values())
            case Allow(policy):
                self._terms.policy = policy
            case Tick():
                self._history.retry()
                for each in list(self._unstarted.values()):
                    self._begin(each)
                self.tell(Alive(self._history.problem))
            case Setup():
                raise ValueError("a second setup")
            case _:
                assert_never(order)

    def _begin(self, order: Begin) -> None:
        number, edition, manifest, revision = order
        try:
            worker = Worker(
                manifest,
                revision,
                self._common,
                lambda _, succeeded: self.tell(Done(number, succeeded)),
                lambda: self._tell_found(number),
                lambda: self._tell_end(number),
            )
            self._kept[number] = _Kept(worker, edition)
            worker.start()
        except (OSError, RuntimeError) as error:
            self._kept.pop(number, None)
            if number not in self._unstarted:
                record_unstarted(manifest, str(error), self._history)
            self._unstarted[number] = order
            self.tell(Unstarted(number, str(error)))
            return
        self._unstarted.pop(number, None)

    def _order(self, kept: _Kept, order: Assign | SetOrigin | Ask | Stop) -> None:
        match order:
            case Assign(number, edition, manifest, revision):
                kept.worker.assign(manifest, revision)
                kept.edition = edition
                self._tell_found(number)
            case SetOrigin(number, manifest, revision):
                kept.worker.set_origin(manifest, revision)
                self._tell_found(number)
            case Ask(_, wish):
                getattr(kept.worker, wish.value)()
            case Stop(_, prune):
                kept.worker.stop(prune=prune)
                # This wakes it.
                kept.worker.request_look()
            case _:
                assert_never(order)

    def _amend(self, begin: Begin, order: Assign | SetOrigin | Ask | Stop) -> None:
        """Do what the watcher says about a machine that cannot be watched yet."""
        match order:
            case Assign():
                self._unstarted[begin.number] = Begin(*order)
            case SetOrigin(number, manifest, revision):
                self._unstarted[number] = begin._replace(manifest=manifest, revision=revision)
            case Stop(number):
                del self._unstarted[number]
                self.tell(Ended(number))
            case Ask():
                pass
            case _:
                assert_never(order)
