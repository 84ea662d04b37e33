"""Sandboxes as immutable, canonical values without I/O; desired and observed have the same types."""
