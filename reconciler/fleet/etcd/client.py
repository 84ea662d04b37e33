"""The store of a fleet over etcd."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc
import grpc.aio

from reconciler.fleet.etcd import messages
from reconciler.fleet.etcd.following import Following
from reconciler.fleet.etcd.members import METADATA, Connection, Credentials, Members, is_own, jitter, reason
from reconciler.fleet.store import (
    MAX_OPERATIONS,
    Changes,
    Compare,
    Delete,
    LeaseGoneError,
    Listing,
    Outcome,
    Pair,
    Put,
    StoreError,
    UnknownOutcomeError,
)

# Seconds that a member has to answer a call, and that a caller waits until one has. A write that was on its way to a
# leader that has died is only answered by this deadline.
_CALL = 4.0
PATIENCE = 15.0
# Seconds, a random part of which is between two attempts.
_PAUSE = 0.1
# Keys of one read of a list, which has to fit into memory of etcd's beside others.
_PAGE = 500
_COMPACTED = "required revision has been compacted"
# After these, another member may do better. A member that is being ended answers with the last one.
_ELSEWHERE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
}


class Etcd:
    """The store over a cluster of etcd, whose members have these URLs. Use it within one event loop.

    `patience`: the seconds that a call waits for a member that answers, before StoreError.
    """

    def __init__(
        self, urls: Sequence[str], credentials: Credentials | None = None, *, patience: float = PATIENCE
    ) -> None:
        self._members = Members(urls, credentials)
        self._patience = patience

    async def read(self, key: str) -> Pair | None:
        """Return what a key has; None if it does not exist."""
        found = messages.read_answer(await self._call("KV/Range", messages.read_request(key)))
        return found.pairs[0] if found.pairs else None

    async def read_several(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return key → value of those of several keys that exist, all as they were at one revision."""
        answer = await self._call("KV/Txn", messages.read_several_request(keys))
        return {each.key: each.value for each in messages.read_several_answer(answer)}

    async def list(self, prefix: str, *, keys_only: bool = False) -> Listing:
        """Return all keys that begin with a prefix, page by page, all as they were at one revision."""
        _, listing = await self.list_all(prefix, keys_only=keys_only)
        return listing

    async def list_all(self, prefix: str, *, keys_only: bool = False) -> tuple[messages.Header, Listing]:
        """Return the same, and the header of the answer."""
        while True:
            try:
                return await self._list(prefix, keys_only=keys_only)
            except _CompactedError:
                # While it was read; it is read again.
                continue

    async def _list(self, prefix: str, *, keys_only: bool) -> tuple[messages.Header, Listing]:
        pairs: list[Pair] = []
        start, header = prefix, None
        while True:
            request = messages.read_request(
                start,
                messages.end_of(prefix),
                limit=_PAGE,
                revision=header.revision if header else 0,
                keys_only=keys_only,
            )
            found = messages.read_answer(await self._call("KV/Range", request))
            header = header or found.header
            pairs += found.pairs
            if not found.more:
                return header, Listing(tuple(pairs), header.revision)
            start = f"{pairs[-1].key}\0"

    async def commit(self, operations: Sequence[Put | Delete], conditions: Sequence[Compare] = ()) -> Outcome:
        """Carry out operations, all or none of them: if all conditions hold."""
        if len(operations) > MAX_OPERATIONS:
            raise ValueError(f"{len(operations)} operations are too many for one transaction")
        request = messages.transaction_request(operations, conditions)
        header, succeeded = messages.transaction_answer(await self._call("KV/Txn", request, again=not conditions))
        return Outcome(succeeded, header.revision)

    async def grant(self, seconds: int) -> int:
        """Return a new lease. One that was granted without an answer ends by itself."""
        return messages.grant_answer(await self._call("Lease/LeaseGrant", messages.grant_request(seconds)))

    async def keep(self, lease: int) -> None:
        """Let a lease begin anew. LeaseGoneError if it has ended."""
        left = messages.keep_answer(
            await self._call("Lease/LeaseKeepAlive", messages.lease_request(lease), stream=True)
        )
        if left <= 0:
            raise LeaseGoneError("the lease has ended, as it was not renewed in time")

    async def revoke(self, lease: int) -> None:
        """End a lease, which deletes its keys."""
        try:
            await self._call("Lease/LeaseRevoke", messages.lease_request(lease))
        except LeaseGoneError:
            return

    def follow(self, prefix: str) -> AsyncGenerator[Changes, None]:
        """Yield what is below a prefix, and then each change; see `Store.follow`."""
        return Following(self._members, self.list_all, prefix).run()

    async def compact(self, revision: int) -> None:
        """Forget everything before a revision."""
        try:
            await self._call("KV/Compact", messages.compact_request(revision))
        except _CompactedError:
            # By this very call, whose answer was lost, or by another client.
            return

    async def close(self) -> None:
        """Close the connection."""
        await self._members.close()

    async def _call(self, method: str, request: bytes, *, again: bool = True, stream: bool = False) -> bytes:
        """Return the answer to a request. `again`: it may be sent once more if it is unknown what became of it.

        `stream`: the method is one of many requests, of which this is the only one.
        """
        deadline = time.monotonic() + self._patience
        while True:
            connection = await self._members.connection(deadline)
            try:
                return await _ask(connection, method, request, stream=stream)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _ELSEWHERE:
                    raise _translated(error) from None
                why = reason(error)
            except asyncio.CancelledError as error:
                if is_own(error):
                    raise
                why = "the connection was closed, as another call has failed"
            await self._members.fail(connection)
            if not again:
                raise UnknownOutcomeError(f"etcd did not say whether it has carried out a transaction: {why}")
            if time.monotonic() > deadline:
                raise StoreError(f"etcd did not answer within {self._patience:g} s: {why}")
            await asyncio.sleep(jitter(_PAUSE))


async def _ask(connection: Connection, method: str, request: bytes, *, stream: bool) -> bytes:
    name = f"/etcdserverpb.{method}"
    if not stream:
        call = connection.channel.unary_unary(name)
        answer: bytes = await call(request, timeout=_CALL, metadata=METADATA)
        return answer
    many: Any = connection.channel.stream_stream(name)(timeout=_CALL, metadata=METADATA)
    try:
        await many.write(request)
        received = await many.read()
        return b"" if received is grpc.aio.EOF else received
    finally:
        many.cancel()


class _CompactedError(StoreError):
    """What was asked for was compacted."""


def _translated(error: Any) -> StoreError:
    """Return the error of an answer that another member would give as well."""
    code, words = error.code(), reason(error)
    if code == grpc.StatusCode.OUT_OF_RANGE and _COMPACTED in words:
        return _CompactedError(words)
    if code == grpc.StatusCode.NOT_FOUND and "lease" in words:
        return LeaseGoneError(words)
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return StoreError(f"etcd takes no more: {words}; see docs/fleet.md about its space")
    if code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}:
        return StoreError(f"etcd refuses this client: {words}")
    return StoreError(f"etcd answered with an error: {words}")
