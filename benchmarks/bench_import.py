"""How much longer does `import funksvd` take than `import numpy`?

python benchmarks/bench_import.py
"""

import subprocess
import sys

import numpy as np
from common import print_header, print_table

CODE = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
REPEATS = 21
IMPORTS = ("numpy", "funksvd", "numpy, scipy.sparse")


def import_seconds(modules):
    """Return the seconds that an import takes in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(modules)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main():
    print_header(repeats=f"{REPEATS} processes each in turn, after one to warm up; medians")
    for modules in IMPORTS:
        import_seconds(modules)
    turns = [[import_seconds(modules) for modules in IMPORTS] for _ in range(REPEATS)]
    seconds = np.array(turns)
    medians = np.median(seconds, axis=0)
    over_numpy = np.median(seconds - seconds[:, :1], axis=0)
    rows = []
    for modules, median, over in zip(IMPORTS, medians, over_numpy, strict=True):
        rows.append([modules, 1e3 * median, 1e3 * over])
    print_table(["import", "ms", "ms over numpy"], rows)


if __name__ == "__main__":
    main()
