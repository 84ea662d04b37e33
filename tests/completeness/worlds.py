"""Where rows are tried: a namespace of this host, the table of a machine, and a QEMU guest for what is plugged."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from reconciler.cli.main import main
from reconciler.drivers import connect
from reconciler.manifest.load import load
from reconciler.model.interface import Address
from reconciler.model.ipvs import Server, Service, Timeouts
from reconciler.model.neighbour import Neighbour
from reconciler.model.route import NextHop, Route
from reconciler.model.rule import Rule
from reconciler.model.sandbox import Sandbox
from reconciler.preview import preview
from tests.allowed import POLICY
from tests.completeness import readers
from tests.completeness.rows import Data
from tests.conftest import ip
from tests.ipvs import place
from tests.system.box import Box
from tests.vm.vm import Vm


@dataclass
class World(ABC):
    """A sandbox whose manifest can be applied and planned, and that is read without our decoders.

    `names`: what stands for the placeholders of rows, such as DEVICE.
    """

    names: dict[str, str] = field(default_factory=dict, kw_only=True)

    @abstractmethod
    def write(self, sections: Data) -> str:
        """Write a manifest with these sections and return its path."""

    @abstractmethod
    def empty(self) -> None:
        """Have none of ours in it."""

    @abstractmethod
    def read(self, kind: type) -> Data:
        """Return the object of a kind that is there, by the fields of the model."""

    def filled(self, data: Any) -> Any:
        """Return data with names for the placeholders."""
        match data:
            case dict():
                return {name: self.filled(value) for name, value in data.items()}
            case list():
                return [self.filled(each) for each in data]
            case str():
                return self.names.get(data, data)
            case _:
                return data

    def apply(self, sections: Data) -> None:
        """Apply sections; it must succeed."""
        assert main(["apply", "--allow-delete", "all", self.write(sections)]) == 0

    def words(self, sections: Data) -> str:
        """Return what a person reads of the plan for sections, a line an operation."""
        (manifest,) = load([self.write(sections)])
        with connect(manifest.sandbox, POLICY) as driver:
            operations = preview(driver, manifest.sandbox).plan.operations
        return "".join(f"{each.command} # {each.comment}\n" for each in operations)


@dataclass
class Namespace(World):
    """A namespace with up to two NICs."""

    box: Box

    def write(self, sections: Data) -> str:
        return self.box.write(**sections)

    def empty(self) -> None:
        self.apply({name: [] for name in ("interfaces", "neighbours", "routes", "rules")})

    def read(self, kind: type) -> Data:
        run = self.box.ip
        if kind is Route:
            return readers.one(readers.routes(run))
        if kind is Rule:
            return readers.one(readers.rules(run))
        if kind is Neighbour:
            return readers.one(readers.neighbours(run))
        if kind is NextHop:
            hops = readers.one(readers.routes(run))["nexthops"]
            return readers.one([hop for hop in hops if hop["gateway"] not in {"10.1.0.1", "fd01::1"}])
        if kind is Sandbox:
            everywhere = {name: name for name in ("net.ipv4.ip_forward", "net.ipv6.bindv6only")}
            return {"sysctls": readers.network_sysctls(self._output, everywhere)}
        if kind is Address:
            return readers.one(readers.addresses(run))
        link = readers.one(readers.links(run))
        name = link["name"]
        names = {"accept_ra": f"net.ipv6.conf.{name}.accept_ra", "ipv6.forwarding": f"net.ipv6.conf.{name}.forwarding"}
        return link | {"device": self._given(), "sysctls": readers.network_sysctls(self._output, names)}

    def _output(self, *words: str) -> str:
        return ip("netns", "exec", self.box.namespace, *words)

    def _given(self) -> str:
        """Return the device that is not on the host any more."""
        present = {link["ifname"] for link in json.loads(ip("-j", "link"))}
        (found,) = {self.names["DEVICE"], self.names["OTHER"]} - present
        return found


@dataclass
class Machine(World):
    """A virtual machine, into which NICs are plugged."""

    vm: Vm

    def write(self, sections: Data) -> str:
        return self.vm.write(**sections)

    def empty(self) -> None:
        self.vm.empty()

    def read(self, kind: type) -> Data:
        """Read what the guest has, its queues among it, and which socket QEMU is connected to."""
        del kind
        link = readers.one(readers.links(self._ip))
        (detailed,) = json.loads(self._ip("-d", "-j", "link", "show", "dev", link["name"]))
        labels = [each["label"] for each in self.vm.order("query-chardev")]
        ours = [f"/chardevs/{label}" for label in labels if label.startswith("reconciler-")]
        paths = [self.vm.order("qom-get", path=each, property="addr")["path"] for each in ours]
        return link | {"queues": detailed["num_tx_queues"], "vhost_user_socket": readers.one(paths) if paths else None}

    def _ip(self, *words: str) -> str:
        return self.vm.guest.output("ip", *words)


@dataclass
class Table(World):
    """The IPVS table of a machine."""

    vm: place.MachineTable

    def write(self, sections: Data) -> str:
        return self.vm.manifest(**sections["ipvs"])

    def empty(self) -> None:
        settings = f"cd {place.SYSCTLS}; echo 0 >conntrack; echo 0 >sloppy_tcp"
        self.vm.shell(f"ipvsadm -C; ipvsadm --set {place.DEFAULT_TIMEOUTS}; {settings}")

    def read(self, kind: type) -> Data:
        run = self.vm.output
        if kind is Timeouts:
            return readers.timeouts(run)
        services = readers.services(run)
        if kind is Server:
            (server,) = readers.one(readers.with_thresholds(services, run))["servers"]
            return dict(server)
        if kind is Service:
            service = readers.one(services)
            return service | {"servers": [f"{each['address']}:{each['port']}" for each in service["servers"]]}
        keys = [(each["protocol"], each["address"], each["port"]) for each in services]
        return {
            "services": keys,
            "timeouts": tuple(readers.timeouts(run).values()),
            "sysctls": readers.sysctls(run),
        }
