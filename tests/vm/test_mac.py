"""MAC addresses that NICs change or exchange, when others have them or came with them."""

from __future__ import annotations

from tests.conftest import Kernel
from tests.system.box import nic
from tests.vm.vm import Vm, make_tap


def test_one_of_those_that_changed_places_comes_anew(vm: Vm, kernel: Kernel) -> None:
    devices = [make_tap(kernel) for _ in range(3)]
    before = [nic(device, name, number) for number, (device, name) in enumerate(zip(devices, "abc", strict=True))]
    vm.apply(interfaces=before)
    after = [nic(device, name, number) for device, name, number in zip(devices, "bca", (1, 2, 0), strict=True)]
    vm.apply(interfaces=after)
    vm.apply(interfaces=after[1:])
    vm.apply(interfaces=after)
    vm.assert_is(after)


def test_a_mac_address_that_another_nic_was_plugged_with(vm: Vm, kernel: Kernel) -> None:
    first, second = make_tap(kernel), make_tap(kernel)
    vm.apply(interfaces=[nic(first, "a", 1)])
    changed = nic(first, "a", 1, hwAddr="02:42:20:6f:a3:77")
    vm.apply(interfaces=[changed])
    both = [changed, nic(second, "b", 2, hwAddr=nic(first, number=1)["hwAddr"])]
    vm.apply(interfaces=both)
    vm.assert_is(both)


def test_addresses_swapped_while_another_comes(vm: Vm, kernel: Kernel) -> None:
    devices = [make_tap(kernel) for _ in range(2)]
    vm.apply(interfaces=[nic(devices[0], "a", 1)])
    after = [nic(devices[0], "a", 2), nic(devices[1], "b", 1)]
    vm.apply(interfaces=after)
    vm.assert_is(after)
