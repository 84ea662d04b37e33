"""The Python binding of libvirt: where it is, and calls that end in time, with our own errors.

It is imported only for manifests that name a domain. libvirt's calls have no deadline, so each connection has a thread
that calls; who waits for it in vain leaves it behind.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from reconciler.errors import BusyError, ChannelError, HostError, ReconcilerError, SandboxGoneError
from reconciler.values import NamedTuple

# Where Debian's package python3-libvirt puts it. An environment of its own does not look there.
_DEBIAN = "/usr/lib/python3/dist-packages"
# Seconds for a call. libvirt itself gives an unplug 5 s.
TIMEOUT = 10.0
# Seconds to connect, and for each look: libvirtd answers in milliseconds.
SHORT_TIMEOUT = 4.0
# Seconds for an answer of QEMU's agent, and those in which libvirt has it show before that it is there.
_AGENT_TIMEOUT, _AGENT_SYNC_TIMEOUT = 10, 6.0
# Characters of libvirt's words.
_WORDS = 1024

# The second one of each imports the first one.
_MODULES = {"libvirt": ("libvirtmod", "libvirt"), "libvirt_qemu": ("libvirtmod_qemu", "libvirt_qemu")}

# A module that another thread is importing by its path looks complete.
_loading = Lock()

T = TypeVar("T")


class LibvirtError(HostError):
    """libvirt refused a call. `code` is that of virterror.h."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(f"libvirt: {text[:_WORDS]}")
        self.code = code


class NoBindingError(HostError):
    """The Python binding is not installed."""


class NoLibvirtError(HostError):
    """No libvirtd can be connected to."""


class LostError(ChannelError):
    """libvirtd has ended, perhaps to start again. Whether it did what it was asked is unknown. `why`: its own words."""

    def __init__(self, uri: str, why: str) -> None:
        super().__init__(f"the connection to libvirt ({uri}) was lost: {why}")
        self.why = why


def load() -> Any:
    """Return the module. NoBindingError if it is not installed. Any thread may call it."""
    libvirt = _load("libvirt")
    # Without this, libvirt prints each error by itself.
    libvirt.registerErrorHandler(lambda *_: None, None)
    return libvirt


def _load(name: str) -> Any:
    with _loading:
        try:
            return import_module(name)
        except ImportError:
            return _load_from_debian(name)


def _load_from_debian(wanted: str) -> Any:
    try:
        *_, found = map(_import_from_debian, _MODULES[wanted])
    except ImportError:
        for name in _MODULES[wanted]:
            sys.modules.pop(name, None)
        raise NoBindingError(
            "the Python binding of libvirt is missing: install the Debian package python3-libvirt (with Debian's own "
            "Python), or `pip install 'reconciler[libvirt]'` (which needs gcc, pkg-config and libvirt-dev)"
        ) from None
    return found


def _import_from_debian(name: str) -> Any:
    # Of another Python, the first module is not found, as the name of its file has the version.
    spec = PathFinder.find_spec(name, [_DEBIAN])
    if spec is None or spec.loader is None:
        raise ImportError(name)
    sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


class Active(NamedTuple):
    """A domain that runs. `number` is another one after each start."""

    uuid: str
    name: str
    number: int
    xml: str = ""


class Connection:
    """A connection to libvirt, from `__init__` to `close`. For one thread."""

    def __init__(self, uri: str) -> None:
        """Connect. NoLibvirtError if that is impossible, ChannelError if libvirt does not answer."""
        self.module = load()
        self._uri = uri
        self._requests: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[tuple[Any, BaseException | None]]] | None]
        self._requests = SimpleQueue()
        Thread(target=self._serve, name="libvirt", daemon=True).start()
        try:
            self._connection: Any = self.call(lambda: self.module.open(uri), SHORT_TIMEOUT)
        except (LibvirtError, LostError) as error:
            self.close()
            why = error.why if isinstance(error, LostError) else str(error)
            raise NoLibvirtError(
                f"cannot connect to {uri}: {why}; does libvirtd run, and may this user use it?"
            ) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect. That ends with the thread, which may be waiting for libvirt."""
        self._requests.put(None)

    def call(self, function: Callable[[], T], timeout: float = SHORT_TIMEOUT) -> T:
        """Call a function of libvirt. LibvirtError if it refuses, ChannelError if it takes too long."""
        answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._requests.put((function, answers))
        try:
            answer, error = answers.get(timeout=timeout)
        except Empty:
            raise ChannelError(f"libvirt ({self._uri}) did not answer within {timeout:.0f} s") from None
        if error is not None:
            raise self._translated(error) if isinstance(error, self.module.libvirtError) else error
        result: T = answer
        return result

    def domain(self, name: str, uuid: str | None) -> Any:
        """Return a domain by its UUID, or else by its name. SandboxGoneError if there is none."""
        found = self._connection
        if uuid:
            return self.call(lambda: found.lookupByUUIDString(uuid))
        return self.call(lambda: found.lookupByName(name))

    def ask_guest_agent(self, domain: Any, text: str) -> str:
        """Send a command to QEMU's agent in a domain. Return its answer. LibvirtError if there is none."""
        module = _load("libvirt_qemu")
        return self.call(
            lambda: str(module.qemuAgentCommand(domain, text, _AGENT_TIMEOUT, 0)), _AGENT_TIMEOUT + _AGENT_SYNC_TIMEOUT
        )

    def active(self, described: Callable[[Active], bool] = lambda _: False) -> dict[str, Active]:
        """Return the domains that run, by their UUIDs. `described`: of which the XML is read as well."""

        def ask() -> dict[str, Active]:
            domains = self._connection.listAllDomains(self.module.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            found = {each: Active(each.UUIDString(), each.name(), each.ID()) for each in domains}
            return {
                active.uuid: active._replace(xml=self._describe(domain)) if described(active) else active
                for domain, active in found.items()
            }

        return self.call(ask)

    def _describe(self, domain: Any) -> str:
        """Return the XML of a domain; "" if it has just ended."""
        try:
            return str(domain.XMLDesc(0))
        except self.module.libvirtError:
            return ""

    def _serve(self) -> None:
        while request := self._requests.get():
            function, answers = request
            try:
                answers.put((function(), None))
            except BaseException as error:  # noqa: BLE001 (for the thread that waits for the answer)
                answers.put((None, error))
        # The last reference closes the connection, in this thread.
        self._connection = None

    def _translated(self, error: Any) -> ReconcilerError:
        code, text = error.get_error_code(), str(error.get_error_message() or error).strip()
        module = self.module
        if error.get_error_domain() in {module.VIR_FROM_RPC, module.VIR_FROM_REMOTE}:
            return LostError(self._uri, text[:_WORDS])
        if code == module.VIR_ERR_NO_DOMAIN:
            return SandboxGoneError(f"libvirt ({self._uri}): {text}; `virsh list --all` lists those that there are")
        if code == module.VIR_ERR_OPERATION_INVALID and "not running" in text:
            return SandboxGoneError(f"libvirt ({self._uri}): {text}")
        if code == module.VIR_ERR_OPERATION_TIMEOUT:
            return BusyError(f"libvirt ({self._uri}): {text}; try again later")
        return LibvirtError(text, code)
