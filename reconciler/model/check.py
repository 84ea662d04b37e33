"""A check that the author of a manifest chose: what has to be reached, from where, and within which time."""

from __future__ import annotations

from reconciler.values import dataclass

HTTP_PORT = 80
# The status that an answer over HTTP has to have, the seconds of a check, and the tries in a row.
EXPECT, TIMEOUT, COUNT = 200, 2, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check. `kind`: ping, tcp, http, route or connects, which is tcp to a service of IPVS.

    `port`: 0 if it has none. `path`, `expect`: of http. `device`: of route, empty for any. `timeout`: seconds.
    `count`: how many tries in a row have to succeed. `from_host`: it is made on the host, not in the sandbox.
    `required`: it has to pass after a change, also if it failed before. `on_repair`: also when drift is repaired.
    """

    kind: str
    address: str
    port: int = 0
    path: str = ""
    expect: int = EXPECT
    device: str = ""
    timeout: int = TIMEOUT
    count: int = COUNT
    from_host: bool = False
    required: bool = False
    on_repair: bool = False

    def __str__(self) -> str:
        """Return it in words, such as `ping 192.0.2.1` or `tcp 192.0.2.1:443 from the host`."""
        where = self.url if self.kind == "http" else self.target
        device = f" by {self.device}" if self.device else ""
        return f"{self.kind} {where}{device}{' from the host' if self.from_host else ''}"

    @property
    def target(self) -> str:
        """Return the address, with the port if it has one."""
        return f"{self._host}:{self.port}" if self.port else self.address

    @property
    def _host(self) -> str:
        return f"[{self.address}]" if ":" in self.address else self.address

    @property
    def url(self) -> str:
        """Return the URL of a check of http."""
        port = "" if self.port == HTTP_PORT else f":{self.port}"
        return f"http://{self._host}{port}{self.path}"
