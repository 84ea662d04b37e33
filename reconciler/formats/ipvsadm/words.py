"""The options that stand for fields of the model."""

from __future__ import annotations

from reconciler.model.ipvs import CHECKSUMS_OF, FWMARK

SERVICE_OPTIONS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service", FWMARK: "-f"}
FORWARD_OPTIONS = {"nat": "-m", "dr": "-g", "tunnel": "-i"}
CHECKSUM_OPTIONS = {"none": "--tun-nocsum", "csum": "--tun-csum", "remcsum": "--tun-remcsum"}
# ipvsadm demands and prints a checksum option only where there is a choice.
TYPES_WITH_CHECKSUM = tuple(tun_type for tun_type, checksums in CHECKSUMS_OF.items() if len(checksums) > 1)
