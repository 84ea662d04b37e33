"""How a namespace is named: to people, to iproute2, and as a file."""

from __future__ import annotations

import pytest

from reconciler.model.sandbox import NetnsAddress


@pytest.mark.parametrize(
    ("address", "text", "word", "file"),
    [
        (NetnsAddress(name="web-1"), "netns web-1", "web-1", "/run/netns/web-1"),
        (NetnsAddress(path="/run/ns/web 1"), "netns /run/ns/web 1", "/run/ns/web 1", "/run/ns/web 1"),
        (NetnsAddress(pid=7), "netns of pid 7", "/proc/7/ns/net", "/proc/7/ns/net"),
    ],
)
def test_names_of_a_namespace(address: NetnsAddress, text: str, word: str, file: str) -> None:
    assert (str(address), address.shell_word, address.file) == (text, word, file)
