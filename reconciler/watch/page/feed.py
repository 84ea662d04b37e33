"""The stream of events of the page. The status is read while a page is open, and only then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Hashable
from contextlib import suppress

from reconciler.watch.page.board import Board, Source, beat

# Seconds between two looks at the pulse of the watcher; between two readings of the status without another pulse, as
# time changes it as well; and between two events if nothing changes.
PERIOD, LATEST, BEAT = 0.2, 2.0, 5.0
# Wait at least REST times as long as the last reading computed before the next one.
REST = 20


class Feed:
    """Sends each page what has changed. A slow one has no queue: it gets later, at once, what has changed meanwhile."""

    def __init__(self, source: Source) -> None:
        self._source, self._board = source, Board(source)
        self._pulse: Hashable = None
        self._followers = 0
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        # When the status was last read. What could not be read since is unknown, so then there is no beat.
        self._read_at = self._took = 0.0

    async def follow(self, last_event: str) -> AsyncGenerator[bytes]:
        """Yield events without end: what has changed since the event with this id, and each later change."""
        self._followers += 1
        if self._task is None:
            self._refresh()
            self._task = asyncio.get_running_loop().create_task(self._keep_reading())
        try:
            yield b"retry: 1000\n\n"
            position = self._board.position(last_event)
            while True:
                changed, version = self._changed, self._board.version
                if version != position and self._read_at:
                    for each in self._board.events(position, time.time()):
                        yield each
                    position = version
                elif time.monotonic() < self._read_at + BEAT:
                    yield beat(time.time())
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), BEAT)
        finally:
            self._followers -= 1
            if not self._followers and self._task:
                self._task.cancel()
                self._task = None

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(max(PERIOD, REST * self._took))
            version = self._board.version
            self._refresh()
            if self._board.version != version:
                self._changed.set()
                self._changed = asyncio.Event()

    def _refresh(self) -> None:
        """Read the status, if it may be another one."""
        begin = time.thread_time()
        try:
            pulse = self._source.pulse()
            if pulse == self._pulse and time.monotonic() < self._read_at + LATEST:
                return
            self._board.refresh()
            # What has changed meanwhile has another pulse.
            self._pulse, self._read_at = pulse, time.monotonic()
            self._took = time.thread_time() - begin
        except Exception:
            # The pages say that they are stale. It is tried again, but not at once.
            self._took = LATEST / REST
            logging.getLogger(__name__).exception("defect")
