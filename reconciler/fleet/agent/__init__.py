"""The host side of a fleet: fills a folder that `watch` reads, and reports what became of it. Standard library only."""
