"""Our command line in a fork of a process that has imported it: a start of its own takes three times as long.

A client stands in for each command. It passes on its arguments, folder, environment and three files, and exits with the
command's status. If the client is killed, so is the command.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

# What the commands of kata-runtime import before or while they run.
_IMPORTED = (
    "reconciler.cli.kata_ipvs",
    "reconciler.cli.kata_network",
    "reconciler.drivers.vm.driver",
    "reconciler.drivers.vm.execute",
    "reconciler.manifest.policy",
    "reconciler.netlink.facts",
    "reconciler.pending",
    "reconciler.plan.machine",
)
# Bytes of a request: arguments, folder and environment.
_LIMIT = 1 << 20
# Imports only what is built into Python.
_CLIENT = """
import marshal, posix, sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socket
server = socket(AF_UNIX, SOCK_SEQPACKET)
server.connect(sys.argv[1])
files = b"".join(each.to_bytes(4, sys.byteorder) for each in range(3))
request = marshal.dumps((sys.argv[2:], posix.getcwd(), posix.environ))
server.sendmsg([request], [(SOL_SOCKET, SCM_RIGHTS, files)])
posix._exit(ord(server.recv(1) or b"\\xff"))
"""


def start(path: Path) -> list[str]:
    """Start the process, which listens at `path` and ends with this one. Return the words that run a command by it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-X", "utf8", "-m", __name__, str(listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            cwd=Path(__file__).parents[1],
        )
    # Closes its stdin, and waits.
    atexit.register(process.communicate)
    return [sys.executable, "-I", "-S", "-c", _CLIENT, str(path)]


def _serve(listener: socket.socket) -> None:
    """Serve each client in a fork, until stdin is closed."""
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    # Nobody waits for the forks.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        client, _ = listener.accept()
        with client:
            if os.fork() == 0:
                listener.close()
                _run(client)


def _run(client: socket.socket) -> None:
    """Run the command of a client in another fork. Send the client its status, or kill it if the client ends first."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, files, _, _ = socket.recv_fds(client, _LIMIT, 3)
    command = os.fork()
    if command == 0:
        client.close()
        _become(request, files)
    ended = os.pidfd_open(command)
    if client.fileno() in select.select([client.fileno(), ended], [], [])[0]:
        os.kill(command, signal.SIGKILL)
    _, status = os.waitpid(command, 0)
    with suppress(BrokenPipeError):
        client.send(bytes([os.waitstatus_to_exitcode(status) & 0xFF]))
    os._exit(0)


def _become(request: bytes, files: list[int]) -> None:
    """Be the command that is asked for."""
    from reconciler.cli.main import entry

    words, folder, environment = marshal.loads(request)
    for to, file in enumerate(files):
        os.dup2(file, to)
        os.close(file)
    # Those of the start know whether other files can be sought, and are terminals.
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(folder)
    os.environb.clear()
    os.environb.update(environment)
    sys.argv[1:] = words
    entry()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
