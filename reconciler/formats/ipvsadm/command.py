"""A command line of ipvsadm → the values that it contains."""

from __future__ import annotations

from reconciler.formats.ipvsadm.popt import read_command
from reconciler.formats.ipvsadm.read import read_key, read_server, read_service, to_number
from reconciler.model.ipvs import TIMEOUT_MAX, Server, Service, ServiceKey, Timeouts
from reconciler.values import NamedTuple


class IpvsadmCommand(NamedTuple):
    """A command line of ipvsadm; what it does not contain is None.

    `name`: -A, -E, -D, -C, -a, -e, -d, -L, -S or --set; `key`: that of its service; `service`: without servers.
    """

    name: str
    key: ServiceKey | None = None
    service: Service | None = None
    server: Server | None = None
    timeouts: Timeouts | None = None


def parse_command(text: str) -> IpvsadmCommand:
    """Read a command line. A server without a forwarding option is reached by NAT. ValueError if the line is wrong."""
    words = text.split()
    if words[:1] == ["--set"]:
        return IpvsadmCommand("--set", timeouts=_read_timeouts(words[1:]))
    options = read_command(words)
    name, _ = options["command"]
    if name in {"-C", "-S"} or (name == "-L" and options.keys() <= {"command", "numeric"}):
        return IpvsadmCommand(name)
    key = read_key(options)
    protocol, address, port = key
    service = server = None
    if name in {"-A", "-E"}:
        service = read_service(options, key)(protocol=protocol, address=address, port=port)
    elif name in {"-a", "-e", "-d"}:
        options.setdefault("forward", ("-m", ""))
        server = read_server(options, key)
    return IpvsadmCommand(name, key, service, server)


def _read_timeouts(words: list[str]) -> Timeouts:
    """Read the three timeouts of --set; 0 leaves one as it is. ValueError if they are wrong."""
    if len(words) != len(Timeouts._fields):
        raise ValueError("--set needs three numbers: the seconds for TCP, for TCP after a FIN, and for UDP")
    return Timeouts(*(to_number("--set", word, 0, TIMEOUT_MAX) or None for word in words))
