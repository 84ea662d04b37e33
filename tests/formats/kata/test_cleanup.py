"""The words of `kata-ipvs cleanup`."""

from __future__ import annotations

import re

import pytest

from reconciler.formats.kata.cleanup import read_cleanup


@pytest.mark.parametrize(
    "text",
    [
        "--orig-dst 172.17.0.4 --protonum tcp",
        "--protonum tcp --orig-dst 172.17.0.4",
        "-d 172.17.0.4 -p tcp",
        " --orig-dst=172.17.0.4  -p=tcp ",
    ],
)
def test_what_is_cleaned_up(text: str) -> None:
    assert read_cleanup(text) == ("172.17.0.4", "tcp")


USAGE = "expected --orig-dst IP --protonum tcp|udp, each once and with its value"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--orig-dst is missing"),
        ("--orig-dst 172.17.0.4", "--protonum is missing"),
        ("-p udp", "--orig-dst is missing"),
        ("-d 172.17.0.4 -p", f"-p: {USAGE}"),
        ("-d 172.17.0.4 -d 172.17.0.5 -p tcp", f"-d: {USAGE}"),
        ("-d 172.17.0.4 --sport 80 -p tcp", f"--sport: {USAGE}"),
        ("-d 172.17.0.4 -p sctp", "--protonum sctp: expected tcp or udp"),
        ("-d 172.17.0 -p tcp", '--orig-dst: "172.17.0" is not an IP address'),
    ],
)
def test_what_cannot_be_cleaned_up(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read_cleanup(text)
