"""A real cluster of three members of etcd with mTLS, which tests may kill, freeze and restart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from reconciler.fleet.etcd.client import Etcd
from reconciler.fleet.etcd.members import Credentials
from reconciler.fleet.etcd.wire import Message
from tests.fleet.certificates import Authority

_LOCAL = Path(__file__).parents[2] / ".etcd" / "usr" / "bin" / "etcd"
_SECONDS = 30
_FLAGS = ("--client-cert-auth", "--peer-client-cert-auth")


def program() -> str | None:
    """Return the path of etcd; None if there is none, and `make setup` installs it."""
    return shutil.which("etcd") or (str(_LOCAL) if _LOCAL.is_file() else None)


class Member:
    """A member. Each port is one of an address of loopback that is this process's alone."""

    def __init__(self, cluster: Cluster, index: int) -> None:
        self.name = f"m{index}"
        self.url = f"https://{cluster.address}:{2379 + 10 * index}"
        self.peer = f"https://{cluster.address}:{2380 + 10 * index}"
        self._cluster, self.folder = cluster, cluster.folder / self.name
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with what it had, if it ran before."""
        cluster = self._cluster
        certificate, key = map(str, cluster.server)
        options = {
            "name": self.name,
            "data-dir": self.folder,
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": self.peer,
            "initial-advertise-peer-urls": self.peer,
            "initial-cluster": ",".join(f"{each.name}={each.peer}" for each in cluster.members),
            "trusted-ca-file": cluster.authority.file,
            "cert-file": certificate,
            "key-file": key,
            "peer-trusted-ca-file": cluster.authority.file,
            "peer-cert-file": certificate,
            "peer-key-file": key,
            "logger": "zap",
            "log-level": "error",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        with (cluster.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                # It ends with the thread that starts it, however that ends: `Cluster.run` is for the main thread.
                ["setpriv", "--pdeathsig", "KILL", cluster.program, *words, *_FLAGS],
                stdout=log,
                stderr=log,
            )

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def is_leader(self) -> bool:
        """Return whether it says that it leads."""
        member, leader = self._ask()
        return member == leader != 0

    def is_joined(self) -> bool:
        """Return whether it knows a leader."""
        return self._ask()[1] != 0

    def _ask(self) -> tuple[int, int]:
        """Return its ID and that of the leader, both 0 if it does not answer. Another client than ours asks it."""
        cluster = self._cluster
        credentials = grpc.ssl_channel_credentials(
            cluster.credentials.ca, cluster.credentials.key, cluster.credentials.certificate
        )
        with grpc.secure_channel(self.url.removeprefix("https://"), credentials) as channel:
            try:
                status = Message(channel.unary_unary("/etcdserverpb.Maintenance/Status")(b"", timeout=1))
            except grpc.RpcError:
                return 0, 0
        return Message(status.data(1)).number(2), status.number(4)


class Cluster:
    """The cluster."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder
        number = os.getpid() % 62_000 + 1000
        self.address = f"127.77.{number >> 8}.{number & 255}"
        self.authority = Authority(folder)
        self.server = self.authority.issue("member", self.address, "127.0.0.1")
        self.client = self.authority.issue("client")
        self.members = [Member(self, index) for index in range(3)]
        self.credentials = Credentials(self.authority.file.read_bytes(), *(each.read_bytes() for each in self.client))

    @property
    def urls(self) -> list[str]:
        return [each.url for each in self.members]

    def run(self) -> None:
        """Start all members that do not run, and let those go on that are frozen."""
        for each in self.members:
            if each.process is None:
                each.start()
            each.send(signal.SIGCONT)

    def start(self) -> None:
        """Do the same, and wait until all members are in the cluster."""
        self.run()
        deadline = time.monotonic() + _SECONDS
        while not all(each.is_joined() for each in self.members):
            assert time.monotonic() < deadline, self._logs()
            time.sleep(0.05)

    def leader(self) -> Member:
        """Return the member that leads, as soon as there is one."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            for each in self.members:
                if each.process and each.is_leader():
                    return each
            time.sleep(0.05)
        raise AssertionError(self._logs())

    def _logs(self) -> str:
        """Return what the members have to say about it."""
        logs = [f"{each.name}: {(self.folder / f'{each.name}.log').read_text()[-2000:]}" for each in self.members]
        return "\n".join(["the cluster is not as it should be", *logs])

    def store(self, *, patience: float = 15.0) -> Etcd:
        """Return a client of ours."""
        return Etcd(self.urls, self.credentials, patience=patience)

    def back_up(self) -> None:
        """Copy what all members have; they are ended for that, and started again."""
        self._exchange(lambda member: shutil.copytree(member.folder, f"{member.folder}.backup"))

    def restore(self) -> None:
        """Let all members have what they had at the backup."""

        def exchange(member: Member) -> None:
            shutil.rmtree(member.folder)
            Path(f"{member.folder}.backup").rename(member.folder)

        self._exchange(exchange)

    def _exchange(self, work: Callable[[Member], object]) -> None:
        for each in self.members:
            each.kill()
        for each in self.members:
            work(each)
        self.run()

    def end(self) -> None:
        """End all of it at once: SIGTERM would take seconds."""
        for each in self.members:
            each.kill()
