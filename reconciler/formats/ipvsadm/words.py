"""The options that stand for fields of the model, and the limits of numbers."""

from __future__ import annotations

from reconciler.model.ipvs import FWMARK

PORT_MAX = 65535
FWMARK_MAX = 4294967295
WEIGHT_MAX = 65535
PERSISTENT_MAX = 2678400
THRESHOLD_MAX = 1073741823
PREFIX_MAX = 128
TIMEOUT_MAX = 1296000

SERVICE_OPTIONS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service", FWMARK: "-f"}
FORWARD_OPTIONS = {"nat": "-m", "dr": "-g", "tunnel": "-i"}
CHECKSUM_OPTIONS = {"none": "--tun-nocsum", "csum": "--tun-csum", "remcsum": "--tun-remcsum"}
# What each type of tunnel has beside its type, as ipvsadm demands and prints it.
TUNNEL_CHECKSUMS = {"ipip": (), "gue": ("none", "csum", "remcsum"), "gre": ("none", "csum")}
TUNNEL_PORTS = ("gue",)
