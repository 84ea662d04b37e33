"""The IPVS table as it is observed: from a kernel in memory, and from channels that lie."""

from __future__ import annotations

import errno
import struct
import time
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import BusyError, ChannelError, HostError, ProtocolError
from reconciler.model.ipvs import Excluded, Ipvs, Load, Server, Service, Timeouts
from reconciler.netlink import engine as engine_module
from reconciler.netlink import ipvs_engine, message
from reconciler.netlink.ipvs_engine import IpvsEngine
from reconciler.netlink.message import Message
from reconciler.values import replace
from tests.examples import examples
from tests.formats.strategies import services
from tests.netlink import ipvs_kernel
from tests.netlink.ipvs_kernel import (
    CONTROLLER,
    FAMILY,
    FakeChannel,
    FakeKernel,
    dumped_server,
    dumped_service,
    kernel_server,
    kernel_service,
    server_payload,
    service_payload,
)
from tests.netlink.scripted import Answer, ScriptedChannel, dump, error
from tests.netlink.strategies import spoiled

S1, S2, S3 = (Server(address=f"172.16.0.{number}", port=8080) for number in (1, 2, 3))
WEB = Service(protocol="tcp", address="10.10.0.1", port=80, scheduler="rr", servers=(S1, S2))
DNS = Service(protocol="udp", address="fd00:10::1", port=53, servers=(Server(address="fd00:16::1", port=53),))
MARKED = Service(protocol="fwmark", address="0.0.0.0", port=7, servers=(S1,))
SYSCTLS = (("conntrack", 0), ("expire_nodest_conn", 0))
TIMEOUTS = Timeouts(900, 120, 300)


def observed(fake: FakeKernel, desired: Ipvs) -> ipvs_engine.IpvsTable:
    engine = IpvsEngine(fake)
    try:
        return engine.observe(desired)
    finally:
        engine.close()


def found(*services: Service, **fields: Any) -> Ipvs:
    return Ipvs(services=services, timeouts=TIMEOUTS, **{"sysctls": SYSCTLS, **fields})


def by_key(table: Ipvs) -> Ipvs:
    """The table in an order of our own, and the servers of each service too."""
    return replace(
        table,
        services=tuple(
            replace(each, servers=tuple(sorted(each.servers, key=lambda server: server.key)))
            for each in sorted(table.services or (), key=lambda each: each.key)
        ),
    )


def test_an_empty_table_is_one_without_services() -> None:
    table = observed(FakeKernel(), Ipvs())
    assert (table.ipvs, table.foreign, table.connections, table.expiring) == (found(), [], {}, False)


@settings(deadline=None)
@given(services(), st.booleans())
def test_a_table_that_is_as_desired_is_the_desired_one_itself(wishes: list[Service], twisted: bool) -> None:
    """From its bytes; and where a kernel says the same otherwise, by decoding, which gives what is equal."""
    fake = FakeKernel()
    if twisted:
        # The identity stays where it is.
        fake.rewrite = lambda attributes: [*attributes[:-3], message.attribute(99, b""), *attributes[:-4:-1]]
    for wish in wishes:
        fake.add(wish, connections=(3, 2, 1))
    table = observed(fake, Ipvs(services=tuple(wishes)))
    assert by_key(table.ipvs) == by_key(found(*wishes))
    assert (table.foreign, table.connections) == ([], {})
    # In the order of the kernel.
    assert [kernel_service(each).id for each in table.ipvs.services or ()] == [each.id for each in fake.dumped]
    if not twisted:
        assert {id(each) for each in table.ipvs.services or ()} == {id(each) for each in wishes}


@settings(deadline=None)
@given(services(), services(), st.data())
def test_each_service_is_ours_by_its_mark_or_by_its_name_and_else_it_is_foreign(
    wishes: list[Service], others: list[Service], data: st.DataObject
) -> None:
    fake = FakeKernel()
    others = [replace(each, marked=data.draw(st.booleans())) for each in others]
    for each in others:
        fake.add(each, marked=each.marked, connections=[7] * len(each.servers))
    table = observed(fake, Ipvs(services=tuple(wishes)))
    wanted = {wish.key: {server.key for server in wish.servers} for wish in wishes}
    ours = [each for each in others if each.marked or each.key in wanted]
    foreign = [each for each in others if each not in ours]
    assert by_key(table.ipvs) == by_key(found(*ours))
    assert by_key(found(*table.foreign)) == by_key(found(*foreign))
    assert table.connections == {
        (each.key, server.key): Load(active=7)
        for each in others
        for server in each.servers
        if server.key not in wanted.get(each.key, set())
    }


def test_what_is_excluded_is_foreign_whatever_its_mark_and_whoever_names_it() -> None:
    fake = FakeKernel()
    exclude = (Excluded(prefix="10.10.0.0/16"), Excluded(fwmark=7))
    inside = replace(WEB, address="10.10.255.255")
    for each in (inside, MARKED, DNS, replace(WEB, address="10.11.0.1")):
        fake.add(each)
    table = observed(fake, Ipvs(services=(replace(inside, scheduler="wrr"),), exclude=exclude))
    assert by_key(table.ipvs) == by_key(found(DNS, replace(WEB, address="10.11.0.1"), exclude=exclude))
    assert by_key(found(*table.foreign)) == by_key(found(inside, MARKED))


def test_a_service_without_our_mark_is_found_to_lack_it_however_equal_it_is() -> None:
    fake = FakeKernel()
    fake.add(WEB, marked=False, flags=0x80000000)
    table = observed(fake, Ipvs(services=(WEB,)))
    assert by_key(table.ipvs) == by_key(found(replace(WEB, marked=False)))


def test_flags_of_others_beside_our_mark_change_nothing() -> None:
    fake = FakeKernel()
    fake.add(WEB, flags=0x80000000)
    table = observed(fake, Ipvs(services=(WEB,)))
    assert (by_key(table.ipvs), table.foreign) == (by_key(found(WEB)), [])


@pytest.mark.parametrize(
    "there",
    [
        replace(WEB, servers=(S1,)),
        replace(WEB, servers=(S1, S3)),
        replace(WEB, servers=(S1, S2, S3)),
        replace(WEB, servers=(S1, replace(S2, weight=2))),
        replace(WEB, servers=()),
        replace(WEB, scheduler="wrr"),
    ],
)
def test_what_differs_is_given_as_it_is(there: Service) -> None:
    fake = FakeKernel()
    fake.add(there, connections=(1, 2, 3))
    table = observed(fake, Ipvs(services=(WEB,)))
    assert by_key(table.ipvs) == by_key(found(there))
    assert table.connections == {
        (WEB.key, each.key): Load(active=3 if len(there.servers) == 3 else 2)
        for each in there.servers
        if each not in (S1, S2) and each.key != S2.key
    }


def test_connections_are_the_active_and_the_inactive_ones_of_servers_that_nobody_wants() -> None:
    fake = FakeKernel()
    made = fake.add(WEB, connections=(4, 5))
    made.servers[0].inactive = 30
    table = observed(fake, Ipvs(services=(replace(WEB, servers=(S1,)),)))
    assert table.connections == {(WEB.key, S2.key): Load(5, 30)}
    table = observed(fake, Ipvs(services=()))
    assert table.connections == {(WEB.key, S1.key): Load(4), (WEB.key, S2.key): Load(5, 30)}


def test_the_section_says_what_was_found_and_what_was_asked_for() -> None:
    fake = FakeKernel(timeouts={4: 1, 5: 2, 6: 3})
    fake.sysctls |= {"drop_entry": "-1", "am_droprate": "", "amemthresh": "1 2", "conntrack": "1"}
    names = ("drop_entry", "am_droprate", "amemthresh", "run_estimation", "expire_quiescent_template")
    desired = Ipvs(
        services=(),
        timeouts=Timeouts(5),
        sysctls=tuple((name, 7) for name in names),
        exclude=(Excluded(fwmark=1),),
        drain=9,
    )
    assert observed(fake, desired).ipvs == replace(
        desired,
        timeouts=Timeouts(1, 2, 3),
        sysctls=(("conntrack", 1), ("drop_entry", -1), ("expire_nodest_conn", 0), ("expire_quiescent_template", 0)),
    )


def test_services_are_not_read_for_a_section_about_settings_alone() -> None:
    fake = FakeKernel()
    fake.add(WEB)
    for desired in (
        Ipvs(timeouts=Timeouts(5)),
        Ipvs(sysctls=(("drop_entry", 1),)),
        Ipvs(exclude=(Excluded(fwmark=1),)),
    ):
        table = observed(fake, desired)
        assert (table.ipvs.services, table.foreign) == (None, [])
        assert table.ipvs.timeouts == TIMEOUTS
    assert observed(fake, Ipvs()).ipvs.services


def test_the_moment_of_the_look_is_noted() -> None:
    begin = time.time()
    assert begin <= observed(FakeKernel(), Ipvs()).now <= time.time()


def test_channels_are_closed() -> None:
    fake = FakeKernel()
    engine = IpvsEngine(fake)
    assert engine.conntrack is engine.conntrack
    assert fake.open_channels == 3
    engine.close()
    assert fake.open_channels == 0


def test_a_quick_look_finds_what_is_desired_and_reads_the_rest() -> None:
    fake = FakeKernel()
    wishes = tuple(replace(WEB, port=1 + number) for number in range(ipvs_engine.FEW + 8))
    for wish in wishes:
        fake.add(wish)
    engine = IpvsEngine(fake)
    before = fake.exchanges
    seen = engine.observe(Ipvs(services=wishes), quick=True).ipvs.services or ()
    # The timeouts, and one dump of the services.
    assert fake.exchanges - before == 2
    assert {id(each) for each in seen} == {id(each) for each in wishes}
    fake.services[kernel_service(wishes[7]).id].servers[0].weight = 9
    fake.services[kernel_service(wishes[8]).id].scheduler = "sh"
    foreign = replace(WEB, port=999, servers=())
    fake.add(foreign, marked=False)
    before = fake.exchanges
    table = engine.observe(Ipvs(services=wishes), quick=True)
    assert fake.exchanges - before == 2 + 3
    assert by_key(table.ipvs) == by_key(engine.observe(Ipvs(services=wishes)).ipvs)
    assert table.foreign == [replace(foreign, marked=False)]


@pytest.mark.parametrize(
    "service",
    [
        replace(WEB, servers=(replace(S1, upper_threshold=9),)),
        replace(WEB, servers=(replace(S1, forward="tunnel", tun_type="gre"),)),
        replace(WEB, protocol="fwmark", address="0.0.0.0"),
    ],
)
def test_a_quick_look_reads_what_a_listing_does_not_show(service: Service) -> None:
    fake = FakeKernel()
    fake.add(service)
    engine = IpvsEngine(fake)
    assert engine.observe(Ipvs(services=(service,)), quick=True).ipvs.services == (service,)
    before = fake.exchanges
    engine.observe(Ipvs(services=(service,)), quick=True)
    assert fake.exchanges - before == 3


def test_a_kernel_without_a_listing_is_read_as_ever() -> None:
    fake = FakeKernel()
    fake.add(WEB)
    fake.ipvs_listing = lambda: None  # type: ignore[assignment,method-assign,return-value]
    assert IpvsEngine(fake).observe(Ipvs(services=(WEB,)), quick=True).ipvs.services == (WEB,)


def test_a_service_that_goes_between_two_dumps_is_one_without_servers() -> None:
    fake = FakeKernel()
    fake.add(WEB)
    engine = IpvsEngine(fake)
    read = engine._dump_services

    def dump_and_delete() -> list[bytes]:
        payloads = read()
        fake.services.clear()
        return payloads

    engine._dump_services = dump_and_delete  # type: ignore[method-assign]
    assert engine.observe(Ipvs(services=(WEB,))).ipvs == found(replace(WEB, servers=()))


def test_2000_services_are_read_in_one_dump_and_one_a_service() -> None:
    fake = FakeKernel()
    wishes = tuple(replace(WEB, address=f"10.10.{n >> 8}.{n & 255}") for n in range(2000))
    for wish in wishes:
        fake.add(wish)
    engine = IpvsEngine(fake)
    before = fake.exchanges
    table = engine.observe(Ipvs(services=wishes))
    assert fake.exchanges - before == 2002
    assert {id(each) for each in table.ipvs.services or ()} == {id(each) for each in wishes}


# Kernels that say no.


@dataclass
class ScriptedKernel:
    """A kernel all of whose channels share one script; settings are as they are said."""

    script: Sequence[Answer]
    sysctls: dict[str, str] = field(default_factory=dict)
    closed: int = 0

    def __post_init__(self) -> None:
        self.channel = ScriptedChannel(self.script)
        self.channel.close = self._close  # type: ignore[method-assign]

    def _close(self) -> None:
        self.closed += 1

    def open(self, _: int) -> ScriptedChannel:
        return self.channel

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        found = {name: self.sysctls.get(name.removeprefix("net.ipv4.vs.")) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def set_sysctl(self, name: str, value: str) -> None:
        raise AssertionError(f"{name}={value}")

    def read_listing(self, name: str) -> str | None:
        raise AssertionError(name)

    def ipvs_listing(self) -> str | None:
        raise AssertionError

    def ipvs_servers(self) -> bytes | None:
        return None


def family(asked: list[Message]) -> list[Message]:
    told = ipvs_kernel.head(1) + ipvs_kernel.u16(1, FAMILY)
    return [Message(CONTROLLER, 0, asked[0].sequence, told), error(asked[0], 0)]


def timeouts(asked: list[Message]) -> list[Message]:
    told = ipvs_kernel.head(12) + b"".join(ipvs_kernel.u32(kind, 9) for kind in (4, 5, 6))
    return [Message(FAMILY, 0, asked[0].sequence, told), error(asked[0], 0)]


def refused(code: int) -> Answer:
    return lambda asked: [error(asked[0], code)]


PAYLOADS = {each.key: service_payload(dumped_service(kernel_service(each))) for each in (WEB, DNS, MARKED)}
REAL = server_payload(dumped_server(kernel_server(S1)))


def observe_script(*script: Answer, **sysctls: str) -> ipvs_engine.IpvsTable:
    return IpvsEngine(ScriptedKernel(script, sysctls)).observe(Ipvs(services=(WEB,)))


def test_a_kernel_without_ipvs_is_the_hosts_to_mend() -> None:
    scripted = ScriptedKernel([refused(errno.ENOENT)])
    with pytest.raises(HostError) as caught:
        IpvsEngine(scripted)
    assert str(caught.value) == (
        "this kernel has no IPVS: its module ip_vs is missing or cannot be loaded; `modprobe ip_vs` says why"
    )
    assert scripted.closed == 2


def test_a_kernel_that_does_not_say_the_family_is_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        IpvsEngine(ScriptedKernel([refused(errno.EPERM)]))
    assert str(caught.value) == "the kernel refused to look up IPVS: Operation not permitted"
    with pytest.raises(ProtocolError) as caught:
        IpvsEngine(ScriptedKernel([refused(0)]))
    assert str(caught.value) == "the kernel's answer lacks the number of the IPVS family"


def test_timeouts_that_are_not_said_are_an_error() -> None:
    for answer in (refused(0), refused(errno.EPERM), dump(FAMILY + 1, REAL)):
        with pytest.raises(ProtocolError) as caught:
            observe_script(family, answer)
        assert str(caught.value) == "the kernel's answer lacks the IPVS timeouts"


def test_a_refused_dump_is_an_error() -> None:
    for answer in (refused(errno.EPERM), dump(FAMILY, status=-errno.EPERM)):
        with pytest.raises(ProtocolError) as caught:
            observe_script(family, timeouts, answer)
        assert str(caught.value) == "the kernel refused to list its IPVS table: Operation not permitted"


def test_an_interrupted_dump_is_made_again() -> None:
    table = observe_script(
        family,
        timeouts,
        dump(FAMILY, PAYLOADS[DNS.key], interrupted=0),
        dump(FAMILY, interrupted=0),
        dump(FAMILY, PAYLOADS[WEB.key]),
        dump(FAMILY, REAL),
    )
    assert table.ipvs.services == (replace(WEB, servers=(S1,)),)


def test_a_table_that_never_holds_still_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "CONSISTENT_DUMP_TIMEOUT", 0)
    with pytest.raises(BusyError) as caught:
        observe_script(family, timeouts, *[dump(FAMILY, PAYLOADS[WEB.key], interrupted=0)] * 3)
    assert str(caught.value) == "the IPVS table changes too fast to be read (0 s tried)"


def test_messages_of_other_kinds_are_no_part_of_a_dump() -> None:
    def mixed(asked: list[Message]) -> list[Message]:
        others = [
            Message(17, 2, asked[0].sequence, PAYLOADS[DNS.key]),
            Message(FAMILY, 2, asked[0].sequence, b"\1\1\0\0"),
        ]
        daemon = Message(FAMILY, 2, asked[0].sequence, b"\x09\1\0\0" + bytes(8))
        return [*others, daemon, *dump(FAMILY, PAYLOADS[WEB.key])(asked)]

    table = observe_script(family, timeouts, mixed, dump(FAMILY, REAL))
    assert table.ipvs.services == (replace(WEB, servers=(S1,)),)


def test_a_loss_is_told() -> None:
    def lose(_: list[Message]) -> list[Message]:
        raise ChannelError("the kernel did not answer within 10 s")

    script = (family, timeouts, dump(FAMILY, PAYLOADS[WEB.key]), dump(FAMILY, REAL))
    for at in range(len(script)):
        with pytest.raises(ChannelError, match=r"^the kernel did not answer within 10 s$"):
            observe_script(*script[:at], lose)


@pytest.mark.parametrize("sequence", [0, 3, 6, 0xFFFFFFFF])
def test_servers_that_were_not_asked_for_are_a_lie(sequence: int) -> None:
    def lie(asked: list[Message]) -> list[Message]:
        (request,) = asked
        assert request.sequence in {4, 5}
        return [Message(FAMILY, 2, sequence, REAL), Message(message.DONE, 2, request.sequence, bytes(4))]

    with pytest.raises(ProtocolError) as caught:
        observe_script(family, timeouts, dump(FAMILY, PAYLOADS[WEB.key], PAYLOADS[DNS.key]), lie, lie)
    assert str(caught.value) == "the kernel sent servers of a service that was not asked for"


def test_servers_without_services_are_no_part_of_the_table() -> None:
    assert observe_script(family, timeouts, dump(FAMILY, REAL, REAL)).ipvs.services == ()


def test_settings_that_are_no_numbers_are_left_out() -> None:
    for value in ("", "-", "on", "1.5", "0x1", "1 2", "\x1b[2J", "--5", "9" * 5000, "٣", "1\n"):
        table = observe_script(family, timeouts, dump(FAMILY), conntrack=value, expire_nodest_conn="3")
        assert (table.ipvs.sysctls, table.expiring) == ((("expire_nodest_conn", 3),), False)


def test_what_is_on_for_a_moment_only_counts_as_off() -> None:
    table = observe_script(family, timeouts, dump(FAMILY), conntrack="1", expire_nodest_conn="2")
    assert (table.ipvs.sysctls, table.expiring) == ((("conntrack", 1), ("expire_nodest_conn", 0)), True)


def test_a_refused_dump_of_servers_is_no_service_without_servers() -> None:
    refusals = [refused(errno.EBUSY), dump(FAMILY, REAL, status=-errno.EBUSY)]
    for answer in refusals:
        with pytest.raises(ProtocolError) as caught:
            observe_script(family, timeouts, dump(FAMILY, PAYLOADS[WEB.key]), answer)
        assert str(caught.value) == "the kernel refused to list its IPVS table: Device or resource busy"


def test_late_answers_to_another_question_are_no_part_of_a_dump() -> None:
    def late(asked: list[Message]) -> list[Message]:
        stale = Message(FAMILY, 2, asked[0].sequence - 1, PAYLOADS[DNS.key])
        return [stale, *dump(FAMILY, PAYLOADS[WEB.key])(asked)]

    table = observe_script(family, timeouts, late, dump(FAMILY, REAL))
    assert table.ipvs.services == (replace(WEB, servers=(S1,)),)


def test_what_a_dump_shows_again_is_there_once() -> None:
    """The kernel counts its way through a dump, so that what is added meanwhile shifts the rest; it does not say so."""
    fake = FakeKernel()
    fake.add(WEB, flags=0x80)
    fake.add(DNS)
    engine = IpvsEngine(fake)
    for channel in (engine.channel, engine._dumps):
        exchange = channel.exchange

        def again(requests: bytes, last: int, ask: Callable[[bytes, int], list[Message]] = exchange) -> list[Message]:
            answers = ask(requests, last)
            return [answers[0], *answers] if answers[0].type == FAMILY else answers

        channel.exchange = again  # type: ignore[method-assign]
    assert by_key(engine.observe(Ipvs(services=(WEB, DNS))).ipvs) == by_key(found(WEB, DNS))


def test_the_same_server_twice_is_not_two() -> None:
    table = observe_script(family, timeouts, dump(FAMILY, PAYLOADS[WEB.key]), dump(FAMILY, REAL, REAL))
    assert table.ipvs.services == (replace(WEB, servers=(S1,)),)


@settings(deadline=None, max_examples=examples(30))
@given(services(), st.randoms(use_true_random=False))
def test_a_kernel_that_orders_its_attributes_otherwise_shows_the_same_table(
    wishes: list[Service], random: Random
) -> None:
    fake = FakeKernel(rewrite=lambda attributes: random.sample(attributes, len(attributes)))
    for wish in wishes:
        fake.add(wish)
    table = observed(fake, Ipvs(services=tuple(wishes)))
    assert by_key(table.ipvs) == by_key(found(*wishes))


def test_a_method_that_only_others_set_hides_nothing() -> None:
    fake = FakeKernel()
    fake.add(WEB)
    fake.add(DNS, marked=False).servers[0].method = 1
    table = observed(fake, Ipvs(services=(WEB,)))
    assert by_key(table.ipvs) == by_key(found(WEB))
    (server,) = DNS.servers
    assert table.foreign == [replace(DNS, marked=False, servers=(replace(server, forward="localnode"),))]


def test_more_services_than_anybody_has_are_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipvs_engine, "MAX_SERVICES", 3)
    flood = [service_payload(dumped_service(kernel_service(replace(WEB, port=n)))) for n in range(1, 5)]
    with pytest.raises(ProtocolError) as caught:
        observe_script(family, timeouts, dump(FAMILY, *flood))
    assert str(caught.value) == "the kernel reports more than 3 IPVS services"
    assert len(observe_script(family, timeouts, dump(FAMILY, *flood[:3]), *[dump(FAMILY)] * 3).ipvs.services or ()) == 3


def test_a_channel_is_closed_if_the_second_cannot_be_opened() -> None:
    class Poor(FakeKernel):
        def open(self, protocol: int) -> FakeChannel:
            if self.open_channels:
                raise HostError("Too many open files")
            return super().open(protocol)

    fake = Poor()
    with pytest.raises(HostError, match=r"^Too many open files$"):
        IpvsEngine(fake)
    assert fake.open_channels == 0


# Guests that lie in all of it.

known = st.sampled_from([*PAYLOADS.values(), REAL, ipvs_kernel.head(12) + ipvs_kernel.u32(4, 1)])
payloads = known | spoiled(known) | st.binary(max_size=40)
kinds = st.sampled_from((FAMILY, FAMILY, FAMILY, CONTROLLER, message.ERROR, message.DONE, 4, 0xFFFF))
Lie = list[tuple[int, int, int, bytes]]
lies: st.SearchStrategy[Lie] = st.lists(
    st.tuples(kinds, st.sampled_from((0, 2, 2, 0x10, 0x300)), st.integers(-2, 3), payloads), max_size=8
)


def lying(lie: Lie) -> Answer:
    """Answer with all of it, as the channel lets it through: up to something that ends the exchange."""

    def answer(asked: list[Message]) -> list[Message]:
        answers = [
            Message(kind, flags, asked[-1].sequence + off & 0xFFFFFFFF, payload) for kind, flags, off, payload in lie
        ]
        return [*answers, Message(message.DONE, 2, asked[-1].sequence, bytes(4))]

    return answer


@settings(deadline=None, max_examples=examples(150))
@given(st.lists(lies, min_size=12, max_size=12), st.integers(0, 3))
def test_answers_that_lie_are_nothing_but_our_own_errors(told: list[Lie], honest: int) -> None:
    script: list[Answer] = [family, timeouts, dump(FAMILY, *PAYLOADS.values())][:honest]
    # Without end, so that only bounds of our own end it.
    script += [lying(lie) for lie in told] * 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "CONSISTENT_DUMP_TIMEOUT", 0.01)
        with suppress(ProtocolError, ChannelError, BusyError, HostError):
            table = observe_script(*script)
            assert all(name.isprintable() for each in table.ipvs.services or () for name in (each.scheduler,))


@pytest.mark.parametrize(
    "flood",
    [
        lambda sequence: Message(FAMILY, 2, sequence, REAL),
        lambda sequence: Message(FAMILY, 2, sequence, b""),
        lambda sequence: Message(0xFFFF, 2, sequence, bytes(100)),
        lambda sequence: Message(message.ERROR, 0, sequence, struct.pack("=i", -1) + bytes(16)),
        lambda sequence: Message(message.DONE, 2, sequence - 1, bytes(4)),
    ],
    ids=["servers", "empty", "foreign", "errors", "ends"],
)
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_100000_messages_are_read_in_bounded_time_and_room(flood: Callable[[int], Message], at: int) -> None:
    def answer(asked: list[Message]) -> list[Message]:
        sequence = asked[-1].sequence
        return [*[flood(sequence)] * 100_000, Message(message.DONE, 2, sequence, bytes(4))]

    script: list[Answer] = [family, timeouts, dump(FAMILY, PAYLOADS[WEB.key]), dump(FAMILY, REAL)]
    script[at] = answer
    begin = time.monotonic()
    with suppress(ProtocolError, ChannelError):
        observe_script(*script)
    assert time.monotonic() - begin < 90


def test_a_flood_of_services_takes_no_more_room_than_its_bytes() -> None:
    """A dump of servers is asked for of each; here the guest answers the first with a lie."""

    def lie(asked: list[Message]) -> list[Message]:
        return [Message(FAMILY, 2, 0, REAL), Message(message.DONE, 2, asked[-1].sequence, bytes(4))]

    flood = [service_payload(dumped_service(kernel_service(replace(WEB, port=n)))) for n in range(1, 20_001)]
    script = [family, timeouts, dump(FAMILY, *flood), *[lie] * 20_000]
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=r"^the kernel sent servers of a service that was not asked for$"):
            observe_script(*script)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20
