"""`python -m reconciler`."""

from reconciler.cli.main import entry

if __name__ == "__main__":
    entry()
