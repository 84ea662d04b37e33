"""Declarative networking for secure containers. Nothing else is here: importing this must cost nothing."""
