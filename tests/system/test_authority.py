"""What an author of manifests tries to make root do on the host, and what the operator's policy allows of it."""

from __future__ import annotations

import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.drivers import connect, reach
from reconciler.drivers.reach import open_namespace, open_socket
from reconciler.errors import HostError, RefusedError, SandboxGoneError
from reconciler.manifest.dump import dump
from reconciler.model.policy import Policy
from reconciler.model.sandbox import NetnsAddress, Sandbox
from reconciler.netlink.engine import local_engine
from tests.allowed import POLICY, script, write_policy
from tests.conftest import Kernel, ip
from tests.machine import Guest
from tests.processes import process_in
from tests.system.box import MACS

COMMANDS = ["validate", "diff", "show", "apply"]
LINE = re.compile(r"(?:add to|change lines? (\d+)(?: to (\d+))? of) (\S+?)(?: to)?: (\w+: .*)$", re.MULTILINE)
NIC = {"name": "eth0", "hwAddr": MACS[0], "mtu": 1500}
ROUTES = [{"dest": "10.8.0.0/16", "type": "blackhole"}]


@pytest.fixture(autouse=True)
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the default policy, which does not exist."""
    file = tmp_path / "policy.yaml"
    monkeypatch.setattr("reconciler.manifest.policy.POLICY_FILE", str(file))
    return file


def write(file: Path, driver: dict[str, Any], **sections: Any) -> str:
    head = {"apiVersion": "reconciler/v1", "sandbox": "web-1", "driver": driver}
    file.write_text(dump([head | (sections or {"routes": ROUTES})]))
    return str(file)


def obey(said: str, policy: Path) -> None:
    """Write each line into the policy that a message names."""
    found = LINE.findall(said)
    assert found, said
    lines = policy.read_text().splitlines() if policy.exists() else []
    # From the end on, so that the numbers of the others stay right.
    for first, last, named, line in sorted(set(found), key=lambda each: int(each[0] or sys.maxsize), reverse=True):
        assert str(policy) == named
        begin, end = (int(first) - 1, int(last or first)) if first else (len(lines), len(lines))
        if first:
            assert lines[begin].partition(":")[0] == line.partition(":")[0]
        lines[begin:end] = [line]
    policy.write_text("".join(f"{each}\n" for each in lines))


# Programs


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A program in the repository, which leaves a trace beside it."""
    folder = tmp_path / "repository"
    folder.mkdir()
    program = folder / "kata-runtime"
    # `touch` itself would make a file of each word of the command, where the tests run.
    script(program, "sh", "-c", f"touch {folder}/trace", "sh")
    return program


@pytest.mark.parametrize("command", COMMANDS)
def test_a_program_in_the_repository_is_not_run(
    command: str, root: None, evil: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(evil.parent / "m.yaml", {"kata": {"id": "a", "runtime": str(evil)}}, routes=[])
    assert main([command, file]) == 3
    said = capsys.readouterr().err
    assert f"{file}:4:26: " in said
    assert f"driver.kata.runtime: {evil} may not be run as kata-runtime" in said.replace("refused: ", "")
    assert f"add to {policy}: runtimes: [/usr/bin/kata-runtime, {evil}]" in said
    assert not (evil.parent / "trace").exists()
    # The operator who writes that line wants it to run.
    obey(said, policy)
    assert main([command, file]) in {0, 2}
    assert (evil.parent / "trace").exists() == (command != "validate")


@pytest.mark.parametrize(
    "words",
    [["kata-network", "list-ifaces"], ["kata-network", "list-routes"], ["kata-ipvs", "ipvsadm", "--parameters=-L"]],
)
def test_nor_by_the_commands_of_a_person_who_names_its_manifest(
    words: list[str], evil: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(evil.parent / "m.yaml", {"kata": {"id": "a", "runtime": str(evil)}}, routes=[])
    assert main([*words, "web-1", "--manifests", file]) == 3
    assert f"refused: {evil} may not be run as kata-runtime" in capsys.readouterr().err
    assert not (evil.parent / "trace").exists()


def test_a_program_that_others_can_change_is_not_run(
    root: None, evil: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(evil.parent / "m.yaml", {"kata": {"id": "a", "runtime": str(evil)}}, routes=[])
    write_policy(policy, runtimes=[str(evil)])
    evil.parent.chmod(0o777)
    for command in COMMANDS:
        assert main([command, file]) == 3
        assert f"but another user can change it: {evil.parent} is writable by others" in capsys.readouterr().err
    evil.parent.chmod(0o755)
    os.chown(evil, 4711, 4711)
    assert main(["diff", file]) == 3
    assert f"but another user can change it: {evil} belongs to user 4711" in capsys.readouterr().err
    # A link of another user to a program of root's.
    folder = evil.parent / "theirs"
    folder.mkdir()
    (folder / "kata-runtime").symlink_to("/bin/true")
    os.chown(folder, 4711, 4711)
    write_policy(policy, runtimes=[str(folder / "kata-runtime")])
    write(Path(file), {"kata": {"id": "a", "runtime": str(folder / "kata-runtime")}}, routes=[])
    assert main(["diff", file]) == 3
    assert not (evil.parent / "trace").exists()


def test_the_default_program_may_be_a_link_of_roots(root: None, evil: Path, policy: Path) -> None:
    link = evil.parent / "link"
    link.symlink_to(evil)
    write_policy(policy, runtimes=[str(link)])
    main(["diff", write(evil.parent / "m.yaml", {"kata": {"id": "a", "runtime": str(link)}}, routes=[])])
    assert (evil.parent / "trace").exists()


# Sockets


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("field", ["agent", "qmp"])
def test_no_file_of_the_repository_is_taken_for_a_socket(
    command: str, field: str, tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "repository" / ".git" / "index"
    index.parent.mkdir(parents=True)
    index.touch()
    sockets = {"agent": "/run/a.sock", "qmp": "/run/q.sock"} | {field: str(index)}
    file = write(tmp_path / "m.yaml", {"vm": sockets})
    assert main([command, file]) == 3
    said = capsys.readouterr().err
    assert f"driver.vm.{field}: " in said
    assert f"no socket in {index.parent} may be used; to allow it, add to {policy}: sockets: [/run, " in said
    # Even if the folder is allowed: it is no socket.
    obey(said, policy)
    sockets |= {"agent": str(index)}
    assert main([command, write(tmp_path / "m.yaml", {"vm": sockets})]) == (0 if command == "validate" else 2)
    assert [each.name for each in index.parent.iterdir()] == ["index"]


@pytest.mark.parametrize("path", ["/run/../{0}/x.sock", "/run//../{0}/x.sock", "/{0}/run/x.sock", "/runx/x.sock"])
def test_no_spelling_leads_out_of_a_folder(path: str, tmp_path: Path) -> None:
    file = write(tmp_path / "m.yaml", {"vm": {"agent": path.format(str(tmp_path)[1:]), "qmp": "/run/q.sock"}})
    assert main(["validate", file]) == main(["diff", file]) == 3


@contextmanager
def served(path: Path) -> Iterator[list[bool]]:
    """Serve a socket; yield one item for each client."""
    clients: list[bool] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    server.accept()[0].close()
                    clients.append(True)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield clients
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def reach_socket(path: Path, policy: Policy) -> None:
    with open_socket(str(path), policy) as target, socket.socket(socket.AF_UNIX) as client:
        client.connect(target)


def test_a_link_of_roots_is_followed_and_one_of_another_user_is_not(root: None, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    policy = Policy(sockets=(str(inside),))
    with served(outside / "x.sock") as clients:
        (inside / "x.sock").symlink_to(outside / "x.sock")
        reach_socket(inside / "x.sock", policy)
        os.chown(inside, 4711, 4711)
        with pytest.raises(RefusedError, match="is a symbolic link that another user can change"):
            reach_socket(inside / "x.sock", policy)
        # A linked folder leads out, whoever has made the link.
        for owner in (0, 4711):
            os.chown(inside, owner, owner)
            (inside / f"d{owner}").symlink_to(outside)
            with pytest.raises(RefusedError, match=f"leads to {outside}, which is below none of the folders"):
                reach_socket(inside / f"d{owner}" / "x.sock", policy)
    assert len(clients) == 1


def test_a_link_that_is_swapped_meanwhile_leads_nowhere_else(
    root: None, tmp_path: Path, repeats: Callable[[int], int]
) -> None:
    """An author who is a user of the host replaces the socket, or its folder, again and again."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "d").mkdir(parents=True)
    outside.mkdir()
    os.chown(inside, 4711, 4711)
    os.chown(inside / "d", 4711, 4711)
    swapper = (
        f"import os\nos.chdir({str(inside)!r})\n"
        f"os.symlink({str(outside / 'x.sock')!r}, 'evil'); os.symlink({str(outside)!r}, 'evil-d')\n"
        "os.link('d/x.sock', 'x.sock')\n"
        "while True:\n"
        "    os.rename('d', 'good-d'); os.rename('evil-d', 'd'); os.rename('d', 'evil-d'); os.rename('good-d', 'd')\n"
        "    os.rename('x.sock', 'good'); os.rename('evil', 'x.sock')\n"
        "    os.rename('x.sock', 'evil'); os.rename('good', 'x.sock')\n"
    )
    policy = Policy(sockets=(str(inside),))
    with served(outside / "x.sock") as clients, served(inside / "d" / "x.sock") as good:
        process = subprocess.Popen([sys.executable, "-c", swapper])
        try:
            refused, begin = 0, time.monotonic()
            for number in itertools.count():
                # Until both happened, however busy the host is.
                is_enough = (good and refused) or time.monotonic() > begin + 60
                if number >= repeats(20_000) and is_enough:
                    break
                try:
                    reach_socket(inside / ("x.sock" if number % 2 else "d/x.sock"), policy)
                except RefusedError:
                    refused += 1
                except (SandboxGoneError, HostError):
                    continue
        finally:
            assert process.poll() is None
            process.kill()
            process.wait()
    assert clients == []
    assert good
    assert refused


def test_vhost_user_sockets_are_sockets_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nic = NIC | {"device": "vhost0", "vhostUserSocket": f"{tmp_path}/v.sock"}
    file = write(tmp_path / "m.yaml", {"vm": {"name": "none"}}, interfaces=[nic])
    for command in COMMANDS:
        assert main([command, file]) == 3
        assert f"interfaces[0].vhostUserSocket: no socket in {tmp_path}" in capsys.readouterr().err.replace(
            "refused: no", "no"
        )


# Namespaces


@pytest.fixture
def host_process() -> Iterator[int]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


def routes() -> str:
    return ip("route", "show", "table", "all", "proto", "200")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_host_is_no_sandbox(
    command: str, kernel: Kernel, tmp_path: Path, host_process: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        own, first, mounted = (Path(f"/run/netns/{kernel.prefix}{each}") for each in ("own", "first", "mounted"))
        for link, target in ((own, "/proc/self/ns/net"), (first, "/proc/1/ns/net")):
            link.symlink_to(target)
            stack.callback(link.unlink)
        mounted.touch()
        stack.callback(mounted.unlink)
        subprocess.run(["mount", "--bind", "/proc/self/ns/net", mounted], check=True)
        stack.callback(lambda: subprocess.run(["umount", mounted], check=True))
        of_others = [{"pid": 1}, {"pid": host_process}, {"path": f"/proc/{host_process}/ns/net"}]
        everywhere: list[dict[str, Any]] = [
            {"path": "/proc/self/ns/net"},
            {"path": "/proc/thread-self/ns/net"},
            {"path": "/proc/1/ns/net"},
            {"path": "/run/../proc/1/ns/net"},
            {"name": own.name},
            {"path": str(mounted)},
        ]
        for address in (*everywhere, *(of_others if command != "validate" else [])):
            assert main([command, write(tmp_path / "m.yaml", {"netns": address})]) == 3, address
            assert "no policy allows" in (said := capsys.readouterr().err) or "reconciler itself runs in" in said
        # Without the right to see the first process, its namespace cannot be entered at all.
        assert main([command, write(tmp_path / "m.yaml", {"netns": {"name": first.name}})]) in {0, 2, 3}
    assert routes() == ""


@pytest.mark.parametrize(
    "path", ["/proc/{pid}/root/run/netns/{name}", "/proc/self/fd/3", "/dev/fd/3", "/proc/{pid}/ns/mnt", "/etc/passwd"]
)
def test_no_other_path_is_a_namespace(path: str, kernel: Kernel, tmp_path: Path) -> None:
    name = kernel.namespace()
    with process_in(name) as pid:
        file = write(tmp_path / "m.yaml", {"netns": {"path": path.format(pid=pid, name=name)}})
        for command in COMMANDS:
            assert main([command, file]) == 3
    assert ip("route", "show", "table", "all", "proto", "200", namespace=name) == ""


def test_what_operators_do_goes_on_working(kernel: Kernel, tmp_path: Path) -> None:
    """Mounts of `ip netns`, links that root made in /run/netns, paths, and processes in namespaces of their own."""
    name = kernel.namespace()
    link = Path(f"/run/netns/{kernel.prefix}link")
    with process_in(name) as pid:
        link.symlink_to(f"/proc/{pid}/ns/net")
        try:
            for address in (
                {"name": name},
                {"name": link.name},
                {"path": f"/run/netns/{name}"},
                {"path": f"/var/run/netns/{name}"},
                {"pid": pid},
                {"path": f"/proc/{pid}/ns/net"},
                {"path": f"/proc/{pid}/task/{pid}/ns/net"},
            ):
                file = write(tmp_path / "m.yaml", {"netns": address})
                assert main(["validate", file]) == 0
                assert main(["apply", file]) == 0
                assert main(["diff", file]) == 0
        finally:
            link.unlink()


def test_a_link_of_another_user_is_no_namespace(kernel: Kernel, tmp_path: Path) -> None:
    name = kernel.namespace()
    folder = tmp_path / "tenant"
    folder.mkdir()
    policy = Policy(folders=("/run/netns", str(folder)))
    (folder / "x").symlink_to(f"/run/netns/{name}")
    os.close(open_namespace(NetnsAddress(path=f"{folder}/x"), policy))
    os.chown(folder, 4711, 4711)
    with pytest.raises(RefusedError, match="is a symbolic link that another user can change"):
        open_namespace(NetnsAddress(path=f"{folder}/x"), policy)
    (folder / "d").symlink_to("/run/netns")
    os.close(open_namespace(NetnsAddress(path=f"{folder}/d/{name}"), policy))
    with pytest.raises(RefusedError, match="leads to /run/netns, which is below none of the folders"):
        open_namespace(NetnsAddress(path=f"{folder}/d/{name}"), Policy(folders=(str(folder),)))


def test_nothing_but_a_namespace_is_opened(root: None, tmp_path: Path) -> None:
    """Merely to open some devices has an effect; a FIFO would wait."""
    policy = Policy(folders=(str(tmp_path),))
    os.mkfifo(tmp_path / "pipe")
    os.mknod(tmp_path / "device", 0o600 | 0o020000, os.makedev(1, 3))
    (tmp_path / "file").touch()
    before = os.stat(tmp_path / "file").st_atime_ns
    for name in ("pipe", "device", "file"):
        with pytest.raises(HostError, match="is not a network namespace"):
            open_namespace(NetnsAddress(path=str(tmp_path / name)), policy)
    assert os.stat(tmp_path / "file").st_atime_ns == before


def test_the_namespace_of_the_first_process_is_the_hosts(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also if reconciler runs in another one: here a namespace stands for the host's."""
    name = kernel.namespace()
    monkeypatch.setattr(reach, "_HOST", f"/run/netns/{name}")
    with (
        process_in(name) as pid,
        pytest.raises(RefusedError, match="is the namespace of the host itself, which no policy allows"),
        connect(Sandbox(id="a", driver=NetnsAddress(pid=pid)), POLICY),
    ):
        pass


# Devices


def physical() -> str:
    """Return a NIC of this host with hardware behind it."""
    found = sorted(each.parent.name for each in Path("/sys/class/net").glob("*/device"))
    if not found:
        pytest.skip("this host has no physical NIC")
    return found[0]


def test_what_is_physical_is_so_by_the_system_as_well(kernel: Kernel) -> None:
    lower = kernel.tap()
    made = {*kernel.veth(), kernel.device("type", "ifb"), kernel.device("type", "bridge"), lower}
    made.add(kernel.device("link", lower, "type", "macvlan"))
    with local_engine() as host:
        links = {link.name: link for link in host.links()}
    assert not [name for name in made if links[name].physical]
    found = {each.parent.name for each in Path("/sys/class/net").glob("*/device")}
    assert {name for name, link in links.items() if link.parent} == found
    assert {name for name in found if not links[name].physical} == set()


def test_a_nic_of_the_host_is_not_given_away(
    kernel: Kernel, tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = physical()
    nic = NIC | {"device": device}
    file = write(tmp_path / "m.yaml", {"netns": {"name": kernel.namespace()}}, interfaces=[nic])
    assert main(["diff", file]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"web-1: refused: {file}:6:")
    assert line.partition(": interfaces")[2] == (
        f"[0].device: {device} is a physical device of this host, and sandbox web-1 may not have it; "
        f"to allow it, add to {policy}: physicalDevices: {{web-1: [{device}]}}"
    )
    obey(line, policy)
    # Only `diff`, as the tests need that NIC.
    assert main(["diff", file]) == 1
    assert f"ip link set dev {device} netns" in capsys.readouterr().out


def test_nor_is_a_device_that_may_be_its_vpn(
    kernel: Kernel, tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = kernel.tap("mode", "tun")
    nic = {"name": "vpn0", "device": device, "mtu": 1500, "addresses": ["10.9.0.2/24"]}
    file = write(tmp_path / "m.yaml", {"netns": {"name": kernel.namespace()}}, interfaces=[nic])
    for command in ("diff", "apply"):
        assert main([command, file]) == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert line.partition(": interfaces")[2] == (
            f"[0].device: {device} is a device of this host without a MAC address, and sandbox web-1 may not have it; "
            f"to allow it, add to {policy}: physicalDevices: {{web-1: [{device}]}}"
        )
    obey(line, policy)
    assert main(["apply", file]) == 0
    # What is there stays.
    policy.unlink()
    assert main(["diff", file]) == 0


def test_nor_by_a_runtime(evil: Path, policy: Path, root: None, capsys: pytest.CaptureFixture[str]) -> None:
    nic = NIC | {"device": physical(), "addresses": ["10.0.0.2/16"]}
    write_policy(policy, runtimes=[str(evil)])
    file = write(evil.parent / "m.yaml", {"kata": {"id": "a", "runtime": str(evil)}}, interfaces=[nic])
    for command in ("diff", "apply"):
        assert main([command, file]) == 3
        assert "is a physical device of this host" in capsys.readouterr().err
    assert not (evil.parent / "trace").exists()


def test_nor_to_a_machine(guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nic = NIC | {"device": physical(), "addresses": ["10.0.0.2/16"]}
    file = write(tmp_path / "m.yaml", {"vm": {"name": guest.sandbox.name}}, interfaces=[nic])
    for command in ("diff", "apply"):
        assert main([command, file]) == 3
        assert "is a physical device of this host" in capsys.readouterr().err


def test_devices_by_sandbox(kernel: Kernel, tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = kernel.tap()
    nic = NIC | {"device": device}
    file = write(tmp_path / "m.yaml", {"netns": {"name": kernel.namespace()}}, interfaces=[nic])
    for patterns in ({}, {"web-2": ["*"]}, {"web-*": ["eth?", f"{device}x"]}):
        write_policy(policy, devices=patterns)
        for command in COMMANDS:
            assert main([command, file]) == 3
            said = capsys.readouterr().err
            assert f"sandbox web-1 may not have the device {device} of this host; to allow it, change line" in said
    obey(said, policy)
    assert main(["apply", file]) == 0
    # In place, it stays by the same pattern.
    assert main(["diff", file]) == 0


# Lines


def test_every_line_that_a_message_names_is_right(
    kernel: Kernel, tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever stands in the policy already: with it, the manifest is valid."""
    nic = NIC | {"device": "tap 1".replace(" ", "-"), "addresses": ["10.0.0.2/16"]}
    drivers: list[dict[str, Any]] = [
        {"netns": {"name": "6e7"}},
        {"netns": {"path": "/srv/ns of web/a"}},
        {"netns": {"path": "/srv/ü#: [x], {y}/a"}},
        {"netns": {"path": "/a"}},
        {"netns": {"pid": 4194303}},
        {"vm": {"name": "web-1"}},
        {"vm": {"agent": "/srv/a: b/a.sock", "qmp": "/opt/q.sock"}},
        {"kata": {"id": "a"}},
        {"kata": {"id": "a", "runtime": "/no/such program, \"quoted\" 'x'"}},
    ]
    strict: list[dict[str, Any]] = [
        {},
        {
            "drivers": [],
            "namespaces": {"folders": [], "processes": False},
            "sockets": [],
            "runtimes": [],
            "devices": {},
        },
        {"namespaces": {"folders": ["/srv/other"]}, "devices": {"*": ["eth?"], "web-1": ["tap2"]}},
        {"namespaces": {"processes": False}, "drivers": ["netns"]},
    ]
    for fields in strict:
        for driver in drivers:
            policy.unlink(missing_ok=True)
            if fields:
                write_policy(policy, **fields)
            file = write(tmp_path / "m.yaml", driver, interfaces=[nic])
            code = main(["validate", file])
            said = capsys.readouterr().err
            if code == 3:
                obey("\n".join(line for line in said.splitlines() if "to allow it, " in line), policy)
                assert main(["validate", file]) == 0, (fields, driver, policy.read_text())
            else:
                assert code == 0, said


def test_each_refusal_has_its_line(tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_policy(policy, devices={"web-1": []})
    file = write(tmp_path / "m.yaml", {"vm": {"agent": "/a/a", "qmp": "/b/q"}}, interfaces=[NIC | {"device": "tap0"}])
    assert main(["diff", file]) == 3
    device = "sandbox web-1 may not have the device tap0 of this host; "
    device += f"to allow it, change lines 1 to 2 of {policy} to: devices: {{web-1: [tap0]}}"
    sockets = f"to allow it, add to {policy}: sockets: [/run, /b, /a]"
    assert capsys.readouterr().err.splitlines() == [
        f"web-1: refused: {file}:4:15: driver.vm.agent: no socket in /a may be used; the same line allows it",
        f"web-1: refused: {file}:4:26: driver.vm.qmp: no socket in /b may be used; {sockets}",
        f"web-1: refused: {file}:6:64: interfaces[0].device: {device}",
    ]


def test_a_manifest_of_many_refusals_is_answered_shortly(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nics = [
        NIC
        | {"name": f"e{number}", "device": f"tap{number}", "hwAddr": f"02:00:00:00:00:{number:02x}"}
        | {"vhostUserSocket": f"/s{number}/{'x' * 90}/s"}
        for number in range(256)
    ]
    for patterns in ({}, {f"sandbox-{number}": ["tap-*"] for number in range(1000)}):
        write_policy(policy, devices=patterns)
        file = write(tmp_path / "m.yaml", {"vm": {"name": "none"}}, interfaces=nics)
        for command in COMMANDS:
            assert main([command, file]) == 3
            said = capsys.readouterr().err
            assert "and 246 more that the policy does not allow" in said
            assert len(said) < 20_000


def test_the_line_for_a_folder_that_leads_elsewhere_is_right(
    kernel: Kernel, tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = Path(f"/run/{kernel.prefix}")
    link.symlink_to(tmp_path)
    try:
        with served(tmp_path / "q.sock"), served(tmp_path / "a.sock"):
            file = write(tmp_path / "m.yaml", {"vm": {"agent": f"{link}/a.sock", "qmp": f"{link}/q.sock"}})
            for command in COMMANDS:
                assert main([command, file]) == 3
                said = capsys.readouterr().err
                assert f"driver: {link}/a.sock leads to {tmp_path}, which" in said.replace("refused: ", "")
            obey(said, policy)
            assert main(["validate", file]) == 0
            # Nothing there is a machine.
            assert main(["diff", file]) == 2
    finally:
        link.unlink()


def test_a_path_of_a_process_is_opened_as_it_is_judged(kernel: Kernel, tmp_path: Path) -> None:
    """The working folder of a process is its own choice, and what is beside it, too."""
    (tmp_path / "cwd").mkdir()
    (tmp_path / "ns").mkdir()
    (tmp_path / "ns" / "net").symlink_to(f"/run/netns/{kernel.namespace()}")
    with subprocess.Popen(["sleep", "1000"], cwd=tmp_path / "cwd") as process:
        try:
            with pytest.raises(RefusedError, match="is the namespace that reconciler itself runs in"):
                open_namespace(NetnsAddress(path=f"/proc/{process.pid}/cwd/../ns/net"), Policy())
        finally:
            process.kill()
