"""The connection of a command to etcd: its options, and the store."""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from reconciler.errors import HostError
from reconciler.fleet.store import Store
from reconciler.wording import failure

_T = TypeVar("_T")
# Options → the variables of etcd's own client, by which they are set otherwise.
_VARIABLES = {
    "etcd": "ETCDCTL_ENDPOINTS",
    "etcd_ca": "ETCDCTL_CACERT",
    "etcd_cert": "ETCDCTL_CERT",
    "etcd_key": "ETCDCTL_KEY",
}


def add_etcd(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the options. `several`: `--etcd` may have several words as well, as no other word follows."""
    group = parser.add_argument_group("etcd", "Each is also read from a variable, as etcdctl does.")
    words = "its members, such as https://192.0.2.1:2379 (ETCDCTL_ENDPOINTS)"
    if several:
        group.add_argument("--etcd", nargs="+", action="extend", metavar="URL", help=words)
    else:
        group.add_argument("--etcd", metavar="URL,…", help=words)
    group.add_argument("--etcd-ca", metavar="FILE", help="the CA of its certificates, as PEM (ETCDCTL_CACERT)")
    group.add_argument("--etcd-cert", metavar="FILE", help="the certificate of this client (ETCDCTL_CERT)")
    group.add_argument("--etcd-key", metavar="FILE", help="the key of that certificate (ETCDCTL_KEY)")


def with_store(arguments: argparse.Namespace, work: Callable[[Store], Awaitable[_T]]) -> _T:
    """Run a coroutine with the store that the options name, and return its result."""
    # Each action of `fleet` imports this module, and an agent of a host should need little memory.
    import asyncio

    async def run() -> _T:
        store = open_store(arguments)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def open_store(arguments: argparse.Namespace) -> Store:
    """Return the store that the options name; within an event loop. HostError if something is missing."""
    given = {name: getattr(arguments, name) for name in _VARIABLES}
    if isinstance(given["etcd"], list):
        given["etcd"] = ",".join(given["etcd"])
    values = {name: given[name] or os.environ.get(variable, "") for name, variable in _VARIABLES.items()}
    urls = [each.strip() for each in values["etcd"].split(",") if each.strip()]
    if not urls:
        raise HostError("which etcd? Give --etcd URL,… or set ETCDCTL_ENDPOINTS, such as https://192.0.2.1:2379")
    files = {name: values[name] for name in ("etcd_ca", "etcd_cert", "etcd_key")}
    missing = [f"--{name.replace('_', '-')} ({_VARIABLES[name]})" for name, file in files.items() if not file]
    if missing and (len(missing) < len(files) or any(each.startswith("https:") for each in urls)):
        raise HostError(f"etcd needs a certificate of this client, a key and a CA; missing: {', '.join(missing)}")
    try:
        from reconciler.fleet.etcd.client import PATIENCE, Etcd
        from reconciler.fleet.etcd.members import Credentials
    except ImportError as error:
        raise missing_extra(error) from None
    credentials = None if missing else Credentials(*(_read(file) for file in files.values()))
    return Etcd(urls, credentials, patience=PATIENCE)


def missing_extra(error: ImportError) -> HostError:
    """Return the error of a command that needs a library of the extra `fleet`."""
    return HostError(
        f"the library {error.name} is missing, which a fleet needs: install it with "
        "`pipx install 'reconciler[fleet]'` (or pip, in the environment of reconciler), or as Debian packages: "
        "`apt-get install python3-grpcio python3-aiohttp python3-cryptography`"
    )


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            return stream.read(1 << 20)
    except OSError as error:
        raise HostError(f"{failure(error)}; it is one of the files by which etcd knows this client") from None
