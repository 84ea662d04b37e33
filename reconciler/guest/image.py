"""Builds the guest's image: a Debian kernel, and an initramfs with agent, runner, and tools to inspect their work.

It is made of Debian packages, which apt fetches as it is configured on this host. The cache keeps it under a name that
changes with each of the packages, with our own files, and with this module. Nothing here needs root.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from reconciler import rundir
from reconciler.errors import HostError
from reconciler.guest.archive import write_archive
from reconciler.model.release import series
from reconciler.values import NamedTuple

# Kernels by series. Each package depends on the newest build of its series.
KERNELS = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}
# Packages of the initramfs: the programs, then the libraries that these need. The build fails if one is missing.
PACKAGES = (
    *("busybox-static", "dash", "iproute2", "ipvsadm", "conntrack", "python3.11-minimal", "libpython3.11-minimal"),
    *("libc6", "libbpf1", "libbsd0", "libcap2", "libelf1", "libexpat1", "libmd0", "libmnl0", "libnetfilter-conntrack3"),
    *("libnfnetlink0", "libnl-3-200", "libnl-genl-3-200", "libpopt0", "zlib1g"),
    # ctypes, which the agent reads IPVS with.
    *("libpython3.11-stdlib", "libffi8"),
)
# Files that are copied from the packages, with the libraries that they need.
PROGRAMS = ("bin/busybox", "bin/dash", "bin/ip", "sbin/ipvsadm", "usr/sbin/conntrack", "usr/bin/python3.11")
# What is copied of the rest of the standard library: modules, and extension modules by what their files begin with.
STDLIB, EXTENSIONS = ("ctypes",), ("_ctypes.",)
# Names of kernel modules that are copied, with those that they need. A * stands for any characters.
MODULES = (
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    # The agent listens at a vsock port where it is told to.
    "vmw_vsock_virtio_transport",
    "vsock_loopback",
    "ip_vs*",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_tables",
    "tcp_diag",
    "veth",
    # Links that a manifest can make in the machine.
    "dummy",
    "8021q",
    "macvlan",
    "bridge",
    "bonding",
    "vrf",
)
# Without these, the modules make links of their own: bond0 and dummy0. systemd has the same in its modprobe.d.
_QUIET = "options bonding max_bonds=0\noptions dummy numdummies=0\n"

# In the packages: the dynamic loader, the folders of libraries, and Python's standard library.
_LOADER = "lib64/ld-linux-x86-64.so.2"
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
_PYTHON = "usr/lib/python3.11"
# The folder of this module.
_HERE = os.path.dirname(os.path.abspath(__file__))
# Our own files, relative to the package: the guest's Python finds them as a package of the same name.
_OURS = ("__init__.py", "guest/__init__.py", "guest/agent.py", "guest/runner.py")
# What the names of folders begin with in which an image is being built.
_SCRATCH = "build-"
# Seconds for apt to download the packages.
_DOWNLOAD_TIMEOUT = 600.0
# Seconds for any other program.
_TIMEOUT = 120.0


class Image(NamedTuple):
    """The paths of an image's files."""

    kernel: str
    initramfs: str


def cache_folder() -> str:
    """Return the folder of the cache. It can be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or "/var/cache"
    return os.path.join(base, "reconciler")


def prepare(name: str = "6.1", report: Callable[[str], None] = lambda _: None) -> Image:
    """Return the image of a kernel series. Build it, in about a minute, if the cache does not have it.

    `report` is called with what begins, for a person who waits.
    """
    image = _place(name)
    folder = os.path.dirname(image.kernel)
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with _only_builder(), _scratch() as scratch:
            if not os.path.isdir(folder):
                _build(name, scratch, report)
                os.rename(os.path.join(scratch, "image"), folder)
    return image


def find(name: str) -> Image | None:
    """Return the image of a kernel series; None if the cache does not have it."""
    image = _place(name)
    return image if os.path.exists(image.initramfs) else None


def nearest(release: tuple[int, int]) -> str:
    """Return the series of an image for a kernel: its own, or else the newest older one, or else the oldest."""
    known = sorted((series(name), name) for name in KERNELS)
    return max((each for each in known if each[0] <= release), default=known[0])[1]


def _place(name: str) -> Image:
    """Return where the image of a kernel series is, or will be."""
    if name not in KERNELS:
        raise HostError(f"there is no image with kernel {name}; choose one of {', '.join(KERNELS)}")
    listing = _run(["apt-get", "download", "--print-uris", KERNELS[name], *PACKAGES], _TIMEOUT)
    folder = os.path.join(cache_folder(), "images", f"{name}-{_key(listing)}")
    return Image(os.path.join(folder, "vmlinuz"), os.path.join(folder, "initramfs.cpio"))


def _key(listing: str) -> str:
    """Return a hash of everything that an image is made of: packages, our own files, and the modules that build it."""
    # Each line is 'URI' FILE SIZE CHECKSUM. The URI does not matter.
    packages = sorted(line.split(" ", 1)[1] for line in listing.splitlines() if line.startswith("'"))
    digest = hashlib.sha256("\n".join(packages).encode())
    for name in (*_OURS, "guest/init", "guest/image.py", "guest/archive.py"):
        with open(os.path.join(os.path.dirname(_HERE), name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:16]


@contextmanager
def _only_builder() -> Iterator[None]:
    """Wait until no other process builds an image. Delete what a killed process left."""
    # Other users may read the cache, and must not be able to lock it.
    lock = rundir.open_file(os.path.join(cache_folder(), "lock"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in os.listdir(cache_folder()):
            if name.startswith(_SCRATCH):
                shutil.rmtree(os.path.join(cache_folder(), name))
        yield
    finally:
        os.close(lock)


@contextmanager
def _scratch() -> Iterator[str]:
    # On the same file system as the images, so that one rename publishes the result.
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=cache_folder()) as folder:
        yield folder


def _build(name: str, scratch: str, report: Callable[[str], None]) -> None:
    packages, root, image = (os.path.join(scratch, name) for name in ("packages", "root", "image"))
    report(f"downloading {len(PACKAGES) + 1} Debian packages for an image with kernel {name}")
    files = _download(name)
    report("building the image")
    for package in files:
        # Most of it is not copied.
        folder = f"{packages}-stdlib" if os.path.basename(package).startswith("libpython3.11-stdlib_") else packages
        _run(["dpkg-deb", "--extract", package, folder], _TIMEOUT)
    (release,) = os.listdir(os.path.join(packages, "lib/modules"))
    for folder in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"):
        os.makedirs(os.path.join(root, folder))
    _copy_programs(packages, root)
    _copy_modules(packages, root, release)
    _copy_python(packages, root)
    os.makedirs(image)
    shutil.copyfile(os.path.join(packages, "boot", f"vmlinuz-{release}"), os.path.join(image, "vmlinuz"))
    with open(os.path.join(image, "initramfs.cpio"), "wb") as file:
        write_archive(root, file)


def _download(name: str) -> list[str]:
    """Download the packages and return their files. apt skips those that are there with the right checksum."""
    about = _run(["apt-cache", "show", "--no-all-versions", KERNELS[name]], _TIMEOUT)
    kernel = re.search(r"^Depends: (linux-image-\S+)", about, re.MULTILINE)
    if not kernel:
        raise HostError(f"the Debian package {KERNELS[name]} does not depend on a kernel, so no image can be built")
    folder = os.path.join(cache_folder(), "packages")
    os.makedirs(folder, exist_ok=True)
    names = [kernel[1], *PACKAGES]
    _run(["apt-get", "download", *names], _DOWNLOAD_TIMEOUT, folder)
    listing = _run(["apt-get", "download", "--print-uris", *names], _TIMEOUT)
    return [os.path.join(folder, line.split()[1]) for line in listing.splitlines() if line.startswith("'")]


def _copy_programs(packages: str, root: str) -> None:
    """Copy the programs and their libraries. Link the names that are left to the applets of busybox."""
    for program in PROGRAMS:
        _copy(packages, root, program)
        if program == "bin/busybox":
            # It is linked statically.
            continue
        listing = _run([*_loader(packages), "--list", os.path.join(packages, program)], _TIMEOUT)
        if "not found" in listing:
            raise HostError(f"no image can be built, because {program} needs a library that PACKAGES lacks: {listing}")
        for library in re.findall(re.escape(packages) + r"/(\S+)", listing):
            _copy(packages, root, library)
    # The shell of busybox would run its own applet `ip` instead of the real one.
    os.symlink("dash", os.path.join(root, "bin/sh"))
    for applet in _run([os.path.join(packages, "bin/busybox"), "--list"], _TIMEOUT).split():
        link = os.path.join(root, "bin", applet)
        if not os.path.lexists(link):
            os.symlink("busybox", link)
    shutil.copyfile(os.path.join(_HERE, "init"), os.path.join(root, "init"))
    os.chmod(os.path.join(root, "init"), 0o700)


def _copy_modules(packages: str, root: str, release: str) -> None:
    """Copy the kernel modules of MODULES and those that they need, and write modprobe's index of them."""
    depmod = [os.path.join(packages, "bin/busybox"), "depmod", "-b"]
    folder = os.path.join("lib/modules", release)
    _run([*depmod, packages, release], _TIMEOUT)
    with open(os.path.join(packages, folder, "modules.dep"), encoding="utf-8") as file:
        needs = dict(line.rstrip().split(":", 1) for line in file)
    for module, needed in needs.items():
        # The file of a module may be compressed, as in ip_vs.ko.xz.
        name = os.path.basename(module).partition(".")[0].replace("-", "_")
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in MODULES):
            for each in (module, *needed.split()):
                _copy(packages, root, os.path.join(folder, each))
    _copy(packages, root, os.path.join(folder, "modules.builtin"))
    os.makedirs(os.path.join(root, "etc/modprobe.d"))
    with open(os.path.join(root, "etc/modprobe.d/reconciler.conf"), "w", encoding="utf-8") as file:
        file.write(_QUIET)
    _run([*depmod, root, release], _TIMEOUT)


def _copy_python(packages: str, root: str) -> None:
    """Copy the standard library and our own files as bytecode, which the Python of the packages compiles."""
    library = os.path.join(root, _PYTHON)
    # Most extension modules need further libraries (ssl, hashlib), and the agent needs none of them.
    shutil.copytree(os.path.join(packages, _PYTHON), library, ignore=shutil.ignore_patterns("lib-dynload"))
    # Python warns if this folder does not exist.
    os.makedirs(os.path.join(library, "lib-dynload"))
    stdlib = os.path.join(f"{packages}-stdlib", _PYTHON)
    for name in STDLIB:
        shutil.copytree(os.path.join(stdlib, name), os.path.join(library, name))
    for name in os.listdir(os.path.join(stdlib, "lib-dynload")):
        if name.startswith(EXTENSIONS):
            shutil.copy(os.path.join(stdlib, "lib-dynload", name), os.path.join(library, "lib-dynload"))
    for name in os.listdir(os.path.join(packages, _LIBRARIES[1])):
        if name.startswith("libffi.so."):
            _copy(packages, root, os.path.join(_LIBRARIES[1], name))
    for name in _OURS:
        target = os.path.join(library, "reconciler", name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(os.path.join(os.path.dirname(_HERE), name), target)
    python = [*_loader(packages), os.path.join(packages, "usr/bin/python3.11"), "-B", "-S", "-s"]
    compiler = ["-m", "compileall", "-q", "-b", "--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/", library]
    _run([*python, *compiler], _TIMEOUT, environment={"PYTHONHOME": os.path.join(packages, "usr")})
    for folder, _, files in os.walk(library):
        for name in files:
            if not name.endswith((".pyc", ".so")):
                os.unlink(os.path.join(folder, name))


def _copy(packages: str, root: str, path: str) -> None:
    """Copy a file to the same place in the image. Of a link, copy its target."""
    target = os.path.join(root, path)
    if not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(os.path.join(packages, path), target)


def _loader(packages: str) -> list[str]:
    """Return the beginning of a command that runs a program of the packages with the packages' libraries."""
    libraries = ":".join(os.path.join(packages, folder) for folder in _LIBRARIES)
    return [os.path.join(packages, _LOADER), "--inhibit-cache", "--library-path", libraries]


def _run(
    command: Sequence[str], timeout: float, folder: str | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run a program. Return its output. HostError if it is missing or fails."""
    tool = os.path.basename(command[0])
    env = {**os.environ, "LC_ALL": "C", **(environment or {})}
    try:
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise HostError(f"{tool} is missing on this host; the guest's image cannot be built without it") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"the guest's image was not built: {tool} did not end within {timeout:.0f} s") from None
    except subprocess.CalledProcessError as error:
        text = " ".join(line for line in error.stderr.splitlines() if not line.startswith("W:"))
        hint = "; `apt-get update` may help" if tool.startswith("apt") else ""
        raise HostError(f"the guest's image was not built: {tool} failed: {text[-1000:]}{hint}") from error
    return done.stdout
