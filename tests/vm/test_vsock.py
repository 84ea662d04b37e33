"""An agent that is reached by vsock, over the loopback of a real kernel, and by hybrid vsock.

The agent is in a network namespace, as in a side container of a pod; vsock knows no namespaces. Our command line runs
beside it. There is no machine with a vsock of its own: that needs vhost_vsock on the host.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.guest import agent
from tests.guest import hybrid
from tests.uml import Ran, Uml

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
echo 'vsock: [1]' >/etc/reconciler/policy.yaml
for mode in vsock hvsock; do
    number=200
    test $mode = vsock || number=300
    ip netns exec pod PYTHON -I -S AGENT --$mode $number \\
        </dev/null >/tmp/$mode.log 2>&1 & echo $! >>/tmp/vsock-pids
    until ip netns exec pod ss --no-header --vsock --listening | grep -q ":$number "; do sleep 0.05; done
done
""".replace("PYTHON", sys.executable).replace("AGENT", agent.__file__)
TEAR_DOWN = """
kill $(cat /tmp/vsock-pids)
rm -rf /tmp/vsock-pids /tmp/*vsock.log /etc/reconciler/policy.yaml /run/hybrid.sock
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
def pod(uml: Uml) -> Iterator[Uml]:
    try:
        uml.output("sh", "-c", SET_UP)
        yield uml
    finally:
        uml.run("sh", "-c", TEAR_DOWN)


def run(pod: Uml, command: str, text: str) -> Ran:
    """Run a command of ours with the text of a manifest."""
    return pod.reconciler(command, pod.file("pod.yaml", text))


def manifest(address: str) -> str:
    return MANIFEST.replace("ADDRESS", address)


def start_hybrid(pod: Uml) -> None:
    script = Path(hybrid.__file__).read_text(encoding="utf-8")
    start = f'{sys.executable} -I -S -c "$0" /run/hybrid.sock </dev/null >/dev/null 2>&1 & echo $! >>/tmp/vsock-pids'
    pod.output("sh", "-c", start + "; until test -S /run/hybrid.sock; do sleep 0.05; done", script)


_HEAD = "apiVersion: reconciler/v1\nsandbox: a{}\ndriver: {{vm: {{agent: '{}'}}}}\n"
_START = "start the agent in the machine (docs/kata3.md)"
_WRONG = {
    "vsock://1:201": f"nothing listens at vsock://1:201; {_START}",
    "hvsock:///run/hybrid.sock:201": f"nothing listens at hvsock:///run/hybrid.sock:201; {_START}",
    "vsock://3:200": "no machine with the vsock CID 3 may be a sandbox; to allow it, change line 1 of "
    "/etc/reconciler/policy.yaml to: vsock: [1, 3]",
}


def test_a_pod_is_kept_over_vsock_and_hybrid_vsock(pod: Uml) -> None:
    start_hybrid(pod)
    lost = "ip netns exec pod sh -c 'ipvsadm -C; ip route del 198.51.100.0/24'"
    others = "ip -j route show proto 200; ip -j -6 route show proto 200"
    applied = run(pod, "apply", manifest("vsock://1:200"))
    assert applied.status == 0, applied
    found = pod.output("sh", "-c", READ)
    for each in ("198.51.100.0/24", "2001:db8:1::/48", "203.0.113.0", "02:00:00:00:00:07", "-a -t 192.0.2.9:80"):
        assert each in found
    pod.output("sh", "-c", lost)
    differs = run(pod, "diff", manifest("hvsock:///run/hybrid.sock:200"))
    assert differs.status == 1, differs
    assert "+ ip route add 198.51.100.0/24 via 192.0.2.1 dev eth0" in differs.stdout
    restored = run(pod, "apply", manifest("hvsock:///run/hybrid.sock:300"))
    assert (restored.status, pod.output("sh", "-c", READ)) == (0, found), restored
    # The namespace beside it is another one.
    assert set(pod.output("sh", "-c", others)) <= set("[] \n")
    refused = run(pod, "diff", "---\n".join(_HEAD.format(*each) for each in enumerate(_WRONG)))
    assert refused.status == 3, refused
    for each in _WRONG.values():
        assert each in refused.stderr


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


def test_nobody_but_the_host_is_served(pod: Uml, repeats: Callable[[int], int]) -> None:
    count = str(repeats(100))
    for port in ("200", "300"):
        refused = pod.output(sys.executable, "-I", "-S", "-c", STRANGERS, port, count)
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


def test_a_host_takes_the_place_of_the_one_before(pod: Uml) -> None:
    told = pod.output(sys.executable, "-c", TWO_HOSTS).splitlines()
    assert told == ["the machine closed the connection to the guest (vsock://1:200)", pod.output("uname", "-r").strip()]
