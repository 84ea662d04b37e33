"""Netlink: bytes to model and back, without I/O, and one engine over any channel."""
