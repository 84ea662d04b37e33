"""Fixtures of the tests that plug NICs into a real virtual machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import resumed
from tests.conftest import Kernel
from tests.machine import Guest
from tests.vm.vm import Vm

# `pc` has no root ports, but the slots of its bus and of bridges. Of its own slots most are taken here.
_BRIDGE = ("-device", "pci-bridge,id=bridge,chassis_nr=1")
_FILLING = tuple(word for number in range(20) for word in ("-device", f"pci-testdev,id=filling{number}"))
_OLD = resumed.Kind(ports=0, chipset="pc", processors=1, more=_BRIDGE + _FILLING)


@pytest.fixture
def vm(guest: Guest, kernel: Kernel, tmp_path: Path) -> Iterator[Vm]:
    """Give the machine of all tests, empty before and after. It lets TAPs go before `kernel` removes them."""
    del kernel
    yield from _emptied(Vm(guest, tmp_path / "vm.yaml"))


@pytest.fixture
def old_vm(old_guest: Guest, kernel: Kernel, tmp_path: Path) -> Iterator[Vm]:
    """Give one with the chipset of 1996."""
    del kernel
    yield from _emptied(Vm(old_guest, tmp_path / "old.yaml"))


@pytest.fixture
def mortal(kernel: Kernel, tmp_path: Path) -> Iterator[Vm]:
    """Give one that the test may kill."""
    del kernel
    with resumed.started(f"mortal-{os.getpid()}") as made:
        yield Vm(made, tmp_path / "mortal.yaml")


@pytest.fixture
def quick(vm: Vm) -> Iterator[None]:
    """Spare each NIC that comes up the second that IPv6 takes to look for duplicates of its link-local address."""
    vm.guest.output("sysctl", "-q", "-w", "net.ipv6.conf.default.accept_dad=0")
    yield
    vm.guest.output("sysctl", "-q", "-w", "net.ipv6.conf.default.accept_dad=1")


def _emptied(vm: Vm) -> Iterator[Vm]:
    vm.assert_is([])
    yield vm
    vm.empty()


@pytest.fixture(scope="session")
def old_guest(root: None) -> Iterator[Guest]:
    with resumed.started(f"old-{os.getpid()}", _OLD) as made:
        yield made
