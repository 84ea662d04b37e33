"""The driver of virtual machines: `driver` reads, `execute` changes, `monitor` is QEMU's side, `nics` finds NICs."""
