"""Clients, a director and real servers: three network namespaces of a guest, the director being the guest's own.

    clients 10.70.0.2 ── 10.70.0.1 the director 10.71.0.1 ── servers 10.71.0.11, .12, .13
    10.73.0.0/24                       10.72.0.1 … VIPs

and the same in IPv6. The clients have all addresses of another network, too: many schedulers go by the client's.
Packets really pass; how they fare is told by peer.py, which runs in the other two namespaces.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.values import dataclass, field
from tests.machine import Machine
from tests.traffic import peer

SERVERS = S1, S2, S3 = ("10.71.0.11", "10.71.0.12", "10.71.0.13")
VIP, VIP6 = "10.72.0.1", "fd72::1"
SERVERS6 = ("fd71::11", "fd71::12")
PORT = 8080
# The beginnings of the addresses that only some clients use.
SOURCES, SOURCES6 = "10.73.0.", "fd73::"
# A byte every so many milliseconds.
PACE = 100
# Milliseconds between two new connections of a client.
RENEWAL = 2000
# Seconds until what lives has answered, however slow the guest: a client whose packets were lost for a while
# waits as long again. Less than any timeout of the kernel.
PATIENCE = 60

FOLDER = "/tmp/traffic"
_BEGIN = f"""
mkdir -p {FOLDER}
cat >{FOLDER}/peer.py
mkfifo {FOLDER}/ask {FOLDER}/answer
cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding >{FOLDER}/forwarding
build() {{
    name=$1 net=$2
    shift 2
    ip -batch - <<.
netns add $name
link add $name type veth peer name eth0 netns $name
address add 10.$net.0.1/24 dev $name
address add fd$net::1/64 dev $name nodad
link set $name up
.
    {{
        echo link set lo up
        echo link set eth0 up
        for host; do
            echo address add 10.$net.0.$host/24 dev eth0
            echo address add fd$net::$host/64 dev eth0 nodad
        done
        echo route add default via 10.$net.0.1
        echo route add default via fd$net::1
    }} | ip -n $name -batch -
}}
build clients 70 2
build servers 71 11 12 13
ip -batch - <<.
address add {VIP}/32 dev lo
address add {VIP6}/128 dev lo nodad
route add {SOURCES}0/24 via 10.70.0.2
route add {SOURCES6}/64 via fd70::2
.
ip -n clients -batch - <<.
route add local {SOURCES}0/24 dev lo
route add local {SOURCES6}/64 dev lo
.
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
cd {FOLDER}
ulimit -n 8192
python=$(command -v python3.11 || command -v python3)
start() {{
    name=$1
    shift
    ip netns exec $name $python -I -S peer.py "$@" >$name.log 2>&1 </dev/null &
    echo $! >>pids
}}
start servers serve {PORT} {" ".join((*SERVERS, *SERVERS6))}
start clients call .
# 0A: it listens. Whoever calls before is refused.
tries=0
listening() {{ ip netns exec servers cat /proc/net/tcp /proc/net/tcp6 | grep -c ' 0A '; }}
until [ "$(listening)" -ge {len((*SERVERS, *SERVERS6))} ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || exit 1
    sleep 0.1
done
"""
_END = f"""
cd {FOLDER}
kill $(cat pids)
cat *.log
{{ read four; read six; }} <forwarding
sysctl -qw net.ipv4.ip_forward=$four net.ipv6.conf.all.forwarding=$six
ip -batch - <<.
address del {VIP}/32 dev lo
address del {VIP6}/128 dev lo
link del clients
link del servers
netns del clients
netns del servers
.
rm -r {FOLDER}
"""


def server(address: str, **fields: Any) -> dict[str, Any]:
    """Give a real server as a manifest has it."""
    return {"address": f"[{address}]:{PORT}" if ":" in address else f"{address}:{PORT}"} | fields


def servers(*addresses: str) -> list[dict[str, Any]]:
    return [server(address) for address in addresses]


@dataclass(frozen=True)
class Fared:
    """How a group of connections or flows fares; `servers` in the order in which they were begun, of few ones only."""

    calls: int
    answered: int
    servers: list[str]
    errors: dict[str, int]
    sent: int
    stall: float

    @property
    def alive(self) -> bool:
        return self.answered == self.calls and not self.errors

    @property
    def spread(self) -> dict[str, int]:
        return dict(Counter(self.servers))


@dataclass(frozen=True)
class Tried:
    """How often each server has answered a new connection, and how often none has, by the error that the client saw.

    New are those that were begun after it was asked before.
    """

    servers: dict[str, int]
    errors: dict[str, int]


@dataclass
class World:
    """The clients."""

    guest: Machine
    _groups: list[str] = field(default_factory=list)

    def connect(self, group: str, count: int, port: int, *, pace: int = PACE, vip: str = VIP) -> Fared:
        """Begin connections by TCP, which from then on send at a pace, or only when asked to (0)."""
        return self.begin("tcp", group, count, port, pace, vip)

    def flow(self, group: str, count: int, port: int, *, pace: int = PACE) -> Fared:
        """Begin flows of UDP, each from a port of its own."""
        return self.begin("udp", group, count, port, pace)

    def begin(self, kind: str, group: str, count: int, port: int, pace: int, vip: str = VIP, source: str = "") -> Fared:
        """Begin whatever peer.py knows; with the beginning of a source, each from an address of its own."""
        self._groups.append(group)
        return Fared(**self._ask(f"{kind} {group} {count} {vip} {port} {pace} {source}"))

    def renew(self, group: str, count: int, port: int, source: str = SOURCES, vip: str = VIP) -> Tried:
        """Begin connections again and again, each from an address of its own."""
        self._groups.append(group)
        return Tried(**self._ask(f"new {group} {count} {vip} {port} {RENEWAL} {source}"))

    def tried(self, group: str) -> Tried:
        """Say how new connections have fared since this was asked last."""
        return Tried(**self._ask(f"look {group}"))

    def prove(self, *groups: str, seconds: float = PATIENCE) -> Fared:
        """Send, and wait until each that lives has answered."""
        return Fared(**self._ask(f"prove {' '.join(groups)} {seconds}"))

    def look(self, group: str) -> Fared:
        return Fared(**self._ask(f"look {group}"))

    def reset(self, group: str) -> None:
        """End connections without a farewell, which the kernels in between forget within seconds."""
        self._ask(f"reset {group}")
        self._groups.remove(group)

    def end_all(self) -> None:
        for group in [*self._groups]:
            self.reset(group)

    def _ask(self, line: str) -> dict[str, Any]:
        script = f"cd {FOLDER}; echo {line} >ask; head -n 1 answer || cat *.log"
        answer: dict[str, Any] = ast.literal_eval(self.guest.output("timeout", "200", "sh", "-c", script))
        return answer


@contextmanager
def world(guest: Machine) -> Iterator[World]:
    """Build it, and take it away again."""
    script = Path(peer.__file__).read_bytes()
    ran = guest.run("sh", "-ec", _BEGIN, stdin=script)
    assert (ran.status, ran.stderr) == (0, b""), ran
    try:
        yield World(guest)
    finally:
        said = guest.output("sh", "-c", _END)
        assert said == "", said
