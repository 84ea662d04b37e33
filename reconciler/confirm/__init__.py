"""Changes that are undone unless they are confirmed."""
