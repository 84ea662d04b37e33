"""Sixteen NICs that come, change and go in random order: in the end the machine is what the last manifest says."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Kernel
from tests.vm.vm import Vm, make_tap

COUNT = 16


def random_interfaces(rng: random.Random, devices: list[str], several: set[str], count: int) -> list[dict[str, Any]]:
    """Give some of the devices, each under a random name, with a random address and so on, in random order."""
    names = rng.sample([f"eth{number}" for number in range(2 * COUNT)], count)
    return [
        {
            "name": name,
            "device": device,
            "hwAddr": f"02:42:20:70:{devices.index(device):02x}:{rng.randrange(4):02x}",
            "mtu": rng.choice([1500, 1400]),
            "addresses": [f"10.{devices.index(device)}.{rng.randrange(1, 3)}.2/24"],
            "queues": rng.choice([2, 3]) if device in several else 0,
        }
        for device, name in zip(rng.sample(devices, count), names, strict=True)
    ]


def come_change_and_go(vm: Vm, kernel: Kernel, seed: int, rounds: int) -> set[str]:
    """Apply manifests one after the other, every other one with all NICs; give the buses that were plugged into."""
    buses: set[str] = set()
    rng = random.Random(seed)
    several = {make_tap(kernel, "multi_queue") for _ in range(3)}
    devices = [*several, *(make_tap(kernel) for _ in range(COUNT - len(several)))]
    for number in range(rounds):
        count = COUNT if number % 2 else rng.randrange(4, COUNT)
        interfaces = random_interfaces(rng, devices, several, count)
        vm.apply(interfaces=interfaces)
        vm.assert_is(interfaces)
        buses |= {bus(vm, each["device"]) for each in interfaces}
    vm.empty()
    return buses


def bus(vm: Vm, device: str) -> str:
    found = str(vm.order("qom-get", path=f"/machine/peripheral/reconciler-{device}", property="parent_bus"))
    return found.rpartition("/")[2]


@pytest.mark.usefixtures("quick")
def test_on_root_ports(vm: Vm, kernel: Kernel, repeats: Callable[[int], int]) -> None:
    assert come_change_and_go(vm, kernel, 1, max(3, repeats(1))) == {f"port{number}" for number in range(COUNT)}


def test_on_a_pci_bus_and_a_bridge(old_vm: Vm, kernel: Kernel, repeats: Callable[[int], int]) -> None:
    old_vm.guest.output("sysctl", "-q", "-w", "net.ipv6.conf.default.accept_dad=0")
    assert come_change_and_go(old_vm, kernel, 2, max(3, repeats(1))) == {"pci.0", "bridge"}


def test_a_seventeenth_is_refused_with_nothing_plugged(
    vm: Vm, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    devices = [make_tap(kernel) for _ in range(COUNT + 1)]
    interfaces = random_interfaces(random.Random(3), devices, set(), COUNT + 1)
    before = vm.human("info network")
    assert vm.run(interfaces=interfaces) == 2
    assert "no PCI slot is free; this machine has 16 slots for NICs" in capsys.readouterr().err
    assert vm.human("info network") == before
