"""Serves the metrics and probes over HTTP, by the server of the standard library, as prometheus_client does.

That server limits nothing: each client has a thread for as long as it likes. Here, clients are few, a request is small
and short, and the oldest client makes room for a new one, so that a scraper is answered however many others say
nothing. Encryption and passwords are for a server in front (docs/security.md): that of prometheus_client waits in its
only thread for a client that begins with TLS and does not go on.
"""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any

from reconciler.errors import HostError
from reconciler.values import NamedTuple

# Clients at a time, each with a descriptor and a thread.
CLIENTS = 16
# Seconds for one client, from its connection to its last byte.
TIMEOUT = 5.0
# Bytes of a request.
REQUEST = 8192
# Seconds to the next try after a client could not be accepted.
RETRY = 0.1
# Why an address that other hosts reach is worth a warning.
OPEN = "other hosts can read the metrics, without encryption and password; docs/security.md has a server in front"


class Answer(NamedTuple):
    """The status of an answer, its content type, and its body."""

    status: int
    kind: str
    body: bytes


# What is served: path → function of the header `Accept`.
Pages = Mapping[str, Callable[[str], Answer]]


class MetricsServer:
    """Serves pages on one address, in threads of its own, so that it answers even if the watcher hangs."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        try:
            self._server = _Server(host, port, pages)
        except OSError as error:
            raise HostError(f"metrics on {host}:{port}: {error.strerror}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="watch-metrics", daemon=True)
        self._thread.start()

    @property
    def is_public(self) -> bool:
        """Return whether other hosts can connect."""
        return not ip_address(str(self._server.server_address[0]).partition("%")[0]).is_loopback

    @property
    def port(self) -> int:
        """Return the port. If it was 0 in the options, the kernel has chosen one."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving, and end the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Request(io.RawIOBase):
    """The bytes that a client sends: no more than REQUEST, so that no line and no header takes memory."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._left = connection, REQUEST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._connection.recv_into(memoryview(buffer)[: self._left]) if self._left else 0
        self._left -= count
        return count


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Request(self.connection))

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(404)
            return
        try:
            status, kind, body = page(self.headers.get("Accept", ""))
        except Exception:
            # Else nobody would learn why there is no answer.
            logging.getLogger(__name__).exception("defect")
            self.send_error(500)
            return
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing for a scrape."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Connections that wait to be accepted. Beyond the default of 5, a client would try again only after a second.
    request_queue_size = 128

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self.pages = pages
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # The clients, the oldest first, and when the time of each is over. Whatever ends one, its thread removes it.
        self._clients: dict[socket.socket, float] = {}
        self._changed = threading.Condition()
        super().__init__((host, port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            # This process has no descriptors left at the moment. The server would try again at once.
            time.sleep(RETRY)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin with a client, in a thread of its own. The oldest one has to leave if there are too many."""
        with self._changed:
            if len(self._clients) >= CLIENTS:
                _end(next(iter(self._clients)))
            if not self._changed.wait_for(lambda: len(self._clients) < CLIENTS, RETRY):
                # The threads of all clients are at work for the watcher, which may hang.
                super().shutdown_request(request)
                return
            self._clients[request] = time.monotonic() + TIMEOUT
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End the clients whose time is over. The loop of the server calls this at least twice a second."""
        with self._changed:
            for each, end in self._clients.items():
                if end < time.monotonic():
                    _end(each)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, after the last byte."""
        super().shutdown_request(request)
        with self._changed:
            self._clients.pop(request, None)
            self._changed.notify()

    def server_bind(self) -> None:
        # HTTPServer would look up the host's own name in the DNS here.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, *_: object) -> None:
        """Log nothing if the client aborts a scrape."""


def _end(client: socket.socket) -> None:
    """Wake the thread of a client, which closes the descriptor."""
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
