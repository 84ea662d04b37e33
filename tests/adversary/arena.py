"""A sandbox under attack: what `ip -d -j` shows of it, and what diff and apply say."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from ipaddress import ip_interface
from subprocess import CalledProcessError
from typing import Any, NamedTuple

from reconciler.cli.main import main
from reconciler.values import dataclass, field
from tests.adversary import world
from tests.system.box import SandboxPlace

State = dict[str, Any]

# What changes by itself, or follows from what is compared.
_VOLATILE = {
    *("ifindex", "link_index", "link_netnsid", "operstate", "qdisc", "stats", "stats64", "valid_life_time"),
    *("preferred_life_time", "tentative", "expires", "metrics_expires", "used"),
}
_SETTLING = {"state", "topology_change", "topology_change_detected", "topology_change_ack", "config_pending"}
_TRANSIENT_FLAGS = {"NO-CARRIER", "LOWER_UP", "M-DOWN", "linkdown", "dead", "pervasive"}
# Seconds until a NIC that comes up has its carrier, and until the kernel has finished what an apply began.
_CARRIER, _SETTLES = 60.0, 20.0


class Said(NamedTuple):
    """What a command of ours ended with, and what it printed."""

    code: int
    out: str
    err: str


@dataclass
class Arena:
    """A sandbox whose manifest has been applied. `calm`: its state after that."""

    place: SandboxPlace
    sections: dict[str, Any] = field(default_factory=dict)
    calm: State = field(default_factory=dict)

    def begin(self) -> None:
        """Apply the manifest to new devices."""
        self.place.ip("link", "set", "lo", "up")
        self.sections = world.sections(*(self.place.device(carrier=True) for _ in range(4)))
        said = self.apply()
        assert said.code == 0, said
        deadline = time.monotonic() + _CARRIER
        up = sum("state" not in each for each in self.sections["interfaces"])
        while self.place.ip("-6", "address", "show", "scope", "link").count("fe80:") < up:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        self.calm = self.settled()
        # What is told later is told of an attack.
        assert self.diff()[::2] == (0, "")

    def run(self, family: str, command: str) -> bool:
        """Run lines of `ip -batch`, separated by `;`. Return whether the kernel took all of them."""
        lines = "".join(f"{line.strip()}\n" for line in command.split(";"))
        try:
            self.place.ip(family, "-force", "-batch", "-", stdin=lines)
        except (CalledProcessError, AssertionError):
            return False
        return True

    def diff(self) -> Said:
        """Run `reconciler diff`."""
        return _ours("diff", self.place.write(**self.sections))

    def apply(self) -> Said:
        """Run `reconciler apply`."""
        return _ours("apply", "--allow-delete", "all", self.place.write(**self.sections))

    def state(self) -> State:
        """Return what `ip` shows of links, addresses, routes, rules and neighbours."""
        commands = ("link", "address", "route show table all", "rule", "neigh show nud permanent", "neigh show proxy")
        bare, links, routes, rules, *neighbours = self._listed("-d", *commands)
        modes = {link["ifname"]: link["inet6_addr_gen_mode"] for link in bare if "inet6_addr_gen_mode" in link}
        (more_rules,) = self._listed("-6", "rule")
        return {
            "links": {link["ifname"]: _link(link) | {"mode": modes.get(link["ifname"])} for link in links},
            "routes": _sorted(map(_stable, routes)),
            # That of the table `default`, which is empty, is not ours; `ip rule flush` deletes it.
            "rules": _sorted(each for each in (*rules, *more_rules) if each["priority"] != 32767),
            "neighbours": _sorted(_stable(each) for every in neighbours for each in every),
        }

    def _listed(self, option: str, *commands: str) -> list[Any]:
        lines = "".join(f"{each}\n" for each in commands)
        shown = self.place.ip(option, "-j", "-d", "-batch", "-", stdin=lines)
        return [json.loads(line) for line in shown.splitlines()]

    def settled(self, wanted: State | None = None) -> State:
        """Return the state as soon as it is the wanted one, or has not changed for a while."""
        deadline = time.monotonic() + _SETTLES
        found = self.state()
        while found != wanted and time.monotonic() < deadline:
            time.sleep(0.1)
            before, found = found, self.state()
            if wanted is None and before == found:
                break
        return found


def _ours(*arguments: str) -> Said:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(arguments))
    return Said(code, out.getvalue(), err.getvalue())


def _link(link: dict[str, Any]) -> dict[str, Any]:
    addresses = [_stable(each) | {"forever": _is_forever(each)} for each in link["addr_info"]]
    # The order within a network has a meaning: the first IPv4 address is its primary one. That of networks has none.
    inet = [each for each in addresses if each["family"] == "inet"]
    inet.sort(key=lambda each: (each["prefixlen"], str(ip_interface(f"{each['local']}/{each['prefixlen']}").network)))
    return _stable(link) | {"addr_info": [*inet, *_sorted(each for each in addresses if each not in inet)]}


def lost(before: State, after: State) -> list[Any]:
    """Return what is in one state and not in the other."""
    found = _flat(after)
    return [each for each in _flat(before) if each not in found]


def _flat(state: State) -> list[Any]:
    links = [{**link, "addr_info": []} for link in state["links"].values()]
    addresses = [(name, each) for name, link in state["links"].items() for each in link["addr_info"]]
    return [*links, *addresses, *state["routes"], *state["rules"], *state["neighbours"]]


def _is_forever(address: dict[str, Any]) -> tuple[bool, bool]:
    without_end = 0xFFFFFFFF
    return address["valid_life_time"] == without_end, address["preferred_life_time"] == without_end


def _stable(found: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in found.items() if name not in _VOLATILE}
    if "label" in kept:
        # After a rename of the link, the kernel numbers the labels.
        kept["label"] = re.sub(r":[0-9]+$", "", kept["label"])
    # A bridge and its ports count timers down, and settle after each change of a port.
    for part in (kept.get("linkinfo", {}).get(name, {}) for name in ("info_data", "info_slave_data")):
        for name in [each for each in part if each.endswith("timer") or each in _SETTLING]:
            del part[name]
    for part in (kept, *kept.get("nexthops", ())):
        if "flags" in part:
            part["flags"] = [flag for flag in part["flags"] if flag not in _TRANSIENT_FLAGS]
    if "nexthops" in kept:
        kept["nexthops"] = _sorted(kept["nexthops"])
    return kept


def _sorted(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda each: json.dumps(each, sort_keys=True))
