"""A sandbox for tests: a namespace, devices to give to it, and what `ip` says of it (not our own decoder)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.cli.main import main
from reconciler.drivers.netns import NetnsDriver
from reconciler.manifest.dump import dump
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.operations import Operation
from reconciler.preview import preview
from tests.conftest import Kernel, ip

MACS = [f"02:42:20:6f:a3:{number:02x}" for number in range(1, 17)]


@dataclass
class Box:
    """A namespace and the manifest that is written for it."""

    namespace: str
    file: Path

    @property
    def address(self) -> NetnsAddress:
        return NetnsAddress(name=self.namespace)

    def write(self, **sections: Any) -> str:
        """Write the manifest with these sections; give its path."""
        data = {"apiVersion": "reconciler/v1", "sandbox": "box", "driver": {"netns": {"name": self.namespace}}}
        self.file.write_text(dump([data | sections]))
        return str(self.file)

    def apply(self, *options: str, **sections: Any) -> None:
        """Write the manifest and apply it; it must succeed."""
        assert main(["apply", *options, self.write(**sections)]) == 0

    def plan(self, sandbox: Sandbox) -> tuple[Operation, ...]:
        """Plan for a sandbox without touching it."""
        driver = NetnsDriver(self.address)
        try:
            return preview(driver, sandbox).plan.operations
        finally:
            driver.close()

    def diff(self, **sections: Any) -> list[str]:
        """Give the commands that would be executed for these sections, in order."""
        from reconciler.manifest.load import load

        (manifest,) = load([self.write(**sections)])
        return [operation.command for operation in self.plan(manifest.sandbox)]

    def state(self) -> dict[str, Any]:
        """Say what `ip` sees: links, addresses and routes without what changes by itself (indexes, carrier, times)."""
        return {"links": self._links(), "routes": [*self.routes("-4"), *self.routes("-6")]}

    def routes(self, family: str, *selection: str) -> list[dict[str, Any]]:
        found = json.loads(
            ip("-j", "-d", family, "route", "show", "table", "all", *selection, namespace=self.namespace)
        )
        kept = [_without(route, "flags", "pref", "scope") for route in found if route.get("table") != "local"]
        for route in kept:
            for hop in route.get("nexthops", ()):
                hop.pop("flags", None)
            route.get("nexthops", []).sort(key=json.dumps)
        return sorted((route for route in kept if route.get("type") != "multicast"), key=json.dumps)

    def _links(self) -> dict[str, Any]:
        return {
            link["ifname"]: {
                "mac": link.get("address"),
                "mtu": link["mtu"],
                "up": "UP" in link["flags"],
                "alias": link.get("ifalias", "").partition(" hwaddr=")[0],
                "addresses": sorted(
                    f"{each['local']}/{each['prefixlen']}{' nodad' if each.get('nodad') else ''}"
                    for each in link.get("addr_info", ())
                    if each.get("scope") != "link"
                ),
            }
            for link in json.loads(ip("-j", "-d", "address", namespace=self.namespace))
        }


def _without(data: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {field: value for field, value in data.items() if field not in fields}


def make_box(kernel: Kernel, folder: Path) -> Box:
    namespace = kernel.namespace()
    return Box(namespace, folder / f"{namespace}.yaml")


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
