"""What the server of the page answers: its files, one sandbox, and the stream of events. It changes nothing."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from reconciler.values import NamedTuple
from reconciler.watch.page.address import Access
from reconciler.watch.page.board import Source, harmless
from reconciler.watch.page.feed import Feed

_PACKAGE = "reconciler.watch.page"
# Bytes of a body that are read before the answer that refuses it.
_BODY = 64 << 10
_STREAM = "text/event-stream"
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# Sent with each answer. The page has what this package has, runs nothing that stands in the page itself, sends nothing
# elsewhere, is in no frame, and text never becomes markup.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "connection": "close",
}
Scope = Mapping[str, Any]


class Answer(NamedTuple):
    """An answer that is whole."""

    status: int
    body: bytes
    kind: str = "text/plain"
    more: Mapping[str, str] = {}


NOT_FOUND = Answer(404, b"not found\n")
NOT_US = Answer(421, b"the header Host names another server; docs/page.md has the names of this one\n")
NOT_ASKED = Answer(403, b"only the page itself may ask for this\n")
NO_TOKEN = Answer(
    401,
    b"a token is needed: as the password of any user\n",
    more={"www-authenticate": 'Basic realm="reconciler", charset="UTF-8"'},
)
READ_ONLY = Answer(405, b"this server is read-only\n", more={"allow": "GET, HEAD"})
TOO_MANY = Answer(503, b"too many pages are open\n", more={"retry-after": "5"})
DEFECT = Answer(500, b"an error in reconciler itself, which its log has\n")


class Application:
    """An ASGI application. `package`: its folder `static` has files besides those of this page, or in their place."""

    def __init__(self, access: Access, source: Source, package: str = "") -> None:
        self._access, self._source, self._feed = access, source, Feed(source)
        self._files = _read_files(_PACKAGE, *filter(None, [package]))

    async def __call__(self, scope: Scope, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """Answer one request."""
        try:
            answer = await self._answer(scope, receive)
        except Exception:
            logging.getLogger(__name__).exception("defect")
            answer = DEFECT
        if answer is None and not scope["state"]["connection"].begin_stream():
            answer = TOO_MANY
        if answer is not None:
            length = {"content-length": str(len(answer.body))}
            await send(_start(answer.status, f"{answer.kind}; charset=utf-8", {**answer.more, **length}))
            await send({"type": "http.response.body", "body": answer.body})
        else:
            await self._stream(scope, send)

    async def _answer(self, scope: Scope, receive: Callable[[], Any]) -> Answer | None:
        """Return the answer to a request; None if that is the stream of events."""
        headers = dict(reversed(scope["headers"]))
        if scope["method"] not in {"GET", "HEAD"}:
            await _read_body(headers, receive)
            return READ_ONLY
        if not self._access.allows_host(headers.get(b"host", b"")):
            return NOT_US
        if not _is_ours(headers):
            return NOT_ASKED
        if not self._access.allows(headers.get(b"authorization", b"")):
            return NO_TOKEN
        path = scope["raw_path"].decode("ascii", "replace")
        if path == "/events":
            return None if scope["method"] == "GET" else Answer(200, b"", _STREAM)
        if path.startswith("/sandboxes/"):
            found = await asyncio.to_thread(self._source.detail, unquote(path.removeprefix("/sandboxes/")))
            return Answer(200, json.dumps(harmless(found)).encode(), "application/json") if found else NOT_FOUND
        return self._files.get(path, NOT_FOUND)

    async def _stream(self, scope: Scope, send: Callable[[Any], Any]) -> None:
        """Send events until the client leaves, which cancels this."""
        last = dict(scope["headers"]).get(b"last-event-id", b"").decode("ascii", "replace")
        with suppress(asyncio.CancelledError):
            await send(_start(200, f"{_STREAM}; charset=utf-8", {}))
            async with aclosing(self._feed.follow(last)) as events:
                async for each in events:
                    await send({"type": "http.response.body", "body": each, "more_body": True})


def _start(status: int, kind: str, more: Mapping[str, str]) -> dict[str, Any]:
    headers = {**_HEADERS, "content-type": kind, **more}
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }


def _is_ours(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a browser asks for its user or for our page, and not for a page of another site.

    Browsers say so to addresses of loopback, and by TLS (Fetch Metadata, W3C). A link from elsewhere is followed.
    """
    is_link = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
    return is_link or headers.get(b"sec-fetch-site", b"none") in {b"none", b"same-origin"}


async def _read_body(headers: Mapping[bytes, bytes], receive: Callable[[], Any]) -> None:
    """Read a small body. A client that is still writing it would not read the answer."""
    length = headers.get(b"content-length", b"0")
    left = int(length) if length.isdigit() and len(length) < 10 else _BODY + 1
    while 0 < left <= _BODY:
        message = await receive()
        if message["type"] != "http.request" or not message["more_body"]:
            return
        left -= len(message["body"])


def _read_files(*packages: str) -> dict[str, Answer]:
    """Return the files of the page, by their paths."""
    found = {}
    for package in packages:
        for each in files(package).joinpath("static").iterdir():
            if kind := _TYPES.get(each.name.rpartition(".")[2]):
                found[f"/{each.name}"] = Answer(200, each.read_bytes(), kind)
    return {**found, "/": found["/index.html"]}
