"""Reads what a host has and lacks: rights, kernel, devices, limits, room, its network. Nothing is loaded or made."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress

from reconciler import rundir
from reconciler.doctor import firewall, netpicture
from reconciler.doctor.facts import HOST, Host, Network, Unknown, Usage
from reconciler.errors import ReconcilerError
from reconciler.guest.qemu import PROGRAM
from reconciler.model.release import series
from reconciler.netlink.channel import LocalKernel
from reconciler.netlink.engine import local_engine
from reconciler.netlink.facts import snapshot
from reconciler.values import replace
from reconciler.wording import reason

# Sysctls of the host as a whole.
LIMITS = (
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "fs.file-nr",
    "kernel.pid_max",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv6.neigh.default.gc_thresh3",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
)
# Where we and the watcher write.
FOLDERS = ("/run", "/var/lib/reconciler")
_TUN, _KVM = "/dev/net/tun", "/dev/kvm"
# struct timex: its field `status`, and the bit that says that nothing keeps the clock right (linux/timex.h).
_TIMEX_SIZE, _STATUS_AT, _UNSYNCHRONISED = 256, 40, 0x40
# linux/capability.h; what each is for is in docs/security.md.
_CAPABILITIES = {11: "CAP_NET_BROADCAST", 12: "CAP_NET_ADMIN", 21: "CAP_SYS_ADMIN"}
# Processes whose descriptors are looked at, to count what is used of inotify.
_MOST_PROCESSES = 20_000


def read() -> Host:
    """Return what this user can see of the host."""
    unknown: list[Unknown] = []
    modules = loaded_modules()
    kernel = LocalKernel()
    limits = kernel.read_sysctls(LIMITS)
    instances, watches = _inotify(limits, unknown)
    return Host(
        root=os.geteuid() == 0,
        lacking=tuple(_lacking()) if os.geteuid() == 0 else (),
        release=series(os.uname().release),
        tun=_device(_TUN),
        kvm=_device(_KVM),
        qemu="" if shutil.which(PROGRAM) else f"there is no program {PROGRAM}",
        network=_network(kernel, modules, limits, unknown),
        space=dict(_space()),
        instances=instances,
        watches=watches,
        descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[1] if os.geteuid() == 0 else None,
        folder_mode=_mode(rundir.ROOT),
        files=_files(limits.get("fs.file-nr", "")),
        processes=_usage(str(_process_count()), limits.get("kernel.pid_max", "")),
        conntrack=_usage(
            limits.get("net.netfilter.nf_conntrack_count", ""), limits.get("net.netfilter.nf_conntrack_max", "")
        ),
        synchronised=_is_synchronised(),
        ipvs=_has_ipvs(kernel, modules),
        unknown=tuple(unknown),
    )


def _lacking() -> Iterator[str]:
    """Yield the capabilities that this process needs and lacks, as in many containers."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as file:
        found = re.search(r"^CapEff:\s*([0-9a-f]+)$", file.read(), re.MULTILINE)
        has = int(found[1], 16) if found else -1
        yield from (name for bit, name in _CAPABILITIES.items() if not has >> bit & 1)


def loaded_modules() -> frozenset[str] | None:
    """Return the modules that the kernel has loaded; None if it has no modules, so that asking it loads none."""
    with suppress(OSError), open("/proc/modules", encoding="ascii", errors="replace") as file:
        names = {line.split(" ", 1)[0] for line in file}
        return frozenset(names | _builtin())
    return None


def _builtin() -> set[str]:
    return set(_listed_modules("modules.builtin"))


def _listed_modules(name: str) -> Iterator[str]:
    """Yield the names of modules in a list of depmod(8)."""
    with (
        suppress(OSError),
        open(f"/lib/modules/{os.uname().release}/{name}", encoding="ascii", errors="replace") as file,
    ):
        for line in file:
            yield os.path.basename(line.split(":", 1)[0].strip()).split(".ko", 1)[0].replace("-", "_")


def loadable_modules() -> frozenset[str]:
    """Return the modules of this kernel that could be loaded."""
    return frozenset((*_listed_modules("modules.dep"), *_builtin()))


def _has_ipvs(kernel: LocalKernel, modules: frozenset[str] | None) -> bool:
    if kernel.read_listing("ip_vs") is not None:
        return True
    return modules is not None and "ip_vs" in loadable_modules()


def _device(path: str) -> str:
    """Return why a device cannot be used, or ""."""
    try:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            return f"{path} is not a device"
    except OSError as error:
        return f"{path}: {reason(error)}"
    # Whether another user may open it says nothing about root, who runs machines.
    opens = os.geteuid() != 0 or os.access(path, os.R_OK | os.W_OK)
    return "" if opens else f"{path}: not even root may open it"


def _network(
    kernel: LocalKernel, modules: frozenset[str] | None, limits: dict[str, str], unknown: list[Unknown]
) -> Network:
    try:
        with local_engine() as engine:
            network = netpicture.decode(snapshot(engine, ()))
            network = netpicture.with_bridges(network, engine)
    except ReconcilerError as error:
        unknown.append(Unknown(HOST, "its network", str(error)))
        return Network()
    network = netpicture.with_settings(network, kernel.read_sysctls)
    network = replace(network, settings={**network.settings, **limits})
    return with_firewall(network, kernel, modules, HOST, unknown)


def with_firewall(
    network: Network, kernel: LocalKernel, modules: frozenset[str] | None, about: str, unknown: list[Unknown]
) -> Network:
    """Return a network with what drops packets in it, as far as that can be read."""
    try:
        tables = (kernel.read_listing(f"{each}_tables_names") for each in ("ip", "ip6"))
        if used := " ".join(filter(None, tables)).split():
            why = "only `iptables-legacy-save` can list these"
            unknown.append(Unknown(about, f"the rules of iptables-legacy ({', '.join(sorted(set(used)))})", why))
    except ReconcilerError as error:
        unknown.append(Unknown(about, "the rules of iptables-legacy", str(error)))
    try:
        return replace(network, firewall=firewall.read(kernel, modules))
    except ReconcilerError as error:
        unknown.append(Unknown(about, "its firewall", str(error)))
        return network


def _space() -> Iterator[tuple[str, tuple[Usage, Usage]]]:
    """Yield how full the file systems are: in bytes and in files, without what is kept for root."""
    for folder in FOLDERS:
        with suppress(OSError):
            found = os.statvfs(folder)
            used = (found.f_blocks - found.f_bfree) * found.f_frsize
            yield (
                folder,
                (
                    Usage(used, used + found.f_bavail * found.f_frsize),
                    Usage(found.f_files - found.f_ffree, found.f_files),
                ),
            )


def _mode(folder: str) -> int | None:
    with suppress(OSError):
        return stat.S_IMODE(os.stat(folder).st_mode)
    return None


def _files(text: str) -> Usage | None:
    words = text.split()
    return _usage(words[0], words[2]) if len(words) == 3 else None


def _usage(used: str, most: str) -> Usage | None:
    return Usage(int(used), int(most)) if used.isdecimal() and most.isdecimal() else None


def _process_count() -> int:
    # The kernel counts threads, which /proc/loadavg has: `running/all`.
    with suppress(OSError, ValueError, IndexError), open("/proc/loadavg", encoding="ascii") as file:
        return int(file.read().split()[3].partition("/")[2])
    return 0


def _inotify(limits: dict[str, str], unknown: list[Unknown]) -> tuple[Usage | None, Usage | None]:
    """Return how many instances and watches of inotify this user has, of how many."""
    most = (limits.get("fs.inotify.max_user_instances", ""), limits.get("fs.inotify.max_user_watches", ""))
    if not all(map(str.isdecimal, most)):
        unknown.append(Unknown(HOST, "the limits of inotify", "/proc/sys/fs/inotify cannot be read"))
        return None, None
    user = os.geteuid()
    if user != 0:
        # The watcher is root's.
        return None, None
    instances = watches = 0
    for process in filter(str.isdecimal, os.listdir("/proc")[:_MOST_PROCESSES]):
        with suppress(OSError):
            if os.stat(f"/proc/{process}").st_uid != user:
                continue
            for descriptor in os.scandir(f"/proc/{process}/fd"):
                # A descriptor may be closed meanwhile.
                with suppress(OSError):
                    if os.readlink(descriptor.path) == "anon_inode:inotify":
                        instances += 1
                        with open(f"/proc/{process}/fdinfo/{descriptor.name}", encoding="ascii") as file:
                            watches += sum(line.startswith("inotify ") for line in file)
    return Usage(instances, int(most[0])), Usage(watches, int(most[1]))


def _is_synchronised() -> bool | None:
    """Return whether a program or a device keeps the clock right, as the kernel was told; None if that is unknown."""
    buffer = ctypes.create_string_buffer(_TIMEX_SIZE)
    # With no bit set in `modes`, nothing is changed (adjtimex(2)).
    if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
        return None
    (status,) = struct.unpack_from("=i", buffer, _STATUS_AT)
    return not status & _UNSYNCHRONISED


def limit_of(process: int) -> int | None:
    """Return how many descriptors a process may have open; None if that cannot be read."""
    with suppress(OSError), open(f"/proc/{process}/limits", encoding="ascii") as file:
        found = re.search(r"^Max open files\s+(\d+)", file.read(), re.MULTILINE)
        return int(found[1]) if found else None
    return None
