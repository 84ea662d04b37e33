"""Opens what a manifest names on this host, if the operator's policy allows what it really is.

A path that `manifest.allow` accepts by its text can be a symbolic link, or lead through one. So its folder is resolved,
and has to be below a folder of the policy as well. What is opened there stays open until it is used: a link that is
replaced in between changes nothing. A link in a folder that only root can write is the operator's own word, and is
followed; any other is refused. The host's own namespace is recognised whatever leads to it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from reconciler.errors import HostError, RefusedError, SandboxGoneError
from reconciler.manifest import trusted
from reconciler.manifest.allow import canonical, check, line_for_folder, process_of, refuse_way_out
from reconciler.manifest.files import identity
from reconciler.manifest.whereabouts import OWN, start_of
from reconciler.model.policy import Policy
from reconciler.model.sandbox import DriverAddress, KataAddress, LibvirtAddress, NetnsAddress, Sandbox, VmAddress
from reconciler.model.transport import UnixSocket
from reconciler.netlink.engine import local_engine
from reconciler.wording import quote, reason

_READ = os.O_RDONLY | os.O_CLOEXEC
# The process that the host began with. Its namespace is not ours if this process runs in another one.
_FIRST = "1"
_HOST = f"/proc/{_FIRST}/ns/net"
# Processes that mean the same on every host.
_EVERYWHERE = {"self", "thread-self", _FIRST}


def examine(sandbox: Sandbox, policy: Policy) -> None:
    """Raise RefusedError if the policy does not allow what a sandbox names, as far as this host has it.

    Nothing is connected to or run. Another process is not looked at: manifests can be for another host.
    """
    check(sandbox, policy)
    with suppress(HostError, SandboxGoneError):
        _examine(sandbox.driver, policy)
    for index, each in enumerate(sandbox.interfaces or ()):
        if each.vhost_user_socket:
            with suppress(HostError, SandboxGoneError), about("interfaces", index, "vhostUserSocket"):
                check_socket(each.vhost_user_socket, policy)


def _examine(address: DriverAddress, policy: Policy) -> None:
    match address:
        case NetnsAddress():
            process = process_of(address.file)
            if process is None or (address.pid is None and process in _EVERYWHERE):
                with about("driver"):
                    os.close(open_namespace(address, policy))
        case VmAddress():
            with about("driver"):
                for each in address.sockets:
                    check_socket(each, policy)
        case KataAddress():
            check_program(address)
        case LibvirtAddress():
            # Only libvirt knows its domains.
            pass


@contextmanager
def about(*path: str | int) -> Iterator[None]:
    """Name the field of the manifest in errors about what it names."""
    try:
        yield
    except (HostError, SandboxGoneError, RefusedError) as error:
        error.path = error.path or path
        raise


def open_namespace(address: NetnsAddress, policy: Policy) -> int:
    """Open a namespace, and return its descriptor.

    SandboxGoneError if it does not exist, RefusedError if the policy does not allow it, if it is the host's, or if
    another process has its pid now.
    """
    if process_of(address.file) == _FIRST:
        raise _refused_host(address)
    try:
        namespace = _open_namespace(address, policy)
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        if _is_hidden(address):
            raise HostError(f"{address}: {address.file}: this process is hidden; run this as root") from None
        raise _gone(address) from None
    except OSError as error:
        raise HostError(f"{address}: {address.file}: {reason(error)}") from error
    try:
        _refuse_host(namespace, address)
    except BaseException:
        os.close(namespace)
        raise
    return namespace


def _gone(address: NetnsAddress) -> SandboxGoneError:
    if address.pid is not None:
        return SandboxGoneError(f"there is no process with the pid {address.pid}, whose namespace is the sandbox")
    advice = f"; `ip netns add {quote(address.name)}` makes it" if address.name else ""
    return SandboxGoneError(f"{address} does not exist ({address.file}){advice}")


def _is_hidden(address: NetnsAddress) -> bool:
    """Return whether a process exists that another user cannot see (proc(5): hidepid)."""
    process = process_of(address.file)
    if process is None or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False


def _open_namespace(address: NetnsAddress, policy: Policy) -> int:
    if address.pid is not None:
        return _open_of_process(address)
    if process_of(address.file) is not None:
        # As it was judged: `/proc/4711/cwd/..` is another folder by its text.
        return os.open(canonical(address.file), _READ)
    found = _open_below(address.file, policy.folders, policy, "namespaces")
    try:
        # The file system of namespaces is one for all. Merely to open anything else could have an effect.
        if os.fstat(found).st_dev != os.stat(OWN).st_dev:
            raise HostError(f"{address.file} is not a network namespace; `ip netns` lists those that are")
        return os.open(f"/proc/self/fd/{found}", _READ)
    finally:
        os.close(found)


def _open_of_process(address: NetnsAddress) -> int:
    # The open folder belongs to one process, whoever gets its pid later.
    folder = os.open(f"/proc/{address.pid}", _READ | os.O_DIRECTORY)
    try:
        if address.started is not None and start_of(".", folder) != address.started:
            raise RefusedError(
                f"pid {address.pid} belongs to another process now, which began after the manifest was written; "
                "write the pid of the sandbox's process, and if it is this one, write the file anew"
            )
        return os.open("ns/net", _READ, dir_fd=folder)
    finally:
        os.close(folder)


def _refuse_host(namespace: int, address: NetnsAddress) -> None:
    opened = os.fstat(namespace)
    found = opened.st_dev, opened.st_ino
    # Devices are moved between this namespace and the sandbox's: they must be two.
    if found == identity(OWN):
        raise RefusedError(
            f"{address} is the namespace that reconciler itself runs in, not one of a sandbox; "
            "correct the driver of the manifest"
        )
    # Without CAP_SYS_PTRACE it may not be seen. Then it cannot be opened as that of a process either.
    with suppress(PermissionError):
        host = os.stat(_HOST)
        if found == (host.st_dev, host.st_ino):
            raise _refused_host(address)


def _refused_host(address: NetnsAddress) -> RefusedError:
    return RefusedError(f"{address} is the namespace of the host itself, which no policy allows")


@contextmanager
def open_socket(path: str, policy: Policy) -> Iterator[str]:
    """Yield a path that leads to this very socket, whatever becomes of its own path.

    SandboxGoneError if it does not exist, RefusedError if the policy does not allow it, HostError if it is no socket.
    """
    found = _open_socket(path, policy)
    try:
        yield f"/proc/self/fd/{found}"
    finally:
        os.close(found)


def open_agent(address: VmAddress, policy: Policy) -> AbstractContextManager[str]:
    """Return what yields a path that leads to the socket of an agent, as `open_socket`; "" if it is reached by vsock.

    Of a CID, `manifest.allow` has decided by its number.
    """
    found = address.transport
    return open_socket(found.path, policy) if isinstance(found, UnixSocket) else nullcontext("")


def _open_socket(path: str, policy: Policy) -> int:
    try:
        found = _open_below(path, policy.sockets, policy, "sockets")
    except (FileNotFoundError, NotADirectoryError):
        # Most sandboxes are no machines.
        from reconciler.guest.connection import gone

        raise gone(path) from None
    except OSError as error:
        raise HostError(f"cannot connect to {path}: {reason(error)}") from error
    if stat.S_ISSOCK(os.fstat(found).st_mode):
        return found
    os.close(found)
    raise HostError(f"cannot connect to {path}: it is not a socket")


def check_socket(path: str, policy: Policy) -> None:
    """Raise what `open_socket` raises."""
    with open_socket(path, policy):
        pass


def refuse_physical_devices(desired: Sandbox, policy: Policy) -> None:
    """Raise RefusedError if an interface has a device of the host with hardware behind it that is not allowed."""
    if not desired.interfaces:
        return
    with local_engine() as host:
        for index, wish in enumerate(desired.interfaces):
            link = None if wish.vhost_user_socket or wish.made else host.link(wish.device)
            if link and link.physical:
                refuse_way_out(policy, desired.id, index, wish.device, physical=True)


def _no_program(address: KataAddress) -> HostError:
    return HostError(f"{address.runtime}: no such program; install kata-runtime, or correct driver.kata.runtime")


def check_program(address: KataAddress) -> None:
    """Raise HostError if the program of a runtime does not exist, RefusedError if another user can change it."""
    with about("driver", "kata", "runtime"):
        try:
            with trusted.opened(address.runtime) as found:
                if not stat.S_ISREG(os.fstat(found).st_mode) or not os.access(f"/proc/self/fd/{found}", os.X_OK):
                    raise HostError(f"{address.runtime}: not a program that this user can run")
        except trusted.UntrustedError as error:
            raise RefusedError(
                f"{address.runtime} would be run with all rights, but another user can change it: {error}; "
                "let the program and each folder above it belong to root, and be writable by root only"
            ) from None
        except PermissionError as error:
            raise HostError(f"{address.runtime}: {reason(error)}") from None
        except OSError:
            raise _no_program(address) from None


def _open_below(path: str, folders: Sequence[str], policy: Policy, field: str) -> int:
    """Open what a path leads to with O_PATH. RefusedError if it leads out of the folders. OSError if it is missing."""
    with trusted.locate(path) as entry:
        if not _is_within(entry.real, folders):
            raise RefusedError(
                f"{path} leads to {entry.real}, which is below none of the folders that the policy allows; "
                f"{line_for_folder(policy, field, entry.real)}"
            )
        found = entry.open()
        if not stat.S_ISLNK(os.fstat(found).st_mode):
            return found
        os.close(found)
        if entry.distrust:
            raise RefusedError(
                f"{path} is a symbolic link that another user can change ({entry.distrust}); write what it leads to"
            )
        return os.open(entry.name, os.O_PATH | os.O_CLOEXEC, dir_fd=entry.folder)


def _is_within(real: str, folders: Sequence[str]) -> bool:
    """Return whether a real path is one of these folders, or below one, whatever links the folders are named by."""
    inside = os.path.join(real, "")
    # A folder that is named without links needs not be followed.
    return any(inside.startswith(os.path.join(each, "")) for each in folders) or any(
        inside.startswith(os.path.join(trusted.real_folder(each), "")) for each in folders
    )
