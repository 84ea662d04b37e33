"""The operator's policy: what manifests may name on this host. Its defaults are what holds without a file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from reconciler.model.sandbox import KATA_RUNTIME, LIBVIRT_SYSTEM
from reconciler.values import dataclass, field

POLICY_FILE = "/etc/reconciler/policy.yaml"
# The context IDs of machines: those below are of the hypervisor, of a host's own loopback, and of the host (vsock(7)).
MACHINES = ((3, 0xFFFFFFFE),)
DRIVERS = ("netns", "vm", "libvirt", "kata")

# Pattern of sandbox IDs → patterns of the host's devices, both as of fnmatch(3).
Devices = Mapping[str, tuple[str, ...]]
# Pattern of sandbox IDs → patterns of domains of libvirt, likewise.
Domains = Mapping[str, tuple[str, ...]]


def _any() -> Devices:
    return MappingProxyType({"*": ("*",)})


def _no_device() -> Devices:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What manifests may name on this host. Folders and programs are absolute paths.

    `file`: what the operator changes to allow more. `lines`: the first and the last line of each field in it, from 1,
    without those that it lacks. `processes`: whether a namespace may be that of a process. `vsock`: ranges of CIDs of
    machines. `physical_devices`: devices of `devices` that may have hardware behind them, or no MAC address.
    `rules_files`: folders of files of rules besides those that hold the manifests. `libvirt_uris`: exactly these, and
    `libvirt_domains` of them, by the name or UUID in the manifest. `push`: patterns of the IDs of sandboxes into whose
    machines our agent may be pushed. `host_checks`: networks that checks of manifests may reach from the host.
    `may_push`: whether this run pushes; it is no field of the file, but up to the command and its options.
    """

    file: str = POLICY_FILE
    lines: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))
    drivers: tuple[str, ...] = DRIVERS
    folders: tuple[str, ...] = ("/run/netns",)
    processes: bool = True
    sockets: tuple[str, ...] = ("/run",)
    vsock: tuple[tuple[int, int], ...] = MACHINES
    runtimes: tuple[str, ...] = (KATA_RUNTIME,)
    libvirt_uris: tuple[str, ...] = (LIBVIRT_SYSTEM,)
    libvirt_domains: Domains = field(default_factory=_any)
    devices: Devices = field(default_factory=_any)
    physical_devices: Devices = field(default_factory=_no_device)
    rules_files: tuple[str, ...] = ()
    push: tuple[str, ...] = ()
    host_checks: tuple[str, ...] = ()
    may_push: bool = False


DEFAULTS = Policy()
