"""A sandbox for tests: a namespace, a virtual machine, or one behind the command line of kata-runtime.

It has devices to give to it, and `ip` says what is in it. The same tests run in all three; what differs stands here, in
`Differences` and in the words of each class, and in tests/kata/limits.py.
"""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.drivers import connect
from reconciler.errors import ManifestError
from reconciler.manifest.dump import dump
from reconciler.manifest.load import load
from reconciler.model.made import KINDS
from reconciler.model.release import series
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.operations import Operation
from reconciler.preview import preview
from reconciler.values import dataclass
from tests.allowed import POLICY, runtime
from tests.conftest import Kernel, ip
from tests.kata import limits
from tests.machine import Machine

MACS = [f"02:42:20:6f:a3:{number:02x}" for number in range(1, 17)]
# From this kernel on a link is renamed while it is up.
_LIVE_RENAME = (6, 2)


@dataclass(frozen=True, kw_only=True)
class Differences:
    """What holds in the one kind of sandbox and not in the other.

    Beside these, `device` says which devices there are and which have a carrier, `given` and `taken_back` how they come
    and go: those of a namespace are marked by their alias and restored, those of a machine are known to QEMU.
    """

    # A link is renamed while it is up, and keeps its routes and IPv6 addresses; the guest's kernel 6.1 insists on down.
    live_rename: bool
    # QEMU opens a TAP for a number of queues, so another number is another NIC; a namespace gets it with all it has.
    counts_queues: bool
    # Each `ip` and apply takes 0.1 to 0.5 s in a guest, so of hundreds of steps alike one in so many is made.
    stride: int
    # The driver sees the host's device and queues of an interface, whether it is up, and what in the sandbox is not
    # ours. What it does not see, nothing is planned about.
    sees_all: bool


@dataclass
class SandboxPlace(ABC):
    """A sandbox of either kind, and the manifest that is written for it."""

    kernel: Kernel
    file: Path

    @property
    @abstractmethod
    def driver(self) -> dict[str, Any]:
        """The driver in a manifest."""

    @property
    @abstractmethod
    def differences(self) -> Differences:
        """What is different here."""

    @abstractmethod
    def ip(self, *words: str, stdin: str = "") -> str:
        """Run iproute2 inside; give its output."""

    @abstractmethod
    def device(self, *options: str, carrier: bool = False) -> str:
        """Make a device on the host that can be given to it, with these options of a TAP.

        `carrier`: it will have one.
        """

    @abstractmethod
    def given(self, interface: dict[str, Any]) -> list[str]:
        """Say by which commands a device comes, but for the details that `without_details` leaves out."""

    @abstractmethod
    def taken_back(self, interface: dict[str, Any]) -> list[str]:
        """Say by which commands a device goes, in the same way."""

    def addresses(self, *listed: Any) -> list[Any]:
        """Give what an interface can have of these addresses."""
        return list(listed)

    def refusals(self, **sections: Any) -> list[str]:
        """Say what `validate` refuses of these sections here, although others take it."""
        del sections
        return []

    def expected(self, before: dict[str, Any], after: dict[str, Any], commands: list[str]) -> list[str]:
        """Give the commands of a change, of which are given those that change things in place."""
        del before, after
        return commands

    def write(self, **sections: Any) -> str:
        """Write the manifest with these sections; give its path."""
        data = {"apiVersion": "reconciler/v1", "sandbox": "box", "driver": self.driver}
        self.file.write_text(dump([data | sections]))
        return str(self.file)

    def apply(self, *options: str, **sections: Any) -> None:
        """Write the manifest and apply it; it must succeed."""
        assert main(["apply", *options, self.write(**sections)]) == 0

    def fill(self, **sections: Any) -> None:
        """Have these sections in it, by the fastest way there is; the manifest is written for this driver."""
        self.apply("--allow-delete", "all", **sections)

    def plan(self, sandbox: Sandbox) -> tuple[Operation, ...]:
        """Plan for a sandbox without touching it."""
        with connect(sandbox, POLICY) as driver:
            return preview(driver, sandbox).plan.operations

    def diff(self, **sections: Any) -> list[str]:
        """Give the commands that would be executed for these sections, in order."""
        (manifest,) = load([self.write(**sections)])
        return [operation.command for operation in self.plan(manifest.sandbox)]

    def state(self) -> dict[str, Any]:
        """Return what `ip` sees: links, addresses, neighbours, routes and rules without what changes by itself.

        That is indexes, carrier, times, and what comes and goes with a carrier: link-local addresses and their routes,
        and neighbours that are learned.
        """
        links, *neighbours = self._listed("address", *_NEIGHBOURS)
        routes, rules = self.routes_and_rules()
        return {"links": _links(links), "neighbours": _sorted(*neighbours), "routes": routes, "rules": rules}

    def links(self) -> dict[str, Any]:
        """Return the links, as `state` has them."""
        (links,) = self._listed("address")
        return _links(links)

    def neighbours(self) -> list[dict[str, Any]]:
        """Return the neighbours that somebody has made, as `ip` shows them."""
        return _sorted(*self._listed(*_NEIGHBOURS))

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules, as `ip` shows them, and their family."""
        return self.routes_and_rules()[1]

    def routes_and_rules(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return both, as `ip` shows them, each with its family."""
        routes, rules = [], []
        for family in ("-4", "-6"):
            shown, shown_rules = self._listed("route show table all", "rule", family=family)
            routes += [{"family": family, **each} for each in _sorted(_routes(shown))]
            rules += [{"family": family, **each} for each in _sorted(shown_rules)]
        return routes, rules

    def _listed(self, *commands: str, family: str = "") -> list[list[dict[str, Any]]]:
        """Return what `ip` lists for each command. One process does it, as each takes 35 ms in a guest."""
        words = [family] if family else []
        shown = self.ip(*words, "-j", "-d", "-batch", "-", stdin="".join(f"{command}\n" for command in commands))
        return [json.loads(line) for line in shown.splitlines()]


# Those that somebody has made.
_NEIGHBOURS = ("neigh show nud permanent", "neigh show proxy")


# What `ip -d -j` calls an option of a link, where that is not its word in a command.
_CALLED = {"lacp_rate": "ad_lacp_rate"}


def _sorted(*listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted((each for every in listed for each in every), key=json.dumps)


def _routes(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [
        route
        for route in shown
        if route.get("protocol") != "kernel"
        or not (route.get("table") == "local" or route["dst"].startswith("fe80:") or route.get("type") == "multicast")
    ]
    for route in kept:
        for each in (route, *route.get("nexthops", ())):
            # The others come and go with a carrier.
            each["flags"] = sorted({"onlink"} & {*each["flags"]})
        route.get("nexthops", []).sort(key=json.dumps)
    return kept


def _links(shown: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        link["ifname"]: {
            "mac": link.get("address"),
            "mtu": link["mtu"],
            "up": "UP" in link["flags"],
            "attributes": [link.get(name) for name in ("txqlen", "gso_max_size")],
            "flags": sorted({"NOARP", "ALLMULTI"} & {*link["flags"]}),
            "alias": link.get("ifalias", "").partition(" hwaddr=")[0],
            "altnames": sorted(link.get("altnames", ())),
            "link": link.get("link"),
            "master": link.get("master"),
            "kind": link.get("linkinfo", {}).get("info_kind"),
            "options": _options(link.get("linkinfo", {})),
            "addresses": sorted(
                _address(each, link["ifname"])
                for each in link.get("addr_info", ())
                if (each["family"], each["scope"]) != ("inet6", "link")
            ),
        }
        for link in shown
    }


def _options(info: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a link that a manifest has, by their words; a bridge also has timers."""
    kind = KINDS.get(info.get("info_kind", ""))
    shown = info.get("info_data", {})
    return {each.words: shown.get(_CALLED.get(each.words, each.words)) for each in kind.options} if kind else {}


def _address(shown: dict[str, Any], device: str) -> str:
    """Return an address and what is unusual of it; at a rename, the kernel makes labels of a name and a number."""
    ends = " peer ".join(shown[name] for name in ("local", "address") if name in shown)
    unusual = {name: shown[name] for name in ("nodad", "noprefixroute", "metric") if shown.get(name)}
    unusual |= {"scope": shown["scope"]} if shown["scope"] != "global" else {}
    label = shown.get("label", device)
    unusual |= {"label": label} if not re.fullmatch(rf"{device}(:([2-9]|[1-9][0-9]+))?", label) else {}
    return " ".join((f"{ends}/{shown['prefixlen']}", *(f"{name} {value}" for name, value in unusual.items())))


class Box(SandboxPlace):
    """A namespace."""

    @property
    def namespace(self) -> str:
        return self.file.stem

    @property
    def address(self) -> NetnsAddress:
        return NetnsAddress(name=self.namespace)

    @property
    def driver(self) -> dict[str, Any]:
        return {"netns": {"name": self.namespace}}

    @property
    def differences(self) -> Differences:
        live = series(os.uname().release) >= _LIVE_RENAME
        return Differences(live_rename=live, counts_queues=False, stride=1, sees_all=True)

    def ip(self, *words: str, stdin: str = "") -> str:
        return ip(*words, namespace=self.namespace, stdin=stdin)

    def device(self, *options: str, carrier: bool = False) -> str:
        """Make a TAP, which has no carrier where no process holds it; a veth has one as soon as its peer is up."""
        if not carrier:
            return self.kernel.tap(*options)
        near, far = self.kernel.veth()
        ip("link", "set", "dev", far, "up")
        return near

    def given(self, interface: dict[str, Any]) -> list[str]:
        """The device moves in, and is marked by its alias."""
        name, mac, mtu = interface["name"], interface["hwAddr"], interface["mtu"]
        return [
            f"ip link set dev {interface['device']} netns {self.namespace} name {name}",
            f"ip link set dev {name} address {mac} mtu {mtu} up",
        ]

    def taken_back(self, interface: dict[str, Any]) -> list[str]:
        """The device moves out, as it was."""
        return [f"ip link set dev {interface['name']} netns $$ name {interface['device']}"]


class VmBox(SandboxPlace):
    """A virtual machine that runs, and is emptied after each test."""

    def __init__(self, kernel: Kernel, file: Path, machine: Machine) -> None:
        super().__init__(kernel, file)
        self._machine = machine

    @property
    def driver(self) -> dict[str, Any]:
        return self._machine.driver

    @property
    def _name(self) -> str:
        return str(self._machine.driver["vm"]["name"])

    @property
    def differences(self) -> Differences:
        live = series(self._machine.output("uname", "-r")) >= _LIVE_RENAME
        return Differences(live_rename=live, counts_queues=True, stride=7, sees_all=True)

    def ip(self, *words: str, stdin: str = "") -> str:
        return self._machine.output("ip", *words, stdin=stdin.encode())

    def device(self, *options: str, carrier: bool = False) -> str:
        """Make a TAP; a NIC of the guest has a carrier in any case."""
        del carrier
        device = self.kernel.tap(*options)
        ip("link", "set", "dev", device, "up")
        return device

    def given(self, interface: dict[str, Any]) -> list[str]:
        """QEMU is given the TAP, and plugs in a NIC, which is found by its MAC address and named."""
        device, name, mac = interface["device"], interface["name"], interface["hwAddr"]
        queues = f",queues={interface['queues']}" if "queues" in interface else ""
        return [
            f"netdev_add tap,id=reconciler-{device},ifname={device},script=no,downscript=no{queues}",
            f"device_add virtio-net-pci,id=reconciler-{device},netdev=reconciler-{device},mac={mac}",
            f"ip link set dev {mac} name {name}",
            f"ip link set dev {name} mtu {interface['mtu']} up",
        ]

    def taken_back(self, interface: dict[str, Any]) -> list[str]:
        """The NIC is unplugged, and the TAP taken from QEMU."""
        return [f"device_del reconciler-{interface['device']}", f"netdev_del reconciler-{interface['device']}"]

    def empty(self) -> None:
        """Take away what is ours, then what a test made for others."""
        self.fill(interfaces=[], neighbours=[], routes=[], rules=[])
        # One of a pair takes the other along.
        while foreign := [link["ifname"] for link in json.loads(self.ip("-j", "link")) if link["ifname"] != "lo"]:
            self.ip("link", "del", "dev", foreign[0])
        routes, rules = self.routes_and_rules()
        for route in routes:
            self.ip(route["family"], "route", "del", route["type"], route["dst"], "table", route["table"])
        for rule in rules:
            if rule["protocol"] != "kernel":
                self.ip(rule["family"], "rule", "del", "priority", str(rule["priority"]))


class DomainBox(VmBox):
    """A domain of libvirt."""

    @property
    def driver(self) -> dict[str, Any]:
        return {"libvirt": {"domain": self._name}}

    def given(self, interface: dict[str, Any]) -> list[str]:
        """The NIC is attached with its TAP, found by its MAC address and named."""
        device, name, mac = interface["device"], interface["name"], interface["hwAddr"]
        queues = f'<driver queues="{interface["queues"]}"/>' if "queues" in interface else ""
        attach = (
            f"virsh attach-device {self._name} /dev/stdin --live <<<'"
            f'<interface type="ethernet"><mac address="{mac}"/><target dev="{device}" managed="no"/>'
            f'<model type="virtio"/>{queues}'
        )
        return [
            attach,
            f"ip link set dev {mac} name {name}",
            f"ip link set dev {name} mtu {interface['mtu']} up",
        ]

    def taken_back(self, interface: dict[str, Any]) -> list[str]:
        """The NIC is detached."""
        return [f"virsh detach-device-alias {self._name} ua-reconciler-{interface['device']} --live"]


class KataBox(VmBox):
    """The same machine, by the command line of kata-runtime: our own program, which has it."""

    @property
    def driver(self) -> dict[str, Any]:
        return {"kata": {"id": self._name, "runtime": runtime()}}

    @property
    def differences(self) -> Differences:
        # Interfaces come anew whatever changes of them. Each change is a command of its own, and so a process.
        return Differences(live_rename=False, counts_queues=False, stride=19, sees_all=False)

    def fill(self, **sections: Any) -> None:
        """Have these sections in it by the driver that takes no command for each of their objects."""
        VmBox(self.kernel, self.file, self._machine).fill(**sections)
        self.write(**sections)

    def addresses(self, *listed: Any) -> list[Any]:
        return limits.addresses(listed)

    def refusals(self, **sections: Any) -> list[str]:
        return limits.refusals(sections)

    def given(self, interface: dict[str, Any]) -> list[str]:
        """It is given with all that it has."""
        wish = {"device": interface["device"], "name": interface["name"]}
        parts = (address.partition("/") for address in interface["addresses"])
        wish["IPAddresses"] = [{"address": address, "mask": mask} for address, _, mask in parts]
        wish |= {"mtu": interface["mtu"], "hwAddr": interface["hwAddr"]}
        return [self._command("add-iface", wish)]

    def taken_back(self, interface: dict[str, Any]) -> list[str]:
        return [self._command("del-iface", {"name": interface["name"]})]

    def _command(self, action: str, said: dict[str, Any]) -> str:
        text = json.dumps(said, separators=(",", ":"))
        return f"kata-runtime kata-network {action} {self._name} - <<<'{text}'"

    def expected(self, before: dict[str, Any], after: dict[str, Any], commands: list[str]) -> list[str]:
        """Nothing changes in place: it goes and comes again, an interface with its routes."""
        del commands
        going, coming = _exchanged(before["interfaces"], after["interfaces"])
        names = {each["name"] for each in going}
        lost, added = _exchanged(before.get("routes", []), after.get("routes", []), names)
        in_the_way = {route["dest"] for route in added}
        early = [route for route in lost if route["device"] in names or route["dest"] in in_the_way]
        return [
            *(self._command("del-route", _said(route)) for route in early),
            *(words for each in going for words in self.taken_back(each)),
            *(words for each in coming for words in self.given(each)),
            *(self._command("add-route", _said(route)) for route in added),
            *(self._command("del-route", _said(route)) for route in lost if route not in early),
        ]


def _exchanged(
    before: list[dict[str, Any]], after: list[dict[str, Any]], devices: Container[str] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Give what goes and what comes: what only one of the two lists has, or what is bound to these devices."""
    kept = [each for each in before if each in after and each["device"] not in devices]
    return [each for each in before if each not in kept], [each for each in after if each not in kept]


def _said(route: dict[str, Any]) -> dict[str, Any]:
    """Give the JSON of a route that has only what kata-runtime can say."""
    assert route.keys() <= {"dest", "gateway", "device"}
    return {"dest": route["dest"], "gateway": route.get("gateway", ""), "device": route["device"]}


def without_details(commands: Sequence[str]) -> list[str]:
    """Leave out what depends on what was there before: the origin of a device, and its slot."""
    return [
        re.sub(r"(netns \$\$ name \S+) address.*|(?: alias |,bus=|<mtu size=).*", r"\1", command)
        for command in commands
    ]


def errors(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed on stderr, without warnings: the links of tests carry no packet."""
    lines = capsys.readouterr().err.splitlines(keepends=True)
    return "".join(line for line in lines if ": warning: " not in line)


def make_box(kernel: Kernel, folder: Path) -> Box:
    return Box(kernel, folder / f"{kernel.namespace()}.yaml")


def is_refused(place: SandboxPlace, **sections: Any) -> bool:
    """Tell whether these sections cannot be said here; then see that they are refused, by these fields."""
    refusals = place.refusals(**sections)
    if refusals:
        with pytest.raises(ManifestError) as caught:
            load([place.write(**sections)])
        assert {each.path for each in caught.value.problems if "kata-runtime" in each.message} == {*refusals}
    return bool(refusals)


def nic(device: str, name: str = "eth0", number: int = 0, **fields: Any) -> dict[str, Any]:
    """Describe a NIC with an address in 10.NUMBER.0.0/16."""
    base = {"name": name, "device": device, "hwAddr": MACS[number], "mtu": 1500, "addresses": [f"10.{number}.0.2/16"]}
    return base | fields


def commands(operations: Sequence[Operation]) -> list[str]:
    return [operation.command for operation in operations]


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Say what only one of two states has."""
    lines = [
        {json.dumps([kind, part]) for kind, parts in state.items() for part in _parts(parts)} for state in (one, other)
    ]
    return sorted([f"< {line}" for line in lines[0] - lines[1]] + [f"> {line}" for line in lines[1] - lines[0]])


def _parts(parts: Any) -> list[Any]:
    return list(parts.items()) if isinstance(parts, dict) else parts
