"""The agent of a host: two threads, of which one fetches what is desired, and the other reports what became of it.

Neither ends because of an error: it waits, and tries again. What is on disk stays in force meanwhile, so the watcher of
this host goes on without gates, without etcd and without network, also across restarts.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from reconciler.errors import HostError
from reconciler.fleet import records
from reconciler.fleet.agent.cache import MAX_DESIRED, Cache, Version, read_version
from reconciler.fleet.agent.client import PATIENCE, Backoff, Client, Credentials, Gate, UnreachableError
from reconciler.fleet.agent.report import report
from reconciler.fleet.blobs import MAX_BYTES, MAX_PACKED
from reconciler.fleet.records import HostStatus
from reconciler.values import NamedTuple, replace
from reconciler.watch import log
from reconciler.watch.client import read_status

# Seconds between two looks at the watcher: while a version is new, and later; the share of the time that they take.
SOON, IDLE, REST = 0.1, 1.0, 20.0
# Seconds for which a version is new, and for which it is not worth a report that it is being applied.
NEW, EARLY = 30.0, 2.0
# Seconds between two reports, and after which one is repeated although nothing has changed.
REPORT, REPEAT = 2.0, 60.0
# Seconds that the end of a thread may take: it may be about to connect.
_END = 1.0
# Seconds between two checks that the files on disk are what they should be.
CHECK = 60.0


class Fleet(NamedTuple):
    """Where the gates of a fleet are, and what this host shows them."""

    gates: Sequence[Gate]
    credentials: Credentials


class Agent:
    """Fills the folder of the watcher, and reports. `start` and `stop` are called once, by one thread."""

    def __init__(self, fleet: Fleet) -> None:
        """Open the folder. HostError or BusyError if that is impossible."""
        self._cache = Cache()
        self._cache.begin()
        self._ended = threading.Event()
        # Set while a version is new to the thread that reports.
        self._news = threading.Event()
        self._taken_at = time.monotonic()
        # What is wrong, by the thread that says so.
        self._problems: dict[str, str] = {}
        self._clients = [Client(fleet.gates, fleet.credentials) for _ in range(2)]
        works = (("desired", self._fetch), ("report", self._report))
        self._threads = [
            threading.Thread(target=self._repeat, args=(name, step, client), name=f"fleet-{name}", daemon=True)
            for (name, step), client in zip(works, self._clients, strict=True)
        ]
        self._checked_at = -CHECK
        # The digest of a version that this host does not go back to.
        self._refused = ""
        self._reported: tuple[HostStatus, float] | None = None

    def start(self) -> None:
        """Start both threads."""
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """End both threads, whatever they wait for."""
        self._ended.set()
        self._news.set()
        for each in self._clients:
            each.end()
        for thread in self._threads:
            thread.join(_END)
        self._cache.close()

    def _repeat(self, name: str, step: Callable[[Client], float], client: Client) -> None:
        """Do a step again and again, after as many seconds as it returns, and after a while if it fails."""
        backoff = Backoff(client.count)
        while not self._ended.is_set():
            try:
                pause = step(client)
            except (UnreachableError, HostError, OSError, ValueError) as error:
                self._fail(name, str(error) or type(error).__name__)
                pause = backoff.next()
            except Exception as error:
                logging.getLogger(__name__).exception("defect")
                self._fail(name, f"{type(error).__name__}: {error}")
                pause = backoff.next()
            else:
                backoff.reset()
            (self._news if name == "report" else self._ended).wait(pause)
        client.close()

    def _fail(self, name: str, problem: str) -> None:
        if self._problems.get(name) != problem and not self._ended.is_set():
            log.emit("fleet", level=log.WARNING, problem=problem, consequence="what is on this host stays in force")
        self._problems[name] = problem

    def _succeed(self, name: str, client: Client) -> None:
        if self._problems.pop(name, None) is not None:
            log.emit("fleet", gate=str(client.gate), connected=name)

    def _fetch(self, client: Client) -> float:
        """Ask for what is desired, and take it. Return 0: the next question waits at the gate."""
        version = self._cache.version
        if (now := time.monotonic()) - self._checked_at >= CHECK:
            self._checked_at = now
            if not self._cache.is_whole():
                log.emit("fleet", level=log.WARNING, problem="files of the release are missing or were changed")
                version, self._checked_at = None, -CHECK
        have = self._refused or (version.digest if version else "")
        answer = client.ask(f"/v1/desired?have={have}", limit=MAX_DESIRED, patience=PATIENCE)
        if answer.status == 200:
            self._take(client, answer.body)
        self._succeed("desired", client)
        return 0.0

    def _take(self, client: Client, data: bytes) -> None:
        version, begin = read_version(data), time.monotonic()
        if self._cache.had(version):
            self._refuse(version)
            return

        def fetch(files: Mapping[str, BinaryIO]) -> None:
            client.fetch(f"/v1/blob/{','.join(files)}", [*files.values()], limit=MAX_PACKED, unpacked=MAX_BYTES)

        self._cache.take(data, version, fetch)
        desired, self._taken_at, self._refused = version.desired, time.monotonic(), ""
        self._problems.pop("older", None)
        self._news.set()
        log.emit("release", release=desired.release, sandboxes=len(desired.sandboxes), seconds=self._taken_at - begin)

    def _refuse(self, version: Version) -> None:
        """Keep what this host has, and wait for something else than what was sent."""
        self._refused = version.digest
        now = self._cache.version.desired.release if self._cache.version else "nothing"
        self._fail(
            "older",
            f"the fleet wants release {version.desired.release}, which this host had before {now}: was etcd restored "
            f"from an older backup? This host keeps {now}; `reconciler fleet push` settles it",
        )

    def _report(self, client: Client) -> float:
        """Report if there is something new to say. Return the seconds until the next look."""
        self._news.clear()
        begin = time.monotonic()
        version, age = self._cache.version, begin - self._taken_at
        found = report(version, _read_watch(), age, [f"fleet: {each}" for each in self._alarms()])
        took = time.monotonic() - begin
        if self._is_worth(found, age):
            sent = replace(found, when=time.time())
            client.ask("/v1/status", records.encode(sent), limit=1 << 10)
            self._reported = found, time.monotonic()
        self._succeed("report", client)
        return max(SOON if age < NEW and not found.reached else IDLE, REST * took)

    def _is_worth(self, found: HostStatus, age: float) -> bool:
        if self._reported is None:
            return True
        before, when = self._reported
        if (since := time.monotonic() - when) >= REPEAT:
            return True
        return found != before and since >= REPORT and (found.reached or age >= EARLY)

    def _alarms(self) -> list[str]:
        return [self._problems[each] for each in ("desired", "older") if each in self._problems]


def _read_watch() -> Mapping[str, Any] | None:
    """Return what the watcher of this host knows; None if there is none, or it does not answer."""
    try:
        return read_status()
    except (HostError, OSError, json.JSONDecodeError):
        return None
