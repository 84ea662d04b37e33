"""A libvirtd of its own, whose folders nobody else sees, and a domain in it that boots our image.

Whoever wants to talk to it enters its namespace of mounts: there, `qemu:///system` leads to it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from typing import ClassVar
from xml.sax.saxutils import escape

from reconciler.guest import image, qemu, runner
from reconciler.guest.launch import LaunchedMachine
from tests import resumed
from tests.machine import Guest, freeze

# Seconds.
_TIMEOUT = 120.0
# linux/sched.h.
_CLONE_FS, _CLONE_NEWNS = 0x00000200, 0x00020000
_libc = ctypes.CDLL(None, use_errno=True)
# What libvirt has found out about QEMU takes it some seconds, and holds until QEMU changes.
_INIT = """\
set -e
for folder in run/libvirt var/lib/libvirt var/log/libvirt etc/libvirt var/cache/libvirt; do mkdir -p "/$folder"; done
for folder in run/libvirt var/lib/libvirt var/log/libvirt etc/libvirt; do
  mount -t tmpfs -o mode=0755 tmpfs "/$folder"
done
# A watcher of the tests runs beside those of others.
for folder in run/reconciler var/lib/reconciler; do
  mkdir -p -m 0700 "/$folder"
  mount -t tmpfs -o mode=0700 tmpfs "/$folder"
done
mkdir -p "$1"
mount --bind "$1" /var/cache/libvirt
# libvirtd insists on this user and this group, although QEMU runs as root here.
cp /etc/passwd /etc/group /etc/libvirt
grep -q ^libvirt-qemu: /etc/passwd || echo libvirt-qemu:x:64055:64055::/nonexistent:/bin/false >>/etc/libvirt/passwd
grep -q ^libvirt-qemu: /etc/group || echo libvirt-qemu:x:64055: >>/etc/libvirt/group
grep -q ^kvm: /etc/group || echo kvm:x:64056: >>/etc/libvirt/group
for name in passwd group; do mount --bind "/etc/libvirt/$name" "/etc/$name"; done
cat >/etc/libvirt/qemu.conf <<'EOF'
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
EOF
cat >/etc/libvirt/libvirtd.conf <<'EOF'
auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
EOF
# Domains are migrated only between hosts that differ in both.
if [ -n "$2" ]; then
  hostname "$2"
  ip link set dev lo up
  echo 'host_uuid = "8e3c1a52-8a6f-4a3f-9d9a-1c1d2a5b6c77"' >>/etc/libvirt/libvirtd.conf
fi
echo ready
# It outlives each libvirtd, and ends with the test.
exec sleep infinity
"""
_DOMAIN = """\
<domain type='{kind}'>
  <name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>{memory}</memory><vcpu>1</vcpu>
  {memory_backing}
  <os><type arch='x86_64' machine='{chipset}'>hvm</type><kernel>{kernel}</kernel><initrd>{initramfs}</initrd>
  <cmdline>{cmdline}</cmdline></os>
  <features><acpi/></features><cpu mode='maximum'/>
  <devices>
    <emulator>/usr/bin/{program}</emulator>
    {ports}
    {serial}
    <controller type='usb' model='none'/><memballoon model='none'/>
    {channels}
  </devices>
</domain>
"""
SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
SERIAL = "<controller type='virtio-serial' index='0'/>"


def channel(name: str) -> str:
    return f"<channel type='unix'><source mode='bind'/><target type='virtio' name='{name}'/></channel>"


def domain(
    name: str,
    *,
    uuid: str = "c7a5fdbd-edaf-9455-926a-d65c16db1809",
    ports: int = qemu.PORTS,
    chipset: str = "q35",
    memory_backing: str = SHARED,
    serial: str = SERIAL,
    channels: str = channel(runner.PORT),
) -> str:
    """Describe a machine with our image for libvirt: without the channel of the agent, as a rule."""
    built = image.prepare(resumed.USUAL.kernel)
    # The serial bus has a port as well.
    places = range(1, ports + 2) if chipset == "q35" else ()
    return _DOMAIN.format(
        kind="qemu",
        name=name,
        uuid=uuid,
        memory=qemu.MEMORY,
        memory_backing=memory_backing,
        chipset=chipset,
        kernel=escape(built.kernel),
        initramfs=escape(built.initramfs),
        cmdline="console=ttyS0 quiet tsc=reliable mitigations=off init_on_alloc=0 nowatchdog norandmaps",
        program=qemu.PROGRAM,
        ports="".join(f"<controller type='pci' index='{each}' model='pcie-root-port'/>" for each in places),
        serial=serial,
        channels=channels,
    )


class Daemon:
    """A libvirtd; everything but `__init__`, `run`, `uri` and `end` is for who has entered its namespace."""

    def __init__(self, host: str = "") -> None:
        """Make the namespace. `host`: the name of another host, with its own devices, to which domains can migrate."""
        other = ["--net", "--uts"] if host else []
        words = ["unshare", "--mount", *other, "--propagation", "private", "sh", "-c", _INIT, "sh"]
        cache = os.path.join(image.cache_folder(), "libvirt")
        self._inside = ["nsenter", "--mount", *other]
        self._holder = subprocess.Popen([*words, cache, host], stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout
        with self._holder.stdout as printed:
            assert printed.readline() == "ready\n"
        self._libvirtd: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._holder.pid

    @property
    def uri(self) -> str:
        """Return how libvirt itself is reached from another namespace."""
        return f"qemu+unix:///system?socket=/proc/{self.pid}/root/run/libvirt/libvirt-sock"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command on its host."""
        inside = [*self._inside, "--target", str(self.pid)]
        return subprocess.run([*inside, *words], capture_output=True, text=True, check=False)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in its namespace of mounts: this thread, and those that it starts."""
        assert _libc.unshare(_CLONE_FS) == 0, os.strerror(ctypes.get_errno())
        with _where("/proc/thread-self") as back, _where(f"/proc/{self.pid}") as there:
            folder = os.getcwd()
            _go(*there, folder)
            try:
                yield
            finally:
                _go(*back, folder)

    def start(self) -> None:
        """Start libvirtd, and wait until it answers. Domains that run are found again."""
        inside = [*self._inside, "--target", str(self.pid)]
        self._libvirtd = subprocess.Popen(
            [*inside, "libvirtd", "--timeout", "0", "--pid-file", "/run/libvirt/libvirtd.pid"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _TIMEOUT
        while self.run("virsh", "list").returncode:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop libvirtd; the domains run on."""
        assert self._libvirtd
        self._libvirtd.send_signal(signal.SIGKILL)
        self._libvirtd.wait(_TIMEOUT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let libvirtd answer nothing."""
        assert self._libvirtd
        freeze(self._libvirtd.pid)
        try:
            yield
        finally:
            self._libvirtd.send_signal(signal.SIGCONT)

    def create(self, xml: str) -> None:
        """Start a domain that ends with it."""
        virsh("create", "/dev/stdin", stdin=xml)

    def end(self) -> None:
        """Stop all domains, libvirtd, and the namespace."""
        with self.entered():
            if self._libvirtd and self._libvirtd.poll() is None:
                for name in virsh("list", "--name").split():
                    subprocess.run(["virsh", "destroy", name], capture_output=True, check=False)
                self._libvirtd.terminate()
                self._libvirtd.wait(_TIMEOUT)
        self._holder.kill()
        self._holder.wait(_TIMEOUT)


@contextmanager
def _where(process: str) -> Iterator[tuple[int, int]]:
    """Open the namespace of mounts and the root of a process."""
    mounts = os.open(f"{process}/ns/mnt", os.O_RDONLY)
    root = os.open(f"{process}/root", os.O_PATH)
    try:
        yield mounts, root
    finally:
        os.close(mounts)
        os.close(root)


def _go(mounts: int, root: int, folder: str) -> None:
    deadline = time.monotonic() + _TIMEOUT
    # It refuses while there are threads that this one has started here: those of connections are just about to end.
    while _libc.setns(mounts, _CLONE_NEWNS) != 0:
        assert time.monotonic() < deadline, os.strerror(ctypes.get_errno())
        time.sleep(0.01)
    os.fchdir(root)
    os.chroot(".")
    os.chdir(folder)


def virsh(*words: str, stdin: str = "") -> str:
    """Run virsh; it must succeed."""
    done = subprocess.run(["virsh", *words], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


class DomainMachine(LaunchedMachine):
    """A domain in the place of a machine of ours."""

    __slots__ = ()
    # Where its port for commands is, by its name: libvirt chooses.
    SOCKETS: ClassVar[str] = f"/var/lib/libvirt/qemu/channel/target/domain-*-{{}}/{runner.PORT}"

    @property
    def exec(self) -> str:
        """Return the socket of its port for commands."""
        (found,) = glob(self.SOCKETS.format(self.name))
        return found


def booted(daemon: Daemon, name: str, xml: str) -> Guest:
    """Start a domain; wait until a program in it has opened its channel."""
    daemon.create(xml)
    deadline = time.monotonic() + _TIMEOUT
    while "state='connected'" not in virsh("dumpxml", name):
        assert time.monotonic() < deadline, f"{name} does not boot"
        time.sleep(0.1)
    return Guest(DomainMachine(name))
