"""A file of another tool is imported or refused, whatever is in it: keepalived.conf, JSON of kata-runtime, rules."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.cli.main import main

SEEDS = {
    "keepalived": """\
$VIP=10.0.0.1
global_defs {
  lvs_timeouts tcp 900 tcpfin 120 udp 300
}
include parts/*.conf
@one virtual_server $VIP 80 {
  protocol TCP
  lb_algo rr
  lb_kind NAT
  ~SEQ(N, 1, 9) real_server 10.0.1.$N 80 { weight 1 }
  real_server 10.0.2.1 80 {
    weight 5
    TCP_CHECK { connect_timeout 3 }
  }
}
virtual_server fwmark 7 { ip_family inet6 persistence_timeout 60 sorry_server fd00::1 80 real_server fd00::2 0 { } }
""",
    "kata": """\
[{"device": "tap1", "name": "eth1", "IPAddresses": [{"Family": 2, "Address": "10.1.0.2", "Mask": "24"}], "mtu": 1400,
 "hwAddr": "02:42:20:6f:a3:01"}, {"dest": "10.2.1.0/24", "gateway": "10.1.0.1", "device": "eth1"}, null]
""",
    "ipvsadm": "-A -t 10.0.0.1:80 -s rr -p 60\n-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w 5\nipvsadm -A -f 7 -6 --pe sip\n",
}
PIECES = (
    "{",
    "}",
    "[",
    "]",
    '"',
    "$",
    "@",
    "~LST(A,B)",
    "~SEQ(N,1,99999)",
    "\\",
    "\x00",
    "include *\n",
    "-",
    "\u202e",
    "9" * 40,
)
# Seconds of a processor for one file.
LONGEST = 4.0


def changed(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 6)):
        at, begin = chance.randrange(len(text) + 1), chance.randrange(len(text) + 1)
        part = text[begin : begin + chance.choice((1, 10, 100))]
        match chance.randrange(4):
            case 0:
                text = text[:at] + part * chance.choice((1, 3, 500)) + text[at:]
            case 1:
                text = text[:begin] + text[begin + len(part) :]
            case 2:
                text = text[:at] + chance.choice(PIECES) * chance.choice((1, 1, 50)) + text[at:]
            case _:
                text = text[:at] + part[::-1] + text[at:]
    return text[: 1 << 20]


@pytest.mark.parametrize("notation", SEEDS)
def test_any_is_imported_or_refused(
    notation: str, tmp_path: Path, repeats: Callable[[int], int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/a.conf").write_text("virtual_server 10.0.9.9 80 {\n}\n")
    (tmp_path / "parts/secret.conf").symlink_to("/etc/passwd")
    secrets = Path("/etc/passwd").read_text().splitlines()
    chance, file = random.Random(notation), tmp_path / "file"
    for _ in range(repeats(400)):
        text = changed(SEEDS[notation], chance)
        file.write_text(text, errors="replace")
        begin = time.process_time()
        forced = ("--from", notation) if chance.random() < 0.5 else ()
        assert main(["import", "--sandbox", "a", "--netns", "a", *forced, str(file)]) in {0, 2}, text
        assert time.process_time() - begin < LONGEST, text
        printed = "".join(capsys.readouterr())
        assert not any(line in printed for line in secrets), text
