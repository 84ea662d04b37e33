"""What a manifest names on this host, and whether the operator's policy allows it: a decision over values.

That is half of the answer: a path can lead elsewhere than its text says. `drivers.reach` asks again for what it opens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, assert_never

from reconciler.errors import NotAllowedError
from reconciler.manifest.compose import Path
from reconciler.manifest.schema import Finding
from reconciler.model.policy import Devices, Policy
from reconciler.model.sandbox import DriverAddress, KataAddress, NetnsAddress, Sandbox, VmAddress

_OF_PROCESS = re.compile(r"/proc/(self|thread-self|[0-9]+)(/task/[0-9]+)?/ns/net")
# Text that YAML reads as text without quotes.
_PLAIN = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.@+-]*")
_RESERVED = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def check(sandbox: Sandbox, policy: Policy) -> None:
    """Raise NotAllowedError if a sandbox names what the policy does not allow."""
    if findings := refusals(sandbox, policy):
        raise NotAllowedError([(each.path, each.message) for each in findings])


def refusals(sandbox: Sandbox, policy: Policy) -> list[Finding]:
    """Return everything that a sandbox names and the policy does not allow, with the line that would allow it."""
    found = list(_of_driver(sandbox.driver, policy))
    for index, each in enumerate(sandbox.interfaces or ()):
        path: Path = ("interfaces", index)
        if not permits(policy.devices, sandbox.id, each.device):
            what = f"sandbox {sandbox.id} may not have the device {each.device} of this host"
            wider = _wider(policy.devices, sandbox.id, each.device)
            found.append(refusal((*path, "device"), what, policy, "devices", wider))
        if each.vhost_user_socket and not is_below(each.vhost_user_socket, policy.sockets):
            found.append(_socket((*path, "vhostUserSocket"), each.vhost_user_socket, policy))
    return found


def _of_driver(address: DriverAddress, policy: Policy) -> Iterator[Finding]:
    match address:
        case NetnsAddress():
            yield from _driver("netns", policy)
            yield from _namespace(address, policy)
        case VmAddress(name=name):
            yield from _driver("vm", policy)
            sockets = {"name": address.file} if name is not None else {"qmp": address.monitor, "agent": address.file}
            for field, path in sockets.items():
                if not is_below(path, policy.sockets):
                    yield _socket(("driver", "vm", field), path, policy)
        case KataAddress(runtime=runtime):
            yield from _driver("kata", policy)
            if runtime not in policy.runtimes:
                what = f"{runtime} may not be run as kata-runtime"
                yield refusal(("driver", "kata", "runtime"), what, policy, "runtimes", [*policy.runtimes, runtime])
        case _:
            assert_never(address)


def _driver(name: str, policy: Policy) -> Iterator[Finding]:
    if name not in policy.drivers:
        what = f"the driver {name} may not be used"
        yield refusal(("driver", name), what, policy, "drivers", [*policy.drivers, name])


def _namespace(address: NetnsAddress, policy: Policy) -> Iterator[Finding]:
    field = "pid" if address.pid is not None else "path" if address.path is not None else "name"
    where: Path = ("driver", "netns", field)
    if process_of(address.file) is not None:
        if not policy.processes:
            what = f"{address.file} is the namespace of a process, and no such namespace may be a sandbox"
            yield refusal(where, what, policy, "namespaces", _namespaces(policy, processes=True))
    elif not is_below(address.file, policy.folders):
        what = f"no namespace in {os.path.dirname(canonical(address.file))} may be a sandbox"
        folders = [*policy.folders, os.path.dirname(canonical(address.file))]
        yield refusal(where, what, policy, "namespaces", _namespaces(policy, folders))


def _namespaces(policy: Policy, folders: Sequence[str] | None = None, *, processes: bool = False) -> dict[str, Any]:
    """Return the field `namespaces` with other folders, or with processes. A default that stays is left out."""
    value: dict[str, Any] = {}
    if folders or policy.folders != Policy().folders:
        value["folders"] = [*(folders or policy.folders)]
    if processes or not policy.processes:
        value["processes"] = processes or policy.processes
    return value


def _socket(where: Path, path: str, policy: Policy) -> Finding:
    folder = os.path.dirname(canonical(path))
    return refusal(where, f"no socket in {folder} may be used", policy, "sockets", [*policy.sockets, folder])


def permits(devices: Devices, sandbox: str, device: str) -> bool:
    """Return whether a sandbox may have a device, by patterns."""
    return any(
        fnmatchcase(sandbox, sandboxes) and any(fnmatchcase(device, each) for each in names)
        for sandboxes, names in devices.items()
    )


def refuse_physical(policy: Policy, sandbox: str, index: int, device: str) -> None:
    """Raise NotAllowedError if a sandbox may not have a device with hardware behind it, its interface `index`."""
    if not permits(policy.physical_devices, sandbox, device):
        what = f"{device} is a physical device of this host, and sandbox {sandbox} may not have it"
        wider = _wider(policy.physical_devices, sandbox, device)
        finding = refusal(("interfaces", index, "device"), what, policy, "physicalDevices", wider)
        raise NotAllowedError([(finding.path, finding.message)])


def _wider(devices: Devices, sandbox: str, device: str) -> dict[str, list[str]]:
    found = {sandboxes: [*names] for sandboxes, names in devices.items()}
    found.setdefault(sandbox, []).append(device)
    return found


def canonical(path: str) -> str:
    """Return an absolute path without `.`, `..` and double slashes. /var/run is /run."""
    plain = os.path.normpath(path)
    plain = "/" + plain.lstrip("/")
    return plain.removeprefix("/var") if plain == "/var/run" or plain.startswith("/var/run/") else plain


def is_below(path: str, folders: Iterable[str]) -> bool:
    """Return whether a path is below one of some canonical folders, by its text."""
    plain = canonical(path)
    return any(plain.startswith(os.path.join(folder, "")) for folder in folders)


def process_of(file: str) -> str | None:
    """Return the process whose namespace a path is, as the path names it: a pid or `self`; None if it is no such."""
    found = _OF_PROCESS.fullmatch(canonical(file))
    return found[1].lstrip("0") or "0" if found else None


def refusal(where: Path, what: str, policy: Policy, field: str, value: object) -> Finding:
    """Return a finding that names the line of the policy that would allow it."""
    line = policy.lines.get(field)
    how = f"change line {line} of {policy.file} to" if line else f"add to {policy.file}"
    return Finding(where, f"{what}; to allow it, {how}: {field}: {_flow(value)}")


def _flow(value: object) -> str:
    """Return a value as YAML in one line."""
    match value:
        case bool():
            return str(value).lower()
        case Mapping():
            return "{" + ", ".join(f"{_flow(key)}: {_flow(each)}" for key, each in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_flow, value)) + "]"
        case _:
            import json

            text = str(value)
            is_plain = _PLAIN.fullmatch(text) and text.lower() not in _RESERVED
            return text if is_plain else json.dumps(text, ensure_ascii=False)
