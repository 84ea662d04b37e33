"""Hosts without watchers: they take what they are told over real TLS, each by its own certificate, and report it.

`python -m tests.fleet.simulated AUTHORITY FOLDER PORT,… HOST…` simulates hosts until it is ended. Each speaks the
protocol of `fleet agent` to the gates: it asks for what is desired, fetches the files that it does not have, checks
them, and reports that all is converged. What it would write to its disk, it keeps as digests only.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import resource
import ssl
import sys
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from reconciler.fleet import blobs, records
from reconciler.fleet.agent.client import LONGEST, Credentials, make_context
from reconciler.fleet.records import Desired, HostStatus

# Seconds after which a report is repeated, and connections that are made at a time.
_REPEAT, _CONNECTING = 60.0, 16


class Answer(NamedTuple):
    """The status of an answer, and its body."""

    status: int
    body: bytes


class Client:
    """One connection to one of the gates."""

    def __init__(self, address: str, ports: Sequence[int], context: ssl.SSLContext, turn: asyncio.Semaphore) -> None:
        self._address, self._context, self._turn = address, context, turn
        self._ports = random.sample(ports, len(ports))
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, body: bytes | None = None) -> Answer:
        """Return the answer to a GET, or to a POST with a body."""
        try:
            reader, writer = self._streams = self._streams or await self._connect()
            method = "GET" if body is None else "POST"
            head = f"{method} {path} HTTP/1.1\r\nHost: gate\r\nContent-Length: {len(body or b'')}\r\n\r\n"
            writer.write(head.encode() + (body or b""))
            return await _read(reader)
        except (OSError, EOFError):
            self.close()
            self._ports.append(self._ports.pop(0))
            raise

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with self._turn:
            # Each host has an address of its own, as a gate bounds what comes from one.
            return await asyncio.open_connection(
                "127.0.0.1",
                self._ports[0],
                ssl=self._context,
                server_hostname="127.0.0.1",
                local_addr=(self._address, 0),
            )

    def close(self) -> None:
        """Close the connection."""
        streams, self._streams = self._streams, None
        if streams:
            streams[1].transport.abort()


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in head[1:] if line)
    if fields.get("transfer-encoding") == "chunked":
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        await reader.readline()
        body = b"".join(parts)
    else:
        body = await reader.readexactly(int(fields.get("content-length", "0")))
    return Answer(int(head[0].split()[1]), body)


def _unpack(body: bytes, digests: Sequence[str]) -> None:
    """Raise ValueError unless a body is just the files of these digests, packed."""
    for each in digests:
        unpacking = zlib.decompressobj()
        if blobs.digest(unpacking.decompress(body)) != each or not unpacking.eof:
            raise ValueError("not the file of its digest")
        body = unpacking.unused_data
    if body:
        raise ValueError("more than what was asked for")


class Host:
    """A host. `desired`: what it was told; `files`: path → digest, of what it has; `faults`: what was refused it."""

    def __init__(self, name: str, address: str, ports: Sequence[int], fleet: Fleet) -> None:
        context = make_context(fleet.credentials(name))
        self.name, self._clients = name, [Client(address, ports, context, fleet.turn) for _ in range(2)]
        self.desired: Desired | None = None
        self.files: dict[str, str] = {}
        self.faults: list[str] = []
        self._have = ""
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Do what the two threads of the agent do."""
        try:
            await asyncio.gather(self._repeat(self._fetch), self._repeat(self._report))
        finally:
            for each in self._clients:
                each.close()

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        pause = 0.5
        while True:
            try:
                await step()
                pause = 0.5
            except (OSError, EOFError, ValueError):
                await asyncio.sleep(random.uniform(0.0, pause))
                pause = min(pause * 2, LONGEST)

    async def _fetch(self) -> None:
        answer = await self._clients[0].ask(f"/v1/desired?have={self._have}")
        if answer.status != 200:
            self._check(answer)
            return
        desired = records.decode(Desired, answer.body)
        there = set(self.files.values())
        missing = [each for each in dict.fromkeys(desired.files.values()) if each not in there]
        for start in range(0, len(missing), blobs.AT_ONCE):
            digests = missing[start : start + blobs.AT_ONCE]
            found = await self._clients[0].ask(f"/v1/blob/{','.join(digests)}")
            self._check(found)
            _unpack(found.body, digests)
        self.desired, self.files = desired, dict(desired.files)
        self._have = hashlib.sha256(answer.body).hexdigest()
        self._news.set()

    async def _report(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_REPEAT):
                await self._news.wait()
        if desired := self.desired:
            counts = {"converged": len(desired.sandboxes)}
            found = HostStatus(desired.release, reached=True, counts=counts, when=time.time())
            self._check(await self._clients[1].ask("/v1/status", records.encode(found)))
        if desired is self.desired:
            # Otherwise, or if that has failed, there is something to report still.
            self._news.clear()

    def _check(self, answer: Answer) -> None:
        if answer.status not in {200, 204}:
            self.faults.append(f"{answer.status}: {answer.body[:100]!r}")
            raise ValueError(self.faults[-1])


class Fleet:
    """Hosts of one process. `folder`: where the certificates and keys of hosts are."""

    def __init__(self, authority: str, folder: str) -> None:
        self._authority, self._folder = authority, folder
        self.turn = asyncio.Semaphore(_CONNECTING)

    def credentials(self, name: str) -> Credentials:
        """Return the files of a host."""
        return Credentials(f"{self._folder}/{name}.crt", f"{self._folder}/{name}.key", self._authority)

    def hosts(self, names: Sequence[str], ports: Sequence[int]) -> list[Host]:
        """Return hosts, each with an address of its own."""
        return [Host(name, address_of(name), ports, self) for name in names]


def address_of(name: str) -> str:
    """Return an address of loopback for a host whose name ends with a number, such as host-12."""
    number = int(name.rpartition("-")[2])
    return f"127.78.{number // 250}.{number % 250 + 1}"


async def simulate(hosts: Sequence[Host]) -> None:
    """Let hosts run, without end."""
    await asyncio.gather(*(each.run() for each in hosts))


def main(authority: str, folder: str, ports: str, *names: str) -> None:
    """Simulate hosts until this process is ended."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def run() -> None:
        await simulate(Fleet(authority, folder).hosts(names, [int(each) for each in ports.split(",")]))

    asyncio.run(run())


if __name__ == "__main__":
    main(*sys.argv[1:])
