"""Keeps sandboxes as their manifests describe them: a change of a file or of a sandbox leads to a look and a repair."""
