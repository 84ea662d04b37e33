"""A namespace that somebody configured with `ip`: two NICs, 200 routes and rules, and a router behind them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.values import dataclass
from tests.conftest import Kernel, ip
from tests.watch.running import until

# Seconds in which traffic passes before anything happens.
_BEFORE = 0.3
TALK = Path(__file__).with_name("talk.py")
# What answers behind the router: by a route of `main`, by a rule and its table, and the same of IPv6.
TARGETS = ("203.0.113.7", "203.0.113.8", "2001:db8:7::7", "2001:db8:7::8")
ROUTER = f"""
link set lo up
link set p0 up
address add 192.0.2.1/24 dev p0
address add 2001:db8::1/64 dev p0 nodad
route add 198.51.100.0/24 via 192.0.2.2
{chr(10).join(f"address add {target} dev lo" for target in TARGETS)}
"""
_SANDBOX = """
link set lo up
link set eth0 up
link set eth1 up
address add 192.0.2.2/24 brd + dev eth0
address add 192.0.2.3/24 dev eth0
address add 192.0.2.4/24 dev eth0
address add 2001:db8::2/64 dev eth0 nodad
address add 198.51.100.2/25 dev eth1
route add 203.0.113.7 via 192.0.2.1 proto static
route add 203.0.113.8 via 192.0.2.1 table 100
route add unreachable 203.0.113.0/24 metric 4000
rule add to 203.0.113.8 lookup 100 priority 500
route add default via 198.51.100.1 proto dhcp
route add 10.0.0.0/8 table 101 nexthop via 192.0.2.1 weight 2 nexthop via 198.51.100.1
route add blackhole 10.66.0.0/16
neigh add 192.0.2.77 lladdr 02:42:20:6f:a3:77 dev eth0 nud permanent
neigh add 192.0.2.78 lladdr 02:42:20:6f:a3:78 dev eth0 nud permanent protocol static
neigh add proxy 192.0.2.79 dev eth1
neigh add 2001:db8::77 lladdr 02:42:20:6f:a3:79 dev eth0 nud permanent router
rule add from 192.0.2.0/24 iif eth0 lookup 100 priority 600
rule add from 192.0.2.0/24 lookup 100 priority 600
rule add fwmark 0x10/0xff ipproto tcp dport 80-90 prohibit priority 700 protocol static
"""
_SANDBOX_6 = """
route add 2001:db8:7::7/128 via 2001:db8::1
route add 2001:db8:7::8/128 via 2001:db8::1 table 100
rule add to 2001:db8:7::8/128 lookup 100 priority 500
route add default via 2001:db8::1 proto static mtu 1400
rule add from 2001:db8:9::/48 lookup 100 priority 600
"""
MANY = 190
# They become less by the second.
_LIFETIMES = ("valid_life_time", "preferred_life_time")


def typed_routes() -> str:
    return "".join(
        f"route add 10.{number}.0.0/16 via 192.0.2.1{' proto static' * (number % 2)}\n"
        f"rule add from 10.{number}.0.0/16 lookup 100 priority {1000 + number}\n"
        for number in range(67, 67 + MANY // 2)
    )


@dataclass
class Place:
    """A sandbox that others configured, its router, and the host's end of its second NIC."""

    kernel: Kernel
    name: str
    router: str
    folder: Path

    def ip(self, *words: str, stdin: str = "") -> str:
        return ip(*words, namespace=self.name, stdin=stdin)

    def state(self) -> list[Any]:
        """Return what `ip` reports, whoever made it, in its order, without who that was and what changes by itself."""
        found: list[Any] = []
        for words in ("link", "address", "neigh show nud permanent", "neigh show proxy", "rule", "-6 rule"):
            found.append(json.loads(self.ip("-d", "-j", *words.split())))
        for family in ("-4", "-6"):
            found.append(json.loads(self.ip(family, "-d", "-j", "route", "show", "table", "all")))
        return [[_without_owner(each) for each in listed if _is_steady(each)] for listed in found]

    def owners(self, *words: str) -> set[str]:
        """Return the protocols of what `ip` lists."""
        return {each.get("protocol", "") for each in json.loads(self.ip("-d", "-j", *words))}

    def await_carriers(self, names: set[str]) -> None:
        """Wait for the carriers of all links but `lo`, which the kernel notices a moment later."""

        def settled() -> bool:
            links = json.loads(self.ip("-j", "address", "show", "up"))
            own = [link for link in links if any(each["scope"] == "link" for each in link.get("addr_info", ()))]
            return {link["ifname"] for link in own if link["operstate"] == "UP"} == names

        until(settled, "links that are up", more=lambda: self.ip("address"))

    def forget_the_many(self) -> None:
        """Delete what the sandbox has many of."""
        self.ip("-batch", "-", stdin=typed_routes().replace(" add ", " del "))

    @contextmanager
    def under_traffic(self) -> Iterator[None]:
        """Have ping and TCP pass meanwhile; at the end, nothing of it is lost."""
        with _started(self.router, "serve", *TARGETS), _started(self.name, "call", "4", *TARGETS) as caller:
            pings = [
                subprocess.Popen(
                    ["ip", "netns", "exec", self.name, "ping", "-q", "-n", "-i", "0.002", "-W", "60", target],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for target in TARGETS
            ]
            try:
                time.sleep(_BEFORE)
                yield
            finally:
                for ping in pings:
                    ping.send_signal(2)
                said = [ping.communicate()[0] for ping in pings]
                assert caller.stdin
                assert caller.stdout
                caller.stdin.close()
                counted = json.loads(caller.stdout.readline())
        for words in said:
            transmitted, received = (int(part.split()[0]) for part in words.split("---\n")[1].split(", ")[:2])
            # The last one may be on its way when ping is stopped.
            assert transmitted - 1 <= received <= transmitted, words
            assert "errors" not in words, words
            assert received > 5
        assert counted["failed"] == 0
        assert counted["sent"] == counted["echoed"] > 20


def _is_steady(data: dict[str, Any]) -> bool:
    """Return whether it is none of what the kernel makes by itself once a link has a carrier."""
    return not str(data.get("dst", "")).startswith(("fe80:", "ff00:"))


def _without_owner(data: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in data.items() if name not in {"protocol", "stats", "stats64"}}
    # A bridge counts its timers down, and so do its ports.
    for name in ("info_data", "info_slave_data"):
        info = kept.get("linkinfo", {}).get(name, {})
        info |= {timer: 0 for timer in info if timer.endswith("timer")}
    if "addr_info" in kept:
        # Duplicate address detection of link-local addresses may be running.
        kept["addr_info"] = [
            {name: value for name, value in each.items() if name not in {"tentative", *_LIFETIMES}}
            for each in kept["addr_info"]
        ]
    return kept


@contextmanager
def _started(namespace: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = ["ip", "netns", "exec", namespace, sys.executable, str(TALK), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            if not process.stdin.closed:
                process.stdin.close()
            process.wait()


def batch(namespace: str, text: str, *words: str) -> None:
    ip(*words, "-batch", "-", namespace=namespace, stdin=text)


@pytest.fixture
def place(kernel: Kernel, tmp_path: Path) -> Place:
    """Give the sandbox as others left it. The peer of eth0 is in the router's namespace, that of eth1 on the host."""
    name, router = kernel.namespace(), kernel.namespace()
    ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", "p0", "netns", router)
    near, far = kernel.veth()
    ip("link", "set", "dev", near, "netns", name, "name", "eth1")
    ip("link", "set", "dev", far, "up")
    ip("address", "add", "198.51.100.1/25", "dev", far)
    batch(router, ROUTER)
    batch(name, _SANDBOX + typed_routes())
    batch(name, _SANDBOX_6, "-6")
    made = Place(kernel, name, router, tmp_path)
    made.await_carriers({"eth0", "eth1"})
    return made
