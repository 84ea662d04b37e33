"""Serves the status of the watcher: as JSON on a local socket, and as metrics for Prometheus over HTTP."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from reconciler import rundir
from reconciler.errors import HostError
from reconciler.watch import client, clock
from reconciler.watch.state import SandboxState, Standing

# Seconds to the next try after a client could not be answered.
RETRY = 0.1


class StatusSocket:
    """Answers each connection with the result of `data` as JSON, in a thread of its own."""

    def __init__(self, data: Callable[[], dict[str, Any]]) -> None:
        self._data, self._closed = data, threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            rundir.make(os.path.dirname(client.SOCKET))
            # A socket that exists was left by a killed watcher: the caller has the lock of this host.
            with suppress(FileNotFoundError):
                os.unlink(client.SOCKET)
            # bind(2) gives the file this mode.
            os.fchmod(self._socket.fileno(), 0o600)
            self._socket.bind(client.SOCKET)
            self._socket.listen()
        except BaseException as error:
            self._socket.close()
            if isinstance(error, OSError):
                raise HostError(f"{client.SOCKET}: {error.strerror}") from error
            raise
        self._thread = threading.Thread(target=self._serve, name="watch-status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering, and end the thread."""
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
                connection, _ = self._socket.accept()
                with connection:
                    connection.settimeout(client.TIMEOUT)
                    connection.sendall(json.dumps(self._data()).encode())
            except OSError:
                # The client has left, or this process has no descriptors left at the moment.
                self._closed.wait(RETRY)
            except Exception:
                # A defect must not end the thread: `status` is how people learn that something is wrong.
                logging.getLogger(__name__).exception("defect")


# In these states, the present text of a manifest is not in force.
_NOT_USED = {SandboxState.OUTDATED, SandboxState.PENDING}
# The metrics of each sandbox: name, type, help text, and the function that reads it.
_METRICS: list[tuple[str, str, str, Callable[[Standing], float]]] = [
    (
        "converged",
        "gauge",
        "1 if the last look is recent and found the sandbox as its manifest describes it now",
        lambda each: float(each.is_converged),
    ),
    (
        "last_look_timestamp_seconds",
        "gauge",
        "time of the last look that succeeded, in Unix seconds",
        lambda each: clock.unix(each.status.looked),
    ),
    ("repairs_total", "counter", "operations that repaired drift", lambda each: float(each.status.repairs)),
    (
        "fights",
        "gauge",
        "objects whose repair another program reverts again and again",
        lambda each: float(len(each.status.fights)),
    ),
    (
        "manifest_refused",
        "gauge",
        "1 if the present text of its manifest is not used, or not yet",
        lambda each: float(each.doubt is not None and each.doubt.state in _NOT_USED),
    ),
]


def format_metrics(standings: Sequence[Standing], *, alarms: int, problems: int) -> str:
    """Return all metrics in the text format of Prometheus. `alarms`, `problems`: how many there are."""
    return "\n".join((*_lines(standings, alarms, problems), ""))


def _lines(standings: Sequence[Standing], alarms: int, problems: int) -> Iterator[str]:
    yield from _head("alarms", "gauge", "number of alarms of the whole watcher; `reconciler status` lists them")
    yield f"reconciler_alarms {alarms}"
    yield from _head("manifest_problems", "gauge", "number of problems in manifests; `reconciler status` lists them")
    yield f"reconciler_manifest_problems {problems}"
    yield from _head("sandboxes", "gauge", "number of sandboxes in each state")
    counts = Counter(each.state for each in standings)
    for state in SandboxState:
        yield f'reconciler_sandboxes{{state="{state.value}"}} {counts[state]}'
    for name, kind, words, read in _METRICS:
        yield from _head(name, kind, words)
        for each in standings:
            yield f'reconciler_{name}{{sandbox="{each.status.sandbox}"}} {read(each):.15g}'


def _head(name: str, kind: str, words: str) -> Iterator[str]:
    yield f"# HELP reconciler_{name} {words}"
    yield f"# TYPE reconciler_{name} {kind}"


class MetricsServer:
    """Serves `/metrics` on one address, in threads of its own, so that it answers even if the watcher hangs."""

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
                """Log nothing for a scrape."""

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True

            def get_request(self) -> tuple[socket.socket, Any]:
                try:
                    return super().get_request()
                except OSError:
                    # This process has no descriptors left at the moment. The server would try again at once.
                    time.sleep(RETRY)
                    raise

            def server_bind(self) -> None:
                # HTTPServer would look up the host's own name in the DNS here.
                TCPServer.server_bind(self)
                self.server_name, self.server_port = host, int(self.server_address[1])

            def handle_error(self, *_: object) -> None:
                """Log nothing if the client aborts a scrape."""

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            raise HostError(f"metrics on {host}:{port}: {error.strerror}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="watch-metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Return the port. If it was 0 in the options, the kernel has chosen one."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving, and end the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def format_age(when: float) -> str:
    """Format how long ago a time (Unix seconds) was, such as `2 s ago`; `-` for 0, which means never."""
    if not when:
        return "-"
    seconds = max(0, int(time.time() - when))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
