"""Run a benchmark, keep its tables as JSON in benchmarks/results, and write them into the pages.

    python benchmarks/save.py bench_peers.py --shapes ml-1m ml-20m
    python benchmarks/save.py --as solvers-speed bench_solvers.py --speed ml-1m ml-20m

The name of the JSON is that of the script without "bench_", or the one after --as. `tables.py`
writes the tables of all results into README and docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import re
import runpy
import sys
from pathlib import Path

import common
import tables

FOLDER = Path(__file__).parent


def main() -> None:
    """Run one script with its own options and save what it prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--as", dest="name", metavar="NAME", help="name of the JSON file")
    parser.add_argument("script", help="a script of this folder")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="its own options")
    asked = parser.parse_args()
    script = FOLDER / asked.script
    name = asked.name or script.stem.removeprefix("bench_")
    sys.argv = [script.name, *asked.options]
    runpy.run_path(str(script), run_name="__main__")
    common.PRINTED["command"] = re.sub(r"(?<= )/\S+", "DIR", common.PRINTED["command"])
    path = tables.RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(common.PRINTED, indent=1) + "\n", encoding="utf-8")
    print("wrote", path)
    tables.main()


if __name__ == "__main__":
    main()
