"""Notations of other programs for the same model: read all of them, and write those that we need."""
