"""The runner: it runs commands of the host in the guest. Only the project's own image has it: it is a root shell.

    runner.py

It speaks the frames of agent.py over a port of its own, and runs one command at a time. Nothing in it grows without
bounds, and it always reads the port. For that, the host sends at most WINDOW bytes of input more than the command has
read (CREDIT reports what it has read), and the runner reads output from the command only as fast as the host takes it.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct

from reconciler.guest.agent import CHUNK, HEADER, Port, PortServer, open_port, serve, unknown_kind

# The name of the runner's virtio-serial port.
PORT = "reconciler.exec"

# Kinds of frames that the host sends. They go with those of agent.py, so no number is used twice.
RUN = 16  # the words of a command, with zero bytes between them; begins a request
STDIN = 17  # input of the command; no bytes: its end

# Kinds of frames that the runner sends, all with the id of the request.
STDOUT = 48  # output
STDERR = 49  # error output
CREDIT = 50  # CREDIT_BODY
ALIVE = 51  # nothing: a silent command still runs; every agent.TICK
EXIT = 52  # EXIT_BODY; ends the request

# Bytes of input that the command has read, or that nobody will read, since the last CREDIT.
CREDIT_BODY = struct.Struct("!I")
# The exit status.
EXIT_BODY = struct.Struct("!i")

# Bytes of input that may be on their way to the command.
WINDOW = 256 << 10

# Exit statuses of a shell.
NOT_FOUND = 127
NOT_EXECUTABLE = 126
BY_SIGNAL = 128  # plus the number of the signal


class RunningCommand:
    """A command and its streams. `outputs` maps open descriptors to the kind of their frames, STDOUT or STDERR."""

    def __init__(self, request: int, words: list[bytes]) -> None:
        """Start the command. OSError if that fails."""
        pipes = [os.pipe(), os.pipe(), os.pipe()]
        ours, theirs = [pipes[0][1], pipes[1][0], pipes[2][0]], [pipes[0][0], pipes[1][1], pipes[2][1]]
        try:
            child = os.posix_spawnp(
                words[0],
                words,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(theirs)],
                setsid=True,
                # Python ignores SIGPIPE, and the command would inherit that.
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
        self.request = request
        # Readable when the process has ended.
        self.handle = os.pidfd_open(child)
        self.exited = False
        self.outputs = {ours[1]: STDOUT, ours[2]: STDERR}
        self._child = child
        # None: closed.
        self._stdin: int | None = ours[0]
        # Input that the command has not read, and whether that is the last of it.
        self._waiting = bytearray()
        self._ended = False

    def sources(self) -> list[tuple[int, int]]:
        """Return what to poll besides the outputs: descriptors, each with its poll events."""
        found = [] if self.exited else [(self.handle, select.POLLIN)]
        if self._stdin is not None and (self._waiting or self._ended):
            found.append((self._stdin, select.POLLOUT))
        return found

    def add_input(self, data: bytes) -> int:
        """Add input, or b"" for its end. Return how many of the bytes nobody will read."""
        if self._stdin is None or self._ended:
            return len(data)
        if len(self._waiting) + len(data) > WINDOW:
            raise OSError(errno.ENOBUFS, f"the host sent more than {WINDOW} bytes of input ahead")
        self._waiting += data
        self._ended = not data
        return 0

    def write_input(self) -> int:
        """Write input to the command. Return how many bytes do not wait any more."""
        assert self._stdin is not None
        done = len(self._waiting)
        try:
            if self._waiting:
                done = os.write(self._stdin, self._waiting)
        except BlockingIOError:
            return 0
        except OSError:
            # The command has closed its input.
            self._ended = True
        del self._waiting[:done]
        if self._ended and not self._waiting:
            os.close(self._stdin)
            self._stdin = None
        return done

    def read_output(self, output: int) -> bytes:
        """Read one of the outputs. b"" at its end, which closes it."""
        data = os.read(output, CHUNK - HEADER.size)
        if not data:
            os.close(output)
            del self.outputs[output]
        return data

    def is_done(self) -> bool:
        """Return whether the command has ended and its output is read. Its children may keep an output open."""
        return self.exited and not (self.outputs and select.select(list(self.outputs), [], [], 0)[0])

    def end(self) -> int:
        """Kill the command if it still runs, and close its streams. Return its exit status."""
        if not self.exited:
            os.killpg(self._child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        for descriptor in (self.handle, *self.outputs, *(() if self._stdin is None else (self._stdin,))):
            os.close(descriptor)
        return status if status >= 0 else BY_SIGNAL - status


class Runner(PortServer):
    """Runs commands for the host, one at a time."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self._command: RunningCommand | None = None

    def reset(self) -> None:
        """Kill the command of the host that is gone."""
        if self._command:
            self._command.end()
        self._command = None

    def handle(self, request: int, kind: int, payload: bytes) -> None:
        """Start a command, or add to its input."""
        command = self._command
        if kind == RUN:
            if command:
                raise OSError(errno.EBUSY, "another command is still running")
            self._start(request, payload.split(b"\0"))
        elif kind != STDIN:
            raise unknown_kind(kind)
        elif command and command.request == request:
            unwanted = command.add_input(payload)
            if unwanted:
                self.port.push(request, CREDIT, CREDIT_BODY.pack(unwanted))

    def _start(self, request: int, words: list[bytes]) -> None:
        try:
            self._command = RunningCommand(request, words)
        except OSError as error:
            status = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
            text = words[0] + f": {os.strerror(error.errno or errno.EIO)}\n".encode()
            self.port.push(request, STDERR, text)
            self.port.push(request, EXIT, EXIT_BODY.pack(status))

    def sources(self) -> list[tuple[int, int]]:
        """Return what to poll for the command. Its outputs only when the host has taken what was read before."""
        if not self._command:
            return []
        outputs = () if self.port.pending else self._command.outputs
        return [*self._command.sources(), *((output, select.POLLIN) for output in outputs)]

    def ready(self, source: int) -> None:
        """Carry output to the host or input to the command, or note that the command has ended."""
        command = self._command
        if not command:
            return
        if source == command.handle:
            command.exited = True
        elif source in command.outputs:
            kind = command.outputs[source]
            data = command.read_output(source)
            if data:
                self.port.push(command.request, kind, data)
        else:
            done = command.write_input()
            if done:
                self.port.push(command.request, CREDIT, CREDIT_BODY.pack(done))

    def tick(self, *, idle: bool) -> None:
        """Report the exit status once the command has ended and its output is read; or that a silent command runs."""
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
