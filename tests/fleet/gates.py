"""A gate in this process over a store in memory, with real TLS and certificates, and clients that can do anything."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from reconciler.fleet import blobs, ca, keys, records
from reconciler.fleet.ca import Made
from reconciler.fleet.gate.gate import Gate, Options
from reconciler.fleet.leader import Leader
from reconciler.fleet.records import Desired, HostRecord
from reconciler.fleet.store import Put, Store

_T = TypeVar("_T")
# Seconds.
DEADLINE = 20.0


class Certificates:
    """The authorities of a fleet, and certificates that are made when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.authority = ca.make_authorities(self.folder)[0].certificate
        self._made: dict[tuple[str, str], Made] = {}

    def host(self, name: str) -> Made:
        return self._get(ca.HOST, name)

    def gate(self, name: str = "gate") -> Made:
        return self._get(ca.GATE, name, "127.0.0.1", "::1", "localhost")

    def _get(self, kind: ca.Kind, name: str, *addresses: str) -> Made:
        if (kind.folder, name) not in self._made:
            self._made[kind.folder, name] = ca.issue(self.folder, kind, name, addresses)
        return self._made[kind.folder, name]

    def context(self, name: str = "") -> ssl.SSLContext:
        """Return what a client connects with, which shows the certificate of a host."""
        context = ssl.create_default_context(cafile=self.authority)
        if name:
            made = self.host(name)
            context.load_cert_chain(made.certificate, made.key)
        return context


class Running:
    """A gate that runs in a thread of its own."""

    def __init__(self, store: Store, certificates: Certificates, *, leads: bool = False) -> None:
        self.store, self.certificates, self._leads = store, certificates, leads
        self._loop: asyncio.AbstractEventLoop
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.gate: Gate
        self._task: asyncio.Task[None]

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        made = self.certificates.gate()
        self.gate = Gate(self.store, Options("127.0.0.1", 0, made.certificate, made.key, self.certificates.authority))
        leader = Leader(self.store, self.gate.name, lambda _: None)
        self._task = self._loop.create_task(self.gate.serve([("leader", leader.run)] if self._leads else []))
        self._ready.set()
        with suppress(asyncio.CancelledError):
            await self._task
        await self.store.close()

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(DEADLINE)

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    @property
    def port(self) -> int:
        return self.gate.listener.port

    def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do something with the store."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    def put(self, key: str, value: bytes) -> None:
        self.do(self.store.commit([Put(key, value)]))

    def add_host(self, name: str, **fields: Any) -> None:
        """Let a host connect, with its own certificate."""
        record = HostRecord(**{"fingerprint": self.certificates.host(name).fingerprint, **fields})
        self.put(keys.host(name), records.encode(record))

    def want(self, host: str, release: str, files: dict[str, bytes], **fields: Any) -> bytes:
        """Tell a host what it should be like; return the bytes that say so."""
        for data in files.values():
            for number, part in enumerate(blobs.chunks(blobs.pack(data))):
                self.put(keys.chunk(host, blobs.digest(data), number), part)
        named = {path: blobs.digest(data) for path, data in files.items()}
        desired = records.encode(Desired(release, "c0ffee", files=named, **fields))
        self.put(keys.desired(host), desired)
        return desired

    def client(self, host: str = "", timeout: float = DEADLINE) -> http.client.HTTPSConnection:
        """Return a client with the certificate of a host."""
        context = self.certificates.context(host)
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=timeout)

    def connect(self, host: str) -> ssl.SSLSocket:
        """Return a connection with the certificate of a host, for what is no HTTP."""
        plain = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        return self.certificates.context(host).wrap_socket(plain, server_hostname="127.0.0.1")

    def ask(self, host: str, path: str, body: bytes | None = None, method: str = "") -> tuple[int, bytes]:
        """Ask once; return the status and the body of the answer."""
        client = self.client(host)
        try:
            client.request(method or ("GET" if body is None else "POST"), path, body)
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()


@contextmanager
def running(store: Store, certificates: Certificates, *, leads: bool = False) -> Iterator[Running]:
    """Run a gate during the block. `leads`: it also leads rollouts."""
    found = Running(store, certificates, leads=leads)
    found.start()
    try:
        yield found
    finally:
        found.stop()
