"""The documented server in front of the metrics, a real nginx: TLS and a password for clients of other hosts."""

from __future__ import annotations

import base64
import random
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError

import pytest

from reconciler.watch.metrics import MetricsServer
from tests import packages
from tests.watch.running import until
from tests.watch.test_report import pages

EXAMPLE = Path("examples/metrics-nginx.conf")


def free_port() -> int:
    """Return a port that nobody has, and that the kernel gives to nobody who asks for any."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as taken, suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port


@pytest.fixture
def proxied(root: None, tmp_path: Path) -> Iterator[int]:
    """Run nginx with the example, whose paths and ports are the test's own. Yield its port."""
    program = packages.unpacked("nginx", ["nginx"]) / "usr/sbin/nginx"
    server, port = MetricsServer("127.0.0.1", 0, pages(lambda: "well 1\n")), free_port()
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", "metrics.key", "-out", "metrics.crt"]
    subprocess.run(["openssl", "req", *words, *names], cwd=tmp_path, check=True, capture_output=True)
    hashed = subprocess.run(["openssl", "passwd", "-apr1", "secret"], check=True, capture_output=True, text=True).stdout
    (tmp_path / "metrics.htpasswd").write_text(f"prometheus:{hashed}")
    tmp_path.chmod(0o755)
    text = EXAMPLE.read_text().replace("/etc/nginx/", f"{tmp_path}/").replace("/run/", f"{tmp_path}/")
    text = text.replace("listen 9443", f"listen 127.0.0.1:{port}").replace(":9100", f":{server.port}")
    # Its folders for bodies are below a prefix that the package has made.
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    (tmp_path / "nginx.conf").write_text("daemon off;\nuser root;\n" + text.replace("http {", f"http {{\n{folders}"))
    process = subprocess.Popen([program, "-c", tmp_path / "nginx.conf", "-e", "stderr"])
    try:
        until(lambda: is_served(port), "nginx")
        yield port
    finally:
        process.terminate()
        process.wait(60)
        server.close()


def is_served(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def get(port: int, folder: Path, password: str, path: str = "/metrics", method: str = "GET") -> tuple[int, bytes]:
    request = urllib.request.Request(f"https://localhost:{port}{path}", method=method)
    if password:
        request.add_header("Authorization", f"Basic {base64.b64encode(f'prometheus:{password}'.encode()).decode()}")
    context = ssl.create_default_context(cafile=str(folder / "metrics.crt"))
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        with error:
            return error.code, b""


def test_a_password_over_tls_is_needed(proxied: int, tmp_path: Path) -> None:
    assert get(proxied, tmp_path, "secret") == (200, b"well 1\n")
    assert [get(proxied, tmp_path, wrong)[0] for wrong in ("", "guess")] == [401, 401]
    assert get(proxied, tmp_path, "secret", "/other")[0] == 404
    assert get(proxied, tmp_path, "secret", method="POST")[0] == 403
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"https://localhost:{proxied}/metrics", timeout=60)
