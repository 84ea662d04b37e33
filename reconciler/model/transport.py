"""How the host reaches the agent in a machine: a unix socket, vsock, or hybrid vsock behind a unix socket."""

from __future__ import annotations

from reconciler.values import dataclass

_VSOCK, _HYBRID = "vsock://", "hvsock://"


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A unix socket of this host. `port`: the vsock port that it is asked for, if it speaks hybrid vsock."""

    path: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Vsock:
    """A vsock port of the machine with this context ID (vsock(7))."""

    cid: int
    port: int

    def __str__(self) -> str:
        return f"{_VSOCK}{self.cid}:{self.port}"


Transport = UnixSocket | Vsock


def transport(text: str) -> Transport:
    """Return what an address of the schema means: a path, vsock://CID:PORT or hvsock:///PATH:PORT."""
    if text.startswith(_VSOCK):
        cid, _, port = text.removeprefix(_VSOCK).partition(":")
        return Vsock(int(cid), int(port))
    if text.startswith(_HYBRID):
        path, _, port = text.removeprefix(_HYBRID).rpartition(":")
        return UnixSocket(path, int(port))
    return UnixSocket(text)
