"""`fleet serve` and `fleet ca` as commands: with certificates that other programs check, over a real cluster."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from tests.fleet.cluster import Cluster
from tests.fleet.hosts import COMMAND
from tests.fleet.site import Site
from tests.watch.running import until


def openssl(*words: str) -> str:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.fixture
def ca(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "ca"
    for words in (
        ("init", str(folder)),
        ("gate", str(folder), "gate-1", "127.0.0.1", "gate-1.example"),
        ("host", str(folder), "host-1"),
        ("etcd", str(folder), "etcd-1", "127.0.0.1", "::1"),
        ("client", str(folder), "admin"),
    ):
        assert main(["fleet", "ca", *words]) == 0
    return folder


def test_each_certificate_is_good_for_its_purpose_and_for_no_other(ca: Path) -> None:
    good = {
        ("hosts-ca", "hosts/host-1", "sslclient"),
        ("hosts-ca", "gates/gate-1", "sslserver"),
        ("etcd-ca", "etcd/etcd-1", "sslserver"),
        ("etcd-ca", "etcd/etcd-1", "sslclient"),
        ("etcd-ca", "clients/admin", "sslclient"),
    }
    names = ("hosts/host-1", "gates/gate-1", "etcd/etcd-1", "clients/admin")
    for authority in ("hosts-ca", "etcd-ca"):
        for name in names:
            for purpose in ("sslclient", "sslserver"):
                words = ("-CAfile", str(ca / f"{authority}.crt"), "-purpose", purpose, str(ca / f"{name}.crt"))
                is_good = openssl("verify", "-x509_strict", *words).endswith(": OK\n")
                assert is_good == ((authority, name, purpose) in good), (authority, name, purpose)
    text = openssl("x509", "-noout", "-ext", "subjectAltName", "-in", str(ca / "gates/gate-1.crt"))
    assert "IP Address:127.0.0.1, DNS:gate-1.example" in text


def test_keys_are_for_their_owner_and_are_never_replaced(ca: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [*ca.rglob("*.key")]
    assert len(keys) == 6
    assert {stat.S_IMODE(each.stat().st_mode) for each in keys} == {0o600}
    before = (ca / "hosts/host-1.key").read_bytes()
    capsys.readouterr()
    assert main(["fleet", "ca", "host", str(ca), "host-1"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["fleet", "ca", "init", str(ca)]) == 2
    assert (ca / "hosts/host-1.key").read_bytes() == before
    assert main(["fleet", "ca", "host", str(ca), "../evil"]) == 2
    assert main(["fleet", "ca", "host", str(ca / "none"), "host-2"]) == 2


def test_the_fingerprint_is_that_of_other_programs(ca: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["fleet", "ca", "host", str(ca), "host-2"]) == 0
    (line,) = (each for each in capsys.readouterr().out.splitlines() if each.startswith("fingerprint "))
    text = openssl("x509", "-noout", "-fingerprint", "-sha256", "-in", str(ca / "hosts/host-2.crt"))
    assert text.partition("=")[2].strip().replace(":", "").lower() == line.partition(" ")[2]


@contextmanager
def serving(ca: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, dict[str, Any]]]]:
    """Run a gate; yield it, and the events of its log that say where it is."""
    log = ca / "log"
    words = ["--cert", str(ca / "gates/gate-1.crt"), "--key", str(ca / "gates/gate-1.key")]
    words += ["--ca", str(ca / "hosts-ca.crt"), "--listen", "127.0.0.1:0", "--log", "json", *options]
    with log.open("wb") as file:
        process = subprocess.Popen([*COMMAND, "fleet", "serve", *words], stderr=file)

    def events() -> dict[str, dict[str, Any]]:
        lines = log.read_text().rpartition("\n")[0].splitlines()
        return {each["event"]: each for each in map(json.loads, lines)}

    try:
        until(lambda: "serving" in events() or process.poll() is not None, "the gate", more=log.read_text)
        yield process, events()
    finally:
        process.kill()
        process.wait()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_gate_serves_metrics_probes_and_a_page_and_ends_by_a_signal(ca: Path, cluster: Cluster, site: Site) -> None:
    with serving(ca, "--metrics", "0", "--ui", "0") as (process, events):
        base = f"http://127.0.0.1:{events['metrics']['port']}"
        until(lambda: get(f"{base}/readyz") == (200, "ok\n"), "the store")
        code, text = get(f"{base}/metrics")
        assert code == 200
        assert "reconciler_gate_hosts 0.0" in text
        assert "reconciler_gate_reports_written_total 0.0" in text
        assert "<title>reconciler fleet</title>" in get(events["page"]["address"])[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_gate_without_etcd_serves_and_is_not_ready(
    ca: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, site: Site
) -> None:
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", "https://127.0.0.1:9")
    with serving(ca, "--metrics", "0") as (process, events):
        base = f"http://127.0.0.1:{events['metrics']['port']}"
        assert get(f"{base}/healthz") == (200, "ok\n")
        assert get(f"{base}/readyz")[0] == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cert", "/none"), "--cert /none"),
        (("--ca", "/none"), "--ca /none: No such file or directory"),
        (("--ui-token-file", "/none"), "--ui-token-file is for the page"),
        (("--etcd-ca", "/none"), "/none"),
    ],
)
def test_a_gate_that_cannot_begin_says_why(
    ca: Path, site: Site, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["--cert", str(ca / "gates/gate-1.crt"), "--key", str(ca / "gates/gate-1.key")]
    made += ["--ca", str(ca / "hosts-ca.crt"), "--listen", "127.0.0.1:0"]
    done = subprocess.run(
        [*COMMAND, "fleet", "serve", *made, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr, said in done.stderr) == (2, False, True), done.stderr
