"""Where the page is served, and who may read it: the address, the names that lead to it, and the token.

A page of another site can make a browser connect to us under a name of its own (DNS rebinding). It cannot choose the
header `Host`: so only names and addresses are answered that are ours.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import socket
import stat
from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address

from reconciler.errors import HostError
from reconciler.values import NamedTuple
from reconciler.wording import reason

# Bytes of a token: fewer can be guessed, and more are no token.
_SHORTEST, _LONGEST = 16, 256
_TOKEN = re.compile(rb"[!-~]+")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_OTHERS = 0o077
# Seconds to find out whether somebody listens on a socket that exists.
_TRY = 1.0


class PageAddress(NamedTuple):
    """Where the page is served: on a TCP port, or at the path of a Unix socket. `token_file`: "" for none."""

    host: str = ""
    port: int = 0
    path: str = ""
    token_file: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else _joined(self.host, self.port)


class Listener:
    """The bound socket of the page. HostError if it cannot be bound, or if others reach it without a token."""

    def __init__(self, address: PageAddress) -> None:
        self._address = address
        token = _read_token(address.token_file) if address.token_file else None
        try:
            self.socket = _bind_path(address.path) if address.path else _bind_port(address.host, address.port)
        except (OSError, UnicodeError) as error:
            words = (isinstance(error, OSError) and error.strerror) or error
            raise HostError(f"--ui {address}: {words}") from error
        self.access = Access({address.host, self._bound} if address.host else LOOPBACK, token)
        if self.is_public and not address.token_file:
            self.close()
            raise HostError(
                f"--ui {address}: other hosts reach this address, so the page needs a token: --ui-token-file FILE "
                "(docs/page.md); or use 127.0.0.1, which only this host reaches"
            )

    @property
    def is_public(self) -> bool:
        """Return whether other hosts can connect."""
        return not self._address.path and not ip_address(self._bound).is_loopback

    @property
    def url(self) -> str:
        """Return where the page is. If the port was 0 in the options, the kernel has chosen one."""
        if self._address.path:
            return f"unix:{self._address.path}"
        return f"http://{_joined(self._bound, int(self.socket.getsockname()[1]))}/"

    def close(self) -> None:
        """Close the socket, and delete its file if it has one."""
        self.socket.close()
        if self._address.path:
            with suppress(FileNotFoundError):
                os.unlink(self._address.path)

    @property
    def _bound(self) -> str:
        return str(self.socket.getsockname()[0]).partition("%")[0]


class Access:
    """Who is answered. `names`: of this server, and its addresses. `token`: what a client has to know."""

    def __init__(self, names: Collection[str], token: bytes | None) -> None:
        self._token = token and hashlib.sha256(token).digest()
        self._names = {each.lower() for each in names}
        self._is_any = bool(self._names & {"0.0.0.0", "::"})
        if self._names & LOOPBACK or any(_is_address(each) and ip_address(each).is_loopback for each in self._names):
            self._names |= LOOPBACK

    def allows_host(self, host: bytes) -> bool:
        """Return whether a header `Host` names us, with any port: a tunnel of ssh has another one.

        On all addresses of this host, that is any address: nobody can rebind one, as it is no name.
        """
        match = re.fullmatch(rb"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", host.lower())
        if match is None:
            return False
        name = match[1].decode().removeprefix("[").removesuffix("]")
        return name in self._names or (self._is_any and (name in LOOPBACK or _is_address(name)))

    def allows(self, authorization: bytes) -> bool:
        """Return whether a header `Authorization` has the token, as the password of any user or as a bearer's."""
        if self._token is None:
            return True
        kind, _, words = authorization.partition(b" ")
        given = words.strip()
        if kind.lower() == b"basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif kind.lower() != b"bearer":
            return False
        # Neither the length nor a common beginning shows in the time that this takes.
        return hmac.compare_digest(hashlib.sha256(given).digest(), self._token)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _bind_port(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        # A port that a watcher has just left can be bound at once.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen()
    except BaseException:
        made.close()
        raise
    return made


def _bind_path(path: str) -> socket.socket:
    _remove_left(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # bind(2) gives the file this mode.
        os.fchmod(made.fileno(), 0o600)
        made.bind(path)
        made.listen()
    except BaseException:
        made.close()
        raise
    return made


def _remove_left(path: str) -> None:
    """Delete a socket that a killed watcher left. With anything else at this path, or a listener, bind(2) will fail."""
    with suppress(OSError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
            client.settimeout(_TRY)
            try:
                client.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def _read_token(path: str) -> bytes:
    """Return the token in a file that nobody but its owner can read. HostError if there is none."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(f"--ui-token-file {path}: {reason(error)}") from error
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise HostError(f"--ui-token-file {path} is not a regular file")
        if found.st_mode & _OTHERS or found.st_uid not in {0, os.geteuid()}:
            raise HostError(
                f"--ui-token-file {path}: other users can read or replace it (user {found.st_uid}, mode "
                f"{stat.S_IMODE(found.st_mode):04o}); make a new token in a file of this user with mode 0600"
            )
        token = os.read(opened, 2 * _LONGEST).strip()
    finally:
        os.close(opened)
    if not _SHORTEST <= len(token) <= _LONGEST or not _TOKEN.fullmatch(token):
        raise HostError(
            f"--ui-token-file {path}: expected one word of {_SHORTEST} to {_LONGEST} printable characters of ASCII, "
            "such as `head -c 24 /dev/urandom | base64` prints"
        )
    return token
