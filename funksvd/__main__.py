"""Run the command `funksvd` as ``python -m funksvd``."""

import sys

from funksvd.cli import main

if __name__ == "__main__":
    sys.exit(main())
