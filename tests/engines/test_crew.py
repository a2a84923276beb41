"""Parts of rows, and the threads that work on them."""

import threading

import numpy as np
import pytest

from funksvd.engines.crew import MOST_PARTS, Crew, equal_parts, parts_by_load


def assert_covers(parts, side, n_rows):
    """Check that parts of one side cover its rows once, in order."""
    assert {part.side for part in parts} == {side}
    assert [row for part in parts for row in range(part.first, part.last)] == list(range(n_rows))


@pytest.mark.parametrize("n_rows", [1, 10, 100_000])
def test_equal_parts_cover_the_rows(n_rows):
    parts = list(equal_parts(1, n_rows, 16))
    assert_covers(parts, 1, n_rows)
    assert len(parts) <= MOST_PARTS


@pytest.mark.parametrize("counts", [[0], [3, 0, 5], [10**6, 1, 1, 10**6], [20_000] * 300])
def test_parts_by_load_cover_the_rows(counts):
    parts = parts_by_load(0, np.cumsum([0, *counts]))
    assert_covers(parts, 0, len(counts))
    assert len(parts) <= MOST_PARTS


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_results_are_in_order(n_jobs):
    crew = Crew(n_jobs, 4)
    doubled = crew.map(lambda scratch, item: (len(scratch), 2 * item), range(20))
    assert doubled == [(4, 2 * item) for item in range(20)]
    assert crew.begin(lambda: 7)() == 7


@pytest.mark.parametrize("error", [IndexError, KeyboardInterrupt])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_an_error_starts_no_other_part(n_jobs, error):
    """All threads begin together; each fails in its first part."""
    crew = Crew(n_jobs, 4)
    together = threading.Barrier(n_jobs)
    begun = []

    def fail(scratch, item):
        begun.append(item)
        together.wait()
        raise error

    with pytest.raises(error):
        crew.map(fail, range(20))
    assert len(begun) == n_jobs
