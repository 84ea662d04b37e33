"""What the gate answers to hosts. The host of a request is that of its certificate: nothing in a request names one."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator

from aiohttp import web

from reconciler.fleet import keys, records
from reconciler.fleet.blobs import AT_ONCE, CHUNK
from reconciler.fleet.gate.listener import connection_of
from reconciler.fleet.gate.mirror import Mirror
from reconciler.fleet.gate.peers import Peers
from reconciler.fleet.gate.writer import Reports
from reconciler.fleet.records import MAX_STATUS, HostStatus
from reconciler.fleet.store import Store, StoreError
from reconciler.values import replace

# Seconds for which a request waits for news. A random part keeps the hosts of a fleet from asking together.
WAIT, SPREAD = 45.0, 10.0
# Seconds in which a body has to come, and between two parts of an answer that a host reads.
BODY, ANSWER = 10.0, 20.0
# Reads of files from the store at a time, of all hosts, and of one. Each may have several files.
READS, READS_OF_ONE = 8, 2
# Bytes of files that are kept while a host reads them: at least those of one key.
MAX_PART = CHUNK
# Seconds by which the clock of a host may differ.
SKEW = 30.0
# The most sandboxes that are unusual, and alarms, of a report; and characters of a text.
_UNUSUAL, _ALARMS, _TEXT = 2000, 50, 1000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SKEWED = f"the clock of this host differs by more than {SKEW:.0f} s from that of the gate"


class Application:
    """Answers requests, each within what its host may take."""

    def __init__(self, store: Store, peers: Peers, mirror: Mirror, reports: Reports) -> None:
        self._store, self._peers, self._mirror, self._reports = store, peers, mirror, reports
        self._reads = asyncio.Semaphore(READS)
        self._reads_of: Counter[str] = Counter()
        # Answers by status.
        self.answers: Counter[int] = Counter()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        connection_of(request).end_timer()
        try:
            answer = await self._answer(request)
        except (StoreError, TimeoutError):
            answer = _refuse(503, "the store does not answer")
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            logging.getLogger(__name__).exception("defect")
            answer = _refuse(500, "an error in reconciler itself, which its log has")
        self.answers[answer.status] += 1
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        peer = connection_of(request).peer
        if not self._mirror.is_current:
            return _refuse(503, "this gate has not heard of the store")
        if refusal := self._peers.refusal(peer):
            self._peers.refused += 1
            return _refuse(403, refusal)
        await asyncio.sleep(self._peers.allowance(peer.host).take_request())
        method, path = request.method, request.rel_url.raw_path
        if method == "GET" and path == "/v1/desired":
            return await self._desired(peer.host, request.rel_url.query.get("have", ""))
        if method == "GET" and path.startswith("/v1/blob/"):
            return await self._blobs(request, peer.host, path.removeprefix("/v1/blob/").split(","))
        if method == "POST" and path == "/v1/status":
            return await self._status(request, peer.host)
        return _refuse(404, "not found")

    async def _desired(self, host: str, have: str) -> web.StreamResponse:
        """Return what a host should be like as soon as that is something else than what it has."""
        deadline = time.monotonic() + WAIT + random.uniform(0.0, SPREAD)  # noqa: S311
        while True:
            wanted = self._mirror.wanted(host)
            if wanted and wanted.digest != have:
                return web.Response(body=wanted.data, content_type="application/json")
            left = deadline - time.monotonic()
            if left <= 0 or not self._mirror.is_current:
                return web.Response(status=204) if left <= 0 else _refuse(503, "this gate has lost the store")
            # The store may be lost meanwhile.
            await self._mirror.await_news(host, min(left, 5.0))

    async def _blobs(self, request: web.BaseRequest, host: str, digests: list[str]) -> web.StreamResponse:
        """Return files of the plan of a host, as they are stored, one after another."""
        wanted = self._mirror.wanted(host)
        if len(digests) > AT_ONCE:
            return _refuse(400, f"at most {AT_ONCE} files are sent at once")
        if wanted is None or not wanted.blobs.issuperset(digests) or not all(map(_DIGEST.fullmatch, digests)):
            return _refuse(404, "what this host should be like has no such file")
        if self._reads_of[host] >= READS_OF_ONE:
            return _refuse(429, "this host reads other files already")
        self._reads_of[host] += 1
        try:
            return await self._send_blobs(request, host, digests)
        finally:
            self._reads_of[host] -= 1
            if not self._reads_of[host]:
                del self._reads_of[host]

    async def _send_blobs(self, request: web.BaseRequest, host: str, digests: list[str]) -> web.StreamResponse:
        answer = web.StreamResponse()
        allowance = self._peers.allowance(host)
        async for part in self._parts(host, digests):
            if not answer.prepared:
                await answer.prepare(request)
            await asyncio.sleep(allowance.take_fetched(len(part)))
            async with asyncio.timeout(ANSWER):
                await answer.write(part)
        if not answer.prepared:
            return _refuse(404, "the store has no such file")
        await answer.write_eof()
        return answer

    async def _parts(self, host: str, digests: list[str]) -> AsyncIterator[bytes]:
        """Yield the bytes of files. If the store lacks one, they end there, and the host sees that it is not whole."""
        left, most = digests, len(digests)
        while left:
            found = await self._read([keys.blob(host, each) for each in left[:most]])
            if not found:
                return
            # What was read and did not fit is read once more: the next time, no more is read than has fitted.
            most = len(found)
            yield b"".join(found)
            digest, left, part, number = left[len(found) - 1], left[len(found) :], found[-1], 0
            while len(part) == CHUNK:
                number += 1
                (part,) = await self._read([keys.chunk(host, digest, number)]) or (b"",)
                yield part

    async def _read(self, wanted: list[str]) -> list[bytes]:
        """Return what keys have, up to the first that is missing, that is not all of its file, or that is too much."""
        async with self._reads:
            there = await self._store.read_several(wanted)
        found: list[bytes] = []
        size = 0
        for each in wanted:
            if each not in there or size + len(there[each]) > MAX_PART:
                break
            found.append(there[each])
            size += len(there[each])
            if len(there[each]) == CHUNK:
                break
        return found

    async def _status(self, request: web.BaseRequest, host: str) -> web.StreamResponse:
        """Write what a host reports."""
        if (request.content_length or 0) > MAX_STATUS:
            return _refuse(413, f"a report has at most {MAX_STATUS:,} bytes")
        async with asyncio.timeout(BODY):
            body = await _read_body(request)
        if len(body) > MAX_STATUS:
            return _refuse(413, f"a report has at most {MAX_STATUS:,} bytes")
        try:
            found = records.decode(HostStatus, body)
            _check(found)
        except (ValueError, UnicodeDecodeError) as error:
            return _refuse(400, f"not a report: {error}")
        alarms = (*found.alarms, _SKEWED) if abs(found.when - time.time()) > SKEW else found.alarms
        if not await self._reports.write(host, replace(found, when=0.0, alarms=alarms)):
            return _refuse(429, "another report of this host is being written")
        return web.Response(status=204)


async def _read_body(request: web.BaseRequest) -> bytes:
    """Return a body, or enough of it to know that it is too long."""
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_STATUS:
            break
    return b"".join(parts)


def _check(found: HostStatus) -> None:
    """Raise ValueError if a report has more, or longer ones, than an agent writes."""
    texts = [found.release, *found.alarms, *found.counts]
    texts += [text for each in found.unusual for text in (each.sandbox, each.state, each.detail)]
    if len(found.unusual) > _UNUSUAL or len(found.alarms) > _ALARMS or len(found.counts) > _ALARMS:
        raise ValueError("it has too many entries")
    if any(len(each) > _TEXT or not each.isprintable() for each in texts):
        raise ValueError("a text is too long, or not printable")
    if any(not 0 <= each < 1 << 31 for each in found.counts.values()):
        raise ValueError("a number is out of range")


def _refuse(status: int, words: str) -> web.Response:
    """Return the answer that something is not done. Its connection ends: what comes on it may be a body."""
    answer = web.Response(status=status, text=f"{words}\n")
    if status != 429:
        answer.force_close()
    return answer
