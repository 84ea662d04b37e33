"""What is built of the command line's own parser: completions of shells, and the manual page."""
