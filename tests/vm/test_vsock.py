"""An agent that is reached by vsock, over the loopback of a real guest, and by hybrid vsock.

The agent is in a network namespace of the guest, as in a side container of a pod; vsock knows no namespaces. Our
command line runs in the guest as well. There is no machine with a vsock of its own: that needs vhost_vsock on the host.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest import hybrid
from tests.ipvs import bundle
from tests.machine import Guest

MANIFEST = """
apiVersion: reconciler/v1
sandbox: pod
driver: {vm: {agent: "ADDRESS"}}
sysctls: {net.ipv4.ip_forward: 1}
neighbours:
  - {address: 192.0.2.7, device: eth0, hwAddr: "02:00:00:00:00:07"}
routes:
  - {dest: 198.51.100.0/24, gateway: 192.0.2.1, device: eth0}
  - {dest: "2001:db8:1::/48", gateway: "2001:db8::1", device: eth0}
rules:
  - {priority: 100, from: 203.0.113.0/24, table: 7}
ipvs:
  services:
    - {tcp: "192.0.2.9:80", scheduler: rr, servers: [{address: "198.51.100.4:80"}]}
"""
# A pod as it is when reconciler comes: with a NIC that others made.
SET_UP = """
set -e
modprobe vsock_loopback
ip netns add pod
ip -n pod link add eth0 type dummy
ip -n pod address add 192.0.2.2/24 dev eth0
ip -n pod address add 2001:db8::2/64 dev eth0 nodad
ip -n pod link set eth0 up
mkdir -p /etc/reconciler
echo 'vsock: [1]' >/etc/reconciler/policy.yaml
for mode in vsock hvsock; do
    number=200
    test $mode = vsock || number=300
    ip netns exec pod python3.11 -I -S /usr/lib/python3.11/reconciler/guest/agent.pyc --$mode $number \\
        </dev/null >/tmp/$mode.log 2>&1 & echo $! >>/tmp/vsock-pids
done
"""
TEAR_DOWN = """
kill $(cat /tmp/vsock-pids)
rm -rf /tmp/vsock-pids /tmp/*vsock.log /etc/reconciler /run/hybrid.sock
ip netns del pod
"""
READ = """
for words in "-j route show proto 200" "-j -6 route show proto 200" "-j rule show priority 100"; do
    ip -n pod $words
done
ip -n pod -j neigh show 192.0.2.7 dev eth0
ip netns exec pod ipvsadm -Sn
cat /proc/sys/net/ipv4/ip_forward
"""


@pytest.fixture(scope="module")
def pod(guest: Guest) -> Iterator[Guest]:
    guest.unpack(bundle.build_own())
    try:
        guest.output("sh", "-c", SET_UP)
        yield guest
    finally:
        guest.run("sh", "-c", TEAR_DOWN)


# Each command of ours within one process, which imports all of it once.
STEPS = """
import io, json, subprocess, sys
from contextlib import redirect_stderr, redirect_stdout
from reconciler.cli.main import main
done = []
for command, text in json.load(sys.stdin):
    if command == "sh":
        ran = subprocess.run(["sh", "-c", text], capture_output=True, text=True)
        done.append((ran.returncode, ran.stdout, ran.stderr))
        continue
    with open("/tmp/pod.yaml", "w") as file:
        file.write(text)
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main([command, "/tmp/pod.yaml"])
    done.append((status, out.getvalue(), err.getvalue()))
print(json.dumps(done))
"""


def run(pod: Guest, *steps: tuple[str, str]) -> list[tuple[int, str, str]]:
    """Run commands of ours with the text of a manifest, and scripts of the shell (`sh`), one after the other."""
    done = json.loads(pod.output(bundle.PYTHON, "-c", STEPS, stdin=json.dumps(steps).encode()))
    return [(status, out, err) for status, out, err in done]


def manifest(address: str) -> str:
    return MANIFEST.replace("ADDRESS", address)


def start_hybrid(pod: Guest) -> None:
    script = Path(hybrid.__file__).read_text(encoding="utf-8")
    start = 'python3.11 -I -S -c "$0" /run/hybrid.sock </dev/null >/dev/null 2>&1 & echo $! >>/tmp/vsock-pids'
    pod.output("sh", "-c", start + "; until test -S /run/hybrid.sock; do sleep 0.05; done", script)


_HEAD = "apiVersion: reconciler/v1\nsandbox: a{}\ndriver: {{vm: {{agent: '{}'}}}}\n"
_START = "start the agent in the machine (docs/kata3.md)"
_WRONG = {
    "vsock://1:201": f"nothing listens at vsock://1:201; {_START}",
    "hvsock:///run/hybrid.sock:201": f"nothing listens at hvsock:///run/hybrid.sock:201; {_START}",
    "vsock://3:200": "no machine with the vsock CID 3 may be a sandbox; to allow it, change line 1 of "
    "/etc/reconciler/policy.yaml to: vsock: [1, 3]",
}


def test_a_pod_is_kept_over_vsock_and_hybrid_vsock(pod: Guest) -> None:
    start_hybrid(pod)
    lost = "ip netns exec pod sh -c 'ipvsadm -C; ip route del 198.51.100.0/24'"
    others = "ip -j route show proto 200; ip -j -6 route show proto 200"
    steps = [
        ("apply", manifest("vsock://1:200")),
        ("sh", READ),
        ("sh", lost),
        ("diff", manifest("hvsock:///run/hybrid.sock:200")),
        ("apply", manifest("hvsock:///run/hybrid.sock:300")),
        ("sh", READ),
        ("sh", others),
        ("diff", "---\n".join(_HEAD.format(*each) for each in enumerate(_WRONG))),
    ]
    applied, found, _, differs, restored, again, outside, refused = run(pod, *steps)
    assert applied[0] == 0, applied
    for each in ("198.51.100.0/24", "2001:db8:1::/48", "203.0.113.0", "02:00:00:00:00:07", "-a -t 192.0.2.9:80"):
        assert each in found[1]
    assert differs[0] == 1, differs
    assert "+ ip route add 198.51.100.0/24 via 192.0.2.1 dev eth0" in differs[1]
    assert (restored[0], again) == (0, found), restored
    # The guest's own namespace is another one.
    assert set(outside[1]) <= set("[] \n")
    assert refused[0] == 3, refused
    for each in _WRONG.values():
        assert each in refused[2]


# Others connect; print how many of them were refused.
STRANGERS = """
import socket, sys
def is_refused(port):
    try:
        with socket.socket(socket.AF_VSOCK) as channel:
            channel.settimeout(10)
            channel.connect((1, port))
            return channel.recv(1) == b""
    except ConnectionError:
        return True
print(sum(is_refused(int(sys.argv[1])) for _ in range(int(sys.argv[2]))))
"""


def test_nobody_but_the_host_is_served(pod: Guest, repeats: Callable[[int], int]) -> None:
    count = str(repeats(100))
    for port in ("200", "300"):
        refused = pod.output("python3.11", "-I", "-S", "-c", STRANGERS, port, count)
        assert refused == f"{count}\n"
    # They had no privileged port. A line a minute says so.
    line, *others = pod.output("cat", "/tmp/vsock.log").splitlines()
    assert len(others) < int(count) - 1
    assert line.startswith("agent.py: refused CID 1, port ")
    assert line.endswith(": it serves only CID 2, from ports below 1024 (or any, with --hvsock)")


TWO_HOSTS = """
import sys, time
from reconciler.guest.client import AgentClient
from reconciler.guest import vsock
from reconciler.model.transport import transport
from reconciler.errors import ChannelError
first = AgentClient("vsock://1:200")
first.subscribe(1)
# Another run on this host has to wait, so this one is on another host.
second = vsock.connect(transport("vsock://1:200"), 10)
try:
    first.notices(60)
except ChannelError as error:
    print(error)
first.close()
second.close()
with AgentClient("vsock://1:200") as third:
    print(third.kernel_release())
"""


def test_a_host_takes_the_place_of_the_one_before(pod: Guest) -> None:
    told = pod.output(bundle.PYTHON, "-c", TWO_HOSTS).splitlines()
    assert told == ["the machine closed the connection to the guest (vsock://1:200)", pod.output("uname", "-r").strip()]
