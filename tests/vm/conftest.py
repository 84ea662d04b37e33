"""Fixtures of the tests that plug NICs into a real virtual machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.errors import SandboxGoneError
from reconciler.guest import launch, qemu
from reconciler.guest.image import Image
from tests.conftest import Kernel
from tests.machine import Guest
from tests.vm.vm import Vm

# `pc` has no root ports, but the slots of its bus and of bridges. Of its own slots most are taken here.
_BRIDGE = ["-device", "pci-bridge,id=bridge,chassis_nr=1"]
_FILLING = [word for number in range(20) for word in ("-device", f"pci-testdev,id=filling{number}")]


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
    name = f"mortal-{os.getpid()}"
    yield Vm(Guest(launch.start(name, memory=256)), tmp_path / "mortal.yaml")
    with suppress(SandboxGoneError):
        launch.stop(name)


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
    name = f"old-{os.getpid()}"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(qemu, "command_line", _old_command_line(qemu.command_line))
        sandbox = launch.start(name, memory=256, ports=0)
    yield Guest(sandbox)
    launch.stop(name)


def _old_command_line(modern: object) -> object:
    def command_line(folder: str, image: Image, accelerator: str, memory: int, ports: int) -> list[str]:
        assert callable(modern)
        words: list[str] = modern(folder, image, accelerator, memory, ports)
        return [word.replace("q35,", "pc,", 1) for word in words] + _BRIDGE + _FILLING

    return command_line
