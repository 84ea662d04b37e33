"""What runs commands in the guest for the host. Only the project's own image has it: it gives the host a root shell.

    runner.py

It speaks the frames of the agent over a port of its own, one command at a time. What the host sends for a command's
input is bounded by credit: the host may be WINDOW bytes ahead of what the command has taken. Output is read from the
command only as the host takes it. So nothing here grows, and the port is read all the time.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct

from reconciler.guest.agent import CHUNK, HEADER, Port, PortServer, open_port, serve, unknown_kind

PORT = "reconciler.exec"

# Kinds of frames: the host's (RUN: words with zero bytes between them; STDIN: empty at the end), and those to it.
RUN, STDIN = 16, 17
STDOUT, STDERR, CREDIT, ALIVE, EXIT = 48, 49, 50, 51, 52
# Bytes of input that were taken; the exit status, or 128 and the number of the signal.
CREDIT_BODY, EXIT_BODY = struct.Struct("!I"), struct.Struct("!i")

WINDOW = 256 << 10
# As a shell says it.
NOT_FOUND, NOT_EXECUTABLE, BY_SIGNAL = 127, 126, 128


class Command:
    """A command that runs, and its streams: `outputs` are open descriptors with the kind of frame of each."""

    def __init__(self, request: int, words: list[bytes]) -> None:
        """Start it. OSError if it cannot be."""
        pipes = [os.pipe(), os.pipe(), os.pipe()]
        ours, theirs = [pipes[0][1], pipes[1][0], pipes[2][0]], [pipes[0][0], pipes[1][1], pipes[2][1]]
        try:
            # Python ignores SIGPIPE; a command must not inherit that.
            child = os.posix_spawnp(
                words[0],
                words,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(theirs)],
                setsid=True,
                setsigdef=[signal.SIGPIPE],
            )
        except OSError:
            for descriptor in ours:
                os.close(descriptor)
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        for descriptor in ours:
            os.set_blocking(descriptor, False)
        self.request, self.child, self.handle = request, child, os.pidfd_open(child)
        self.exited = False
        self.outputs = {ours[1]: STDOUT, ours[2]: STDERR}
        self._stdin, self._waiting, self._ended = ours[0], bytearray(), False

    def sources(self) -> list[tuple[int, int]]:
        """Give what to poll, but for the outputs."""
        found = [] if self.exited else [(self.handle, select.POLLIN)]
        if self._stdin >= 0 and (self._waiting or self._ended):
            found.append((self._stdin, select.POLLOUT))
        return found

    def take(self, data: bytes) -> int:
        """Take input, or its end; give how many bytes of it are for nobody."""
        if self._stdin < 0 or self._ended:
            return len(data)
        if len(self._waiting) + len(data) > WINDOW:
            raise OSError(errno.ENOBUFS, f"more than {WINDOW} bytes of input at once")
        self._waiting += data
        self._ended = not data
        return 0

    def feed(self) -> int:
        """Give the command its input; give the bytes that are gone from here."""
        taken = len(self._waiting)
        try:
            if self._waiting:
                taken = os.write(self._stdin, self._waiting)
        except BlockingIOError:
            return 0
        except OSError:
            # The command has closed its input.
            self._ended = True
        del self._waiting[:taken]
        if self._ended and not self._waiting:
            os.close(self._stdin)
            self._stdin = -1
        return taken

    def read(self, output: int) -> bytes:
        """Read one of the outputs; b"" at its end."""
        data = os.read(output, CHUNK - HEADER.size)
        if not data:
            os.close(output)
            del self.outputs[output]
        return data

    def is_done(self) -> bool:
        """Tell whether it has ended and its output is read. What it left running may hold the output open."""
        return self.exited and not (self.outputs and select.select(list(self.outputs), [], [], 0)[0])

    def end(self) -> int:
        """Kill it if it still runs, and let go of it; give its exit status."""
        if not self.exited:
            os.killpg(self.child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        for descriptor in (self.handle, *self.outputs, *([self._stdin] if self._stdin >= 0 else ())):
            os.close(descriptor)
        return status if status >= 0 else BY_SIGNAL - status


class Runner(PortServer):
    """Runs one command at a time for the host."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self._command: Command | None = None

    def reset(self) -> None:
        """End what runs for the host that left."""
        if self._command:
            self._command.end()
        self._command = None

    def handle(self, request: int, kind: int, payload: bytes) -> None:
        """Start a command, or take input for it."""
        command = self._command
        if kind == RUN:
            if command:
                raise OSError(errno.EBUSY, "a command runs already")
            self._start(request, payload.split(b"\0"))
        elif kind != STDIN:
            raise unknown_kind(kind)
        elif command and command.request == request:
            unwanted = command.take(payload)
            if unwanted:
                self.port.push(request, CREDIT, CREDIT_BODY.pack(unwanted))

    def _start(self, request: int, words: list[bytes]) -> None:
        try:
            self._command = Command(request, words)
        except OSError as error:
            status = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
            words[0] += f": {os.strerror(error.errno or errno.EIO)}\n".encode()
            self.port.push(request, STDERR, words[0])
            self.port.push(request, EXIT, EXIT_BODY.pack(status))

    def sources(self) -> list[tuple[int, int]]:
        """Give what to poll for the command: its output only as the host takes it."""
        if not self._command:
            return []
        outputs = () if self.port.pending else self._command.outputs
        return [*self._command.sources(), *((output, select.POLLIN) for output in outputs)]

    def ready(self, source: int) -> None:
        """Move what can be moved."""
        command = self._command
        if not command:
            return
        if source == command.handle:
            command.exited = True
        elif source in command.outputs:
            kind = command.outputs[source]
            data = command.read(source)
            if data:
                self.port.push(command.request, kind, data)
        else:
            taken = command.feed()
            if taken:
                self.port.push(command.request, CREDIT, CREDIT_BODY.pack(taken))

    def tick(self, *, idle: bool) -> None:
        """Say that a silent command still runs; or, once its output is read, how it ended."""
        command = self._command
        if not command or self.port.pending:
            return
        if command.is_done():
            self._command = None
            self.port.push(command.request, EXIT, EXIT_BODY.pack(command.end()))
        elif idle:
            self.port.push(command.request, ALIVE)


if __name__ == "__main__":
    serve(Runner(open_port(PORT)))
