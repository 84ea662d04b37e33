"""Unplugs the agent's port of a real machine, and plugs it again, as libvirt does with a channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.guest import agent
from reconciler.guest.qmp import Monitor

# Seconds that a guest may take on a busy host.
DEADLINE = 20.0
_PORT = {"driver": "virtserialport", "id": "agent-port", "chardev": "agent", "name": agent.PORT}


@contextmanager
def unplugged(monitor: Monitor) -> Iterator[None]:
    """Unplug the port meanwhile."""
    monitor.execute("device_del", id=_PORT["id"])
    assert monitor.await_event("DEVICE_DELETED", lambda data: data.get("device") == _PORT["id"], DEADLINE)
    try:
        yield
    finally:
        monitor.execute("device_add", **_PORT)
