"""The gate of a fleet: all that hosts reach. It keeps nothing, so there may be as many as wanted."""
