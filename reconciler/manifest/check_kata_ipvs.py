"""What a manifest says of IPVS and the command line of kata-runtime cannot: it is refused, with the reason."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.manifest.finding import Finding
from reconciler.manifest.ipvs import IpvsDraft
from reconciler.model.ipvs import LEAVE_TIMEOUTS, Ipvs, Server, Service

# The schedulers that the documentation of kata-runtime names.
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq")


def check(section: IpvsDraft) -> Iterator[Finding]:
    """Check the section as far as it could be read."""
    for field, message in _of_table(section.ipvs):
        yield Finding(("ipvs", field), message)
    for index, service in enumerate(section.services):
        for field, message in _of_service(service) if service else ():
            yield Finding(("ipvs", "services", index, field), message)
        for number, server in enumerate(service.servers if service else ()):
            for field, message in _of_server(server):
                yield Finding(("ipvs", "services", index, "servers", number, field), message)


def _of_table(ipvs: Ipvs) -> Iterator[tuple[str, str]]:
    if ipvs.timeouts != LEAVE_TIMEOUTS:
        reason = "kata-runtime cannot report timeouts, so they could not be verified"
        yield "timeouts", f"{reason}; set them by hand: kata-ipvs ipvsadm --set"
    if ipvs.sysctls:
        yield "sysctls", "kata-runtime cannot set sysctls"
    if ipvs.drain:
        yield "drain", "kata-runtime cannot report how many connections a server still has"


def _of_service(service: Service) -> Iterator[tuple[str, str]]:
    if service.protocol not in {"tcp", "udp"}:
        yield service.protocol, "kata-runtime supports only TCP and UDP services"
    if service.scheduler not in SCHEDULERS:
        yield (
            "scheduler",
            f"kata-runtime does not support {service.scheduler}; expected one of: {', '.join(SCHEDULERS)}",
        )
    for field, value in (
        ("schedulerFlags", service.scheduler_flags),
        ("netmask", service.netmask),
        ("persistenceEngine", service.persistence_engine),
        ("onePacket", service.one_packet),
    ):
        if value:
            yield field, f"kata-runtime cannot set {field}"


def _of_server(server: Server) -> Iterator[tuple[str, str]]:
    if server.forward == "tunnel":
        yield "forward", "kata-runtime cannot report the type of a tunnel"
    for field, value in (("upperThreshold", server.upper_threshold), ("lowerThreshold", server.lower_threshold)):
        if value:
            yield field, f"kata-runtime cannot report {field}"
