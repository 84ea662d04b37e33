from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from reconciler.guest.qmp import Monitor
from reconciler.model.machine import Macvtap, Other
from reconciler.model.sandbox import LibvirtAddress
from reconciler.operations import Operation
from reconciler.operations.domain import AdoptNics, AttachNic, DetachNic
from reconciler.operations.machine import (
    AddDevice,
    AddNetdev,
    AdoptDevices,
    DeleteDevice,
    DeleteNetdev,
    MachineOperation,
    NameInterface,
    PlugOperation,
    SetUnmanaged,
    adopted_nic,
    adoption_mark,
    plug_id,
    plugged_device,
)
from reconciler.operations.outcome import is_independent
from tests.conftest import Kernel
from tests.drivers.fake import qemu

MAC, SOCKET = "02:00:00:00:00:01", "/run/vhost-1.sock"
OTHER, MARK = Other("nic_0", "net-0"), "reconciler.adopted.4.5.tap1nic_0net-0"
CHARDEV = f"chardev-add socket,id=reconciler-tap1,path={SOCKET},reconnect=1"
DEVICE = f"device_add virtio-net-pci,id=reconciler-tap1,netdev=reconciler-tap1,mac={MAC},bus=port0,addr=0"

SECOND = LibvirtAddress(domain="a b", uri="qemu+unix:///system?socket=/run/b")

NETWORKD = "/run/systemd/network/00-reconciler.network"
NM, NM_RELOAD = "/run/NetworkManager/conf.d/00-reconciler.conf", "nmcli general reload conf"
LINK = "/run/systemd/network/00-reconciler.link"
OPERATIONS: list[tuple[Operation, str, str]] = [
    (
        AddNetdev(device="tap1", queues=1),
        "+",
        "netdev_add tap,id=reconciler-tap1,ifname=tap1,script=no,downscript=no",
    ),
    (
        AddNetdev(device="tap1", queues=4),
        "+",
        "netdev_add tap,id=reconciler-tap1,ifname=tap1,script=no,downscript=no,queues=4",
    ),
    (
        AddNetdev(device="mv1", queues=1, macvtap=Macvtap(7, "02:00:00:00:00:01")),
        "+",
        "getfd reconciler-mv1 </dev/tap7; netdev_add tap,id=reconciler-mv1,fd=reconciler-mv1",
    ),
    (
        AddNetdev(device="tap1", queues=1, vhost_user_socket=SOCKET),
        "+",
        f"{CHARDEV}; netdev_add vhost-user,id=reconciler-tap1,chardev=reconciler-tap1",
    ),
    (
        AddNetdev(device="tap1", queues=2, vhost_user_socket=SOCKET),
        "+",
        f"{CHARDEV}; netdev_add vhost-user,id=reconciler-tap1,chardev=reconciler-tap1,queues=2",
    ),
    (AddDevice(device="tap1", hw_addr=MAC, queues=1, bus="port0", addr="0"), "+", DEVICE),
    (AddDevice(device="tap1", hw_addr=MAC, queues=1, bus="port0", addr="0", vectors=0), "+", f"{DEVICE},vectors=0"),
    (
        AddDevice(device="tap1", hw_addr=MAC, queues=2, bus="port0", addr="0", host_mtu=1400, vectors=6),
        "+",
        f"{DEVICE},mq=on,host_mtu=1400,vectors=6",
    ),
    (NameInterface(device="tap1", hw_addr=MAC, name="eth0"), "+", f"ip link set dev {MAC} name eth0"),
    (
        SetUnmanaged(hw_addrs=(MAC,), managers=("systemd-network",)),
        "~",
        f"printf '%s\\n' '[Match]' PermanentMACAddress={MAC} '[Link]' Unmanaged=yes >{NETWORKD}; networkctl reload",
    ),
    (
        SetUnmanaged(hw_addrs=(MAC, "02::"), managers=("NetworkManager", "unknown")),
        "~",
        f"printf '%s\\n' '[device-reconciler]' match-device=mac:{MAC},mac:02:: managed=0 >{NM}; {NM_RELOAD}",
    ),
    (
        SetUnmanaged(hw_addrs=(MAC,), managers=("systemd-udevd",)),
        "~",
        f"printf '%s\\n' '[Match]' PermanentMACAddress={MAC} '[Link]' NamePolicy= >{LINK}; udevadm control --reload",
    ),
    (
        SetUnmanaged(hw_addrs=(), managers=("systemd-network",)),
        "~",
        f"rm -f {NETWORKD}; networkctl reload",
    ),
    (DeleteDevice(device="tap1"), "-", "device_del reconciler-tap1"),
    (DeleteNetdev(device="tap1"), "-", "netdev_del reconciler-tap1"),
    (
        DeleteNetdev(device="tap1", vhost_user=True),
        "-",
        "netdev_del reconciler-tap1; chardev-remove reconciler-tap1",
    ),
    (DeleteDevice(device="tap1", other=OTHER), "-", "device_del nic_0"),
    (DeleteNetdev(device="tap1", other=OTHER), "-", f"netdev_del net-0; chardev-remove {MARK}"),
    (DeleteNetdev(device="tap1", other=OTHER._replace(netdev="")), "-", f"chardev-remove {MARK.removesuffix('net-0')}"),
    (
        AdoptDevices(nics=(("tap1", "eth0", OTHER), ("tap2", "a b", Other("b", "c")))),
        "~",
        f"chardev-add null,id={MARK}; chardev-add null,id=reconciler.adopted.4.1.tap2bc",
    ),
    (
        AttachNic(domain=LibvirtAddress(domain="web-1"), device="tap.1", hw_addr=MAC, queues=2, host_mtu=1400),
        "+",
        (
            'virsh attach-device web-1 /dev/stdin --live <<<\'<interface type="ethernet">'
            f'<mac address="{MAC}"/><target dev="tap.1" managed="no"/><model type="virtio"/><driver queues="2"/>'
            '<mtu size="1400"/><alias name="ua-reconciler-tap_2e1"/></interface>\''
        ),
    ),
    (
        AttachNic(domain=SECOND, device="tap1", hw_addr=MAC, queues=1, vhost_user_socket="/run/a&'\".sock"),
        "+",
        (
            "virsh -c 'qemu+unix:///system?socket=/run/b' attach-device 'a b' /dev/stdin --live <<<"
            f'\'<interface type="vhostuser"><mac address="{MAC}"/>'
            '<source type="unix" path="/run/a&amp;&apos;&quot;.sock" mode="client"/><model type="virtio"/>'
            '<alias name="ua-reconciler-tap1"/></interface>\''
        ),
    ),
    (
        DetachNic(domain=LibvirtAddress(domain="web-1"), device="tap1"),
        "-",
        "virsh detach-device-alias web-1 ua-reconciler-tap1 --live",
    ),
    (
        DetachNic(domain=LibvirtAddress(domain="web-1"), device="tap1", other=Other("net0", "")),
        "-",
        "virsh detach-device-alias web-1 net0 --live",
    ),
    (
        AdoptNics(
            domain=LibvirtAddress(domain="web-1"),
            nics=(("vnet1", "eth0", Other("net0", "")),),
            kept=(("vnet2", Other("net1", "")),),
        ),
        "~",
        (
            "virsh metadata web-1 --live --uri https://reconciler.example/libvirt --key reconciler --set "
            '\'<adopted><nic alias="net1" device="vnet2"/><nic alias="net0" device="vnet1"/></adopted>\''
        ),
    ),
]
TAKEN_BACK = [
    (
        AdoptDevices(nics=(("tap1", "eth0", OTHER),), marked=False),
        f"chardev-remove {MARK}",
    ),
    (
        AdoptNics(
            domain=LibvirtAddress(domain="web-1"),
            nics=(("vnet1", "eth0", Other("net0", "")),),
            kept=(("vnet2", Other("net1", "")),),
            marked=False,
        ),
        (
            "virsh metadata web-1 --live --uri https://reconciler.example/libvirt --key reconciler --set "
            '\'<adopted><nic alias="net1" device="vnet2"/></adopted>\''
        ),
    ),
    (
        AdoptNics(domain=LibvirtAddress(domain="web-1"), nics=(("vnet1", "eth0", Other("net0", "")),), marked=False),
        "virsh metadata web-1 --live --uri https://reconciler.example/libvirt --key reconciler --remove",
    ),
]


@pytest.mark.parametrize(("operation", "sign", "command"), OPERATIONS, ids=[command for _, _, command in OPERATIONS])
def test_an_operation_reads_like_the_command(operation: Operation, sign: str, command: str) -> None:
    assert (operation.sign, operation.command) == (sign, command)
    assert isinstance(operation, MachineOperation)
    assert not is_independent(operation)
    assert operation.kind == type(operation).__name__


@pytest.mark.parametrize(("operation", "command"), TAKEN_BACK)
def test_an_adoption_that_is_taken_back_reads_like_the_command(operation: Operation, command: str) -> None:
    assert (operation.command, operation.comment) == (command, "not ours any more: eth0")


def test_every_operation_is_shown() -> None:
    kinds = {*get_args(PlugOperation), NameInterface, SetUnmanaged}
    assert {type(operation) for operation, _, _ in OPERATIONS} == kinds == set(get_args(MachineOperation))


def test_only_a_name_needs_to_be_waited_for() -> None:
    comments = {type(operation).__name__: operation.comment for operation, _, _ in OPERATIONS if operation.comment}
    assert comments == {
        "NameInterface": "once the guest has found the NIC with this address",
        "SetUnmanaged": "none of ours is left",
        "AdoptDevices": "from now on ours: eth0, 'a b'",
        "AdoptNics": "from now on ours: eth0",
    }


@pytest.mark.parametrize("device", ["tap1", "a", "x-1.2_3", "reconciler-", "fifteen-letters"])
def test_an_id_says_which_device_is_meant(device: str) -> None:
    assert plugged_device(plug_id(device)) == device
    # qemu-options: an id begins with a letter, and has letters, digits, `-`, `.` and `_`.
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", plug_id(device))


@pytest.mark.parametrize("plug", ["net0", "xreconciler-tap1", "Reconciler-tap1", "reconciler", ""])
def test_an_id_of_others_is_not_ours(plug: str) -> None:
    assert plugged_device(plug) is None


@pytest.mark.parametrize("device", ["tap1", "a", "x-1.2_3", "fifteen-letters"])
@pytest.mark.parametrize(
    "other", [Other("a", "b"), Other("nic.1.2", "4.x"), Other("n" * 99, "m" * 300), Other("a1", "1")]
)
def test_a_mark_says_what_is_adopted(device: str, other: Other) -> None:
    mark = adoption_mark(device, other)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", mark)
    expected = (device, other) if other.netdev[0].isalpha() else None
    assert adopted_nic(mark) == expected
    assert plugged_device(mark) is None


@pytest.mark.parametrize(
    "label",
    [
        "reconciler.adopted.4.1.tap1",
        "reconciler.adopted.4.1.tap1n",
        "reconciler.adopted.0.1.nm",
        "reconciler.adopted.99.1.tap1nm",
        "reconciler.adopted.4.1.tap1n;quit",
        "reconciler.adopted.4.1.tap1n\nm",
        "xreconciler.adopted.4.1.tap1nm",
        "reconciler-tap1",
    ],
)
def test_a_label_of_others_marks_nothing(label: str) -> None:
    assert adopted_nic(label) is None


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    ports = [f"pcie-root-port,id=port{number},chassis={number},addr=10.{number},multifunction=on" for number in (0, 1)]
    with qemu(tmp_path, "-machine", "q35", *(word for port in ports for word in ("-device", port))) as monitor:
        yield monitor


def type_in(monitor: Monitor, operation: Operation) -> None:
    """Type a command into QEMU's human monitor, which answers nothing if it has nothing to complain of."""
    for command in operation.command.split("; "):
        assert monitor.human(command) == ""


@pytest.mark.parametrize("queues", [1, 3])
def test_qemu_takes_the_commands_of_a_tap_and_does_what_they_say(kernel: Kernel, monitor: Monitor, queues: int) -> None:
    device = kernel.tap(*["multi_queue"] * (queues > 1))
    plug = plug_id(device)
    type_in(monitor, AddNetdev(device=device, queues=queues))
    type_in(
        monitor,
        AddDevice(
            device=device, hw_addr=MAC, queues=queues, bus="port1", addr="0", host_mtu=1400, vectors=2 * queues + 2
        ),
    )
    network = monitor.human("info network").replace("\r", "")
    assert f"{plug}: index=0,type=nic,model=virtio-net-pci,macaddr={MAC}\n" in network
    assert network.count(f" \\ {plug}: index=") == queues
    assert network.count(f"type=tap,ifname={device},script=no,downscript=no\n") == queues
    said = {
        name: monitor.execute("qom-get", path=f"/machine/peripheral/{plug}", property=name)
        for name in ("mac", "mq", "host_mtu", "vectors")
    }
    assert said == {"mac": MAC, "mq": queues > 1, "host_mtu": 1400, "vectors": 2 * queues + 2}
    (root,) = monitor.execute("query-pci")
    (port,) = (each for each in root["devices"] if each["qdev_id"] == "port1")
    assert [each["qdev_id"] for each in port["pci_bridge"]["devices"]] == [plug]
    # It takes a guest to let go.
    type_in(monitor, DeleteDevice(device=device))


def test_qemu_takes_back_what_it_was_given(kernel: Kernel, monitor: Monitor) -> None:
    device = kernel.tap()
    type_in(monitor, AddNetdev(device=device, queues=1))
    type_in(monitor, DeleteNetdev(device=device))
    assert monitor.human("info network") == ""


def test_qemu_takes_the_commands_of_a_socket(monitor: Monitor) -> None:
    add, delete = (
        AddNetdev(device="x", queues=2, vhost_user_socket="/nowhere/x.sock"),
        DeleteNetdev(device="x", vhost_user=True),
    )
    # Without a backend the netdev would wait for one.
    chardev, netdev = add.command.split("; ")
    assert monitor.human(chardev) == ""
    chardevs = {each["label"]: each["filename"] for each in monitor.execute("query-chardev")}
    assert chardevs["reconciler-x"] == "disconnected:unix:/nowhere/x.sock"
    assert netdev == "netdev_add vhost-user,id=reconciler-x,chardev=reconciler-x,queues=2"
    _, remove = delete.command.split("; ")
    assert monitor.human(remove) == ""
    assert "reconciler-x" not in {each["label"] for each in monitor.execute("query-chardev")}
