"""Domains that start and end are noticed, also while libvirtd restarts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from reconciler.model.sandbox import LibvirtAddress
from reconciler.watch.domains import DomainTracker
from tests.libvirt.daemon import Daemon, channel, domain, virsh
from tests.machine import Guest

UUID = "6b2e4f0a-3f0e-4b52-9e43-0f6d0c6b7a11"
DOMAINS = {
    "by name": LibvirtAddress(domain="other"),
    "by uuid": LibvirtAddress(domain=UUID.upper()),
    "box": LibvirtAddress(domain="box"),
    "none": LibvirtAddress(domain="none"),
}
# Seconds.
_TIMEOUT = 60.0


@pytest.fixture
def box(request: pytest.FixtureRequest) -> Guest:
    found: Guest = request.getfixturevalue("domain")
    return found


@pytest.fixture
def tracker() -> Iterator[DomainTracker]:
    made = DomainTracker(lambda uri: uri == "qemu:///system")
    yield made
    made.close()


def changed(tracker: DomainTracker) -> list[str]:
    """Return the next domains that are reported."""
    deadline = time.monotonic() + _TIMEOUT
    while not (found := tracker.refresh(DOMAINS)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_starts_and_ends(daemon: Daemon, box: Guest, tracker: DomainTracker) -> None:
    del box
    deadline = time.monotonic() + _TIMEOUT
    while not tracker._known:
        assert tracker.refresh(DOMAINS) == []
        assert time.monotonic() < deadline
        time.sleep(0.05)
    daemon.create(domain("other", uuid=UUID, ports=1))
    assert changed(tracker) == ["by name", "by uuid"]
    daemon.stop()
    time.sleep(1)
    assert tracker.refresh(DOMAINS) == []
    daemon.start()
    # While libvirtd finds its domains again, this can fail and yet end the domain.
    subprocess.run(["virsh", "destroy", "other"], capture_output=True, check=False)
    assert changed(tracker) == ["by name", "by uuid"]


def test_an_agent_that_ends(box: Guest, tracker: DomainTracker) -> None:
    """That it comes is no news: whoever is connected to it hears that from itself."""
    del box
    plugged = channel("reconciler.agent").replace("</channel>", "<alias name='ua-tracked'/></channel>")
    virsh("attach-device", "box", "/dev/stdin", "--live", stdin=plugged)
    deadline = time.monotonic() + _TIMEOUT
    while not (tracker._known.get("box") and tracker._known["box"].open):
        assert tracker.refresh(DOMAINS) == []
        assert time.monotonic() < deadline
        time.sleep(0.05)
    virsh("detach-device-alias", "box", "ua-tracked", "--live")
    assert changed(tracker) == ["box"]


def test_a_libvirt_that_the_policy_does_not_allow_is_not_asked(tracker: DomainTracker) -> None:
    tracker.refresh({"a": LibvirtAddress(domain="a", uri="qemu+unix:///system?socket=/run/none")})
    assert tracker._thread is None
