"""A manifest to begin with: valid as it is, with everything else switched off and explained in comments.

A comment begins with `#` and one space. Any other line that begins with `#` is a part that is switched off; if all of
these are switched on, the manifest is valid as well.
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any

from reconciler.manifest.dump import dump
from reconciler.manifest.fields import find
from reconciler.manifest.sandbox import write
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.values import NamedTuple

# Addresses for documentation (RFC 5737): they are replaced by those that the sandbox is to have.
_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
# Devices that become interfaces, and lines about the sandbox.
_DEVICES, _LINES = 16, 100
_MTU_MAX = 9600
_WIDTH = 100
_HEAD = """
What the network of one sandbox is to be, from `reconciler init`. A line that begins with # and one space is a comment.
Any other line that begins with # is switched off: delete its # to switch it on, and edit it. What is switched on is
what reconciler owns there now. `reconciler explain FIELD` describes a field, `reconciler validate` checks the file, and
`reconciler diff` shows what `reconciler apply` would do.
"""


class Device(NamedTuple):
    """A device of the host that the sandbox could have."""

    name: str
    kind: str
    hw_addr: str
    mtu: int
    queues: int
    up: bool


class Found(NamedTuple):
    """What is there. `sandbox`: its ID and driver. `others`: other sandboxes of this host, such as `netns web-2`.

    `inside`: lines about what is in the sandbox now; or `unknown`, the reason why that could not be read. `taken`:
    names of its interfaces. `owned`: sections of what reconciler owns there, as `show` prints them.
    """

    sandbox: Sandbox
    schema: str
    others: Sequence[str] = ()
    devices: Sequence[Device] = ()
    inside: Sequence[str] = ()
    unknown: str = ""
    taken: Collection[str] = ()
    owned: Mapping[str, Any] = MappingProxyType({})


def starter(found: Found) -> Iterator[str]:
    """Yield the lines of a manifest."""
    data = write(found.sandbox)
    yield f"# yaml-language-server: $schema={found.schema}"
    yield from _comment(_HEAD)
    yield f"apiVersion: {data['apiVersion']}"
    yield from ("", *_comment(_description("sandbox")), *_lines({"sandbox": data["sandbox"]}))
    yield from ("", *_comment(_description("driver")))
    if found.others:
        yield from _comment(f"Also on this host: {_listed(found.others)}.")
    yield from _lines({"driver": data["driver"]})
    yield from ("", *_inside(found))
    for name, value in _sections(found).items():
        yield from ("", *_comment(f"{_description(name)}; without it: {find(name).schema['absent']}"))
        if name == "interfaces":
            yield from _about_devices(found)
        if name in found.owned:
            yield from _lines({name: found.owned[name]})
            # Further devices can be switched on beside those that are there.
            others = _lines({name: value})[1:] if name == "interfaces" and found.devices else []
            yield from (f"#{line}" for line in others)
        else:
            yield from (f"#{line}" for line in _lines({name: value}))


def _description(name: str) -> str:
    return str(find(name).schema["description"])


def _inside(found: Found) -> Iterator[str]:
    where = str(found.sandbox.driver)
    if found.unknown:
        yield from _comment(f"What is in {where} now could not be read: {found.unknown}")
        return
    yield from _comment(f"In {where} now:")
    yield from (f"# | {line}" for line in found.inside[:_LINES])
    if len(found.inside) > _LINES:
        yield f"# | and {len(found.inside) - _LINES:,} more; `reconciler show -o text` prints all"


def _about_devices(found: Found) -> Iterator[str]:
    is_netns = isinstance(found.sandbox.driver, NetnsAddress)
    kind = "virtual devices" if is_netns else "TAPs"
    if found.devices:
        words = [f"{each.name} ({each.kind}, {'up' if each.up else 'down'})" for each in found.devices]
        yield from _comment(f"This host has these {kind}: {_listed(words)}.")
    else:
        name = _new_device(found.sandbox)
        how = f"ip link add {name} type veth peer name {name[:13]}-h" if is_netns else f"ip tuntap add {name} mode tap"
        yield from _comment(f"This host has no {kind} to give; this makes one: {how}")


def _sections(found: Found) -> dict[str, Any]:
    names = (name for number in count() if (name := f"eth{number}") not in found.taken)
    interfaces = [_interface(found, each, next(names), at) for at, each in enumerate(_to_give(found))]
    network, name = _NETWORKS[0], interfaces[0]["name"]
    servers = [{"address": f"{network}.{number}:80"} for number in (21, 22)]
    return {
        "sysctls": {"net.ipv4.ip_forward": 1},
        "interfaces": interfaces,
        "neighbours": [{"address": f"{network}.1", "device": name, "hwAddr": "02:00:00:00:00:01"}],
        "routes": [{"dest": "default", "gateway": f"{network}.1", "device": name}],
        "rules": [{"priority": 100, "from": f"{network}.0/24", "table": 100}],
        "ipvs": {"services": [{"tcp": f"{network}.10:80", "scheduler": "rr", "servers": servers}]},
    }


def _to_give(found: Found) -> Sequence[Device]:
    new = Device(_new_device(found.sandbox), "", "02:00:00:00:00:02", 1500, 1, up=False)
    return found.devices[:_DEVICES] or (new,)


def _new_device(sandbox: Sandbox) -> str:
    prefix = "veth" if isinstance(sandbox.driver, NetnsAddress) else "tap"
    return f"{prefix}-{sandbox.id}"[:15]


def _interface(found: Found, device: Device, name: str, at: int) -> dict[str, Any]:
    data: dict[str, Any] = {"name": name, "device": device.name}
    if isinstance(found.sandbox.driver, NetnsAddress):
        return data | {"hwAddr": device.hw_addr, "mtu": min(device.mtu, _MTU_MAX)} | _addresses(at)
    # The machine's NIC is another device than the TAP, with another MAC address.
    digest = hashlib.sha256(f"{found.sandbox.id} {device.name}".encode()).digest()
    hw_addr = ":".join(f"{each:02x}" for each in (2, *digest[:5]))
    queues = {"queues": 2} if device.queues > 1 else {}
    return data | {"hwAddr": hw_addr, "mtu": min(device.mtu, _MTU_MAX)} | _addresses(at) | queues


def _addresses(at: int) -> dict[str, Any]:
    return {"addresses": [f"{_NETWORKS[at]}.10/24"]} if at < len(_NETWORKS) else {}


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _DEVICES:,} more" if len(words) > _DEVICES else ""
    return ", ".join(words[:_DEVICES]) + more


def _lines(data: dict[str, Any]) -> list[str]:
    text = dump([data]).rstrip("\n")
    # A mapping with a single value is easier to edit without braces.
    (value,) = data.values()
    return [text[1:-1]] if not isinstance(value, dict | list) else text.split("\n")


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )
