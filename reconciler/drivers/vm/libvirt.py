"""A domain of libvirt: reads what is plugged from its XML, plugs and unplugs NICs, and the channel of the agent.

Only the running domain is changed. QEMU's monitor is never used behind libvirt's back: that taints the domain, and
libvirt then plugs into slots that are taken.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, assert_never

from reconciler.drivers import Report
from reconciler.drivers.reach import about
from reconciler.drivers.vm.binding import TIMEOUT, Connection, LibvirtError, LostError
from reconciler.drivers.vm.domain import Channel, Domain, DomainNic, read
from reconciler.drivers.vm.outside import OtherNic, probe, taps
from reconciler.errors import BusyError, ChannelError, HostError, SandboxGoneError
from reconciler.guest import agent
from reconciler.guest.guest_agent import GuestCommands
from reconciler.model.interface import Interface, given
from reconciler.model.machine import Machine, Other, Plugged, Slot
from reconciler.model.policy import Policy
from reconciler.model.sandbox import LibvirtAddress
from reconciler.operations.domain import (
    MARK_KEY,
    MARK_URI,
    AdoptNics,
    AttachNic,
    DetachNic,
    aliased_device,
    marks_xml,
    nic_alias,
    virsh,
)
from reconciler.operations.machine import AddDevice, AddNetdev, AdoptDevices, DeleteDevice, DeleteNetdev, PlugOperation
from reconciler.rundir import NamedLock

# Seconds for a guest to release a NIC; see `monitor.UNPLUG_TIMEOUT`.
UNPLUG_TIMEOUT = 20.0
_ASK_AGAIN = 2.0
_POLL = 0.01
# Seconds for the agent to open its channel, which it looks for again and again.
_OPEN_TIMEOUT = 4.0
# Seconds for a libvirtd that restarts; it takes 0.2.
_RESTART_TIMEOUT = 5.0
# Seconds to wait for another run that is plugging the channel in.
_LOCK_TIMEOUT = 4.0
# The channel that we have plugged in. A second one of the same name would end the first.
_OURS = "ua-rcagent"
_CHANNEL = (
    "<channel type='unix'><source mode='bind'/>"
    f"<target type='virtio' name='{agent.PORT}'/><alias name='{_OURS}'/></channel>"
)
# Below these folders libvirt makes sockets of channels; which one depends on its version.
SOCKETS = ("/var/lib/libvirt/qemu", "/run/libvirt/qemu")
# What libvirt says of a device that is being unplugged, or that is gone.
_PENDING = re.compile("already in the process of unplug|guest is busy")
# virDomainState of libvirt-domain.h, in the words of QEMU.
_STATES = ("unknown", "running", "running", "paused", "shutdown", "shutdown", "guest-panicked", "suspended")
_RUNNING = "running"


class NoChannelError(HostError):
    """A domain has no channel of our agent, and this run plugs none in."""


class NoControllerError(HostError):
    """A domain can have no channel."""


class LibvirtPlugboard:
    """See `plugboard.Plugboard`. From `__init__` to `close`, for one thread."""

    def __init__(self, address: LibvirtAddress, policy: Policy, report: Report) -> None:
        """Connect. `report` is told of a channel that is plugged in, if `policy` has this run do so.

        SandboxGoneError if the domain does not exist or does not run.
        """
        self._address, self._may_plug, self._report = address, policy.may_push, report
        # Whether the channel is one that this run has plugged in.
        self._has_plugged = False
        self._connect()
        try:
            # What all names of a domain have in common.
            self.place: tuple[str, str] = ("libvirt", self._libvirt.call(self._domain.UUIDString))
            self._check_running()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        self._libvirt = Connection(self._address.uri)
        try:
            self._domain: Any = self._libvirt.domain(self._address.domain, self._address.uuid)
        except BaseException:
            self._libvirt.close()
            raise

    def _connect_again(self) -> None:
        """Connect to a libvirtd that has ended, once it is back. Domains run on meanwhile."""
        self._libvirt.close()
        deadline = time.monotonic() + _RESTART_TIMEOUT
        while True:
            try:
                self._connect()
            except HostError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL)
            else:
                return

    def _check_running(self) -> None:
        if not self._libvirt.call(self._domain.isActive):
            start = virsh(self._address, "start")
            raise SandboxGoneError(f"the domain {self._address.domain} is not running; `{start}` starts it")

    def close(self) -> None:
        """Disconnect."""
        self._libvirt.close()

    def open_channel(self) -> str:
        """Return the path of the agent's socket. Plug its channel in if the domain has none.

        ChannelError if the domain does not run.
        """
        state = self.run_state()
        if state != _RUNNING:
            raise ChannelError(f"the domain {self._address.domain} is {state}, so nothing in it answers")
        return (self._channel(self._read()) or self._plug_channel()).path

    def await_agent(self) -> None:
        """Wait until something in the guest has opened the channel. ChannelError if that takes too long."""
        deadline = time.monotonic() + _OPEN_TIMEOUT
        while self.is_closed():
            if time.monotonic() > deadline:
                raise ChannelError(
                    f"nothing in the domain {self._address.domain} has opened its channel {agent.PORT} within "
                    f"{_OPEN_TIMEOUT:.0f} s: reconciler's agent does not run there; docs/guest.md says how to install "
                    "it, or how to let it be pushed (guestAgent)"
                )
            time.sleep(_POLL)

    def is_closed(self) -> bool:
        """Return whether no program in the guest has opened the channel."""
        channel = self._channel(self._read())
        return channel is None or not channel.open

    def give_up(self) -> None:
        """Take out what this run has plugged in: nothing answers there."""
        if self._has_plugged:
            self.unplug_channel()

    @property
    def port(self) -> str:
        """Return where the agent is expected, in words."""
        return f"the channel {agent.PORT} of the domain {self._address.domain}"

    @property
    def way(self) -> str:
        """Return by what it is pushed, in words."""
        return f"libvirt, {self._address.domain}"

    @contextmanager
    def guest_agent(self) -> Iterator[GuestCommands]:
        """Be the only run that uses QEMU's agent in the domain. BusyError if another one does."""
        # Most domains have our agent.
        from reconciler.drivers.vm.domain_agent import DomainGuestAgent

        def ask(text: str) -> str:
            return self._libvirt.ask_guest_agent(self._domain, text)

        with self._locked("guest agent", "uses the guest agent of"), about("driver", "libvirt", "guestAgent"):
            yield DomainGuestAgent(self._address.domain, ask)

    def plug_channel(self) -> None:
        """Plug the channel in, unless the domain has one."""
        self.open_channel()

    def unplug_channel(self) -> None:
        """Take out the channel that we have plugged in, if there is one."""
        if _OURS in self._read().aliases:
            self._detach(_OURS)

    def leave(self) -> None:
        """Take out the channel, unless a NIC of ours is plugged."""
        domain = self._read()
        if not domain.adopted and not any(aliased_device(each.alias) for each in domain.nics):
            self.unplug_channel()

    def _plug_channel(self) -> Channel:
        with self._locked("channel", "is plugging a channel into"):
            domain = self._read()
            channel = self._channel(domain)
            if channel is None:
                if not domain.has_serial:
                    edit = virsh(self._address, "edit")
                    raise NoControllerError(
                        f"the domain {self._address.domain} has no controller that the channel of the agent could be "
                        f"plugged into; add <controller type='virtio-serial'/> (`{edit}`), and start it anew"
                    )
                if not self._may_plug:
                    raise NoChannelError(
                        f"the domain {self._address.domain} has no channel for the agent of reconciler, and this "
                        "command plugs none in; `reconciler apply` without --no-push does"
                    )
                self._report("plugging a channel for the agent of reconciler into the running domain")
                self._attach(_CHANNEL, _OURS)
                self._has_plugged = True
                channel = self._channel(self._read())
        if channel is None:
            raise HostError(f"libvirt has plugged the channel {agent.PORT} in, but does not list it")
        return channel

    @contextmanager
    def _locked(self, what: str, doing: str) -> Iterator[None]:
        """Lock a part of the domain. BusyError if another run has it; `doing`: what it does with the domain."""
        lock = NamedLock(" ".join((*self.place, what)))
        try:
            deadline = time.monotonic() + _LOCK_TIMEOUT
            while not lock.acquire():
                if time.monotonic() > deadline:
                    raise BusyError(
                        f"another run {doing} the domain {self._address.domain}; try again when it has ended"
                    )
                time.sleep(_POLL)
            yield
        finally:
            lock.close()

    def _channel(self, domain: Domain) -> Channel | None:
        found = [each for each in domain.channels if each.name == agent.PORT]
        if not found:
            return None
        if len(found) > 1:
            raise HostError(
                f"the domain {self._address.domain} has {len(found)} channels with the name {agent.PORT}, of which "
                "only one can work; take the others out"
            )
        if not found[0].path:
            raise HostError(
                f"the channel {agent.PORT} of the domain {self._address.domain} is not a unix socket that QEMU serves; "
                "give it <channel type='unix'> and <source mode='bind'/>"
            )
        return found[0]

    def _read(self) -> Domain:
        try:
            return read(self._libvirt.call(lambda: str(self._domain.XMLDesc(0))))
        except LostError:
            self._connect_again()
            return read(self._libvirt.call(lambda: str(self._domain.XMLDesc(0))))

    def run_state(self) -> str:
        """Return whether it runs, in the words of QEMU."""
        number = int(self._libvirt.call(self._domain.state)[0])
        return _STATES[number] if number < len(_STATES) else _STATES[0]

    def fileno(self) -> None:
        """Return None: the agent itself tells that it has started."""

    def has_restarted(self) -> bool:
        """Return False: the agent itself tells."""
        return False

    def observe(self, wishes: Iterable[Interface], taken: Mapping[str, Other]) -> Machine:
        """Read what is plugged."""
        wishes = list(wishes)
        domain = self._read()
        adopted = domain.adopted | {each.nic: device for device, each in taken.items()}
        plugged = {}
        for nic in domain.nics:
            if own := aliased_device(nic.alias):
                plugged[own] = _plugged(nic, domain, None)
            elif device := adopted.get(nic.alias):
                plugged[device] = _plugged(nic, domain, Other(nic.alias, ""))
        # A connected backend is not probed: the probe would be a second client.
        connected = {nic.socket for nic in domain.nics}
        paths = {each.vhost_user_socket for each in wishes if each.vhost_user_socket} - connected
        return Machine(
            plugged=plugged,
            slots=domain.slots,
            capacity=domain.capacity,
            taps=taps({*plugged, *(each.device for each in given(wishes) if each.vhost_user_socket is None)}),
            sockets={path: probe(path) for path in paths if path},
            kvm=domain.kvm,
            msi=domain.msi,
            shared_memory=domain.shared_memory,
        )

    def others(self) -> list[OtherNic]:
        """Return the NICs of other programs."""
        domain = self._read()
        return [
            OtherNic(each.hw_addr, each.tap, Other(each.alias, ""))
            for each in domain.nics
            if each.alias and each.alias not in domain.adopted and aliased_device(each.alias) is None
        ]

    def execute(self, operation: PlugOperation) -> None:
        """Execute an operation."""
        match operation:
            case AttachNic():
                self._attach(operation.xml, nic_alias(operation.device))
                self._check_alias(operation.device)
            case DetachNic():
                self._detach(operation.alias)
                if operation.other:
                    # The mark goes last: without it, nothing would say that the NIC is ours.
                    marks = self._read().adopted
                    self._mark({alias: device for alias, device in marks.items() if alias != operation.alias})
            case AdoptNics():
                self._mark(operation.marks)
            case AddNetdev() | AddDevice() | DeleteDevice() | DeleteNetdev() | AdoptDevices():
                raise TypeError("this machine is one of libvirt")
            case _:
                assert_never(operation)

    def _attach(self, xml: str, alias: str) -> None:
        live = self._libvirt.module.VIR_DOMAIN_AFFECT_LIVE
        try:
            self._libvirt.call(lambda: self._domain.attachDeviceFlags(xml, live), TIMEOUT)
        except LostError:
            self._connect_again()
            if alias not in self._read().aliases:
                self._libvirt.call(lambda: self._domain.attachDeviceFlags(xml, live), TIMEOUT)

    def _mark(self, marks: Mapping[str, str]) -> None:
        module = self._libvirt.module
        kind, live = module.VIR_DOMAIN_METADATA_ELEMENT, module.VIR_DOMAIN_AFFECT_LIVE
        xml = marks_xml(marks) if marks else None
        self._libvirt.call(lambda: self._domain.setMetadata(kind, xml, MARK_KEY, MARK_URI, live))

    def _check_alias(self, device: str) -> None:
        """Take a NIC out again whose alias libvirt has replaced: nothing would say later that it is ours."""
        nics = self._read().nics
        if any(each.alias == nic_alias(device) for each in nics):
            return
        for alias in [each.alias for each in nics if each.tap == device]:
            self._detach(alias)
        raise HostError(f"libvirt did not keep the alias {nic_alias(device)}, which would mark the NIC as ours")

    def _detach(self, alias: str) -> None:
        """Unplug a device, and wait until the guest has released it: libvirt reports success after 5 s in any case."""
        live = self._libvirt.module.VIR_DOMAIN_AFFECT_LIVE
        deadline = time.monotonic() + UNPLUG_TIMEOUT
        ask = 0.0
        while time.monotonic() < deadline:
            if alias not in self._read().aliases:
                return
            if time.monotonic() >= ask:
                try:
                    self._libvirt.call(lambda: self._domain.detachDeviceAlias(alias, live), TIMEOUT)
                except LostError:
                    # The next look connects again, and whether it is gone shows there.
                    continue
                except LibvirtError as error:
                    if error.code != self._libvirt.module.VIR_ERR_DEVICE_MISSING and not _PENDING.search(str(error)):
                        raise
                ask = time.monotonic() + _ASK_AGAIN
            time.sleep(_POLL)
        raise HostError(
            f"the guest did not release {alias} within {UNPLUG_TIMEOUT:.0f} s; its kernel needs PCI hot-plug "
            "(ACPI or PCIe)"
        )


def _plugged(nic: DomainNic, domain: Domain, other: Other | None) -> Plugged:
    bus, slot = nic.place or (0, 0)
    return Plugged(
        hw_addr=nic.hw_addr,
        queues=nic.queues,
        socket=nic.socket or None,
        slot=Slot(f"pci.{bus}", f"{slot:#x}"),
        pci_addr=f"{domain.bridges.get(bus, '00.0')}/{slot:02x}",
        host_mtu=nic.mtu,
        other=other,
    )
