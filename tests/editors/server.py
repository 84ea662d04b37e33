"""A client of a language server, over its standard input and output.

Frames are those of the Language Server Protocol: a header with the length, then JSON-RPC. The server asks for its
configuration and reports diagnostics by itself; everything else answers a request.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self


class Diagnostic(NamedTuple):
    """What the server finds wrong: line and column from 0, as in the protocol, and its words."""

    line: int
    column: int
    message: str


class Server:
    """A language server that runs, with one document after another."""

    def __init__(self, command: Sequence[str], folder: Path, settings: dict[str, Any]) -> None:
        self._command, self._folder, self._settings = command, folder, settings
        self._identity = self._documents = 0
        self._diagnostics: dict[str, list[Diagnostic]] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        capabilities = {
            "textDocument": {
                "completion": {"completionItem": {"snippetSupport": True, "documentationFormat": ["markdown"]}},
                "hover": {"contentFormat": ["markdown"]},
            },
            "workspace": {"configuration": True},
        }
        folder = {"uri": self._folder.as_uri(), "name": "manifests"}
        self.request(
            "initialize",
            {"processId": None, "rootUri": folder["uri"], "workspaceFolders": [folder], "capabilities": capabilities},
        )
        self._send({"method": "initialized", "params": {}})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def open(self, text: str, name: str = "") -> str:
        """Show a document to the server, and return its URI."""
        self._documents += 1
        uri = (self._folder / (name or f"{self._documents}.yaml")).as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        return uri

    def diagnostics(self, texts: Sequence[str], names: Sequence[str] = ()) -> list[list[Diagnostic]]:
        """Return what is wrong with each of some documents. The server waits before it reports: so show all at once."""
        uris = [self.open(text, *names[index : index + 1]) for index, text in enumerate(texts)]
        while not self._diagnostics.keys() >= set(uris):
            self._take(self._read())
        return [self._diagnostics[uri] for uri in uris]

    def completions(self, text: str) -> list[str]:
        """Return the labels that are offered where a text has a `|`."""
        result = self.request("textDocument/completion", self._at(text))
        return [item["label"] for item in result["items"]]

    def hover(self, text: str) -> str:
        """Return what is shown about the place where a text has a `|`."""
        result = self.request("textDocument/hover", self._at(text))
        return str(result["contents"]["value"]) if result else ""

    def _at(self, text: str) -> dict[str, Any]:
        before, _, after = text.partition("|")
        position = {"line": before.count("\n"), "character": len(before) - before.rfind("\n") - 1}
        return {"textDocument": {"uri": self.open(before + after)}, "position": position}

    def request(self, method: str, params: Any) -> Any:
        """Send a request and return its result."""
        self._identity += 1
        self._send({"id": self._identity, "method": method, "params": params})
        while True:
            message = self._read()
            if message.get("id") == self._identity and "method" not in message:
                return message["result"]
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        """Answer a request of the server, or note the diagnostics that it reports."""
        match message:
            case {"id": identity, "method": "workspace/configuration", "params": {"items": items}}:
                self._send({"id": identity, "result": [self._settings.get(item["section"], {}) for item in items]})
            case {"id": identity, "method": _}:
                self._send({"id": identity, "result": None})
            case {"method": "textDocument/publishDiagnostics", "params": params}:
                self._diagnostics[params["uri"]] = [
                    Diagnostic(each["range"]["start"]["line"], each["range"]["start"]["character"], each["message"])
                    for each in params["diagnostics"]
                ]

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        length = 0
        while line := self._process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not length:
            raise EOFError("the language server ended")
        message: dict[str, Any] = json.loads(self._process.stdout.read(length))
        return message
