"""`python -m tests.editors.install`: install yaml-language-server into FOLDER, from hashed requirements.

Only its files are installed: no script of a package runs. `package-lock.json` has the hashes; it is renewed by
`npm install --package-lock-only --omit-lockfile-registry-resolved`, so that it names no registry.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".editors"
_HERE = Path(__file__).parent
# What the folder was made of, and the script that starts the server.
_MADE_OF = FOLDER / "node_modules" / "made-of.json"
SERVER = FOLDER / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"


def is_installed() -> bool:
    """Return whether the server is installed, as the requirements say it now."""
    lock = (_HERE / "package-lock.json").read_bytes()
    return SERVER.is_file() and _MADE_OF.is_file() and _MADE_OF.read_bytes() == lock


def install() -> None:
    """Install the server if it is not. SystemExit with the reason if that is impossible."""
    if is_installed():
        return
    missing = [name for name in ("node", "npm") if not shutil.which(name)]
    if missing:
        sys.exit(f"make editors: {' and '.join(missing)} missing; install the Debian packages nodejs and npm")
    FOLDER.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_HERE / name, FOLDER / name)
    words = [
        "npm",
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
        "--fetch-retry-mintimeout=1000",
    ]
    ran = subprocess.run(words, cwd=FOLDER, capture_output=True, text=True, check=False)
    if ran.returncode:
        lines = [line.strip() for line in ran.stderr.splitlines() if line.strip()] or ["no reason given"]
        reason = next((line for line in lines if "reason:" in line), lines[0])
        sys.exit(
            f"make editors: npm cannot install yaml-language-server into {FOLDER} ({reason}); the npm registry "
            "must be reachable, once. See `npm config get registry`, and `npm config set proxy` behind a proxy"
        )
    shutil.copy(_HERE / "package-lock.json", _MADE_OF)


if __name__ == "__main__":
    install()
