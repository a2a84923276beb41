"""The block grid, and the bands that its rows are dealt into."""

import numpy as np
import pytest
from conftest import random_ratings

from funksvd import Ratings
from funksvd.ratings import _grid
from funksvd.ratings.grid import build


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_travel_with_their_ratings(dtype):
    """Pairs repeat here; the order of the rows changes no bit of the grid, nor do equal weights."""
    users, items, values = random_ratings(4000, 30, 20)
    weights = np.random.default_rng(1).integers(0, 4, len(values)) / 2
    order = np.random.default_rng(2).permutation(len(values))
    ratings = Ratings.from_arrays(users, items, values, weights)
    shuffled = Ratings.from_arrays(users[order], items[order], values[order], weights[order])
    grid = build(ratings, 64, dtype)
    again = build(shuffled, 64, dtype)
    for name in ("index", "rating", "weight", "run_row", "run_end"):
        np.testing.assert_array_equal(getattr(grid, name), getattr(again, name))
    found = []
    for b in range(grid.n_bands**2):
        part = slice(grid.block_start[b], grid.block_start[b + 1])
        runs = slice(grid.block_runs[b], grid.block_runs[b + 1])
        run_codes = np.repeat(
            grid.run_codes[grid.run_row[runs]],
            np.diff(grid.run_end[runs], prepend=0),
        )
        codes = grid.codes[grid.bands[b % grid.n_bands] + grid.index[part].astype(int)]
        sides = (run_codes, codes) if grid.users_run else (codes, run_codes)
        found += zip(*sides, grid.rating[part], grid.weight[part], strict=True)
    assert sorted(found) == sorted(
        zip(
            users,
            items,
            values.astype(dtype),
            weights.astype(dtype),
            strict=True,
        )
    )
    assert grid.mean == pytest.approx(np.average(values, weights=weights), rel=1e-6)
    equal_weights = np.ones(len(values))
    ones = build(Ratings.from_arrays(users, items, values, equal_weights), 64, dtype)
    plain = build(Ratings.from_arrays(users, items, values), 64, dtype)
    np.testing.assert_array_equal(ones.rating, plain.rating)
    np.testing.assert_array_equal(ones.index, plain.index)


@pytest.mark.parametrize(
    ("n", "n_bands", "most"),
    [(50, 4, 50), (50, 4, 13), (51, 4, 13), (7, 7, 1), (9, 2, 5)],
)
def test_bands_are_those_of_longest_processing_time(n, n_bands, most):
    rng = np.random.default_rng(n)
    counts = np.sort(rng.integers(0, 30, n))[::-1].copy()
    band = np.empty(n, np.int32)
    _grid.assign_bands(counts, np.arange(n), n_bands, most, band)
    load = np.zeros(n_bands, int)
    size = np.zeros(n_bands, int)
    for row in range(n):
        free = [b for b in range(n_bands) if size[b] < most]
        want = min(free, key=lambda b: (load[b], b))
        assert band[row] == want
        load[want] += counts[row]
        size[want] += 1
