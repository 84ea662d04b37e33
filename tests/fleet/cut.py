"""A way to a member of etcd that can be cut: a relay of TCP beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.fleet.cluster import Cluster, Member


class Way:
    """A way to a member. `url` is that of the relay."""

    def __init__(self, member: Member, url: str) -> None:
        self.url, self._member = url, member
        self._open = True
        self._left: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Let nothing through, and end what is connected."""
        self._open = False
        for each in self._writers:
            each.transport.abort()

    def mend(self, most: int | None = None) -> None:
        """Let everything through; with `most`, only so many bytes from etcd, and then it is cut."""
        self._open, self._left = True, most

    @property
    def is_cut(self) -> bool:
        return not self._open

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        host, _, port = self._member.url.removeprefix("https://").partition(":")
        with suppress(OSError):
            there, back = await asyncio.open_connection(host, int(port))
            self._writers |= {writer, back}
            try:
                await asyncio.gather(self._pass(reader, back, counted=False), self._pass(there, writer, counted=True))
            finally:
                for each in (writer, back):
                    self._writers.discard(each)
                    each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        while data := await reader.read(16384):
            if counted and self._left is not None:
                self._left -= len(data)
                if self._left < 0:
                    self.cut()
                    return
            writer.write(data)
            await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def way(cluster: Cluster, member: Member) -> AsyncIterator[Way]:
    """Yield a way to a member."""
    made = Way(member, "")
    server = await asyncio.start_server(made.relay, cluster.address, 0)
    made.url = f"https://{cluster.address}:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        made.cut()
