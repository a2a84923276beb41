"""The block grid: ratings cut into B x B blocks, which threads, warps or workers can share.

The ids of each side are dealt out to B bands with about equal numbers of ratings (`bands.py`).
Block (x, y) holds the ratings of the *run side's* band x and the *gathered side's* band y. Blocks
that share no band touch different rows of the model, and so they can be trained at once. Within a
block, all ratings of one row of the run side stand together, as a *run*, so that this row stays in
registers; the rows of the gathered side are picked here and there from a band that fits a cache.

`build` chooses the run side and the bands; `cut` then makes the grid in five steps:

1. `places` gives every id a place, its band and its row within the band, in a table by key.
2. `counts_per_chunk` takes the ratings in chunks, and counts how many of each chunk belong to each
   block. Sums of these counts say where each chunk's first rating of each block goes.
3. `scatter` writes the ratings, chunk by chunk, into their blocks.
4. `sort_blocks` sorts each block by row, index, rating and weight. If a user rated an item more
   than once, the repeats go to a run of their own behind the first one, since the ratings of a run
   must be of distinct items. The order in which the ratings came leaves no trace.
5. `list_runs` writes the table of runs: the row of each run, and where it ends.

Threads share the chunks of steps 2 and 3 and the blocks of steps 4 and 5. Neither their number nor
the order of the ratings changes a bit: the grid is a function of the set of ratings and the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from funksvd.machine.threads import CHUNK, parallel
from funksvd.ratings import _grid  # type: ignore[attr-defined]  # compiled
from funksvd.ratings.bands import (
    Bands,
    choose_bands,
    choose_warp_bands,
    deal_out,
    users_have_more,
)
from funksvd.ratings.triples import Ratings

SCATTERED_CHUNK = CHUNK * 4
# Entries past the last rating, which kernels may read; they count for nothing.
SPARE_RATINGS = 8
# A rating and its weight travel through the sort as one; `_grid.pyx` has it as struct Pair.
PAIR = np.dtype([("rating", np.float64), ("weight", np.float64)])


@dataclass(frozen=True)
class Grid:
    """The ratings in B x B blocks; block (x, y) is number x * B + y.

    Attributes
    ----------
    users_run : bool
        Whether the run side is that of the users.
    n_bands : int
        B.
    run_codes, codes : (n_ids,)
        Codes of the run side and of the gathered side, band after band.
    run_bands, bands : (B + 1,)
        Where each band starts in `run_codes` and in `codes`.
    run_counts, counts : (n_ids,)
        Number of ratings of each code, in the order of the codes; in a grid of `build_like` those
        of the grid that it follows.
    block_start, block_runs : (B * B + 1,)
        Where each block's ratings and each block's runs start.
    run_row, run_end : (runs,) int32, uint32
        Row of each run, a position in `run_codes`, and where in the block its ratings end.
    index : (n + 8,) uint16
        Row of each rating within its band of the gathered side. The last 8 entries of this array,
        of `rating` and of `weight` may be read, since kernels take 8 at a time; they count for
        nothing.
    rating : (n + 8,) of the engine's dtype
    mean : float
        Weighted mean of the ratings.
    weight : (n + 8,) or None
        Weight of each rating; None if all count alike.
    total_weight : float
        Sum of the weights; without weights the number of ratings.
    """

    users_run: bool
    n_bands: int
    run_codes: np.ndarray
    run_bands: np.ndarray
    codes: np.ndarray
    bands: np.ndarray
    run_counts: np.ndarray
    counts: np.ndarray
    block_start: np.ndarray
    block_runs: np.ndarray
    run_row: np.ndarray
    run_end: np.ndarray
    index: np.ndarray
    rating: np.ndarray
    mean: float
    weight: np.ndarray | None = None
    total_weight: float = 0.0

    def __len__(self) -> int:
        return int(self.block_start[-1])


class Plan(NamedTuple):
    """Which side has runs, and the bands of both sides."""

    users_run: bool
    run: Bands
    gathered: Bands

    @property
    def n_bands(self) -> int:
        """Number of bands of each side."""
        return len(self.run.starts) - 1


class Keyed(NamedTuple):
    """The ratings' keys on one side, and the places that the keys stand for."""

    keys: np.ndarray
    places: _grid.Places


class Blocks(NamedTuple):
    """The ratings, one block after the other.

    block_start : (B * B + 1,) int64, where each block starts
    row : (n,) uint16 or uint32, row within the run side's band
    column : (n + 8,) uint16, row within the gathered side's band
    ratings : (n + 8,) of the grid's dtype, or PAIR if there are weights
    cells : `row` and `column` as the kernels take them
    """

    block_start: np.ndarray
    row: np.ndarray
    column: np.ndarray
    ratings: np.ndarray
    cells: _grid.Cells


def build(
    ratings: Ratings,
    row_bytes: int,
    dtype: npt.DTypeLike = np.float32,
    *,
    seed: int = 0,
    n_jobs: int = 1,
    warps: bool = False,
) -> Grid:
    """Return the block grid of ratings.

    Parameters
    ----------
    ratings : Ratings
    row_bytes : int
        Bytes of one row of factors. A band of the gathered side fits a CPU's L2 cache.
    dtype : float32 or float64
        Of the ratings and weights in the grid.
    seed : int
        Shuffles the ids within a band.
    n_jobs : int
    warps : bool
        Make blocks for the warps of a GPU: many more bands, and the side with more ids gathered,
        which keeps runs long. A warp has no cache of its own that a band could fit.
    """
    counts = [ratings.ratings_per_code(side, n_jobs) for side in (0, 1)]
    users_run = users_have_more(ratings, *counts) != warps
    run_counts, gathered_counts = counts if users_run else reversed(counts)
    n_gathered = len(gathered_counts)
    if warps:
        busiest = max(int(run_counts.max()), int(gathered_counts.max()))
        n_bands = choose_warp_bands(len(ratings), busiest, n_gathered)
    else:
        n_bands = choose_bands(len(ratings), len(run_counts), n_gathered, row_bytes)
    rng = np.random.default_rng([seed, 0])
    run = deal_out(run_counts, n_bands, rng)
    gathered = deal_out(gathered_counts, n_bands, rng)
    return cut(ratings, Plan(users_run, run, gathered), np.dtype(dtype), n_jobs)


def build_like(ratings: Ratings, grid: Grid, n_jobs: int = 1) -> Grid:
    """Return the grid of other ratings on the bands of a grid, such as those held out.

    The ratings must be coded as those of the grid are.
    """
    run = Bands(grid.run_codes, grid.run_bands, grid.run_counts)
    gathered = Bands(grid.codes, grid.bands, grid.counts)
    return cut(
        ratings,
        Plan(grid.users_run, run, gathered),
        grid.rating.dtype,
        n_jobs,
    )


def cut(ratings: Ratings, plan: Plan, dtype: np.dtype[Any], n_jobs: int) -> Grid:
    """Return the grid of ratings on planned bands, in the five steps that the file's head names."""
    run_side = 0 if plan.users_run else 1
    run = places(ratings, run_side, plan.run)
    gathered = places(ratings, 1 - run_side, plan.gathered)
    chunks = [
        slice(start, min(start + SCATTERED_CHUNK, len(ratings)))
        for start in range(0, len(ratings), SCATTERED_CHUNK)
    ]
    counts = counts_per_chunk(run, gathered, chunks, plan.n_bands, n_jobs)
    blocks = empty_blocks(ratings, plan, counts, dtype)
    scatter(ratings, run, gathered, chunks, counts, blocks, dtype, n_jobs)
    runs_per_block, total = sort_blocks(blocks, plan, n_jobs)
    block_runs = offsets(runs_per_block)
    run_row, run_end = list_runs(blocks, plan, block_runs, n_jobs)
    rating = blocks.ratings
    weight = None
    total_weight = float(len(ratings))
    if rating.dtype == PAIR:
        weight = blocks.ratings["weight"].astype(dtype)
        rating = blocks.ratings["rating"].astype(dtype)
        total = float(np.sum(rating * weight, dtype=np.float64))
        total_weight = float(np.sum(weight, dtype=np.float64))
    return Grid(
        plan.users_run,
        plan.n_bands,
        run_codes=plan.run.codes,
        run_bands=plan.run.starts,
        codes=plan.gathered.codes,
        bands=plan.gathered.starts,
        run_counts=plan.run.counts,
        counts=plan.gathered.counts,
        block_start=blocks.block_start,
        block_runs=block_runs,
        run_row=run_row,
        run_end=run_end,
        index=blocks.column,
        rating=rating,
        mean=total / total_weight if total_weight else 0.0,
        weight=weight,
        total_weight=total_weight,
    )


def places(ratings: Ratings, side: int, bands: Bands) -> Keyed:
    """Step 1: return the keys of one side (0 users, 1 items) with the place of each id.

    A place packs the band and the row within it into one int64, band << 32 | row, so that a kernel
    finds both by one read at random.
    """
    sizes = bands.sizes
    band = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    row = np.arange(len(band)) - bands.starts[band]
    by_code = np.empty(len(band), np.int64)
    by_code[bands.codes] = (band << 32) | row
    base, codes = ratings.lookup(side)
    return Keyed(ratings.keys[side], _grid.Places(base, by_code[codes]))


def counts_per_chunk(
    run: Keyed,
    gathered: Keyed,
    chunks: Sequence[slice],
    n_bands: int,
    n_jobs: int,
) -> np.ndarray:
    """Step 2: return (chunks, B, B) int64, how many ratings of each chunk belong to each block."""

    def count_chunk(part: slice) -> np.ndarray:
        counts = np.zeros((n_bands, n_bands), np.int64)
        _grid.count_blocks(
            run.keys[part],
            gathered.keys[part],
            run.places,
            gathered.places,
            counts,
        )
        return counts

    by_chunk = parallel(count_chunk, chunks, n_jobs)
    return np.array(by_chunk, np.int64).reshape(-1, n_bands, n_bands)  # without ratings no chunk


def empty_blocks(ratings: Ratings, plan: Plan, counts: np.ndarray, dtype: np.dtype[Any]) -> Blocks:
    """Return the arrays that `scatter` fills, and where in them each block starts."""
    n = len(ratings)
    block_start = offsets(counts.sum(axis=0).ravel())
    narrow = plan.run.sizes.max(initial=0) <= 1 << 16
    row = np.empty(n, np.uint16 if narrow else np.uint32)
    column = np.zeros(n + SPARE_RATINGS, np.uint16)
    values = np.zeros(n + SPARE_RATINGS, dtype if ratings.weights is None else PAIR)
    return Blocks(block_start, row, column, values, _grid.Cells(row, column))


def scatter(
    ratings: Ratings,
    run: Keyed,
    gathered: Keyed,
    chunks: Sequence[slice],
    counts: np.ndarray,
    blocks: Blocks,
    dtype: np.dtype[Any],
    n_jobs: int,
) -> None:
    """Step 3: write the ratings into their blocks.

    A block holds first the ratings of the first chunk, then those of the second, and so on:
    `cursors` says where the next rating of each chunk goes in each block. Pairs are rounded to the
    grid's dtype before they are sorted, since the order is that of the rounded numbers.
    """
    block_start = blocks.block_start[:-1].reshape(counts.shape[1:])
    cursors = block_start + np.cumsum(counts, axis=0) - counts

    def scatter_chunk(chunk: int) -> None:
        part = chunks[chunk]
        values = ratings.values[part]
        weights = None
        if ratings.weights is not None:
            # -0.0 becomes 0.0: equal numbers must have equal bits, or the order of rows would show.
            values = values.astype(dtype).astype(np.float64) + 0.0
            weights = ratings.weights[part].astype(dtype).astype(np.float64)
        _grid.scatter(
            run.keys[part],
            gathered.keys[part],
            values,
            run.places,
            gathered.places,
            cursors[chunk],
            blocks.cells,
            blocks.ratings,
            weights,
        )

    parallel(scatter_chunk, range(len(chunks)), n_jobs)


def sort_blocks(blocks: Blocks, plan: Plan, n_jobs: int) -> tuple[np.ndarray, float]:
    """Step 4: sort each block in place; return the number of runs of each, and the sum of ratings.

    The sum takes the ratings in the order of the grid, so that its last bit does not depend on the
    order in which they came.
    """
    n_rows = plan.run.sizes
    n_index = plan.gathered.sizes

    def sort_block(block: int) -> tuple[int, float]:
        first = blocks.block_start[block]
        end = blocks.block_start[block + 1]
        if first == end:
            return 0, 0.0
        x, y = divmod(block, plan.n_bands)
        runs, total = _grid.sort_block(
            blocks.cells,
            blocks.ratings,
            first,
            end,
            n_rows[x],
            n_index[y],
        )
        return runs, total

    found = parallel(sort_block, range(plan.n_bands**2), n_jobs)
    runs_per_block = np.array([runs for runs, _ in found])
    return runs_per_block, float(sum(total for _, total in found))


def list_runs(
    blocks: Blocks, plan: Plan, block_runs: np.ndarray, n_jobs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Step 5: return (row of each run, where in its block it ends) of sorted blocks."""
    run_row = np.empty(block_runs[-1], np.int32)
    run_end = np.empty(block_runs[-1], np.uint32)

    def list_block(block: int) -> None:
        runs = slice(block_runs[block], block_runs[block + 1])
        _grid.list_runs(
            blocks.cells,
            blocks.block_start[block],
            blocks.block_start[block + 1],
            plan.run.starts[block // plan.n_bands],
            run_row[runs],
            run_end[runs],
        )

    parallel(list_block, range(plan.n_bands**2), n_jobs)
    return run_row, run_end


def offsets(counts: np.ndarray) -> np.ndarray:
    """Return (n + 1,) int64: where each of n parts starts, given their lengths, and the end."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts
