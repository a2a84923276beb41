"""The command line."""

from funksvd.cli.main import main

__all__ = ["main"]
