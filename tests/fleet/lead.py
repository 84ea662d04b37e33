"""`python -m tests.fleet.lead NAME URL,… CA CERT KEY`: a process that leads rollouts, to be killed or frozen.

Its lease is as short as etcd allows.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from reconciler.fleet import leader
from reconciler.fleet.etcd.client import Etcd
from reconciler.fleet.etcd.members import Credentials

LEASE = 2


def main() -> None:
    name, urls, *files = sys.argv[1:]
    leader.LEASE, leader._KEEP, leader._LOOK = LEASE, 0.5, 0.2
    credentials = Credentials(*(Path(each).read_bytes() for each in files))

    async def run() -> None:
        store = Etcd(urls.split(","), credentials)
        await leader.Leader(store, name, lambda line: print(f"{name}: {line}", flush=True)).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
