"""DPDK's testpmd, unpacked from Debian packages as the guest's image is: installed it would bring 218 packages."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from reconciler.guest import image

_DRIVERS = ("bus-vdev", "mempool-ring", "net-af-packet", "net-vhost")
# The libraries that it is linked to. The loader reports one that is missing.
_DPDK = (
    *("bitratestats", "bpf", "bus-auxiliary", "bus-dpaa", "bus-pci", "cmdline", "common-dpaax", "common-iavf"),
    *(
        "crypto-scheduler",
        "cryptodev",
        "dmadev",
        "eal",
        "ethdev",
        "eventdev",
        "gro",
        "gso",
        "hash",
        "ip-frag",
        "kvargs",
    ),
    *("latencystats", "mbuf", "mempool", "mempool-dpaa", "meter", "metrics", "net", "net-bnxt", "net-bond", "net-dpaa"),
    *("net-i40e", "net-ice", "net-ixgbe", "pcapng", "pci", "pdump", "rcu", "reorder", "ring", "sched", "security"),
    *("telemetry", "timer", "vhost"),
)
_PACKAGES = (
    *("dpdk-dev", *(f"librte-{name}23" for name in (*_DRIVERS, *_DPDK)), "librte-common-mlx5-23", "librte-net-mlx5-23"),
    *("ibverbs-providers", "libbsd0", "libc6", "libcap2", "libdbus-1-3", "libelf1", "libfdt1", "libgcrypt20"),
    *("libgpg-error0", "libibverbs1", "libjansson4", "liblz4-1", "liblzma5", "libmd0", "libnl-3-200", "libnuma1"),
    *("libnl-route-3-200", "libpcap0.8", "libsystemd0", "libzstd1", "zlib1g"),
)
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
# Seconds.
_TIMEOUT = 300.0


@cache
def command() -> tuple[str, ...]:
    """Return the words that run it, with the drivers that tests use."""
    root = _unpacked()
    libraries = ":".join(str(root / folder) for folder in _LIBRARIES)
    loader = (str(root / "lib64/ld-linux-x86-64.so.2"), "--inhibit-cache", "--library-path", libraries)
    drivers = [root / _LIBRARIES[0] / f"librte_{name.replace('-', '_')}.so.23" for name in _DRIVERS]
    return (*loader, str(root / "usr/bin/dpdk-testpmd"), *(word for each in drivers for word in ("-d", str(each))))


def _unpacked() -> Path:
    """Return a folder with the packages; make it if there is none of these versions."""
    listing = _run("apt-get", "download", "--print-uris", *_PACKAGES)
    cache_folder = Path(image.cache_folder())
    folder = cache_folder / f"testpmd-{hashlib.sha256(listing.encode()).hexdigest()[:16]}"
    cache_folder.mkdir(parents=True, exist_ok=True)
    with (cache_folder / "testpmd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            (new / "packages").mkdir(parents=True)
            _run("apt-get", "download", *_PACKAGES, folder=new / "packages")
            for package in (new / "packages").iterdir():
                _run("dpkg-deb", "--extract", str(package), str(new))
            shutil.rmtree(new / "packages")
            _forget_installed_drivers(new / _LIBRARIES[0] / "librte_eal.so.23")
            new.rename(folder)
    return folder


def _forget_installed_drivers(library: Path) -> None:
    """Keep it from loading the drivers that are installed on this host as well: two of one kind end it."""
    before = library.read_bytes()
    after = before.replace(b"/dpdk/pmds-", b"/none/pmds-")
    assert after != before
    library.write_bytes(after)


def _run(*words: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        words,
        check=False,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{' '.join(words[:2])}: {done.stderr[-1000:]}"
    return done.stdout
