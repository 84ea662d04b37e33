"""`make test-deb`: the Debian package of `make dist`, in a Debian 12 that has nothing else.

    python -m tests.debian PACKAGE

debootstrap makes the Debian once, below the cache of the guest's images. Each run has a copy of it, in its own mount
namespace. Another version of the package is made of this one, to be upgraded from.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.guest import image
from tests.conftest import Kernel, ip

ROOT = Path(__file__).parents[1]
# What the package depends on is there already, so that dpkg alone can install it.
INCLUDED = "python3,python3-prometheus-client,python3-yaml"
# Seconds: debootstrap downloads a hundred packages.
TIMEOUT = 900
# What dpkg, debconf and systemd's tools write down of every package.
_RECORDS = (
    "var/lib/dpkg/",
    "var/log/",
    "var/cache/",
    "var/lib/systemd/",
    "run/",
    "tmp/",
    "proc/",
    "etc/systemd/system",
)
_POLICY, _MANIFEST = "etc/reconciler/policy.yaml", "etc/reconciler/manifests/web.yaml"
_PRIVATE = "usr/lib/reconciler"
# Older than every version of ours.
_OLDER = "0~older"


class Debian:
    """A Debian in a folder. Its commands see the host's network, and a /run of their own with the host's namespaces."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command that has to end so. Return all that it prints."""
        inside = 'mount -t proc proc "$0/proc"; mount --rbind /run/netns "$0/run/netns"; exec chroot "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", inside, str(self.root), str(self.root), *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        )
        output = done.stdout + done.stderr
        assert done.returncode == code, f"{' '.join(words)}: exit code {done.returncode}, not {code}:\n{output}"
        return output

    def install(self, package: Path) -> None:
        """Install a package with dpkg, which refuses one whose dependencies are missing."""
        shutil.copy(package, self.root / "tmp/package.deb")
        self.run("dpkg", "--install", "/tmp/package.deb")

    def files(self) -> set[str]:
        """Return the paths of all files and folders, without what is written down of each package."""
        paths = (str(path.relative_to(self.root)) for path in self.root.rglob("*"))
        return {path for path in paths if not f"{path}/".startswith(_RECORDS)}

    def text(self, path: str) -> str:
        """Return what a file says, "" if there is none."""
        file = self.root / path
        return file.read_text() if file.exists() else ""


@contextmanager
def debian() -> Iterator[Debian]:
    """Yield a new Debian 12."""
    base = Path(image.cache_folder()) / f"debian-12-{INCLUDED.replace(',', '-')}"
    if not base.exists():
        new = base.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(parents=True, exist_ok=True)
        _run("debootstrap", "--variant=minbase", f"--include={INCLUDED}", "bookworm", str(new))
        new.rename(base)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "debian"
        _run("cp", "--archive", "--reflink=auto", str(base), str(root))
        (root / "run/netns").mkdir(exist_ok=True)
        yield Debian(root)


def other_version(package: Path, folder: Path) -> Path:
    """Make an older version of a package: with a module that is gone since, and another policy as it came."""
    tree, file = folder / "older", folder / "older.deb"
    _run("dpkg-deb", "--raw-extract", str(package), str(tree))
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    control.write_text(
        "".join(f"Version: {_OLDER}\n" if line.startswith("Version: ") else f"{line}\n" for line in lines)
    )
    (tree / _PRIVATE / "reconciler/gone.py").write_text("GONE = True\n")
    with (tree / _POLICY).open("a") as policy:
        policy.write("# older\n")
    _run("dpkg-deb", "--root-owner-group", "--build", str(tree), str(file))
    return file


def check(package: Path) -> None:
    """Go through the life of the package."""
    with debian() as host, tempfile.TemporaryDirectory() as folder:
        before = host.files()
        host.install(other_version(package, Path(folder)))
        assert list(host.root.glob(f"{_PRIVATE}/reconciler/__pycache__/gone.*.pyc")), "modules are not compiled"
        host.install(package)
        _upgraded(host)
        _used(host)
        _applied(host)
        print("the package is upgraded, and works")
        _edited(host, package)
        print("what the operator wrote survives an upgrade and a removal")
        _purged(host, before)
        print("a purge leaves nothing but manifests and records in use")


def _upgraded(host: Debian) -> None:
    assert not list(host.root.rglob("gone.*")), "a module of the older version is left"
    assert "# older" not in host.text(_POLICY), "a policy that nobody edited is that of the older version"
    assert host.text(_POLICY) == (ROOT / "debian/policy.yaml").read_text()
    assert not (host.root / "etc/systemd/system/multi-user.target.wants/reconciler.service").is_symlink()


def _used(host: Debian) -> None:
    """Use it as somebody who has only the package."""
    shutil.copy(ROOT / "packaging/try.sh", host.root / "tmp/try.sh")
    print(host.run("sh", "/tmp/try.sh", "/usr/bin/reconciler", "/usr/share/doc/reconciler/examples").strip())
    # An image of a guest is made of files of the package.
    program = f"import sys; sys.path.insert(0, '/{_PRIVATE}'); from reconciler.guest import image; image._key('')"
    host.run("python3", "-I", "-c", program)
    # The metrics are made by Debian's prometheus_client.
    program = f"import sys; sys.path.insert(0, '/{_PRIVATE}'); import reconciler.watch.exposition as each; "
    program += "assert each.Metrics(lambda: each.Snapshot((), 0, 0)).expose('').status == 200"
    host.run("python3", "-I", "-c", program)
    # The library that serves the page is in the package.
    program = f"import sys; sys.path.insert(0, '/{_PRIVATE}'); from reconciler.watch.page import server"
    host.run("python3", "-I", "-c", program)
    # A module beside the operator, or a variable, is not taken for ours.
    (host.root / "tmp/reconciler").mkdir()
    (host.root / "tmp/reconciler/__init__.py").write_text("raise SystemExit(9)\n")
    host.run("env", "PYTHONPATH=/tmp", "sh", "-c", "cd /tmp && reconciler --version")
    shutil.rmtree(host.root / "tmp/reconciler")
    # dpkg of Debian compresses manual pages.
    page = gzip.decompress((host.root / "usr/share/man/man1/reconciler.1.gz").read_bytes()).decode()
    version = host.run("reconciler", "--version").split()[1]
    assert f'"reconciler {version}"' in page.splitlines()[0], page.splitlines()[0]
    completion = "/usr/share/bash-completion/completions/reconciler"
    assert "reconciler" in host.run("bash", "-c", f". {completion} && complete -p reconciler")
    for shell in ("zsh/vendor-completions/_reconciler", "fish/vendor_completions.d/reconciler.fish"):
        assert "validate" in host.text(f"usr/share/{shell}")
    service = host.text("lib/systemd/system/reconciler.service")
    [command] = [line for line in service.splitlines() if line.startswith("ExecStart=")]
    assert command == "ExecStart=/usr/bin/reconciler watch --log json /etc/reconciler/manifests"


def _applied(host: Debian) -> None:
    """Configure a real namespace, which `ip` of this host reads."""
    kernel = Kernel()
    try:
        namespace, device = kernel.namespace(), kernel.tap()
        (host.root / _MANIFEST).write_text(
            f"apiVersion: reconciler/v1\nsandbox: web\ndriver: {{netns: {{name: {namespace}}}}}\n"
            f"interfaces:\n  - {{name: eth0, device: {device}, hwAddr: 02:42:20:6f:a3:69, mtu: 1500,\n"
            "     addresses: [192.0.2.10/24]}\n"
            "routes: [{dest: default, gateway: 192.0.2.1, device: eth0}]\n"
        )
        host.run("reconciler", "apply", "/etc/reconciler/manifests")
        assert "default via 192.0.2.1 dev eth0" in ip("route", "show", "proto", "200", namespace=namespace)
        host.run("reconciler", "diff", "/etc/reconciler/manifests")
        (host.root / "tmp/none.yaml").write_text(host.text(_MANIFEST).partition("interfaces:")[0] + "interfaces: []\n")
        host.run("reconciler", "apply", "--allow-delete", "all", "/tmp/none.yaml")
        assert device in ip("link", "show")
    finally:
        kernel.remove()


def _edited(host: Debian, package: Path) -> None:
    edited = host.text(_POLICY).replace("[netns, vm, libvirt, kata]", "[vm]")
    (host.root / _POLICY).write_text(edited)
    host.install(package)
    assert host.text(_POLICY) == edited
    refused = host.run("reconciler", "validate", "/etc/reconciler/manifests", code=3)
    assert "change line 4 of /etc/reconciler/policy.yaml to: drivers: [vm, netns]" in refused, refused
    host.run("dpkg", "--remove", "reconciler")
    assert not (host.root / _PRIVATE).exists()
    assert (host.text(_POLICY), bool(host.text(_MANIFEST))) == (edited, True)
    host.install(package)
    assert host.text(_POLICY) == edited


def _purged(host: Debian, before: set[str]) -> None:
    record = host.root / "run/reconciler/devices/4-4026531840"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.touch()
    history = host.root / "var/lib/reconciler/history/web-1.jsonl"
    history.parent.mkdir(parents=True, exist_ok=True)
    history.touch()
    output = host.run("dpkg", "--purge", "reconciler")
    assert "/run/reconciler is kept" in output, output
    assert record.exists()
    assert host.files() - before == {"etc/reconciler", "etc/reconciler/manifests", _MANIFEST}
    assert not before - host.files()
    shutil.rmtree(host.root / "etc/reconciler")
    record.unlink()


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(words)}: {(done.stdout + done.stderr)[-2000:]}"


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("tests.debian: run this as root: it installs packages in a Debian of its own")
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    check(Path(sys.argv[1]))
