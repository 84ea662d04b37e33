"""Checks in a manifest: what is wrong with one is said at its field, and one that is right is written as it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import ManifestError, NotAllowedError
from reconciler.manifest.allow import check
from reconciler.manifest.dump import dump
from reconciler.manifest.load import Manifest, load
from reconciler.manifest.sandbox import write
from reconciler.model.policy import Policy

NETNS, KATA = {"netns": {"name": "web-1"}}, {"kata": {"id": "web-1"}}
SERVICE = {"tcp": "172.17.0.7:80", "servers": [{"address": "172.17.0.4:80"}]}
GOOD: list[dict[str, Any]] = [
    {"ping": "192.0.2.1"},
    {"ping": "2001:db8::1", "timeout": 60, "count": 20, "required": True, "onRepair": True},
    {"tcp": "192.0.2.1:443", "timeout": 5},
    {"tcp": "[2001:db8::1]:443", "from": "host"},
    {"http": "http://192.0.2.1/"},
    {"http": "http://192.0.2.1:8080/health?a=b", "expect": 204},
    {"http": "http://[2001:db8::1]/"},
    {"route": "192.0.2.1", "device": "eth0"},
    {"connects": {"service": "172.17.0.7:80"}},
]


def read(folder: Path, *checks: dict[str, Any], driver: dict[str, Any] = NETNS, **sections: Any) -> Manifest:
    head = {"apiVersion": "reconciler/v1", "sandbox": "web-1", "driver": driver}
    file = folder / "web-1.yaml"
    file.write_text(dump([head | sections | {"checks": list(checks)}]))
    (manifest,) = load([str(file)])
    return manifest


def test_they_are_written_as_they_are_read(tmp_path: Path) -> None:
    assert write(read(tmp_path, *GOOD).sandbox)["checks"] == GOOD


def test_they_say_what_they_are(tmp_path: Path) -> None:
    assert [str(each) for each in read(tmp_path, *GOOD).sandbox.checks] == [
        "ping 192.0.2.1",
        "ping 2001:db8::1",
        "tcp 192.0.2.1:443",
        "tcp [2001:db8::1]:443 from the host",
        "http http://192.0.2.1/",
        "http http://192.0.2.1:8080/health?a=b",
        "http http://[2001:db8::1]/",
        "route 192.0.2.1 by eth0",
        "connects 172.17.0.7:80",
    ]


@pytest.mark.parametrize(
    ("wrong", "path", "message"),
    [
        ({"tcp": "192.0.2.1"}, "checks[0].tcp", '"192.0.2.1" has no port; expected an address and port such as'),
        ({"tcp": "192.0.2.1:0"}, "checks[0].tcp", "port 0 is not from 1 to 65535"),
        ({"tcp": "www:80"}, "checks[0].tcp", '"www" is not an IP address'),
        ({"ping": "224.0.0.1"}, "checks[0].ping", "224.0.0.1 is not a unicast address"),
        ({"route": "fe80::1"}, "checks[0].route", "fe80::1 is a link-local address"),
        ({"http": "http://www/"}, "checks[0].http", '"www" is not an IP address'),
        ({"http": "https://192.0.2.1/"}, "checks[0].http", "expected a URL with an address"),
        ({"http": "http://192.0.2.1:80x/"}, "checks[0].http", "is not a URL with an address"),
        ({"ping": "192.0.2.1", "device": "eth0"}, "checks[0].device", "needs route beside it"),
        ({"ping": "192.0.2.1", "expect": 200}, "checks[0].expect", "needs http beside it"),
        ({"ping": "192.0.2.1", "timeout": 61}, "checks[0].timeout", "61 is above the maximum of 60"),
        ({"ping": "192.0.2.1", "count": 0}, "checks[0].count", "0 is below the minimum of 1"),
        ({"connects": {"service": "172.17.0.7:81"}}, "checks[0].connects.service", "the manifest has no IPVS service"),
        (
            {"ping": "192.0.2.1", "tcp": "192.0.2.1:1"},
            "checks[0]",
            "exactly one of ping, tcp, http, route and connects",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_at_its_field(tmp_path: Path, wrong: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, wrong, ipvs={"services": [SERVICE]})
    (problem,) = caught.value.problems
    assert problem.path == path
    assert message in problem.message


def test_there_are_at_most_32(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="33 items; at most 32 are allowed"):
        read(tmp_path, *[{"ping": "192.0.2.1"}] * 33)


def test_behind_kata_runtime_they_are_made_from_the_host(tmp_path: Path) -> None:
    assert read(tmp_path, {"ping": "192.0.2.1", "from": "host"}, driver=KATA).sandbox.checks[0].from_host
    with pytest.raises(ManifestError, match="nothing can be run in a sandbox behind kata-runtime"):
        read(tmp_path, {"ping": "192.0.2.1"}, driver=KATA)


def test_the_host_reaches_what_the_policy_names(tmp_path: Path) -> None:
    checks = [{"ping": "192.0.2.1", "from": "host"}, {"tcp": "[2001:db8::1]:80", "from": "host"}]
    sandbox = read(tmp_path, *checks, {"route": "203.0.113.1", "from": "host"}, {"ping": "203.0.113.1"}).sandbox
    check(sandbox, Policy(host_checks=("192.0.2.0/24", "2001:db8::/32")))
    with pytest.raises(NotAllowedError) as caught:
        check(sandbox, Policy(host_checks=("192.0.2.0/24",)))
    assert [path for path, _ in caught.value.refusals] == [("checks", 1, "tcp")]
    assert "hostChecks: [192.0.2.0/24" in str(caught.value) or 'hostChecks: ["192.0.2.0/24"' in str(caught.value)
