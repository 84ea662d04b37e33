"""The operator's policy: what manifests may name on this host. Its defaults are what holds without a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from reconciler.model.sandbox import KATA_RUNTIME

POLICY_FILE = "/etc/reconciler/policy.yaml"
DRIVERS = ("netns", "vm", "kata")

# Pattern of sandbox IDs → patterns of the host's devices, both as of fnmatch(3).
Devices = Mapping[str, tuple[str, ...]]


def _any_device() -> Devices:
    return MappingProxyType({"*": ("*",)})


def _no_device() -> Devices:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What manifests may name on this host. Folders and programs are absolute paths.

    `file`: what the operator changes to allow more. `lines`: the first and the last line of each field in it, from 1,
    without those that it lacks. `processes`: whether a namespace may be that of a process. `physical_devices`: devices
    of `devices` that may have hardware behind them. `rules_files`: folders of files of rules besides those that hold
    the manifests. `host_checks`: networks that checks of manifests may reach from the host.
    """

    file: str = POLICY_FILE
    lines: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))
    drivers: tuple[str, ...] = DRIVERS
    folders: tuple[str, ...] = ("/run/netns",)
    processes: bool = True
    sockets: tuple[str, ...] = ("/run",)
    runtimes: tuple[str, ...] = (KATA_RUNTIME,)
    devices: Devices = field(default_factory=_any_device)
    physical_devices: Devices = field(default_factory=_no_device)
    rules_files: tuple[str, ...] = ()
    host_checks: tuple[str, ...] = ()


DEFAULTS = Policy()
