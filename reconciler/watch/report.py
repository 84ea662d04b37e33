"""What a watcher is asked from outside: its state as JSON on a local socket, and as metrics of Prometheus."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from reconciler.errors import HostError
from reconciler.watch import client
from reconciler.watch.state import GOOD, State, Status

# Seconds until the next try where nobody could be answered.
PAUSE = 0.1


class StatusSocket:
    """Answers each who connects, in a thread of its own, with what `data` gives."""

    def __init__(self, data: Callable[[], dict[str, Any]]) -> None:
        self._data, self._closed = data, threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        # Whoever holds the lock of the host may take the name.
        with suppress(FileNotFoundError):
            os.unlink(client.SOCKET)
        try:
            self._socket.bind(client.SOCKET)
            os.chmod(client.SOCKET, 0o600)
            self._socket.listen()
        except OSError as error:
            self._socket.close()
            raise HostError(f"{client.SOCKET}: {error.strerror}") from error
        self._thread = threading.Thread(target=self._serve, name="watch-status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._closed.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        with suppress(FileNotFoundError):
            os.unlink(client.SOCKET)

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                asker, _ = self._socket.accept()
                with asker:
                    asker.settimeout(client.TIMEOUT)
                    asker.sendall(json.dumps(self._data()).encode())
            except OSError:
                # Whoever asked has left, or there are no descriptors just now.
                self._closed.wait(PAUSE)
            except Exception:
                # A defect here is not to end what says so.
                logging.getLogger(__name__).exception("status")


# Name, kind and help of each metric of a sandbox, and how it is read.
_METRICS: list[tuple[str, str, str, Callable[[Status], float]]] = [
    (
        "converged",
        "gauge",
        "1 if the last look, and none too long ago, found the sandbox as its manifest says",
        lambda status: float(status.state in GOOD and status.is_fresh()),
    ),
    ("last_look_timestamp_seconds", "gauge", "when it was last looked at", lambda status: status.looked),
    ("repairs_total", "counter", "operations against drift", lambda status: float(status.repairs)),
    ("fights", "gauge", "objects that somebody else undoes again and again", lambda status: float(len(status.fights))),
    ("manifest_refused", "gauge", "1 if its present manifest cannot be used", lambda s: float(bool(s.refused))),
]


def metrics(statuses: Sequence[Status], *, alarms: int, problems: int) -> str:
    """Write the metrics in the text format of Prometheus."""
    return "\n".join((*_lines(statuses, alarms, problems), ""))


def _lines(statuses: Sequence[Status], alarms: int, problems: int) -> Iterator[str]:
    yield from _head("alarms", "gauge", "what is wrong with the watch as a whole; `reconciler status` names it")
    yield f"reconciler_alarms {alarms}"
    yield from _head("manifest_problems", "gauge", "what is wrong with manifests; `reconciler status` names it")
    yield f"reconciler_manifest_problems {problems}"
    yield from _head("sandboxes", "gauge", "sandboxes by state")
    for state in State:
        yield f'reconciler_sandboxes{{state="{state.value}"}} {sum(each.state is state for each in statuses)}'
    for name, kind, words, read in _METRICS:
        yield from _head(name, kind, words)
        for each in statuses:
            yield f'reconciler_{name}{{sandbox="{each.sandbox}"}} {read(each):.15g}'


def _head(name: str, kind: str, words: str) -> Iterator[str]:
    yield f"# HELP reconciler_{name} {words}"
    yield f"# TYPE reconciler_{name} {kind}"


class MetricsServer:
    """Serves `/metrics` of one address, in threads of its own: a scrape tells the truth of a watch that hangs, too."""

    def __init__(self, host: str, port: int, text: Callable[[], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = client.TIMEOUT

            def do_GET(self) -> None:
                if self.path != "/metrics":
                    self.send_error(404)
                    return
                body = text().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing of each scrape."""

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True

            def server_bind(self) -> None:
                # Not that of HTTPServer, which asks the DNS for the host's own name.
                TCPServer.server_bind(self)
                self.server_name, self.server_port = host, int(self.server_address[1])

            def handle_error(self, *_: object) -> None:
                """Say nothing of a scrape that was broken off."""

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            raise HostError(f"metrics on {host}:{port}: {error.strerror}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="watch-metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port, which the kernel chose where 0 was asked for."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def age(when: float) -> str:
    """Say how long ago a moment was: `2 s ago`; `-` for never."""
    if not when:
        return "-"
    seconds = max(0, int(time.time() - when))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
