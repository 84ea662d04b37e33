"""The connection to one of etcd's members, and to the next one if it fails."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from reconciler.errors import HostError
from reconciler.fleet.etcd.messages import read_request
from reconciler.fleet.store import StoreError
from reconciler.values import NamedTuple

# Seconds that a member has to answer a first read, which only succeeds if it reaches a majority.
_PROBE = 2.0
# Seconds between attempts to connect, doubled up to the second.
_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
# Answered with an error by a member that knows no leader.
METADATA = (("hasleader", "true"),)
_OPTIONS = (
    # Lists and watches are as large as they are.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Neither another channel's state, nor a proxy of the environment, nor calls that are repeated unseen.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)


class Credentials(NamedTuple):
    """What a client of etcd has: the certificates that it trusts, its own, and the key of that, all PEM."""

    ca: bytes
    certificate: bytes
    key: bytes


class Connection(NamedTuple):
    """A channel to a member that has answered. `number` grows with each new one."""

    channel: Any
    number: int


def jitter(seconds: float) -> float:
    """Return a random part of a time, so that not all clients of a member that died come to the next one at once."""
    return random.random() * seconds  # noqa: S311


def is_own(error: asyncio.CancelledError) -> bool:
    """Return whether this task was cancelled. Otherwise gRPC has ended a call, as its channel was closed."""
    del error
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Members:
    """The members of a cluster. At one time, one of them is used for everything."""

    def __init__(self, urls: Sequence[str], credentials: Credentials | None) -> None:
        self._targets = [_target(url, secure=credentials is not None) for url in urls]
        random.shuffle(self._targets)
        self._credentials = credentials
        self._current: Connection | None = None
        self._number = 0
        self._connecting = asyncio.Lock()
        self._reasons: dict[str, str] = {}

    async def connection(self, deadline: float) -> Connection:
        """Return a connection to a member that answers. StoreError if there is none until a time (`time.monotonic`)."""
        async with self._connecting:
            pause = _PAUSE
            while self._current is None:
                await self._try()
                if self._current is None:
                    if time.monotonic() + pause > deadline:
                        raise StoreError("no member of etcd answers as it should", more=self._why())
                    if self._number % len(self._targets) == 0:
                        await asyncio.sleep(jitter(pause))
                        pause = min(pause * 2, _LONGEST_PAUSE)
            return self._current

    def _why(self) -> list[str]:
        return [f"  {target}: {reason}" for target, reason in sorted(self._reasons.items())]

    async def _try(self) -> None:
        """Connect to the next member, if it answers."""
        self._number += 1
        target = self._targets[self._number % len(self._targets)]
        channel = self._channel(target)
        try:
            call = channel.unary_unary("/etcdserverpb.KV/Range")
            await call(read_request("/", count_only=True), timeout=_PROBE, metadata=METADATA)
        except grpc.aio.AioRpcError as error:
            self._reasons[target] = reason(error)
            await channel.close()
        except BaseException:
            await channel.close()
            raise
        else:
            self._current = Connection(channel, self._number)

    def _channel(self, target: str) -> Any:
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options=_OPTIONS)
        trusted, certificate, key = self._credentials
        return grpc.aio.secure_channel(
            target, grpc.ssl_channel_credentials(trusted, key, certificate), options=_OPTIONS
        )

    async def fail(self, connection: Connection) -> None:
        """Use another member from now on: this one does not answer as it should. All of its calls end."""
        if self._current is not None and self._current.number == connection.number:
            self._current = None
            await connection.channel.close()

    async def close(self) -> None:
        """Close the connection."""
        if self._current is not None:
            await self.fail(self._current)


def reason(error: Any) -> str:
    """Return why a call failed, in the words of etcd or gRPC."""
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return "did not answer in time"
    words = str(error.details() or error.code().name)
    return words.splitlines()[0][:300]


def _target(url: str, *, secure: bool) -> str:
    """Return a URL such as https://10.0.0.1:2379 as gRPC has it. HostError if it is none."""
    parts = urlsplit(url if "://" in url else f"//{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    is_known = parts.scheme in ({"", "https"} if secure else {"", "http"})
    if not host or not is_known or parts.path not in {"", "/"} or parts.query or parts.username:
        kind = "https" if secure else "http"
        raise HostError(f'"{url}" is no URL of a member of etcd such as {kind}://192.0.2.1:2379')
    return f"[{host}]:{port or 2379}" if ":" in host else f"{host}:{port or 2379}"
