"""A watcher and two manifests that turn out to mean one namespace; and a pid that another process gets."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Kernel, ip
from tests.processes import process_in
from tests.watch.running import OTHER, ROUTE, Kept, put, watching

HEAD = "apiVersion: reconciler/v1\nsandbox: {name}\ndriver: {{netns: {{{address}}}}}\n"
TEXT = HEAD + "routes: [{{dest: 10.11.0.0/16, type: blackhole}}]\n"


def routes(namespace: str) -> list[str]:
    """Return the destinations of our routes in a namespace."""
    shown = ip("-o", "route", "show", "proto", "200", namespace=namespace).splitlines()
    return [line.split()[1 if line.startswith("blackhole") else 0] for line in shown]


def test_the_second_of_one_namespace_is_refused_and_the_first_goes_on(kernel: Kernel, tmp_path: Path) -> None:
    folder, link = tmp_path / "manifests", tmp_path / "link"
    kept = Kept(kernel, folder, 0)
    put(folder / "b.yaml", TEXT.format(name="b", address=f"path: {link}"))
    with watching(folder) as watcher:
        watcher.await_state("converged", kept.name)
        watcher.await_state("waiting", "b")
        link.symlink_to(f"/run/netns/{kept.name}")
        detail = watcher.await_state("refused", "b").sandboxes["b"]["detail"]
        assert detail == (
            f"netns {link} is the same as netns {kept.name}, which sandbox {kept.name} has already; "
            "delete one of the two manifests, or correct its driver"
        )
        # What the first says goes on, and nothing of it was touched meanwhile.
        kept.write(routes=[ROUTE, OTHER])
        watcher.until(lambda: kept.has("10.9.0.0/16"))
        assert kept.is_as_written()
        assert routes(kept.name) == ["10.8.0.0/16", "10.9.0.0/16"]
        # Without the first manifest, the namespace belongs to the second.
        kept.file.unlink()
        watcher.await_state("converged", "b")
        assert routes(kept.name) == ["10.11.0.0/16"]


def test_a_sandbox_with_another_id_and_another_name_of_its_namespace_is_not_pruned(
    kernel: Kernel, tmp_path: Path
) -> None:
    folder, link = tmp_path / "manifests", tmp_path / "link"
    kept, stays = Kept(kernel, folder, 0), Kept(kernel, folder, 1)
    link.symlink_to(f"/run/netns/{kept.name}")
    with watching(folder, "--prune") as watcher:
        watcher.await_state("converged", kept.name, stays.name)
        text = kept.file.read_text().replace(f"sandbox: {kept.name}", "sandbox: renamed")
        put(kept.file, text.replace(f"name: {kept.name}", f"path: {link}"))
        watcher.await_state("converged", "renamed")
        assert watcher.await_event("released", sandbox=kept.name)["pruned"] is False
        assert kept.is_as_written()
        assert not watcher.events("pruned")


def test_a_pid_that_another_process_gets_is_refused(kernel: Kernel, tmp_path: Path) -> None:
    folder, namespace, other = tmp_path / "manifests", kernel.namespace(), kernel.namespace()
    folder.mkdir()
    with process_in(namespace) as pid:
        put(folder / "a.yaml", TEXT.format(name="a", address=f"pid: {pid}"))
        with watching(folder) as watcher:
            watcher.await_state("converged", "a")
            with process_in(other) as another:
                put(folder / "b.yaml", TEXT.format(name="b", address=f"pid: {another}"))
                watcher.await_state("converged", "b")
            watcher.await_state("waiting", "b")
            with process_in(namespace, another):
                detail = watcher.await_state("refused", "b").sandboxes["b"]["detail"]
                assert detail.startswith(f"pid {another} belongs to another process now")
            ip("route", "flush", "proto", "200", namespace=other)
            watcher.await_state("waiting", "b")
            with process_in(other, another):
                watcher.await_state("refused", "b")
                assert routes(other) == []
                # Written anew with the same text, it means the process of now.
                put(folder / "b.yaml", TEXT.format(name="b", address=f"pid: {another}"))
                watcher.await_state("converged", "a", "b")
                assert routes(other) == ["10.11.0.0/16"]
