"""20,000 rules by `kata-ipvs ipvsadm --restore`, beside `ipvsadm -R`; and what single commands would take."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from reconciler.guest import launch
from tests.benchmarks.ipvs import COUNT, rules, timed
from tests.benchmarks.measure import RECONCILER, Figure
from tests.conftest import Kernel
from tests.machine import Guest

# Single commands that are really run; the rest is reckoned.
SINGLES = 200


def run(_: Kernel, folder: Path) -> list[Figure]:
    del folder
    name = f"kata-{os.getpid()}"
    lines = [*rules()]
    text = "".join(f"{line}\n" for line in lines).encode()
    guest = Guest(launch.start(name))
    try:
        guest.run("ip", "address", "add", "10.9.9.9/32", "dev", "lo")
        by_ipvsadm = timed(guest, "ipvsadm -R", text)
        guest.run("ipvsadm", "-C")
        # The kernel keeps what was flushed for a minute; neither of the two is to meet it.
        time.sleep(70)
        taken = command(text, "--restore", "-", name)
        if len(guest.output("ipvsadm", "-Sn").splitlines()) != COUNT:
            raise RuntimeError("not all rules were imported")
        guest.run("ipvsadm", "-C")
        service = "-t 10.99.0.1:80"
        command(b"", "--parameters", f"-A {service}", name)
        begin = time.perf_counter()
        for number in range(SINGLES):
            command(b"", "--parameters", f"--add-server {service} -r 172.16.9.{number + 1}:80 -m", name)
        single = (time.perf_counter() - begin) / SINGLES
    finally:
        launch.stop(name)
    print(f"one `--add-server`: {single * 1000:.0f} ms; {COUNT:,} of them would take {single * COUNT / 60:.0f} min")
    return [
        Figure(
            name=f"`kata-ipvs ipvsadm --restore` of {COUNT:,} rules, beside `ipvsadm -R`",
            detail=f"restore {taken:.2f} s, `ipvsadm -R` {by_ipvsadm:.2f} s",
            ratio=taken / by_ipvsadm,
            bar=0.45,
            aim=0.2,
        )
    ]


def command(stdin: bytes, *words: str) -> float:
    """Run a command of kata-ipvs; give its wall time."""
    begin = time.perf_counter()
    subprocess.run([*RECONCILER, "kata-ipvs", "ipvsadm", *words], input=stdin, check=True, capture_output=True)
    return time.perf_counter() - begin
