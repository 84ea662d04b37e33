"""`python -m tools.generate FOLDER`: write the completions of shells and the manual page below a folder."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tools import completions, man


def main(folder: Path) -> None:
    """Write all files."""
    # A build says what its date is, so that each one is the same (reproducible-builds.org).
    moment = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    files = {f"completions/{name}": completions.write(shell) for shell, name in completions.FILES.items()}
    files["man/man1/reconciler.1"] = man.write(moment)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
