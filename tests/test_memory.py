"""Peak memory: reading, fitting and answering stay within limits that the system enforces.

Each job runs in a process of its own, which may allocate so many bytes beyond those that it has
after the same job on small data (`RLIMIT_DATA`; threads' stacks count, memory that is only reserved
does not). It has two cores, so that the number of threads is the same on every machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts all memory on Linux alone"
)

MIB = 1 << 20
N_RATINGS = 1_000_000
N_USERS, N_ITEMS = 100_000, 10_000

PROGRAM = """
import os
import resource
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
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
few, many = "{few}", "{many}"
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
    # Arrow's own pools would reserve a GiB.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    if done.returncode == 0:
        return True
    assert re.search("MemoryError|can't start new thread|annot allocate", done.stderr), done.stderr
    return False


@pytest.fixture(scope="module")
def text_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the paths of a small and a large file of ratings."""
    folder = tmp_path_factory.mktemp("ratings")
    rng = np.random.default_rng(0)
    for name, n in (("few", 3000), ("many", N_RATINGS)):
        users = rng.integers(0, N_USERS, n).tolist()
        items = rng.integers(0, N_ITEMS, n).tolist()
        lines = [f"{user},{item},3.5" for user, item in zip(users, items, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(lines))
    return str(folder / "few.csv"), str(folder / "many.csv")


def test_reading_needs_ten_times_the_file_at_most(text_files: tuple[str, str]) -> None:
    pytest.importorskip("pyarrow")
    few, many = text_files
    job = READ.format(few=few, many=many)
    size = os.path.getsize(many)
    assert runs_within(10 * size, job)
    assert not runs_within(size // 4, job)  # less than the codes and values that are read


# The grid of the ratings, and the rows with the state of the solver.
@pytest.mark.parametrize(
    ("params", "most"),
    [
        ("16, 1", 80 * MIB),
        ("16, 1, solver='adam'", 110 * MIB),
        ("16, 1, batch_size=10_000", 120 * MIB),
        ("16, 2, solver='gibbs', sets=False", 240 * MIB),
        ("16, 2, solver='gibbs'", 320 * MIB),  # the sets' own factors and residuals
        ("3, 3, training='featurewise'", 80 * MIB),
    ],
)
def test_fitting_needs_little_more_than_its_ratings_and_rows(params: str, most: int) -> None:
    job = FIT.format(n=N_RATINGS, params=params)
    assert runs_within(most, job)
    assert not runs_within(4 * MIB, job)  # less than the factors alone


def test_recommending_for_all_never_holds_all_scores() -> None:
    job = RECOMMEND.format(n=N_RATINGS)
    all_scores = 4 * N_USERS * N_ITEMS
    assert runs_within(all_scores // 20, job)
    assert not runs_within(4 * MIB, job)  # less than the answers
