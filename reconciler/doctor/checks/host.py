"""What the host lacks, and what is full."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.doctor.facts import HOST, Running, Usage
from reconciler.doctor.registry import Check, Hit
from reconciler.doctor.scene import Scene
from reconciler.doctor.words import command
from reconciler.model.address import DEFAULT_IPV4, DEFAULT_IPV6, family_name, is_ipv6
from reconciler.model.interface import LOOPBACK
from reconciler.model.ipvs import Ipvs
from reconciler.model.sandbox import NetnsAddress, VmAddress

# SO_NETNS_COOKIE, by which the record of given devices knows a namespace.
_OLDEST = (5, 14)
# The share of a table, of a file system or of a limit that is nearly all of it.
_NEARLY = 0.9
# Bytes that a file system must have left for a record, a log and a lock.
_ROOM = 4 << 20
# Instances and watches of inotify that a watcher takes; watches beside those for its folders.
_INSTANCES, _WATCHES = 2, 64
# Descriptors of a watcher, and those of each machine (examples/reconciler.service).
_DESCRIPTORS, _OF_A_MACHINE, _OF_A_NAMESPACE = 128, 6, 2


def _machines(scene: Scene) -> list[str]:
    return [box.id for box in scene.boxes if isinstance(box.driver, VmAddress)]


def _rights(scene: Scene) -> Iterator[Hit]:
    if scene.host.lacking:
        words = f"root lacks {', '.join(scene.host.lacking)} here, as in a container"
        yield Hit(HOST, words, "setpriv --dump    # run it where root has all rights, such as outside of the container")


def _kernel(scene: Scene) -> Iterator[Hit]:
    if (0, 0) < scene.host.release < _OLDEST:
        major, minor = scene.host.release
        words = f"the kernel is Linux {major}.{minor}; reconciler needs 5.14 or later"
        yield Hit(HOST, words, "apt-get install linux-image-amd64 && reboot")


def _tun(scene: Scene) -> Iterator[Hit]:
    # Only machines need it. Without any sandbox, a host that has QEMU is meant for machines.
    if scene.host.tun and (_machines(scene) or (not scene.boxes and not scene.host.qemu)):
        make = "modprobe tun; mkdir -p /dev/net; [ -c /dev/net/tun ] || mknod -m 666 /dev/net/tun c 10 200"
        yield Hit(HOST, scene.host.tun, make)


def _qemu(scene: Scene) -> Iterator[Hit]:
    named = [box.id for box in scene.boxes if isinstance(box.driver, VmAddress) and box.driver.name]
    if scene.host.qemu and named:
        yield Hit(HOST, f"{scene.host.qemu}, which runs {named[0]}", "apt-get install qemu-system-x86")


def _kvm(scene: Scene) -> Iterator[Hit]:
    if scene.host.kvm and _machines(scene):
        yield Hit(HOST, scene.host.kvm, "modprobe -a kvm kvm_intel kvm_amd; ls -l /dev/kvm")


def _ipvs(scene: Scene) -> Iterator[Hit]:
    needing = [
        box.id for box in scene.boxes if isinstance(box.driver, NetnsAddress) and box.sandbox.ipvs not in (None, Ipvs())
    ]
    if scene.host.ipvs is False and needing:
        yield Hit(
            HOST, f"the kernel has no IPVS (module ip_vs), which the manifest of {needing[0]} needs", "modprobe ip_vs"
        )


def _room(scene: Scene) -> Iterator[Hit]:
    said = set[tuple[Usage, Usage]]()
    for folder, (size, files) in scene.host.space.items():
        if (size, files) in said:
            continue
        said.add((size, files))
        left = size.most - size.used
        if size.most and left < min(_ROOM, size.most // 20):
            words = f"the file system of {folder} is full: {left >> 10:,} KiB of {size.most >> 20:,} MiB are left"
            yield Hit(HOST, words, command("du", "-xh", "--max-depth=2", folder) + " | sort -h | tail")
        if files.most and files.used >= files.most - 10:
            words = f"the file system of {folder} has no room for more files ({files.used:,} of {files.most:,})"
            yield Hit(HOST, words, command("du", "-x", "--inodes", "--max-depth=2", folder) + " | sort -n | tail")


def _inotify(scene: Scene) -> Iterator[Hit]:
    # What a watcher that runs has taken already is among what is used.
    needs = (0, 0) if scene.watcher.running is Running.YES else (_INSTANCES, _WATCHES)
    for name, found, need in zip(
        ("instances", "watches"), (scene.host.instances, scene.host.watches), needs, strict=True
    ):
        if found and found.used + need > found.most:
            words = f"{found.used:,} of {found.most:,} {name} of inotify that a user may have are in use"
            better = max(512 if name == "instances" else 65_536, 2 * found.used)
            yield Hit(HOST, words, command("sysctl", "-w", f"fs.inotify.max_user_{name}={better}"))


def _descriptors(scene: Scene) -> Iterator[Hit]:
    machines = len(_machines(scene))
    need = _DESCRIPTORS + machines * _OF_A_MACHINE + (len(scene.boxes) - machines) * _OF_A_NAMESPACE
    most = scene.host.descriptors
    # A limit of -1 is none.
    if most is not None and 0 <= most < need:
        words = f"a process may have {most:,} descriptors; a watcher of {len(scene.boxes):,} sandboxes needs {need:,}"
        yield Hit(HOST, words, f"ulimit -Hn {2 * need} && ulimit -n {2 * need}")


def _files(scene: Scene) -> Iterator[Hit]:
    found = scene.host.files
    if found and found.share > _NEARLY:
        words = f"{found.used:,} of {found.most:,} files are open on the whole host"
        yield Hit(HOST, words, command("sysctl", "-w", f"fs.file-max={2 * found.most}"))


def _processes(scene: Scene) -> Iterator[Hit]:
    found = scene.host.processes
    if found and found.share > _NEARLY:
        words = f"{found.used:,} of {found.most:,} possible processes and threads exist"
        yield Hit(HOST, words, command("sysctl", "-w", f"kernel.pid_max={4 * found.most}"))


def _conntrack(scene: Scene) -> Iterator[Hit]:
    if scene.host.conntrack:
        yield from conntrack(HOST, scene.host.conntrack)
    for box in scene.boxes:
        if box.conntrack:
            yield from conntrack(box.id, box.conntrack)


def conntrack(about: str, found: Usage) -> Iterator[Hit]:
    """Yield a hit if a table of connections is nearly full. Its limit is one for all namespaces of a kernel."""
    if found.most and found.share >= _NEARLY:
        words = f"the table of connection tracking is nearly full: {found.used:,} of {found.most:,} entries"
        better = max(262_144, 2 * found.most)
        yield Hit(about, words, command("sysctl", "-w", f"net.netfilter.nf_conntrack_max={better}"))


def _neighbours(scene: Scene) -> Iterator[Hit]:
    networks = [scene.host.network, *(network for box, network in scene.seen if isinstance(box.driver, NetnsAddress))]
    for family in ("ipv4", "ipv6"):
        name = f"net.{family}.neigh.default.gc_thresh3"
        most = scene.host.network.number(name)
        used = sum(is_ipv6(each.address) == (family == "ipv6") for network in networks for each in network.neighbours)
        if most and used > _NEARLY * most:
            words = (
                f"the neighbour table of {'IPv4' if family == 'ipv4' else 'IPv6'} is nearly full: {used:,} of {most:,}"
            )
            yield Hit(HOST, words, command("sysctl", "-w", f"{name}={max(4096, 4 * most)}"))


def _folder(scene: Scene) -> Iterator[Hit]:
    mode = scene.host.folder_mode
    if mode is not None and mode & 0o077:
        words = f"other users can enter /run/reconciler (mode {mode:04o})"
        yield Hit(HOST, words, "chmod 0700 /run/reconciler")


def _loopback(scene: Scene) -> Iterator[Hit]:
    link = scene.host.network.by_name.get(LOOPBACK)
    if link and not link.up:
        yield Hit(HOST, "lo is down on the host", "ip link set dev lo up")


def _default(scene: Scene) -> Iterator[Hit]:
    """Yield a hit if sandboxes send what is for others to the host, and this knows nobody to send it on to."""
    network = scene.host.network
    for default in (DEFAULT_IPV4, DEFAULT_IPV6):
        if any(each.dest == default and each.type == "unicast" for each in network.routes):
            continue
        for box, inside in scene.seen:
            gateways = {h.gateway for each in inside.routes if each.dest == default for h in each.nexthops}
            if any(gateway in network.hosts for gateway in gateways):
                words = (
                    f"the host has no {family_name(default)} default route, and {box.id} sends to it what is for others"
                )
                yield Hit(HOST, words, command("ip", "route", "add", default, "via", "GATEWAY"))
                break


def _clock(scene: Scene) -> Iterator[Hit]:
    if scene.host.synchronised is False:
        yield Hit(HOST, "nothing keeps the clock right", "timedatectl set-ntp true")


CHECKS = (
    Check(
        "rights-lacking", "Namespaces cannot be entered, or nothing can be changed.", "Give it these rights.", _rights
    ),
    Check(
        "kernel-old", "Devices that were given to namespaces cannot be told apart.", "Install a newer kernel.", _kernel
    ),
    Check("tun-missing", "No TAP can be made or opened, so no machine gets a NIC.", "Load the module tun.", _tun),
    Check("qemu-missing", "Machines cannot be started.", "Install QEMU.", _qemu),
    Check(
        "kvm-missing",
        "Machines run without acceleration (TCG), some ten times slower.",
        "Switch virtualization on in the firmware.",
        _kvm,
        is_note=True,
    ),
    Check(
        "ipvs-missing", "No IPVS service of a namespace can be applied.", "Install and load the module ip_vs.", _ipvs
    ),
    Check("room-left", "Locks, records and the watcher's files cannot be written.", "Make room.", _room),
    Check("inotify-low", "A watcher notices changes of manifests only every 2 s.", "Raise the limit.", _inotify),
    Check(
        "descriptors-low", "The watcher fails to open some sandboxes.", "Raise the limit (LimitNOFILE=).", _descriptors
    ),
    Check("files-full", "No program can open more files.", "Raise the limit, or end what has them open.", _files),
    Check("processes-full", "No program can be started.", "Raise the limit, or end what runs away.", _processes),
    Check("conntrack-full", "The kernel drops packets of new connections.", "Raise the limit.", _conntrack),
    Check(
        "neighbours-full", "New neighbours get no entry: packets to them are dropped.", "Raise the limit.", _neighbours
    ),
    Check("folder-open", "Other users can see, and perhaps change, what we rely on.", "Close it to others.", _folder),
    Check("host-loopback-down", "Nothing on the host reaches its own addresses.", "Set lo up.", _loopback),
    Check(
        "host-default-lacking",
        "What sandboxes send to others ends at the host.",
        "Add a default route, if they should reach others.",
        _default,
        is_note=True,
    ),
    Check(
        "clock-unsynchronised",
        "Times in the logs of several hosts cannot be compared.",
        "Run a client of NTP.",
        _clock,
        is_note=True,
    ),
)
