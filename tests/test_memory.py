"""Peak memory: reading, fitting and answering stay within limits that the system enforces.

Each job runs in a process of its own, which may allocate so many bytes beyond those that it has
after the same job on small data (`RLIMIT_DATA`; threads' stacks count, memory that is only reserved
does not).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts all memory on Linux alone"
)

MIB = 1 << 20
N_RATINGS = 2_000_000
N_USERS, N_ITEMS = 100_000, 10_000

PROGRAM = """
import resource
import numpy as np
from funksvd import FunkSVD, Ratings

def triples(n):
    rng = np.random.default_rng(0)
    users = rng.integers(0, {n_users}, n, dtype=np.int32)
    items = rng.integers(0, {n_items}, n, dtype=np.int32)
    return users, items, rng.integers(1, 6, n).astype(np.float32)

{before}
job(few)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + {allowed}, used + {allowed}))
result = job(many)
"""

READ = """
few, many = {few!r}, {many!r}
def job(path):
    return Ratings.read(path)
"""
FIT = """
few, many = Ratings.from_arrays(*triples(3000)), Ratings.from_arrays(*triples({n}))
def job(ratings):
    return FunkSVD({params}, random_state=0, n_jobs=2).fit(ratings)
"""
RECOMMEND = """
model = FunkSVD(8, 1, random_state=0, n_jobs=2).fit(Ratings.from_arrays(*triples({n})))
few, many = model.user_ids_[:100], None
def job(users):
    return model.recommend(users, 10)
"""


def runs_within(allowed: int, before: str) -> bool:
    """Return whether a job ends within so many bytes; False if it runs out of memory."""
    code = PROGRAM.format(n_users=N_USERS, n_items=N_ITEMS, before=before, allowed=allowed)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode == 0:
        return True
    assert "MemoryError" in done.stderr or "emory" in done.stderr, done.stderr
    return False


if __name__ == "__main__":
    import tempfile
    import numpy as np
    with tempfile.TemporaryDirectory() as d:
        rng = np.random.default_rng(0)
        for name, n in (("few", 3000), ("many", N_RATINGS)):
            t = np.column_stack([rng.integers(0, N_USERS, n), rng.integers(0, N_ITEMS, n), rng.integers(1, 6, n)])
            with open(f"{d}/{name}.csv", "w") as f:
                f.writelines(f"{a},{b},{c}\n" for a, b, c in t.tolist())
        jobs = {"read": READ.format(few=f"{d}/few.csv", many=f"{d}/many.csv")}
        for p in ("16, 1", "16, 1, solver='adam'", "16, 1, solver='gibbs'", "16, 1, batch_size=1000", "16, 3, training='featurewise'"):
            jobs[p] = FIT.format(n=N_RATINGS, params=p)
        jobs["recommend"] = RECOMMEND.format(n=N_RATINGS)
        for name, job in jobs.items():
            low, high = 0, 1024
            while high - low > 16:
                middle = (low + high) // 2
                if runs_within(middle * MIB, job): high = middle
                else: low = middle
            print(name, high, flush=True)
