"""A command line → what it asks for."""

from __future__ import annotations

from typing import NamedTuple

from reconciler.formats.ipvsadm.popt import read_command
from reconciler.formats.ipvsadm.read import read_key, read_server, read_service, to_number
from reconciler.model.ipvs import TIMEOUT_MAX, Server, Service, ServiceKey, Timeouts


class Command(NamedTuple):
    """A command line of ipvsadm, as far as it says something.

    `name`: -A, -E, -D, -C, -a, -e, -d, -L, -S or --set; `key`: the service it is about; `service`: without servers.
    """

    name: str
    key: ServiceKey | None = None
    service: Service | None = None
    server: Server | None = None
    timeouts: Timeouts | None = None


def parse_command(text: str) -> Command:
    """Read a command line. A server for which no way of forwarding is given is reached by NAT. ValueError if it is wrong."""
    words = text.split()
    if words[:1] == ["--set"]:
        return Command("--set", timeouts=_read_timeouts(words[1:]))
    options = read_command(words)
    name, _ = options["command"]
    if name in {"-C", "-S"} or (name == "-L" and options.keys() <= {"command", "numeric"}):
        return Command(name)
    key = read_key(options)
    protocol, address, port = key
    service = server = None
    if name in {"-A", "-E"}:
        service = read_service(options, key)(protocol=protocol, address=address, port=port)
    elif name in {"-a", "-e", "-d"}:
        options.setdefault("forward", ("-m", ""))
        server = read_server(options, key)
    return Command(name, key, service, server)


def _read_timeouts(words: list[str]) -> Timeouts:
    """Read the three timeouts of --set; 0 leaves one as it is."""
    if len(words) != len(Timeouts._fields):
        raise ValueError("--set takes three numbers: the seconds for TCP, for TCP after a FIN, and for UDP")
    return Timeouts(*(to_number("--set", word, 0, TIMEOUT_MAX) or None for word in words))
