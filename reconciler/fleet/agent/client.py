"""Asks the gates of a fleet over HTTPS: one connection at a time, the next gate when one fails.

A gate proves itself by a certificate of the fleet's authority and the name in its URL; this host does so by its own.
Nothing that a gate sends is believed beyond bounds of size and time.
"""

from __future__ import annotations

import http.client
import random
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO
from urllib.parse import urlsplit

from reconciler.errors import HostError
from reconciler.values import NamedTuple

# Seconds to connect and shake hands, and for each step of an answer.
CONNECT, STEP = 5.0, 15.0
# Seconds that a gate may let us wait for news, and what it takes to be heard after that.
PATIENCE = 75.0
# The longest pause between two tries, and the first, in seconds.
LONGEST, FIRST = 30.0, 0.5
# Milliseconds after which a peer that acknowledges nothing is gone.
_SILENCE = 15_000
_PART = 16 << 10


class Gate(NamedTuple):
    """Where a gate is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Credentials(NamedTuple):
    """Files of PEM: this host's certificate and key, and the authority of the gates."""

    certificate: str
    key: str
    authority: str


class UnreachableError(Exception):
    """A gate did not answer as it should. The text says which one, and why."""


class NotAllowedError(UnreachableError):
    """A gate does not let this host in: it is unknown, its certificate is another one, or it is fenced."""


class Answer(NamedTuple):
    """The status of an answer, and its body."""

    status: int
    body: bytes


def parse_gate(url: str) -> Gate:
    """Return the gate of a URL: `https://HOST[:PORT]`. ValueError if it is another one."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError(f'"{url}" is not https://HOST:PORT')
    return Gate(parts.hostname, parts.port or 443)


def make_context(credentials: Credentials) -> ssl.SSLContext:
    """Return what connections are made with. HostError if a file is missing or wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(credentials.authority)
    except OSError as error:
        raise HostError(f"--ca {credentials.authority}: {_words(error)}") from error
    try:
        context.load_cert_chain(credentials.certificate, credentials.key, lambda: "")
    except OSError as error:
        raise HostError(f"--cert {credentials.certificate}, --key {credentials.key}: {_words(error)}") from error
    return context


class Client:
    """A connection to one of the gates. One thread uses it; `end` may be called from another one."""

    def __init__(self, gates: Sequence[Gate], credentials: Credentials) -> None:
        self._gates, self._credentials = list(gates), credentials
        # So that the hosts of a fleet are at all gates.
        random.shuffle(self._gates)
        self._connection: http.client.HTTPSConnection | None = None
        self._ended = False

    @property
    def gate(self) -> Gate:
        """Return the gate that is asked next."""
        return self._gates[0]

    @property
    def count(self) -> int:
        """Return how many gates there are."""
        return len(self._gates)

    def ask(self, path: str, body: bytes | None = None, *, limit: int, patience: float = STEP) -> Answer:
        """Return the answer to a GET, or to a POST with a body. UnreachableError unless it is one of 200 and 204.

        `limit`: bytes of the answer. `patience`: seconds until it begins.
        """
        try:
            answer = self._begin(path, body, patience)
            found = _read(answer, limit)
        except UnreachableError:
            self._fail()
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error) from error
        return Answer(answer.status, found)

    def fetch(self, path: str, files: Sequence[BinaryIO], *, limit: int, unpacked: int) -> None:
        """Write the body of an answer to files, each packed by zlib. UnreachableError if it is wrong or too long.

        `limit`, `unpacked`: bytes of a file as it is sent, and of what is written.
        """
        try:
            _unpack(self._begin(path, None, STEP), files, limit, unpacked)
        except UnreachableError:
            self._fail()
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error) from error

    def end(self) -> None:
        """Let the thread that waits for an answer get an error, as well as whatever it asks from now on."""
        self._ended = True
        connection = self._connection
        if connection and connection.sock:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def _begin(self, path: str, body: bytes | None, patience: float) -> http.client.HTTPResponse:
        connection = self._connection = self._connection or self._connect()
        if self._ended or not connection.sock:
            raise UnreachableError("this agent ends")
        connection.sock.settimeout(patience)
        connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        # An answer that ends with its connection has the socket for itself.
        if connection.sock:
            connection.sock.settimeout(STEP)
        if answer.status in {200, 204}:
            return answer
        words = f"{self.gate}: {answer.status} {answer.reason}"
        with suppress(OSError, http.client.HTTPException):
            words = f"{words}: {answer.read(300).decode(errors='replace').strip()}"
        raise (NotAllowedError if answer.status == 403 else UnreachableError)(words)

    def _connect(self) -> http.client.HTTPSConnection:
        # Read anew, as certificates are renewed while an agent runs.
        connection = http.client.HTTPSConnection(
            self.gate.host, self.gate.port, timeout=CONNECT, context=make_context(self._credentials)
        )
        connection.connect()
        plain: socket.socket = connection.sock
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 2)):
            plain.setsockopt(socket.IPPROTO_TCP, option, value)
        return connection

    def _failed(self, error: Exception) -> UnreachableError:
        words = f"{self.gate}: {_words(error)}"
        self._fail()
        return UnreachableError(words)

    def _fail(self) -> None:
        """Close the connection, and let the next gate be asked."""
        self.close()
        self._gates.append(self._gates.pop(0))


def _read(answer: http.client.HTTPResponse, limit: int) -> bytes:
    found = answer.read(limit + 1)
    if len(found) > limit:
        raise ValueError(f"an answer has more than {limit:,} bytes")
    return found


def _unpack(answer: http.client.HTTPResponse, files: Sequence[BinaryIO], limit: int, unpacked: int) -> None:
    """Write what a body has packed, one file after another. ValueError if it is anything else, or too long."""
    rest = b""
    for file in files:
        rest = _unpack_one(answer, rest, file, limit, unpacked)
    if rest or answer.read(1):
        raise ValueError("an answer has more than what was asked for")


def _unpack_one(answer: http.client.HTTPResponse, part: bytes, file: BinaryIO, limit: int, unpacked: int) -> bytes:
    """Write a file, a small part at a time. `part`: how it begins, or nothing. Return what was read after its end."""
    import zlib

    unpacking = zlib.decompressobj()
    read, written = len(part), 0
    while not unpacking.eof:
        if not part:
            if not (part := answer.read(_PART)):
                raise ValueError("a file ends too soon")
            read += len(part)
        try:
            written += file.write(unpacking.decompress(part, _PART))
        except zlib.error:
            raise ValueError("a file is not packed as it should be") from None
        if read > limit + _PART or written > unpacked:
            raise ValueError("a file is too long")
        part = unpacking.unconsumed_tail
    return unpacking.unused_data


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


class Backoff:
    """How long to wait before the next try: any time up to a bound that doubles (full jitter), for each round of gates.

    So a thousand hosts that lose their gates at once do not come back at once.
    """

    def __init__(self, gates: int) -> None:
        self._gates, self._failures = gates, 0

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._failures = 0

    def next(self) -> float:
        """Return the seconds to wait after one more failure."""
        rounds = self._failures // self._gates
        self._failures += 1
        bound = min(LONGEST, FIRST * 2 ** min(rounds, 16))
        # Another gate may well be there: it is asked soon.
        return random.uniform(0.0, bound if self._failures % self._gates == 0 else min(bound, FIRST))  # noqa: S311
