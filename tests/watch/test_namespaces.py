"""Changes in namespaces are told with the sandbox they are of, and none is kept alive for it."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.watch.namespaces import HOST, Followed, Namespaces
from tests.conftest import Kernel, ip
from tests.watch.running import is_on_host, until


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    found = Namespaces()
    yield found
    found.close()


def file_of(name: str) -> str:
    return f"/run/netns/{name}"


def heard(namespaces: Namespaces, followed: Followed, name: str | int | None) -> bool:
    """Wait until a change is told of this one; others on this host may be told of as well."""
    if select.select([namespaces], [], [], 5)[0]:
        return name in set(followed.changed())
    return False


def test_a_change_is_told_of_the_sandbox_it_is_in(kernel: Kernel, namespaces: Namespaces) -> None:
    one, other = kernel.namespace(), kernel.namespace()
    followed = Followed(namespaces)
    assert followed.look({"a": file_of(one), "b": file_of(other)}) == ["a", "b"]
    assert followed.look({"a": file_of(one), "b": file_of(other)}) == []
    list(followed.changed())
    ip("link", "set", "lo", "up", namespace=other)
    until(lambda: heard(namespaces, followed, "b"), "b")
    assert "a" not in set(followed.changed())
    followed.look({"a": file_of(one)})
    ip("link", "set", "lo", "down", namespace=other)
    ip("link", "set", "lo", "up", namespace=one)
    seen: set[str | int | None] = set()

    def told() -> bool:
        seen.update(followed.changed())
        return "a" in seen

    until(told, "a")
    assert "b" not in seen


def test_a_namespace_that_comes_goes_or_is_another_one_has_changed(kernel: Kernel, namespaces: Namespaces) -> None:
    name = kernel.namespace()
    files = {"a": file_of(name), "b": file_of(f"{name}x")}
    followed = Followed(namespaces)
    assert followed.look(files) == ["a", "b"]
    ip("netns", "delete", name)
    ip("netns", "add", name)
    assert followed.look(files) == ["a"]
    ip("netns", "delete", name)
    assert followed.look(files) == ["a"]
    assert followed.look(files) == []
    ip("netns", "add", name)
    assert followed.look(files) == ["a"]


def test_nothing_is_kept_alive(kernel: Kernel, namespaces: Namespaces) -> None:
    name = kernel.namespace()
    device, peer = kernel.veth()
    Followed(namespaces).look({"a": file_of(name)})
    ip("link", "set", device, "netns", name)
    ip("netns", "delete", name)
    until(lambda: not is_on_host(peer), "gone with its namespace")
    ip("netns", "add", name)


@pytest.mark.parametrize("kind", ["none", "file", "folder", "pipe"])
def test_what_is_no_namespace_has_no_number(kind: str, tmp_path: Path, namespaces: Namespaces) -> None:
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "file":
        path.write_text("x")
    elif kind == "folder":
        path.mkdir()
    assert namespaces.number(str(path)) is None


def test_a_device_that_comes_to_the_host_is_told(kernel: Kernel, namespaces: Namespaces) -> None:
    followed = Followed(namespaces)
    kernel.tap()
    until(lambda: heard(namespaces, followed, HOST), "host")


def test_what_is_lost_means_all(kernel: Kernel, namespaces: Namespaces) -> None:
    name = kernel.namespace()
    followed = Followed(namespaces)
    followed.look({"a": file_of(name)})
    ip("link", "set", "lo", "up", namespace=name)
    lines = "".join(f"route add blackhole 10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32\n" for n in range(60_000))
    batch = Path(f"/tmp/{name}")
    batch.write_text(lines)
    try:
        ip("-batch", str(batch), namespace=name)
        assert None in set(followed.changed())
        # And afterwards it goes on.
        ip("link", "set", "lo", "down", namespace=name)
        until(lambda: heard(namespaces, followed, "a"), "a")
    finally:
        batch.unlink()
