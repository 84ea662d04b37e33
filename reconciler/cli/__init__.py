"""The command line: parse, call, print. Results on stdout, everything else on stderr."""
