"""What docs/guest.md says of images of others, done on ours: its modules are enough, and its unit's command serves."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.errors import ReconcilerError
from reconciler.guest import agent, in_image
from reconciler.guest.client import AgentClient
from tests.machine import Guest
from tests.vm.vm import Vm
from tests.watch.running import until

SECTION = Path("docs/guest.md").read_text().partition("## In another image\n")[2]
TABLE = [line for line in SECTION.splitlines() if line.startswith("| `")]
MODULES = [name for line in TABLE for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])]

# Ours is started again as long as it is there.
END_OURS = """
mv /usr/lib/python3.11/reconciler/guest/agent[.]pyc /tmp
for found in $(grep -l 'agent[.]pyc' /proc/[0-9]*/cmdline 2>/dev/null); do
    process=${found%/cmdline}
    kill -9 ${process#/proc/} 2>/dev/null
done
true
"""


@pytest.mark.parametrize("name", MODULES)
def test_the_modules_that_are_said_are_all_in_our_image(guest: Guest, name: str) -> None:
    assert guest.run("modprobe", name).status == 0


def test_what_the_agent_loads_is_said() -> None:
    assert len(MODULES) == 8
    assert (
        agent.MODULES
        > {"ip_vs", "ip_vs_rr", "nf_conntrack", "nf_conntrack_netlink"}
        == set(MODULES)
        - {
            "virtio_pci",
            "virtio_console",
            "virtio_net",
            "vmw_vsock_virtio_transport",
        }
    )


def answers(guest: Guest) -> bool:
    with suppress(ReconcilerError), AgentClient(guest.sandbox.agent, timeout=3.0) as client:
        return bool(client.kernel_release())
    return False


def test_the_one_file_serves_as_the_unit_starts_it(mortal: Vm) -> None:
    found = re.search(r"^ExecStart=/usr/bin/python3 (.*) (\S+\.py)$", in_image.unit(), re.MULTILINE)
    assert found
    options, file = found.groups()
    assert file in SECTION
    guest = mortal.guest
    guest.run("mkdir", "-p", str(Path(file).parent))
    guest.run("dd", f"of={file}", stdin=Path(agent.__file__).read_bytes())
    guest.output("sh", "-c", END_OURS)
    assert not answers(guest)
    guest.output("sh", "-c", f"setsid python3.11 {options} {file} </dev/null >/dev/null 2>&1 &")
    until(lambda: answers(guest), "the agent")
    mortal.apply(routes=[{"dest": "10.8.0.0/16", "type": "blackhole"}])
    assert "blackhole 10.8.0.0/16" in guest.output("ip", "route")
