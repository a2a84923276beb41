"""How much longer `import funksvd` takes than `import numpy`.

python benchmarks/bench_import.py
"""

import subprocess
import sys

import numpy as np
from common import print_header, print_table

CODE = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
REPEATS = 21


def seconds(module):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(module)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main():
    print_header(repeats=f"{REPEATS} processes each in turn, after one to warm up; medians")
    names = ["numpy", "funksvd", "numpy, scipy.sparse"]
    for name in names:
        seconds(name)
    times = np.array([[seconds(name) for name in names] for _ in range(REPEATS)])
    print_table(
        ["import", "ms", "ms over numpy"],
        [
            [name, 1e3 * median, 1e3 * over]
            for name, median, over in zip(
                names,
                np.median(times, axis=0),
                np.median(times - times[:, :1], axis=0),
                strict=True,
            )
        ],
    )


if __name__ == "__main__":
    main()
