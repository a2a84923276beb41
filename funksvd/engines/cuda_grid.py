"""The block grid on a GPU: the whole of it held there, or streamed from the host.

The records are the arguments of the kernels of `_sgd.cu`, whose fields the kernels take one after
another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from funksvd.ratings.grid import Grid

WARP = 32  # threads
# Bytes for each block beside its task: its place in an order, and its sum of squared errors.
BYTES_OF_A_BLOCK = 12
SPARE = 8  # entries past a block's ratings that a kernel may read

TASK = np.dtype(  # `Task` of _sgd.cu
    [
        ("rating", "i8"),
        ("run", "i8"),
        ("runs", "i4"),
        ("gathered", "i4"),
        ("block", "i4"),
        ("unused", "i4"),
    ]
)


class Tasks(NamedTuple):
    """The blocks of one launch: all tasks, and the places in them of the blocks to work on."""

    tasks: Any
    order: Any
    n: np.int32


class Columns(NamedTuple):
    """A grid's arrays: two by run, three by rating. Nothing reads `weight` if there are none."""

    run_row: Any
    run_end: Any
    index: Any
    rating: Any
    weight: Any


class SideArrays(NamedTuple):
    """The arrays of the rows of one side on the card."""

    factors: Any
    biases: Any
    state: Any
    extra: Any


class Pass(NamedTuple):
    """The arguments that all launches of one pass over the grid share."""

    run_side: SideArrays
    side: SideArrays
    constants: Any
    seed: np.uint32
    squares: Any


class HostColumns(NamedTuple):
    """The arrays of a grid on the host, by what they have an entry for."""

    by_run: list[np.ndarray]
    by_rating: list[np.ndarray]


class Buffer(NamedTuple):
    """One of the two places of a stratum: arrays on the card, the host's, and two events."""

    device: list[Any]
    pinned: list[np.ndarray]
    copied: Any  # the copy has left the pinned memory
    done: Any  # the kernel has read the card's arrays


def launch(
    kernel: Any,
    n_warps: int,
    tasks: Tasks,
    columns: Iterable[Any],
    shared: Pass,
) -> None:
    """Launch a kernel of `_sgd.cu` on warps of their own.

    `columns` are those of the grid, without the last one where there are no weights.
    """
    arrays = list(columns)
    if len(arrays) < len(Columns._fields):
        arrays.append(arrays[-1])
    rest = (shared.constants, shared.seed, shared.squares)
    arguments = (*tasks, *Columns(*arrays), *shared.run_side, *shared.side, *rest)
    kernel((n_warps,), (WARP,), arguments)


def tasks_of(grid: Grid) -> np.ndarray:
    """Return the (n_bands**2,) tasks, one of each block, as `TASK`."""
    n = grid.n_bands
    tasks = np.zeros(n * n, TASK)
    tasks["rating"] = grid.block_start[:-1]
    tasks["run"] = grid.block_runs[:-1]
    tasks["runs"] = np.diff(grid.block_runs)
    # Every band before a band ends with a spare row.
    tasks["gathered"] = np.tile(grid.bands[:-1] + np.arange(n), n)
    tasks["block"] = np.arange(n * n)
    return tasks


def columns_of(grid: Grid) -> HostColumns:
    """Return the arrays of a grid that a kernel reads."""
    by_rating = [grid.index, grid.rating]
    if grid.weight is not None:
        by_rating.append(grid.weight)
    return HostColumns([grid.run_row, grid.run_end], by_rating)


class Resident:
    """A grid that lies on the card."""

    def __init__(
        self,
        cupy: Any,
        grid: Grid,
    ) -> None:
        by_run, by_rating = columns_of(grid)
        self.cupy = cupy
        self.tasks = cupy.asarray(tasks_of(grid).view(np.uint8))
        self.columns = [cupy.asarray(column) for column in (*by_run, *by_rating)]

    @staticmethod
    def bytes_of(grid: Grid) -> int:
        """Return how many bytes of the card a grid takes."""
        by_run, by_rating = columns_of(grid)
        columns = sum(column.nbytes for column in (*by_run, *by_rating))
        return columns + grid.n_bands**2 * (TASK.itemsize + BYTES_OF_A_BLOCK)

    def launch_all(
        self,
        kernel: Any,
        blocks: np.ndarray,
        n_warps: int,
        shared: Pass,
    ) -> None:
        """Launch `n_warps` warps at once, which take the blocks in turn."""
        order = self.cupy.asarray(blocks.astype(np.int32))
        tasks = Tasks(self.tasks, order, np.int32(len(blocks)))
        launch(
            kernel,
            n_warps,
            tasks,
            self.columns,
            shared,
        )

    def launch_strata(
        self,
        kernel: Any,
        blocks: np.ndarray,
        shared: Pass,
    ) -> None:
        """Launch one stratum after another, a row of `blocks` each."""
        order = self.cupy.asarray(blocks.astype(np.int32))
        n = len(blocks)
        for stratum in range(n):
            tasks = Tasks(self.tasks, order[stratum], np.int32(n))
            launch(
                kernel,
                n,
                tasks,
                self.columns,
                shared,
            )


class Streamed:
    """A grid that lies on the host.

    The blocks of a stratum go to the card while a kernel works on the stratum before: copying the
    12 bytes of a rating takes less time than the kernel.
    """

    def __init__(
        self,
        cupy: Any,
        grid: Grid,
    ) -> None:
        self.cupy = cupy
        self.grid = grid
        self.tasks = tasks_of(grid)
        self.columns = columns_of(grid)
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.order = cupy.asarray(np.arange(grid.n_bands, dtype=np.int32))
        n_runs, n_ratings = self.most(grid)
        shapes = [(grid.n_bands * TASK.itemsize, np.dtype(np.uint8))]
        shapes += [(n_runs, column.dtype) for column in self.columns.by_run]
        shapes += [(n_ratings, column.dtype) for column in self.columns.by_rating]
        self.buffers = [self._buffer(shapes) for _ in range(2)]

    def _buffer(self, shapes: list[tuple[int, np.dtype[Any]]]) -> Buffer:
        device = [self.cupy.empty(size, dtype) for size, dtype in shapes]
        pinned = []
        for array in device:
            memory = self.cupy.cuda.alloc_pinned_memory(array.nbytes)
            pinned.append(np.frombuffer(memory, array.dtype, len(array)))
        return Buffer(device, pinned, self.cupy.cuda.Event(), self.cupy.cuda.Event())

    @staticmethod
    def most(grid: Grid) -> tuple[int, int]:
        """Return the most runs and the most ratings that a stratum can have."""
        n = grid.n_bands
        runs = np.diff(grid.block_runs).reshape(n, n)
        ratings = np.diff(grid.block_start).reshape(n, n)
        return int(runs.max(axis=1).sum()), int(ratings.max(axis=1).sum()) + SPARE

    @classmethod
    def bytes_of(cls, grid: Grid) -> int:
        """Return how many bytes of the card a grid takes: two strata at a time."""
        n_runs, n_ratings = cls.most(grid)
        by_run, by_rating = columns_of(grid)
        stratum = grid.n_bands * TASK.itemsize
        stratum += n_runs * sum(column.itemsize for column in by_run)
        stratum += n_ratings * sum(column.itemsize for column in by_rating)
        squares = grid.n_bands**2 * np.dtype(np.float64).itemsize
        return 2 * stratum + squares

    def launch_all(
        self,
        kernel: Any,
        blocks: np.ndarray,
        _: int,
        shared: Pass,
    ) -> None:
        """Launch a kernel on all blocks, as many at a time as a stratum has."""
        self.launch_strata(kernel, blocks.reshape(self.grid.n_bands, -1), shared)

    def launch_strata(
        self,
        kernel: Any,
        blocks: np.ndarray,
        shared: Pass,
    ) -> None:
        """Copy and launch one stratum after another, a row of `blocks` each."""
        current = self.cupy.cuda.get_current_stream()
        n = len(blocks)
        for number, stratum in enumerate(blocks):
            buffer = self.buffers[number % 2]
            if number >= 2:
                buffer.copied.synchronize()
                self.stream.wait_event(buffer.done)
            sizes = self._fill(buffer.pinned, stratum)
            for array, host, size in zip(buffer.device, buffer.pinned, sizes, strict=True):
                array[:size].set(host[:size], stream=self.stream)
            buffer.copied.record(self.stream)
            current.wait_event(buffer.copied)
            stratum_tasks, *columns = buffer.device
            tasks = Tasks(stratum_tasks, self.order, np.int32(n))
            launch(
                kernel,
                n,
                tasks,
                columns,
                shared,
            )
            buffer.done.record(current)
        current.synchronize()  # an interrupted pass leaves no copy behind

    def _fill(
        self,
        pinned: list[np.ndarray],
        stratum: np.ndarray,
    ) -> list[int]:
        """Bring a stratum's blocks together in pinned memory; return the length of each array."""
        tasks = self.tasks[stratum]
        grid = self.grid
        to_tasks, *to = pinned
        n_by_run = len(self.columns.by_run)
        run, n_runs = gather(grid.block_runs, stratum, self.columns.by_run, to[:n_by_run])
        rating, n_ratings = gather(grid.block_start, stratum, self.columns.by_rating, to[n_by_run:])
        tasks["run"] = run
        tasks["rating"] = rating
        to_tasks[:] = tasks.view(np.uint8)
        return [to_tasks.size, *[n_runs] * n_by_run, *[n_ratings] * len(to[n_by_run:])]


def gather(
    begin: np.ndarray,
    blocks: np.ndarray,
    columns: list[np.ndarray],
    to: list[np.ndarray],
) -> tuple[np.ndarray, int]:
    """Copy the entries of some blocks one after another.

    Parameters
    ----------
    begin : (all blocks + 1,) where the entries of each block begin in the columns
    blocks : their numbers
    columns, to : the arrays to copy from, and those to copy to

    Returns
    -------
    (blocks,) where each one's entries begin in `to`; the number of entries
    """
    first = begin[blocks]
    last = begin[blocks + 1]
    ends = np.cumsum(last - first)
    total = int(ends[-1])
    bounds = list(zip(first.tolist(), last.tolist(), strict=True))
    for column, target in zip(columns, to, strict=True):
        parts = [column[start:stop] for start, stop in bounds]
        np.concatenate(parts, out=target[:total])
    return ends - (last - first), total
