"""What the gate answers, and to whom: with real TLS and real certificates, over a store in memory."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.fleet import blobs, keys, records
from reconciler.fleet.gate import peers
from reconciler.fleet.memory import Memory
from reconciler.fleet.records import MAX_STATUS, HostRecord, HostStatus, Unusual
from reconciler.fleet.store import Delete, StoreError
from tests.fleet.gates import Certificates, Running, running
from tests.watch.running import until

MINE, THEIRS = b"mine: 1\n", b"theirs: 1\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def gate(certificates: Certificates) -> Iterator[Running]:
    with running(Memory(), certificates) as found:
        for name in ("mine", "theirs"):
            found.add_host(name)
        found.want("mine", "r1", {"a.yaml": MINE})
        found.want("theirs", "r1", {"b.yaml": THEIRS})
        until(lambda: found.ask("theirs", "/v1/desired?have=")[0] == 200, "the gate knows all")
        yield found


def status(release: str = "r1", **fields: Any) -> bytes:
    return records.encode(HostStatus(release, reached=True, **{"when": time.time(), **fields}))


def stored(gate: Running, host: str) -> HostStatus | None:
    pair = gate.do(gate.store.read(keys.status(host)))
    return records.decode(HostStatus, pair.value) if pair else None


def is_answered(client: http.client.HTTPSConnection) -> bool:
    try:
        client.request("GET", "/v1/desired?have=")
        client.getresponse()
    except (ssl.SSLError, ConnectionError, http.client.HTTPException):
        return False
    finally:
        client.close()
    return True


def is_ended(connection: socket.socket) -> bool:
    """Return whether the gate ends a connection without another word."""
    connection.settimeout(10)
    try:
        return connection.recv(1) == b""
    except (ConnectionError, ssl.SSLError):
        return True


def test_a_host_gets_what_it_should_be_like(gate: Running) -> None:
    code, body = gate.ask("mine", "/v1/desired?have=")
    assert (code, json.loads(body)["files"]) == (200, {"a.yaml": blobs.digest(MINE)})
    code, body = gate.ask("mine", f"/v1/blob/{blobs.digest(MINE)}")
    assert (code, blobs.unpack(body, blobs.digest(MINE))) == (200, MINE)


def test_a_file_of_several_chunks(gate: Running) -> None:
    large = os.urandom(1_300_000)
    gate.want("mine", "r2", {"large.yaml": large})
    until(lambda: b"large" in gate.ask("mine", "/v1/desired?have=")[1], "the release")
    code, body = gate.ask("mine", f"/v1/blob/{blobs.digest(large)}")
    assert (code, blobs.unpack(body, blobs.digest(large)) == large) == (200, True)


def test_several_files_come_one_after_another(gate: Running) -> None:
    # Small and large ones, and more than are kept at once.
    contents = [os.urandom(size) for size in (10, 1_300_000, 300_000, 300_000, blobs.CHUNK, 20, 0, 30)]
    gate.want("mine", "r2", {f"{number}.yaml": data for number, data in enumerate(contents)})
    until(lambda: b"r2" in gate.ask("mine", "/v1/desired?have=")[1], "the release")
    code, body = gate.ask("mine", f"/v1/blob/{','.join(map(blobs.digest, contents))}")
    assert code == 200
    for each in contents:
        unpacking = zlib.decompressobj()
        assert unpacking.decompress(body) == each
        body = unpacking.unused_data
    assert body == b""


def test_an_answer_ends_before_the_first_file_that_the_store_lacks(gate: Running) -> None:
    contents = [b"a: 1\n", b"a: 2\n", b"a: 3\n"]
    gate.want("mine", "r2", {f"{number}.yaml": data for number, data in enumerate(contents)})
    until(lambda: b"r2" in gate.ask("mine", "/v1/desired?have=")[1], "the release")
    first, second, third = map(blobs.digest, contents)
    gate.do(gate.store.commit([Delete(keys.blob("mine", second))]))
    assert gate.ask("mine", f"/v1/blob/{first},{second},{third}") == (200, blobs.pack(contents[0]))
    assert gate.ask("mine", f"/v1/blob/{second},{third}")[0] == 404


def test_a_host_gets_none_of_several_files_if_one_is_not_its_own(gate: Running) -> None:
    mine, theirs = blobs.digest(MINE), blobs.digest(THEIRS)
    for path in (f"{mine},{theirs}", f"{theirs},{mine}", f"{mine},", f",{mine}", f"{mine},{mine}/../{theirs}"):
        code, body = gate.ask("mine", f"/v1/blob/{path}")
        assert code in {400, 404}, path
        assert blobs.pack(MINE) not in body
    assert gate.ask("mine", f"/v1/blob/{','.join([mine] * (blobs.AT_ONCE + 1))}")[0] == 400


def test_news_end_the_wait_at_once(gate: Running) -> None:
    _, body = gate.ask("mine", "/v1/desired?have=")
    have, answers = hashlib.sha256(body).hexdigest(), list[tuple[float, bytes]]()

    def wait() -> None:
        answers.append((time.monotonic(), gate.ask("mine", f"/v1/desired?have={have}")[1]))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: gate.gate.mirror.waiting == 1, "the host waits")
    gate.want("theirs", "r2", {"b.yaml": b"other: 1\n"})
    assert gate.gate.mirror.waiting == 1
    gate.want("mine", "r2", {"a.yaml": b"other: 1\n"})
    thread.join(20)
    assert json.loads(answers[0][1])["release"] == "r2"


def test_a_host_that_has_it_all_is_told_so_after_a_while(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.fleet.gate.application.WAIT", 0.1)
    monkeypatch.setattr("reconciler.fleet.gate.application.SPREAD", 0.1)
    have = hashlib.sha256(gate.ask("mine", "/v1/desired?have=")[1]).hexdigest()
    assert gate.ask("mine", f"/v1/desired?have={have}") == (204, b"")


def test_a_report_is_written_under_the_name_of_the_certificate(gate: Running) -> None:
    unusual = (Unusual("web-1", "failed", "because"),)
    body = status(counts={"failed": 1}, unusual=unusual)
    # Whatever a body says besides is ignored.
    body = json.dumps({**json.loads(body), "host": "theirs", "key": "/reconciler/v1/status/theirs"}).encode()
    assert gate.ask("mine", "/v1/status", body)[0] == 204
    found = stored(gate, "mine")
    assert found
    assert (found.release, found.unusual, found.counts) == ("r1", unusual, {"failed": 1})
    assert abs(found.when - time.time()) < 20
    assert stored(gate, "theirs") is None


def test_a_clock_that_is_wrong_is_an_alarm_and_no_time_of_the_report(gate: Running) -> None:
    assert gate.ask("mine", "/v1/status", status(when=time.time() - 3600))[0] == 204
    found = stored(gate, "mine")
    assert found
    assert abs(found.when - time.time()) < 20
    assert found.alarms == ("the clock of this host differs by more than 30 s from that of the gate",)


def test_a_report_is_written_at_most_once_in_two_seconds(gate: Running) -> None:
    begin = time.monotonic()
    for number in range(3):
        assert gate.ask("mine", "/v1/status", status(f"r{number}"))[0] == 204
    assert time.monotonic() - begin >= 4.0
    assert gate.gate.reports.written == 3


@pytest.mark.parametrize(
    "path",
    [
        "/v1/blob/{theirs}",
        "/v1/blob/../blob/{theirs}",
        "/v1/blob/{mine}/../{theirs}",
        "/v1/blob/theirs/{theirs}",
        "/v1/blob/..%2ftheirs%2f{theirs}",
        "/v1/blob/%2e%2e/theirs/{theirs}",
        "/v1/blob/{theirs}?host=theirs",
        "/v1/blob/{theirs}%00",
        "/v1/blob/{theirs}/0",
        "/v1/blob/",
        "/v1/blob/{mine}/1",
        "//v1/blob/{theirs}",
        "/v1/desired/theirs",
        "/v1/status/theirs",
        "/v1/",
        "/metrics",
        "/",
        "https://127.0.0.1/v1/blob/{theirs}",
        "/reconciler/v1/desired/theirs",
        "/v3/kv/range",
    ],
)
def test_no_path_leads_to_what_is_of_another_host(gate: Running, path: str) -> None:
    path = path.format(mine=blobs.digest(MINE), theirs=blobs.digest(THEIRS))
    code, body = gate.ask("mine", path)
    assert code in {400, 404}
    assert THEIRS not in body
    assert blobs.pack(THEIRS) not in body


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PATCH", "OPTIONS", "CONNECT", "TRACE", "HEAD"])
def test_nothing_but_reports_is_ever_written(gate: Running, method: str) -> None:
    before = gate.do(gate.store.list("/reconciler/"))
    path = f"/v1/blob/{blobs.digest(MINE)}"
    assert gate.ask("mine", path, b"x" if method not in {"HEAD", "CONNECT"} else None, method)[0] in {400, 404, 405}
    assert [each for each in gate.do(gate.store.list("/reconciler/")).pairs if "/alive/" not in each.key] == [
        each for each in before.pairs if "/alive/" not in each.key
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"release": "r1", "reached": "yes"}',
        b'{"release": "r1", "reached": true, "counts": {"failed": -1}}',
        b'{"release": "r1", "reached": true, "counts": {"failed": 1e999}}',
        b'{"release": "r1", "reached": true, "when": NaN}',
        json.dumps({"release": "a\x1b[2J", "reached": True}).encode(),
        json.dumps({"release": "r" * 2000, "reached": True}).encode(),
        json.dumps({"release": "r1", "reached": True, "alarms": ["a"] * 100}).encode(),
        json.dumps({"release": "r1", "reached": True, "unusual": [{"sandbox": "\u202e", "state": "s"}]}).encode(),
        json.dumps({"release": "r1", "reached": True, "unusual": [["a", "b"]]}).encode(),
    ],
)
def test_what_is_no_report_is_refused(gate: Running, body: bytes) -> None:
    assert gate.ask("mine", "/v1/status", body)[0] == 400
    assert stored(gate, "mine") is None


@pytest.mark.parametrize("announced", [True, False])
def test_a_report_that_is_too_long_is_refused(gate: Running, *, announced: bool) -> None:
    client = gate.client("mine")
    body = status() + b" " * MAX_STATUS
    try:
        client.request("POST", "/v1/status", body if announced else iter([body]), encode_chunked=not announced)
        code = client.getresponse().status
    except (ConnectionError, ssl.SSLError):
        # The gate does not wait for the end of it.
        code = 413
    finally:
        client.close()
    assert code == 413
    assert stored(gate, "mine") is None


def test_who_is_not_known_is_told_so_and_gets_nothing(gate: Running) -> None:
    code, body = gate.ask("stranger", "/v1/desired?have=")
    assert (code, body) == (403, b"the fleet does not know this host: `reconciler fleet host add` makes it known\n")
    assert gate.ask("stranger", f"/v1/blob/{blobs.digest(MINE)}")[0] == 403
    assert gate.ask("stranger", "/v1/status", status())[0] == 403


@pytest.mark.parametrize("name", ["theirs/../mine", "", "mine\nmine", "*", "a" * 65, "mine/", "./mine", "MINE "])
def test_a_name_that_no_host_can_have_is_nobody(name: str) -> None:
    class Tls:
        def getpeercert(self, binary_form: bool = False) -> Any:  # noqa: FBT002
            return b"certificate" if binary_form else {"subject": ((("commonName", name),),)}

    assert peers.peer_of(Tls()) == peers.NOBODY


def test_a_certificate_with_two_names_is_nobody() -> None:
    class Tls:
        def getpeercert(self, binary_form: bool = False) -> Any:  # noqa: FBT002
            names = ((("commonName", "mine"),), (("commonName", "theirs"),))
            return b"certificate" if binary_form else {"subject": names}

    assert peers.peer_of(Tls()) == peers.NOBODY


def test_no_certificate_and_one_of_another_authority_are_refused(gate: Running, tmp_path: Path) -> None:
    other = Certificates(tmp_path / "other")
    context = other.context("mine")
    context.load_verify_locations(gate.certificates.authority)
    for each in (gate.certificates.context(), context):
        client = http.client.HTTPSConnection("127.0.0.1", gate.port, context=each, timeout=20)
        assert not is_answered(client)


def test_the_certificate_of_a_gate_is_none_of_a_host(gate: Running) -> None:
    context = gate.certificates.context()
    made = gate.certificates.gate()
    context.load_cert_chain(made.certificate, made.key)
    client = http.client.HTTPSConnection("127.0.0.1", gate.port, context=context, timeout=20)
    assert not is_answered(client)


@pytest.mark.parametrize(
    "record",
    [
        HostRecord("00" * 32),
        HostRecord(""),
        None,
        "fenced",
    ],
)
def test_a_revoked_or_fenced_host_is_out_at_once(gate: Running, record: HostRecord | str | None) -> None:
    """On connections that are open, those that wait, and new ones. Others stay."""
    mine, theirs = gate.connect("mine"), gate.connect("theirs")
    for each, name in ((mine, "mine"), (theirs, "theirs")):
        have = hashlib.sha256(gate.ask(name, "/v1/desired?have=")[1]).hexdigest()
        each.sendall(f"GET /v1/desired?have={have} HTTP/1.1\r\nHost: gate\r\n\r\n".encode())
    idle = gate.client("mine")
    idle.request("GET", "/v1/desired?have=")
    assert idle.getresponse().read()
    until(lambda: gate.gate.mirror.waiting == 2, "both wait")
    begin = time.monotonic()
    if record == "fenced":
        gate.add_host("mine", fenced=True)
    elif isinstance(record, HostRecord):
        gate.put(keys.host("mine"), records.encode(record))
    else:
        gate.do(gate.store.commit([Delete(keys.host("mine"))]))
    assert is_ended(mine)
    # Two seconds are promised; a busy host may take longer, but not as long as a request that waits.
    assert time.monotonic() - begin < 15.0
    assert idle.sock
    assert is_ended(idle.sock)
    assert gate.ask("mine", "/v1/desired?have=")[0] == 403
    assert gate.gate.mirror.waiting == 1
    for each in (mine, theirs):
        each.close()
    idle.close()


def test_the_newest_connections_of_a_host_stay(gate: Running) -> None:
    mine = [gate.connect("mine") for _ in range(peers.CONNECTIONS + 3)]
    until(lambda: gate.gate.peers.connections == peers.CONNECTIONS, "the oldest ones have left")
    for each in mine[:3]:
        assert is_ended(each)
    mine[-1].sendall(b"GET /v1/desired?have= HTTP/1.1\r\nHost: gate\r\n\r\n")
    assert mine[-1].recv(12) == b"HTTP/1.1 200"
    for each in mine:
        each.close()


def test_a_host_that_is_connected_has_a_key_and_the_key_goes_with_it(
    gate: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.fleet.gate.writer.GONE", 0.2)
    found = gate.connect("mine")
    until(lambda: gate.do(gate.store.read(keys.alive("mine"))), "the key")
    pair = gate.do(gate.store.read(keys.alive("mine")))
    assert pair
    assert (pair.value.decode(), pair.lease > 0) == (gate.gate.name, True)
    found.close()
    until(lambda: gate.do(gate.store.read(keys.alive("mine"))) is None, "the end of the key")


def test_a_gate_that_does_not_hear_of_the_store_answers_nobody(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.fleet.gate.mirror.LATE", -1.0)
    assert gate.ask("mine", "/v1/desired?have=") == (503, b"this gate has not heard of the store\n")
    assert gate.ask("stranger", "/v1/desired?have=")[0] == 503


def test_a_store_that_fails_is_asked_again_after_a_while_only(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def failing(*_: Any) -> Any:
        nonlocal calls
        calls += 1
        raise StoreError("no")

    monkeypatch.setattr("reconciler.fleet.gate.writer._RETRY", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(gate.store, "commit", failing)
        mine = gate.connect("mine")
        until(lambda: calls >= 2, "two tries")
        begin, before = time.monotonic(), calls
        until(lambda: calls >= before + 3, "some more")
        assert time.monotonic() - begin >= 0.3
    until(lambda: gate.do(gate.store.read(keys.alive("mine"))), "the key")
    mine.close()
