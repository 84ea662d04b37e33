"""A text of rules → services with their servers."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial

from reconciler.formats.ipvsadm.popt import Options, read_options
from reconciler.formats.ipvsadm.read import (
    FORWARD_OF,
    read_key,
    read_server,
    read_server_endpoint,
    read_service,
    service_key,
    to_number,
)
from reconciler.formats.ipvsadm.write import server_key_options, service_key_options
from reconciler.model.address import is_ipv6
from reconciler.model.ipvs import WEIGHT_MAX, Server, ServerKey, Service, ServiceKey

# The two forms that make up long texts, with one blank between words.
_COMMON_SERVICE = re.compile(r"-A (-[tu]) (\S+) -s (\S+)(?: -p ([0-9]+))?")
_COMMON_SERVER = re.compile(r"-a (-[tu]) (\S+) -r (\S+) (-[gim])(?: -w (\S+))?")

# The pattern of the program as rules that are copied from a script begin with it; `ipvsadm -R` accepts its name.
PROGRAM = r"(?:sudo\s+(?:-\S+\s+)*)?(?:\S*/)?ipvsadm"
_PROGRAM = re.compile(rf"\s*{PROGRAM}(?:\s|\Z)")
_OPTION = re.compile(r"\s*(?:-[A-Za-z]|--[a-z]+(?:-[a-z]+)*)(?:\s|\Z)")
# Wrong lines after which a text is not read further.
WRONG_MAX = 1000
_ADDS_SERVICE = re.compile(rf"\s*(?:{PROGRAM}\s+)?(?:-A|--add-service\b)")


def parse_rules(text: str, on_problem: Callable[[int, str], None]) -> list[Service]:
    """Read a text of rules: services in its order, each with its servers in its order.

    Each wrong line is skipped and reported to `on_problem`, in the order of the text: its number from 1, and why. After
    WRONG_MAX of them nothing more is read.
    """
    rules = _Rules()
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rules.read(number, line)
        except ValueError as error:
            rules.problems.append((number, str(error)))
            if len(rules.problems) > WRONG_MAX:
                break
    services = rules.services() if len(rules.problems) <= WRONG_MAX else []
    for number, message in sorted(rules.problems):
        on_problem(number, message)
    return services


def is_rules(text: str) -> bool:
    """Return whether the first line of a text that is neither blank nor a comment is one of ipvsadm; so is none."""
    lines = (line for line in text.split("\n") if (word := line.strip(" \t\r")) and not word.startswith("#"))
    first = next(lines, None)
    return first is None or bool(_OPTION.match(first) or _PROGRAM.match(first))


def service_lines(text: str) -> list[int]:
    """Return the line, from 1, of each service in a text of rules, in the order of the text."""
    return [number for number, line in enumerate(text.split("\n"), start=1) if _ADDS_SERVICE.match(line)]


class _Rules:
    """What has been read so far. A server may come before its service."""

    def __init__(self) -> None:
        self.problems: list[tuple[int, str]] = []
        self._services: dict[ServiceKey, partial[Service] | None] = {}
        self._servers: dict[ServiceKey, dict[ServerKey, tuple[int, Server]]] = {}

    def read(self, number: int, line: str) -> None:
        """Read a line. ValueError if it is wrong."""
        if match := _COMMON_SERVER.fullmatch(line):
            option, service, server, forward, weight = match.groups()
            key = service_key(option, service, False)
            self._add_server(number, key, _common_server(key[2], is_ipv6(key[1]), server, forward, weight))
        elif match := _COMMON_SERVICE.fullmatch(line):
            option, service, scheduler, persistent = match.groups()
            key = service_key(option, service, False)
            self._claim(key)
            self._services[key] = _common_service(key[2], scheduler, persistent)
        else:
            self._read_any(number, line)

    def _read_any(self, number: int, line: str) -> None:
        words = line[match.end() :].split() if (match := _PROGRAM.match(line)) else line.split()
        if not words or words[0].startswith("#"):
            return
        options: Options = {}
        try:
            read_options(words, options)
            key = read_key(options)
        except ValueError:
            self._claim_wrong(options)
            raise
        if options["command"][0] == "-a":
            self._add_server(number, key, read_server(options, key))
        else:
            self._claim(key)
            self._services[key] = read_service(options, key)

    def _claim_wrong(self, options: Options) -> None:
        """Note the service of a wrong line, if the line names it before the mistake."""
        if options.get("command") == ("-A", "") and "service" in options:
            with suppress(ValueError):
                self._services.setdefault(read_key(options))

    def _claim(self, key: ServiceKey) -> None:
        """Note that a service has its line, even if the rest of the line is wrong: its servers are no mistakes."""
        if key in self._services:
            raise ValueError(f"-A {service_key_options(key)}: an earlier line has this service already")
        self._services[key] = None

    def _add_server(self, number: int, key: ServiceKey, server: Server) -> None:
        servers, place = self._servers.get(key), server.key
        if servers is None:
            servers = self._servers[key] = {}
        if place in servers:
            both = f"{service_key_options(key)} {server_key_options(place)}"
            raise ValueError(f"-a {both}: an earlier line has this server already")
        servers[place] = (number, server)

    def services(self) -> list[Service]:
        """Return the services with their servers. A server without a service is a problem."""
        for key in self._servers.keys() - self._services.keys():
            message = f"-a {service_key_options(key)}: no -A line has this service"
            self.problems += [(number, message) for number, _ in self._servers[key].values()]
        return [self._join(key, make) for key, make in self._services.items() if make]

    def _join(self, key: ServiceKey, make: partial[Service]) -> Service:
        protocol, address, port = key
        servers = tuple([server for _, server in self._servers.get(key, {}).values()])
        return make(protocol=protocol, address=address, port=port, servers=servers)


# Services differ little except in their key, and -s and -p mean the same for any protocol and address.
@lru_cache(maxsize=4096)
def _common_service(port: int, scheduler: str, persistent: str | None) -> partial[Service]:
    options = {"scheduler": ("-s", scheduler)}
    if persistent:
        options["persistent"] = ("-p", persistent)
    return read_service(options, ("tcp", "", port))


# Many services have equal servers.
@lru_cache(maxsize=4096)
def _common_server(service_port: int, ipv6: bool, server: str, forward: str, weight: str | None) -> Server:
    forward = FORWARD_OF[forward]
    key = ("tcp", "::" if ipv6 else "0.0.0.0", service_port)
    address, port = read_server_endpoint("-r", server, forward, key)
    return Server(
        address=address,
        port=port,
        forward=forward,
        weight=to_number("-w", weight, 0, WEIGHT_MAX) if weight else 1,
    )
