"""Fixtures that give a test real namespaces, devices and a virtual machine, and take them away again."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from reconciler import rundir
from reconciler.guest import launch, lend
from reconciler.guest.client import AgentClient
from reconciler.values import dataclass, field
from tests import allowed, resumed
from tests import uml as user_mode
from tests.examples import examples
from tests.host import Host, started
from tests.isolated import isolate
from tests.libvirt.daemon import Daemon, booted
from tests.libvirt.daemon import domain as domain_xml
from tests.machine import Guest, Machine
from tests.resumed import USUAL
from tests.uml import KERNEL, Uml
from tests.uml.machine import UmlMachine

# The environment names a guest that runs already: each mutation of tests/mutations.py is a process, and a boot would
# cost it most.
GUEST = "TESTED_GUEST"

# Property tests take a quarter of the usual examples; `make soak` has --hypothesis-profile=thorough.
_DATABASE = {} if os.access(Path(__file__).parents[1], os.W_OK) else {"database": None}
_FAST = 25
hypothesis.settings.register_profile("fast", max_examples=_FAST, deadline=None, **_DATABASE)
hypothesis.settings.register_profile("thorough", max_examples=1000, deadline=None, **_DATABASE)
hypothesis.settings.load_profile("fast")

_numbers = itertools.count()
# What a host has once, and the tests that need it: the ID of kata-runtime's document, and its TAP, which the demo has
# as well. Of what files say, such as a watcher's lock, each process has its own: see tests/isolated.py.
_HOST = {
    "container": ("tests/kata/", "tests/system/test_examples.py"),
    "libvirt": ("tests/libvirt/",),
    # One cluster of etcd for all of them.
    "etcd": ("tests/fleet/test_",),
}
# Kinds of sandboxes in which the same tests run, as these name them.
_PLACES = ("netns", "vm", "libvirt", "kata")
# In a machine without KVM a test takes twenty times as long as in a namespace; the messages to the kernel are the same,
# and tests/completeness and tests/vm are about the machine. One process has a libvirtd and a domain, in which only the
# ways of NICs differ. Over kata-runtime a test takes several processes for each look, and only the words differ, which
# tests/kata is about. So `make test` runs these of the suites that the kinds share, and `make soak` all.
_LIBVIRT = "libvirt"
_SHARED = ("tests/ipvs/", "tests/system/")
_IN_PART = {
    "vm": (
        "tests/ipvs/",
        "tests/system/test_checks.py::test_what_began_to_fail_undoes_the_change[",
        "tests/system/test_derived.py::test_one_apply_brings_back_what_there_was[",
        "tests/system/test_fields.py::test_a_link_that_is_down_comes_up_with_all_it_lost[",
        "tests/system/test_fields.py::test_a_route_field[vm-route1-",
        "tests/system/test_fields.py::test_a_route_field[vm-route10-",
        "tests/system/test_fields.py::test_addresses[vm-after2-",
        "tests/system/test_fields.py::test_device[",
        "tests/system/test_fields.py::test_mac[",
        "tests/system/test_fields.py::test_mtu[",
        "tests/system/test_fields.py::test_name[",
        "tests/system/test_fields.py::test_queues_that_the_device_does_not_have_are_refused[",
        "tests/system/test_ownership.py::test_a_foreign_name_is_not_taken[",
        "tests/system/test_ownership.py::test_drift_is_repaired_by_one_apply[",
        "tests/system/test_ownership.py::test_others_are_untouched[",
        "tests/system/test_ownership.py::test_what_show_prints_is_what_is_there[",
        "tests/system/test_limit.py::test_the_limit_counts_each_kind_by_itself[",
        "tests/system/test_sysctl.py::test_a_nic_has_them_from_the_beginning[",
        "tests/system/test_sysctl.py::test_ipv6_is_turned_off_and_on[",
        "tests/system/test_sysctl.py::test_the_kernel_changes_along_what_the_model_says[",
    ),
    _LIBVIRT: (
        "tests/system/test_ownership.py::test_others_are_untouched[",
        "tests/system/test_ownership.py::test_what_show_prints_is_what_is_there[",
        "tests/system/test_fields.py::test_device[",
        "tests/ipvs/test_ownership.py::test_adopt_takes_the_table_whole[",
    ),
    "kata": (
        "tests/system/test_ownership.py::test_others_are_untouched[",
        "tests/system/test_ownership.py::test_what_show_prints_is_what_is_there[",
        "tests/system/test_fields.py::test_a_route_field[kata-route1-",
        "tests/system/test_fields.py::test_a_route_field[kata-route10-",
        "tests/system/test_fields.py::test_addresses[",
        "tests/system/test_fields.py::test_device[",
        "tests/system/test_fields.py::test_mac[",
        "tests/system/test_fields.py::test_mtu[",
        "tests/system/test_fields.py::test_name[",
        "tests/system/test_limit.py::test_the_limit_counts_each_kind_by_itself[",
        "tests/ipvs/test_features.py::test_each_field_alone_and_back[",
        "tests/ipvs/test_ownership.py::test_what_is_excluded_is_never_touched[kata-options0",
        "tests/ipvs/test_round_trip.py::test_what_ipvsadm_saves_is_applied_and_saved_again_line_by_line[",
    ),
}
# Mostly waits, so it goes well beside what computes.
_WAITING = "tests/watch/"


# Fixtures that need the rights of root. Each is a marker of the same name; the first that a test uses is its reason.
_PRIVILEGED = {
    "guest": "needs root: runs a virtual machine",
    "uml": "needs root: runs User-mode Linux",
    "daemon": "needs root: runs libvirtd",
    "kernel": "needs root: changes network namespaces",
    "root": "needs root",
}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, isolate this process, and let Ctrl-C reach the commands of tests.

    Whatever a shell starts in the background ignores it, with all that it starts.
    """
    # The guest that runs already is in the mounts of who started it.
    if os.geteuid() == 0 and GUEST not in os.environ:
        isolate()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, reason in _PRIVILEGED.items():
        config.addinivalue_line("markers", f"{name}: {reason}; set for every test that uses the fixture {name}")
    config.addinivalue_line("markers", "repeats: does a thing more often in `make soak`; set by the fixture repeats")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their fixtures, and sort long groups first, so that short ones fill what is left of the run."""
    _leave_for_soak(config, items)
    ranks: dict[str, int] = {}
    for item in items:
        used = _fixtures(item)
        group = _group(item.nodeid)
        rank = 0 if group in _HOST else 1 if "guest" in used else 2 if used & _PRIVILEGED.keys() else 3
        ranks[group] = min(rank, ranks.get(group, rank))
        if "repeats" in used:
            item.add_marker("repeats")
        found = [name for name in _PRIVILEGED if name in used]
        if not found:
            continue
        # Some fixtures ask for `root` only when they begin.
        item.add_marker("root")
        for name in found:
            item.add_marker(name)
        if os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason=_PRIVILEGED[found[0]]))
    items.sort(key=lambda item: (ranks[_group(item.nodeid)], not item.nodeid.startswith(_WAITING)))


def _leave_for_soak(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the shared tests of a kind that only `make soak` runs, and leave them out otherwise, unless one is named."""
    named = any("[" in word for word in config.args)
    left = [
        each
        for each in items
        if each.nodeid.startswith(_SHARED)
        and (kept := _IN_PART.get(_place(each.nodeid))) is not None
        and not each.nodeid.startswith(kept)
    ]
    for each in left:
        each.add_marker("repeats")
    if left and not named and hypothesis.settings().max_examples <= _FAST:
        items[:] = [each for each in items if each not in left]
        config.hook.pytest_deselected(items=left)


def _fixtures(item: pytest.Item) -> set[str]:
    """Return the names of the fixtures of a test. One that runs in a machine asks for `guest` when it begins."""
    used = set(getattr(item, "fixturenames", ()))
    place = _place(item.nodeid)
    if "root" in used and place == _LIBVIRT:
        return used | {"daemon"}
    if "root" in used and place == "netns" and "where" in used:
        # A namespace with a table of IPVS.
        return used | {"uml"}
    return used | {"guest"} if "root" in used and place in {"vm", "kata"} else used


def _place(nodeid: str) -> str:
    """Return the kind of sandbox that a test is in, "" if its parameters name none."""
    first = nodeid.partition("[")[2].rstrip("]").partition("-")[0]
    return first if first in _PLACES else ""


def _group(nodeid: str) -> str:
    """Return the group of a test. Those of one group run in one process.

    A group is what needs the same that a host has once, or a file or class with its fixtures, for one kind of sandbox.
    """
    for name, beginnings in _HOST.items():
        if nodeid.startswith(beginnings):
            return name
    place = _place(nodeid)
    if place == _LIBVIRT:
        return place
    return nodeid.partition("[")[0].rpartition("::")[0] + (f"[{place}]" if place else "")


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Distributes whole groups."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


def pytest_xdist_auto_num_workers() -> int:
    """Return three a core, as tests wait half of their time; each has a guest, of some 400 MB."""
    return min(3 * len(os.sched_getaffinity(0)), 8)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


def ip(*words: str, namespace: str | None = None, stdin: str = "") -> str:
    """Run `ip`, in a namespace if one is named; give its output."""
    within = ["-n", namespace] if namespace else []
    return subprocess.run(["ip", *within, *words], check=True, capture_output=True, text=True, input=stdin).stdout


@dataclass
class Kernel:
    """Makes namespaces and devices under names of their own, and removes them at the end."""

    prefix: str = field(default_factory=lambda: f"r{os.getpid()}x{next(_numbers)}")
    _namespaces: list[str] = field(default_factory=list)
    _devices: list[str] = field(default_factory=list)

    def namespace(self) -> str:
        name = f"{self.prefix}n{len(self._namespaces)}"
        ip("netns", "add", name)
        self._namespaces.append(name)
        return name

    def tap(self, *options: str) -> str:
        name = f"{self.prefix}t{len(self._devices)}"
        ip("tuntap", "add", "dev", name, *(() if "mode" in options else ("mode", "tap")), *options)
        self._devices.append(name)
        return name

    def veth(self) -> tuple[str, str]:
        """Make a pair: the one to give away, and its peer on the host."""
        name = f"{self.prefix}v{len(self._devices)}"
        peer = f"{self.prefix}p{len(self._devices)}"
        ip("link", "add", name, "type", "veth", "peer", "name", peer)
        self._devices += [name, peer]
        return name, peer

    def device(self, *options: str) -> str:
        """Make a device with these options of `ip link add`."""
        name = f"{self.prefix}d{len(self._devices)}"
        ip("link", "add", name, *options)
        self._devices.append(name)
        return name

    def adopt(self, *devices: str) -> None:
        """Remove these devices at the end as well."""
        self._devices += devices

    def adopt_namespace(self, name: str) -> None:
        """Remove this namespace at the end as well."""
        self._namespaces.append(name)

    def remove(self) -> None:
        for name in self._namespaces:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        for name in self._devices:
            subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)


@pytest.fixture(scope="session")
def root() -> None:
    """Mark a test that needs the rights of root; pytest_collection_modifyitems skips it where they are missing."""


@pytest.fixture(autouse=True)
def _rundir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the locks into a folder of the test's own where the real one, which is root's, cannot be used."""
    if os.geteuid() != 0:
        own = tmp_path_factory.mktemp("rundir")
        monkeypatch.setattr(rundir, "ROOT", str(own))
        monkeypatch.setattr(lend, "FOLDER", str(own / "lend"))


@pytest.fixture
def kernel(root: None) -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.remove()


@pytest.fixture(scope="session", autouse=True)
def _policy() -> Iterator[None]:
    """Let the operator of this host allow what tests name outside of the defaults: `tests.allowed` has the policy.

    That holds for commands within this process; those that are started get --policy.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reconciler.manifest.policy.POLICY_FILE", allowed.FILE)
        yield


@pytest.fixture(scope="session")
def user_namespaces() -> None:
    """Skip where nobody may have user namespaces: in a chroot (user_namespaces(7)), and in many containers."""
    probe = subprocess.run(
        ["unshare", "--user", "--map-root-user", "true"], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"needs user namespaces: {probe.stderr.strip()}")


@pytest.fixture(scope="session")
def open_checkout(root: None) -> None:
    """Skip where another user cannot run what is in this checkout, such as one below /root."""
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", "import reconciler"]
    folder = str(Path(__file__).parents[1])
    probe = subprocess.run(words, capture_output=True, check=False, cwd="/", env={**os.environ, "PYTHONPATH": folder})
    if probe.returncode:
        pytest.skip(f"needs a checkout that other users can read: {folder} is none")


@pytest.fixture
def repeats() -> Callable[[int], int]:
    """Return what scales a number of repetitions: a quarter in `make test`, ten times as many in `make soak`."""
    return examples


@pytest.fixture
def repository() -> Path:
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def guest(root: None) -> Iterator[Guest]:
    """The machine of all tests of a process; each leaves it as it was. A second processor would cost a tenth."""
    if name := os.environ.get(GUEST):
        yield Guest(launch.find(name))
        return
    with resumed.started(f"test-{os.getpid()}", resumed.Kind(processors=1)) as made:
        yield made


@pytest.fixture(scope="session")
def uml(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uml]:
    """The User-mode Linux of all tests of a process; each leaves it as it was."""
    with user_mode.started(tmp_path_factory.mktemp("uml")) as made:
        yield made


@pytest.fixture(scope="session")
def machine(root: None, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """User-mode Linux with our agent. If another kernel than its own is asked for, or a guest runs already, a guest."""
    if USUAL.kernel != KERNEL or GUEST in os.environ:
        yield request.getfixturevalue("guest")
        return
    system = request.getfixturevalue("uml")
    with (
        tempfile.TemporaryDirectory(dir="/run") as folder,
        closing(UmlMachine(system, Path(folder, "agent.sock"))) as made,
    ):
        yield made


@pytest.fixture(scope="session")
def daemon(root: None) -> Iterator[Daemon]:
    """Start a libvirtd of its own; tests run in its namespace of mounts."""
    if not shutil.which("libvirtd"):
        pytest.skip("needs libvirtd: `make setup` installs it")
    made = Daemon()
    try:
        with made.entered():
            made.start()
        yield made
    finally:
        made.end()


@pytest.fixture(scope="session")
def _domain(daemon: Daemon) -> Guest:
    with daemon.entered():
        return booted(daemon, "box", domain_xml("box"))


@pytest.fixture
def domain(daemon: Daemon, _domain: Guest) -> Iterator[Guest]:
    """Give the domain of all tests of a process, `box`, which has no channel of the agent; each leaves it as it was."""
    with daemon.entered():
        yield _domain


@pytest.fixture(scope="module")
def host(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Start a host of its own for the tests of a module, whose commands use exact names."""
    with started(tmp_path_factory.mktemp("host")) as made:
        yield made


@pytest.fixture
def client(guest: Guest) -> Iterator[AgentClient]:
    with AgentClient(guest.sandbox.agent) as client:
        yield client
