"""A watcher beside a repository with every trick: a good sandbox is repaired as fast as ever."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from tests.watch.running import ROUTE, Keep, until, watching

HEAD = "apiVersion: reconciler/v1\nsandbox: {}\ndriver: {{netns: {{name: nowhere-{}}}}}\n"
# Seconds for one repair while files are read, MiB of memory, and bytes of the log.
REPAIR, MEMORY, LOG = 10.0, 200, 1_000_000


def every_trick(folder: Path) -> set[str]:
    """Fill a folder with what an author may try; return the names of files that are reported."""
    os.mkfifo(folder / ".git")
    os.mkfifo(folder / "fifo.yaml")
    (folder / "zero.yaml").symlink_to("/dev/zero")
    (folder / "shadow.yaml").symlink_to("/etc/shadow")
    (folder / "root").symlink_to("/")
    (folder / "loop").symlink_to("loop")
    (folder / "round").symlink_to(".")
    (folder / "rules.yaml").write_text(
        HEAD.format("r", "r") + "ipvs: {rulesFile: ../../../../../../../../etc/shadow}\n"
    )
    (folder / "large.yaml").write_text(HEAD.format("l", "l") + "x:\n" + "- abcdefgh\n" * 500_000)
    (folder / "numbers.yaml").write_text(HEAD.format("n", "n") + "routes:\n" + "- 1\n" * 500_000)
    with (folder / "sparse.yaml").open("wb") as sparse:
        sparse.truncate(1 << 40)
    return {"fifo.yaml", "zero.yaml", "shadow.yaml", "root", "rules.yaml", "large.yaml", "numbers.yaml", "sparse.yaml"}


def test_a_repository_with_every_trick(folder: Path, keep: Keep) -> None:
    kept = keep()
    # Another deletion of the same route would be a fight, and wait.
    networks = [f"10.{number}.0.0/16" for number in range(20, 90)]
    kept.write(routes=[ROUTE | {"dest": each} for each in networks])
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        memory = Path(f"/proc/{watcher.process.pid}/statm")
        names, most, repairs, reported = every_trick(folder), 0, list[float](), list[str]()
        for network in networks:
            kept.ip("route", "del", network)
            begin = time.monotonic()
            until(partial(kept.has, network), "the repair", longest=0.03)
            repairs.append(time.monotonic() - begin)
            most = max(most, int(memory.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20)
            reported = watcher.status().problems
            if all(any(f"/{name}" in line for line in reported) for name in names):
                break
            time.sleep(1.0)
        assert [name for name in sorted(names) if not any(f"/{name}" in line for line in reported)] == []
        assert (max(repairs) < REPAIR, most < MEMORY) == (True, True), (repairs, most)
        # The edit of a good one takes effect beside all of them.
        kept.write(routes=[ROUTE, *(ROUTE | {"dest": each} for each in networks)])
        watcher.until(kept.has, "the edit")
        text = watcher._text()
    secrets = Path("/etc/shadow").read_text().splitlines()
    assert [line for line in secrets if line in text] == []
    assert len(text) < LOG
