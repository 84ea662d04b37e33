"""What a manifest names on this host, and whether the operator's policy allows it: a decision over values.

That is half of the answer: a path can lead elsewhere than its text says. `drivers.reach` asks again for what it opens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, assert_never

from reconciler.errors import NotAllowedError
from reconciler.manifest.finding import Finding, Path
from reconciler.model.address import contains
from reconciler.model.policy import Devices, Policy
from reconciler.model.sandbox import KataAddress, LibvirtAddress, NetnsAddress, Sandbox, VmAddress
from reconciler.model.transport import Vsock
from reconciler.values import NamedTuple, replace
from reconciler.wording import shorten

_OF_PROCESS = re.compile(r"/proc/(self|thread-self|[0-9]+)(/task/[0-9]+)?/ns/net")
# At most this many refusals of a manifest are named, and characters of a line of the policy.
MOST, _LONGEST = 10, 2000
# Characters of a path and what is said of it.
_WHAT = 400
# Text that YAML reads as text without quotes.
_PLAIN = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.@+-]*")
_SPECIAL = re.compile(r"[*?[]")
_RESERVED = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


class _Need(NamedTuple):
    """What a manifest needs from the policy: the field of the manifest, in words, and the field of the policy.

    `wider`: the policy that would allow it.
    """

    where: Path
    what: str
    field: str
    wider: Callable[[Policy], Policy]


def check(sandbox: Sandbox, policy: Policy) -> None:
    """Raise NotAllowedError if a sandbox names what the policy does not allow."""
    if findings := refusals(sandbox, policy):
        raise NotAllowedError([(each.path, each.message) for each in findings])


def refusals(sandbox: Sandbox, policy: Policy) -> list[Finding]:
    """Return what a sandbox names and the policy does not allow, with the lines that would allow it all."""
    needs = [*_of_driver(sandbox, policy), *_of_interfaces(sandbox, policy), *_of_checks(sandbox, policy)]
    return _worded(needs, policy)


def refuse_way_out(policy: Policy, sandbox: str, index: int, device: str, *, physical: bool) -> None:
    """Raise NotAllowedError if a sandbox may not have a device that may be the host's own, its interface `index`.

    `physical`: there is hardware behind it. If not, it has no MAC address, as the TUN of a VPN.
    """
    if not permits(policy.physical_devices, sandbox, device):
        kind = "a physical device of this host" if physical else "a device of this host without a MAC address"
        what = f"{device} is {kind}, and sandbox {sandbox} may not have it"
        wider = partial(_with_physical_device, sandbox, device)
        (found,) = _worded([_Need(("interfaces", index, "device"), what, "physicalDevices", wider)], policy)
        raise NotAllowedError([(found.path, found.message)])


def line_for_folder(policy: Policy, field: str, folder: str) -> str:
    """Return what the operator writes into a field of folders to allow what is in another one."""
    wider = {"namespaces": _with_folder, "sockets": _with_sockets, "rulesFiles": _with_rules}[field](folder, policy)
    return f"to allow it, {_line(policy, field, write(wider))}"


def _of_driver(sandbox: Sandbox, policy: Policy) -> Iterator[_Need]:
    match sandbox.driver:
        case NetnsAddress() as address:
            yield from _driver("netns", policy)
            yield from _namespace(address, policy)
        case VmAddress() as address:
            yield from _driver("vm", policy)
            for field, path in address.named_sockets.items():
                yield from _socket(("driver", "vm", field), path, policy)
            if isinstance(address.transport, Vsock):
                yield from _vsock(("driver", "vm", "agent"), address.transport.cid, policy)
            if address.guest_agent is not None:
                yield from _push("vm", sandbox.id, policy)
        case LibvirtAddress() as address:
            yield from _driver("libvirt", policy)
            yield from _domain(sandbox.id, address, policy)
            if address.guest_agent:
                yield from _push("libvirt", sandbox.id, policy)
        case KataAddress(runtime=runtime):
            yield from _driver("kata", policy)
            if runtime not in policy.runtimes:
                what = f"{runtime} may not be run as kata-runtime"
                yield _Need(("driver", "kata", "runtime"), what, "runtimes", partial(_with_runtime, runtime))
        case _:
            assert_never(sandbox.driver)


def _push(driver: str, sandbox: str, policy: Policy) -> Iterator[_Need]:
    if not any(fnmatchcase(sandbox, each) for each in policy.push):
        what = f"reconciler's agent, which is root there, may not be pushed into the machine of sandbox {sandbox}"
        yield _Need(("driver", driver, "guestAgent"), what, "pushAgent", partial(_with_push, sandbox))


def _driver(name: str, policy: Policy) -> Iterator[_Need]:
    if name not in policy.drivers:
        yield _Need(("driver", name), f"the driver {name} may not be used", "drivers", partial(_with_driver, name))


def _namespace(address: NetnsAddress, policy: Policy) -> Iterator[_Need]:
    field = "pid" if address.pid is not None else "path" if address.path is not None else "name"
    where: Path = ("driver", "netns", field)
    if process_of(address.file) is not None:
        if not policy.processes:
            what = f"{address.file} is the namespace of a process, and no such namespace may be a sandbox"
            yield _Need(where, what, "namespaces", lambda each: replace(each, processes=True))
    elif not is_below(address.file, policy.folders):
        folder = os.path.dirname(canonical(address.file))
        what = f"no namespace in {folder} may be a sandbox"
        yield _Need(where, what, "namespaces", partial(_with_folder, folder))


def _socket(where: Path, path: str, policy: Policy) -> Iterator[_Need]:
    if not is_below(path, policy.sockets):
        folder = os.path.dirname(canonical(path))
        yield _Need(where, f"no socket in {folder} may be used", "sockets", partial(_with_sockets, folder))


def _vsock(where: Path, cid: int, policy: Policy) -> Iterator[_Need]:
    if not any(first <= cid <= last for first, last in policy.vsock):
        what = f"no machine with the vsock CID {cid} may be a sandbox"
        yield _Need(where, what, "vsock", partial(_with_cid, cid))


def _domain(sandbox: str, address: LibvirtAddress, policy: Policy) -> Iterator[_Need]:
    if address.uri not in policy.libvirt_uris:
        what = f"no domain of the libvirt at {address.uri} may be a sandbox"
        yield _Need(("driver", "libvirt", "uri"), what, "libvirtUris", partial(_with_libvirt, address.uri))
    if not permits(policy.libvirt_domains, sandbox, address.domain):
        what = f"sandbox {sandbox} may not be the domain {address.domain} of libvirt"
        wider = partial(_with_domain, sandbox, address.domain)
        yield _Need(("driver", "libvirt", "domain"), what, "libvirtDomains", wider)


def _of_interfaces(sandbox: Sandbox, policy: Policy) -> Iterator[_Need]:
    for index, each in enumerate(sandbox.interfaces or ()):
        # With a vhost-user socket, a device is just a name.
        if each.vhost_user_socket:
            yield from _socket(("interfaces", index, "vhostUserSocket"), each.vhost_user_socket, policy)
        elif each.made is None and not permits(policy.devices, sandbox.id, each.device):
            what = f"sandbox {sandbox.id} may not have the device {each.device} of this host"
            wider = partial(_with_device, sandbox.id, each.device)
            yield _Need(("interfaces", index, "device"), what, "devices", wider)


def _of_checks(sandbox: Sandbox, policy: Policy) -> Iterator[_Need]:
    for index, each in enumerate(sandbox.checks):
        # To look a route up reaches nothing.
        if not each.from_host or each.kind == "route":
            continue
        if not any(contains(network_, each.address) for network_ in policy.host_checks):
            what = f"no check may reach {each.address} from this host"
            yield _Need(("checks", index, each.kind), what, "hostChecks", partial(_with_host_check, each.address))


def _with_host_check(address: str, policy: Policy) -> Policy:
    return policy if address in policy.host_checks else replace(policy, host_checks=(*policy.host_checks, address))


def _with_driver(name: str, policy: Policy) -> Policy:
    return replace(policy, drivers=(*policy.drivers, name))


def _with_folder(folder: str, policy: Policy) -> Policy:
    return replace(policy, folders=(*policy.folders, folder))


def _with_sockets(folder: str, policy: Policy) -> Policy:
    return policy if folder in policy.sockets else replace(policy, sockets=(*policy.sockets, folder))


def _with_cid(cid: int, policy: Policy) -> Policy:
    return replace(policy, vsock=(*policy.vsock, (cid, cid)))


def _with_rules(folder: str, policy: Policy) -> Policy:
    return replace(policy, rules_files=(*policy.rules_files, folder))


def _with_push(sandbox: str, policy: Policy) -> Policy:
    return replace(policy, push=(*policy.push, sandbox))


def _with_runtime(runtime: str, policy: Policy) -> Policy:
    return replace(policy, runtimes=(*policy.runtimes, runtime))


def _with_libvirt(uri: str, policy: Policy) -> Policy:
    return replace(policy, libvirt_uris=(*policy.libvirt_uris, uri))


def _with_domain(sandbox: str, domain: str, policy: Policy) -> Policy:
    # Names of domains, unlike those of devices, can have what means something in a pattern.
    pattern = _SPECIAL.sub(r"[\g<0>]", domain)
    return replace(policy, libvirt_domains=_added(policy.libvirt_domains, sandbox, pattern))


def _with_device(sandbox: str, device: str, policy: Policy) -> Policy:
    return replace(policy, devices=_added(policy.devices, sandbox, device))


def _with_physical_device(sandbox: str, device: str, policy: Policy) -> Policy:
    return replace(policy, physical_devices=_added(policy.physical_devices, sandbox, device))


def _added(devices: Devices, sandbox: str, device: str) -> Devices:
    return {**devices, sandbox: (*devices.get(sandbox, ()), device)}


def _worded(needs: Sequence[_Need], policy: Policy) -> list[Finding]:
    """Return findings about what is needed, at most MOST, each with one line of the policy that allows it.

    Those of one field of the policy have one line together: the first of them names it.
    """
    if not needs:
        return []
    wider = policy
    for need in needs:
        wider = need.wider(wider)
    data, named = write(wider), set[str]()
    findings = []
    for each in needs[:MOST]:
        how = "the same line allows it" if each.field in named else f"to allow it, {_line(policy, each.field, data)}"
        findings.append(Finding(each.where, f"{shorten(each.what, _WHAT)}; {how}", refused=True))
        named.add(each.field)
    if len(needs) > MOST:
        findings.append(Finding(needs[MOST].where, f"and {len(needs) - MOST:,} more that the policy does not allow"))
    return findings


def _line(policy: Policy, field: str, data: Mapping[str, Any]) -> str:
    """Return what to write into the policy, and where."""
    line = f"{field}: {_flow(data[field])}"
    return f"{_place(policy, field)}: {line}" if len(line) <= _LONGEST else f"add it to `{field}` in {policy.file}"


def _place(policy: Policy, field: str) -> str:
    """Return where a field of the policy is to be written."""
    if field not in policy.lines:
        return f"add to {policy.file}"
    first, last = policy.lines[field]
    return f"change {f'line {first}' if first == last else f'lines {first} to {last}'} of {policy.file} to"


def write(policy: Policy) -> dict[str, Any]:
    """Return the data of a policy, with defaults."""
    return {
        "drivers": [*policy.drivers],
        "namespaces": {"folders": [*policy.folders], "processes": policy.processes},
        "sockets": [*policy.sockets],
        "vsock": [first if first == last else f"{first}-{last}" for first, last in policy.vsock],
        "runtimes": [*policy.runtimes],
        "libvirtUris": [*policy.libvirt_uris],
        "libvirtDomains": {sandboxes: [*domains] for sandboxes, domains in policy.libvirt_domains.items()},
        "devices": {sandboxes: [*devices] for sandboxes, devices in policy.devices.items()},
        "physicalDevices": {sandboxes: [*devices] for sandboxes, devices in policy.physical_devices.items()},
        "rulesFiles": [*policy.rules_files],
        "pushAgent": [*policy.push],
        "hostChecks": [*policy.host_checks],
    }


def permits(devices: Devices, sandbox: str, device: str) -> bool:
    """Return whether a sandbox may have a device, by patterns."""
    return any(
        fnmatchcase(sandbox, sandboxes) and any(fnmatchcase(device, each) for each in names)
        for sandboxes, names in devices.items()
    )


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


def _flow(value: object) -> str:
    """Return a value as YAML in one line."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case Mapping():
            return "{" + ", ".join(f"{_flow(key)}: {_flow(each)}" for key, each in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_flow, value)) + "]"
        case _:
            import json

            text = str(value)
            is_plain = _PLAIN.fullmatch(text) and text.lower() not in _RESERVED
            return text if is_plain else json.dumps(text, ensure_ascii=False)
