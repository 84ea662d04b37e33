"""Changes below a prefix, without a gap, whatever happens to members, connections and old revisions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from reconciler.errors import ProtocolError
from reconciler.fleet.etcd import messages
from reconciler.fleet.etcd.members import METADATA, Members, is_own, jitter
from reconciler.fleet.store import Changes, Event, Listing, StoreError

# Seconds between two questions whether a member still answers, and after which it is taken for dead. A process that is
# stopped keeps its connections, and the keepalive of gRPC found that only after 25 s.
_ASK, _SILENT = 4.0, 9.0
# Seconds that are waited for a member in one attempt.
_PATIENCE = 10.0
_PAUSE = 0.5

List = Callable[[str], Awaitable[tuple[messages.Header, Listing]]]


class _AnewError(Exception):
    """The watch cannot be resumed where it ended: what is there has to be listed, and compared with what was known."""


class Following:
    """One consumer's view of a prefix."""

    def __init__(self, members: Members, list_all: List, prefix: str) -> None:
        self._members, self._list, self._prefix = members, list_all, prefix
        # Key → the revision of its last change, of what was yielded.
        self._known: dict[str, int] = {}
        self._cluster = 0
        # That of the last event, or of the list. Only these are safe to resume from: the header of another message may
        # be ahead of events that are still to come.
        self._revision = 0

    async def run(self) -> AsyncGenerator[Changes, None]:
        """Yield the changes; see `Store.follow`."""
        is_listed = False
        while True:
            try:
                if not is_listed:
                    yield await self._compare()
                    is_listed = True
                async with aclosing(self._watch()) as watching:
                    async for changes in watching:
                        yield changes
            except _AnewError:
                is_listed = False
            except (StoreError, ProtocolError, grpc.aio.AioRpcError):
                pass
            except asyncio.CancelledError as error:
                if is_own(error):
                    raise
            await asyncio.sleep(jitter(_PAUSE))

    async def _compare(self) -> Changes:
        """List what is there; return how it differs from what is known."""
        header, listing = await self._list(self._prefix)
        if header.cluster != self._cluster or listing.revision < self._revision:
            # Restored from a backup, or another cluster: a revision of the one says nothing about the other.
            self._known = dict.fromkeys(self._known, -1)
        self._cluster, self._revision = header.cluster, listing.revision
        before, self._known = self._known, {each.key: each.modified for each in listing.pairs}
        found = [
            Event(each.key, each, each.modified) for each in listing.pairs if before.get(each.key) != each.modified
        ]
        gone = [Event(key, None, listing.revision) for key in before if key not in self._known]
        return Changes((*gone, *found), listing.revision)

    async def _watch(self) -> AsyncGenerator[Changes, None]:
        """Yield changes of one connection, until it fails."""
        connection = await self._members.connection(time.monotonic() + _PATIENCE)
        call = connection.channel.stream_stream("/etcdserverpb.Watch/Watch")(metadata=METADATA)
        asking = asyncio.ensure_future(self._ask(call))
        try:
            async with aclosing(self._messages(call)) as received:
                async for each in received:
                    if (changes := self._take(each)) is not None:
                        yield changes
        except (grpc.aio.AioRpcError, TimeoutError, EOFError) as error:
            await self._members.fail(connection)
            raise StoreError("the watch has ended") from error
        finally:
            asking.cancel()
            call.cancel()
            await asyncio.wait({asking})
            # Nobody else looks at why it ended, which is why the call has.
            _ = asking.cancelled() or asking.exception()

    async def _ask(self, call: Any) -> None:
        """Ask for the changes, and again and again whether the member still answers."""
        await call.write(messages.watch_request(self._prefix, self._revision + 1))
        while True:
            await asyncio.sleep(_ASK)
            await call.write(messages.PROGRESS_REQUEST)

    async def _messages(self, call: Any) -> AsyncGenerator[messages.Watched, None]:
        """Yield the messages of a watch. Those that are fragments are put together."""
        events: list[Event] = []
        while True:
            async with asyncio.timeout(_SILENT):
                received = await call.read()
            if received is grpc.aio.EOF:
                raise EOFError
            found = messages.watch_answer(received)
            events += found.events
            if not found.fragment:
                yield found._replace(events=tuple(events))
                events.clear()

    def _take(self, found: messages.Watched) -> Changes | None:
        """Return what a message says; None if that is nothing. _AnewError if the watch cannot go on."""
        if found.header.cluster != self._cluster or found.compacted or found.header.revision < self._revision:
            raise _AnewError
        if found.cancelled:
            # With a reason such as an authentication that has ended.
            raise EOFError
        if found.created:
            return None
        events = tuple(self._new(found))
        return Changes(events, self._revision)

    def _new(self, found: messages.Watched) -> Iterator[Event]:
        """Yield the events of a message, and remember them."""
        for event in found.events:
            self._revision = max(self._revision, event.revision)
            if event.pair is None:
                self._known.pop(event.key, None)
            else:
                self._known[event.key] = event.revision
            yield event
