"""Who is connected: the host of each connection, by its certificate alone, and what a host may take of the gate."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, Protocol

from reconciler.fleet import keys
from reconciler.fleet.records import HostRecord
from reconciler.values import NamedTuple
from reconciler.watch.share import Bucket, Clock

# Connections of a host at a time: an agent has two. The oldest one leaves for a new one.
CONNECTIONS = 8
# Requests of a host, at once and for each second. The first fetch of 2,000 manifests takes 20 s.
REQUESTS, REQUEST_RATE = 300.0, 100.0
# Bytes that a host sends. A report has at most 64 KiB, every 2 s.
SENT, SENT_RATE = float(2 << 20), float(128 << 10)
# Bytes that a host fetches.
FETCHED, FETCH_RATE = float(64 << 20), float(8 << 20)
# Hosts whose buckets are remembered after they have left.
_REMEMBERED = 10_000


class Peer(NamedTuple):
    """Whom a certificate names. `fingerprint`: SHA-256 of its DER."""

    host: str
    fingerprint: str


NOBODY = Peer("", "")


class Connection(Protocol):
    """A connection of a host."""

    def abort(self) -> None:
        """Close it at once."""


class TlsObject(Protocol):
    """What the transport of a connection knows of its peer."""

    def getpeercert(self, binary_form: bool = False) -> Any: ...  # noqa: D102, FBT002


def peer_of(tls: TlsObject | None) -> Peer:
    """Return whom the certificate of a connection names, by its only common name; NOBODY if it names no host."""
    data = tls.getpeercert(binary_form=True) if tls else None
    if tls is None or not data:
        return NOBODY
    subject = (tls.getpeercert() or {}).get("subject", ())
    names = [value for group in subject for kind, value in group if kind == "commonName"]
    if len(names) != 1 or not keys.is_host(names[0]):
        return NOBODY
    return Peer(names[0], hashlib.sha256(data).hexdigest())


class Allowance:
    """What one host may take: it waits for the rest, and nobody else does."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._requests = Bucket(REQUESTS, REQUEST_RATE, clock)
        self._sent = Bucket(SENT, SENT_RATE, clock)
        self._fetched = Bucket(FETCHED, FETCH_RATE, clock)

    def take_request(self) -> float:
        """Return the seconds that a request has to wait."""
        return self._requests.take(1.0)

    def take_sent(self, size: int) -> float:
        """Return for how many seconds nothing more may come, after so many bytes."""
        return self._sent.take(size)

    def take_fetched(self, size: int) -> float:
        """Return the seconds that a part of an answer has to wait."""
        return self._fetched.take(size)


class Peers:
    """The hosts that may connect, and their connections. Only the thread of the event loop uses it.

    `changed` is called with a host that has its first connection, or has lost its last one.
    """

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._records: dict[str, HostRecord] = {}
        self._connections: dict[str, dict[Connection, Peer]] = {}
        self._allowances: dict[str, Allowance] = {}
        # How often connections had to leave, and peers were not let in.
        self.crowded = self.refused = 0

    def refusal(self, peer: Peer) -> str:
        """Return why a peer is not let in; empty if it is."""
        record = self._records.get(peer.host)
        if peer is NOBODY or record is None:
            return "the fleet does not know this host: `reconciler fleet host add` makes it known"
        if record.fenced:
            return "this host is fenced"
        if not record.fingerprint or record.fingerprint != peer.fingerprint:
            return "this is not the certificate that the fleet knows of this host, or it was revoked"
        return ""

    def set_record(self, host: str, record: HostRecord | None) -> None:
        """Set what an administrator says about a host. Connections that are not allowed any more are closed at once."""
        if record is None:
            self._records.pop(host, None)
        else:
            self._records[host] = record
        for connection, peer in [*self._connections.get(host, {}).items()]:
            if self.refusal(peer):
                self.refused += 1
                connection.abort()

    def add(self, connection: Connection, peer: Peer) -> None:
        """Add a connection of a host that is allowed. The oldest one leaves if there are too many."""
        found = self._connections.setdefault(peer.host, {})
        if len(found) >= CONNECTIONS:
            self.crowded += 1
            oldest = next(iter(found))
            # It is closed a moment later, and more may come until then.
            del found[oldest]
            oldest.abort()
        found[connection] = peer
        if len(found) == 1:
            self._changed(peer.host)

    def remove(self, connection: Connection, peer: Peer) -> None:
        """Forget a connection that is closed."""
        found = self._connections.get(peer.host, {})
        if found.pop(connection, None) and not found:
            del self._connections[peer.host]
            self._changed(peer.host)

    def allowance(self, host: str) -> Allowance:
        """Return what a host may take."""
        if (found := self._allowances.pop(host, None)) is None:
            found = Allowance()
        self._allowances[host] = found
        if len(self._allowances) > max(_REMEMBERED, 2 * len(self._connections)):
            del self._allowances[next(iter(self._allowances))]
        return found

    def is_connected(self, host: str) -> bool:
        """Return whether a host has a connection here."""
        return host in self._connections

    @property
    def hosts(self) -> int:
        """Return how many hosts have a connection here."""
        return len(self._connections)

    @property
    def connections(self) -> int:
        """Return how many connections there are."""
        return sum(map(len, self._connections.values()))
