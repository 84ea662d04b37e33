"""The driver of virtual machines: `driver` reads, `execute` changes, `monitor` talks to QEMU, `nics` finds NICs."""
