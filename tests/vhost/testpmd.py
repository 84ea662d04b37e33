"""DPDK's testpmd, unpacked from Debian packages as the guest's image is: installed it would bring 218 packages."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests import packages

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
_LIBRARIES = "usr/lib/x86_64-linux-gnu"


@cache
def command() -> tuple[str, ...]:
    """Return the words that run it, with the drivers that tests use."""
    root = packages.unpacked("testpmd", _PACKAGES, _forget_installed_drivers)
    drivers = [root / _LIBRARIES / f"librte_{name.replace('-', '_')}.so.23" for name in _DRIVERS]
    return (
        *packages.loader(root),
        str(root / "usr/bin/dpdk-testpmd"),
        *(word for each in drivers for word in ("-d", str(each))),
    )


def _forget_installed_drivers(root: Path) -> None:
    """Keep it from loading the drivers that are installed on this host as well: two of one kind end it."""
    library = root / _LIBRARIES / "librte_eal.so.23"
    before = library.read_bytes()
    after = before.replace(b"/dpdk/pmds-", b"/none/pmds-")
    assert after != before
    library.write_bytes(after)
