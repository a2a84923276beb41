"""The command line: `main` runs one command, and each command is a file of this wing."""

from funksvd.cli.main import main

__all__ = ["main"]
