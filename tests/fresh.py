"""Run every command of README, in order, on a fresh Debian 12 that has git, make and python3: `make fresh`.

First as an ordinary user, up to what needs root, then all as root, and in the end the commands that the demo has
shown, as a reader would paste them. debootstrap makes the system once; each run writes to a layer of its own above it.
The root is changed by pivot_root(2): a process in a chroot may have no user namespace.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.docs.blocks import ROOT
from tests.docs.commands import Commands, commands, differences, script

README = ROOT / "README.md"
SUITE, PACKAGES = "bookworm", "git,make,python3,ca-certificates"
USER, FOLDER = "reader", "reconciler"
# How this host reaches archives of packages, which the fresh system does as well.
ARCHIVES = ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/pip.conf", "etc/ssl/certs", "etc/resolv.conf")
ENVIRONMENT = ("PIP_", "SSL_CERT_", "http_proxy", "https_proxy", "no_proxy")
_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
_BOOT = """\
set -e
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs -o mode=0755 tmpfs run
pivot_root . mnt
umount -l mnt
shift 2
exec "$@"
"""
# What the demo has around the commands that it shows. `differs`: exit code 1 is right.
_AROUND = """\
set -e
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t sysfs sysfs /sys
ip link set dev lo up
"""


def main() -> int:
    """Make the system if there is none, run all, and print how long each block took. Return the exit code."""
    base = Path(sys.argv[1]).resolve()
    if not (base / "etc/debian_version").exists():
        made = base.with_name(f"{base.name}.new")
        shutil.rmtree(made, ignore_errors=True)
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(made))
        made.rename(base)
    with tempfile.TemporaryDirectory(dir=base.parent) as name:
        layers = Path(name)
        layers.chmod(0o755)
        _prepare(layers)
        within = (*_UNSHARE, "sh", "-c", _BOOT, "sh", str(base), name)
        kept = {each: value for each, value in os.environ.items() if each.startswith(ENVIRONMENT)}
        words = ("env", "-i", *(f"{each}={value}" for each, value in kept.items()), "bash", "/opt/run")
        code = subprocess.run([*within, *words], check=False).returncode
        wrong = [*_report("user", layers), *_report("root", layers)]
        if code and (pasted := layers / "upper/opt/root/pasted.out").exists():
            print(pasted.read_text())
    print(*wrong, "Something failed." if code or wrong else "All commands of README do what it shows.", sep="\n")
    return code or bool(wrong)


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


def _prepare(layers: Path) -> None:
    """Write what the fresh system has besides: the repository as it is committed, and the scripts to run."""
    for each in ("upper/opt", "upper/home", "work", "root"):
        (layers / each).mkdir(parents=True)
    upper = layers / "upper"
    # debootstrap has written another one.
    _write(upper / "etc/apt/sources.list", "")
    for each in ARCHIVES:
        _copy(Path("/", each), upper / each)
    acquire = subprocess.run(["apt-config", "dump", "Acquire"], check=True, capture_output=True, text=True).stdout
    _write(upper / "etc/apt/apt.conf.d/99host", acquire)
    _run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(upper / "opt" / FOLDER))
    for who, blocks in (("user", _of_user()), ("root", commands(README))):
        folder = upper / "opt" / who
        folder.mkdir()
        (folder / "script").write_text(script(blocks, folder))
        folder.chmod(0o777)
    (upper / "opt/paste.py").write_text(Path(__file__).with_name("paste.py").read_text())
    (upper / "opt/run").write_text(_all())


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        # Links in it are those of this system, too.
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.exists():
        shutil.copy(source, target)


def _packages() -> list[str]:
    """Return the commands beside the blocks that install packages of Debian, which need root."""
    return re.findall(r"`(apt-get install [^`./][^`]*)`", README.read_text(encoding="utf-8"))


def _of_user() -> list[Commands]:
    """Return the blocks up to the first that needs root: the demo is the last one."""
    blocks = commands(README)
    (demo,) = [index for index, each in enumerate(blocks) if each.text.startswith("make demo")]
    return blocks[: demo + 1]


def _all() -> str:
    """Return the script of everything. What README says beside its blocks is installed first."""
    installing, *later = [f"{each} --yes -qq >/dev/null" for each in _packages()]
    # The folders of a user's PATH in Debian.
    path = "export PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
    as_user = shlex.join(["su", USER, "-c", f"{path}; cd ~/{FOLDER} && exec bash /opt/user/script /opt/user"])
    demo = next(each.line for each in commands(README) if each.text.startswith("make demo"))
    return f"""\
set -e
export HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
apt-get update -qq
useradd --create-home --shell /bin/bash {USER}
cp -r /opt/{FOLDER} /home/{USER}/
chown -R {USER}: /home/{USER}
{installing}
{as_user}
cp -r /opt/{FOLDER} /root/
cd /root/{FOLDER}
{chr(10).join(later)}
bash /opt/root/script /opt/root
~/.local/bin/reconciler validate examples
export PATH="$PWD/.venv/bin:$PATH"
python3 /opt/paste.py </opt/root/{demo}.out >/opt/pasted
unshare --mount --net --pid --fork --kill-child --mount-proc bash -c {shlex.quote(_AROUND + ". /opt/pasted")} \\
    >/opt/root/pasted.out 2>&1
grep -x "after the flush" /opt/root/pasted.out
"""


def _report(who: str, layers: Path) -> list[str]:
    """Print how long each block took. Return what was printed otherwise than README shows."""
    folder = layers / "upper/opt" / who
    blocks = _of_user() if who == "user" else commands(README)
    ran = [each for each in blocks if (folder / f"{each.line}.seconds").exists()]
    for each in ran:
        seconds = (folder / f"{each.line}.seconds").read_text().strip()
        print(f"{who} {seconds:>5} s  {each.text.splitlines()[0]}")
    for each in blocks[len(ran) :][:1]:
        out = folder / f"{each.line}.out"
        print(f"{who} failed: {each.text}{out.read_text() if out.exists() else ''}")
    return differences(ran, folder)


if __name__ == "__main__":
    sys.exit(main())
