"""Declarative networking for secure containers: the version, nothing else (importing this must cost nothing)."""

__version__ = "0.1.0"
