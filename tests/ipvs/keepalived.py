"""A real keepalived for a guest: what it sets up is compared with what we import."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from functools import cache
from pathlib import Path

from tests import packages
from tests.machine import Guest

_PACKAGES = (
    *("keepalived", "libblkid1", "libc6", "libcap2", "libcom-err2", "libcrypt1", "libffi8", "libgcrypt20"),
    *("libglib2.0-0", "libgpg-error0", "libgssapi-krb5-2", "libk5crypto3", "libkeyutils1", "libkrb5-3"),
    *("libkrb5support0", "liblz4-1", "liblzma5", "libmnl0", "libmount1", "libnftnl11", "libnl-3-200"),
    *("libnl-genl-3-200", "libnsl2", "libpci3", "libpcre2-8-0", "libperl5.36", "libselinux1", "libsensors5"),
    *("libsnmp40", "libssl3", "libsystemd0", "libtirpc3", "libudev1", "libwrap0", "libzstd1", "zlib1g"),
)
_HOME = "opt/keepalived"
# It prints what it has set up, and then watches it until it is ended. Its own way to end would remove the table.
_RUN = """\
set -e
cd /{home}
./loader --library-path lib ./keepalived --dont-fork --log-console --no-syslog --check --no_bfd --dump-conf \\
    --dont-respawn --pid p --checkers_pid c --bfd_pid b --vrrp_pid v --config-id {config_id} \\
    --use-file $PWD/conf/{file} >log 2>&1 &
for _ in $(seq 600); do
    grep -q 'System is compiled with LVS' log && break
    kill -0 $! || break
    sleep 0.1
done
busybox kill -KILL $! $(cat c) 2>/dev/null
wait
cat log
rm -f log p c b v
"""


@cache
def _archive() -> bytes:
    root = packages.unpacked("keepalived", _PACKAGES)
    program = root / "usr/sbin/keepalived"
    listing = packages.run(*packages.loader(root), "--list", str(program))
    found = re.findall(rf" => ({re.escape(str(root))}/\S+)", listing)
    files = {"keepalived": program, "loader": Path(packages.loader(root)[0])}
    return _packed(files | {f"lib/{Path(path).name}": Path(path) for path in found})


def _packed(files: dict[str, Path]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", dereference=True) as archive:
        for name, path in files.items():
            archive.add(path, f"{_HOME}/{name}")
    return gzip.compress(stream.getvalue(), 1)


def install(guest: Guest) -> None:
    """Install it in a guest."""
    guest.unpack(_archive())


def remove(guest: Guest) -> None:
    """Leave the guest as it was."""
    guest.output("rm", "-r", f"/{_HOME}")


def set_up(guest: Guest, folder: Path, file: str, config_id: str) -> str:
    """Let it set up the table of a guest for a configuration in a folder. Return its log."""
    guest.unpack(_packed({f"conf/{each.name}": each for each in folder.iterdir()}))
    return guest.output("sh", "-c", _RUN.format(home=_HOME, file=file, config_id=config_id))
