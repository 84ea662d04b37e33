"""The words of `kata-ipvs cleanup`."""

from __future__ import annotations

from reconciler.model.address import parse_address

_CLEANUP = {"-d": "--orig-dst", "-p": "--protonum"}
# The protocols that kata-runtime accepts.
_CLEANUP_PROTOCOLS = ("tcp", "udp")


def read_cleanup(text: str) -> tuple[str, str]:
    """Read `--orig-dst IP --protonum tcp|udp`, in any order: the address, and the protocol. ValueError otherwise."""
    words = text.replace("=", " ").split()
    given: dict[str, str] = {}
    for option, value in zip(words[::2], [*words[1::2], ""], strict=False):
        name = _CLEANUP.get(option, option)
        if name not in _CLEANUP.values() or name in given or not value:
            raise ValueError(f"{option}: expected --orig-dst IP --protonum tcp|udp, each once and with its value")
        given[name] = value
    missing = [name for name in _CLEANUP.values() if name not in given]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    protocol = given["--protonum"]
    if protocol not in _CLEANUP_PROTOCOLS:
        raise ValueError(f"--protonum {protocol}: expected tcp or udp")
    try:
        return parse_address(given["--orig-dst"]), protocol
    except ValueError as error:
        raise ValueError(f"--orig-dst: {error}") from None
