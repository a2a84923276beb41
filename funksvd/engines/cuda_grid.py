"""The block grid on a GPU: held there whole, or streamed from the host."""

from __future__ import annotations

import numpy as np

TASK = np.dtype(
    [
        ("rating", "i8"),
        ("run", "i8"),
        ("runs", "i4"),
        ("gathered", "i4"),
        ("block", "i4"),
        ("unused", "i4"),
    ]
)
SPARE = 8  # entries past a block's ratings that a kernel may read


def tasks_of(grid):
    """`Task` of every block."""
    n = grid.n_bands
    tasks = np.zeros(n * n, TASK)
    tasks["rating"], tasks["run"], tasks["runs"] = (
        grid.block_start[:-1],
        grid.block_runs[:-1],
        np.diff(grid.block_runs),
    )
    tasks["gathered"] = np.tile(
        grid.bands[:-1] + np.arange(n), n
    )  # every band before ends with a spare row
    tasks["block"] = np.arange(n * n)
    return tasks


def columns_of(grid):
    """(a grid's arrays by run, by rating)."""
    return [grid.run_row, grid.run_end], [
        grid.index,
        grid.rating,
        *([] if grid.weight is None else [grid.weight]),
    ]


def as_arguments(columns):
    """The kernels' array arguments; where there are no weights nothing reads them."""
    return columns if len(columns) == 5 else [*columns, columns[-1]]


class Resident:
    """A grid on the card."""

    def __init__(self, cupy, grid):
        self.cupy, (by_run, by_rating) = cupy, columns_of(grid)
        self.tasks = cupy.asarray(tasks_of(grid).view(np.uint8))
        self.columns = [cupy.asarray(column) for column in (*by_run, *by_rating)]

    @staticmethod
    def bytes_of(grid):
        columns = sum(sum(column.nbytes for column in part) for part in columns_of(grid))
        return columns + grid.n_bands**2 * (TASK.itemsize + 12)

    def launch_all(self, kernel, blocks, n_warps, after):
        order = self.cupy.asarray(blocks.astype(np.int32))
        kernel(
            (n_warps,),
            (32,),
            (self.tasks, order, np.int32(len(blocks)), *as_arguments(self.columns), *after),
        )

    def launch_strata(self, kernel, blocks, after):
        order, n = self.cupy.asarray(blocks.astype(np.int32)), np.int32(len(blocks))
        for d in range(len(blocks)):
            kernel(
                (len(blocks),),
                (32,),
                (self.tasks, order[d], n, *as_arguments(self.columns), *after),
            )


class Streamed:
    """A grid on the host. The blocks of a stratum go to the card while those of the stratum before are worked on."""

    def __init__(self, cupy, grid):
        self.cupy, self.grid, self.tasks = cupy, grid, tasks_of(grid)
        self.columns = columns_of(grid)
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.order = cupy.asarray(np.arange(grid.n_bands, dtype=np.int32))
        n_runs, n_ratings = self.most(grid)
        shapes = [(grid.n_bands * TASK.itemsize, np.uint8)]
        shapes += [(n_runs, column.dtype) for column in self.columns[0]]
        shapes += [(n_ratings, column.dtype) for column in self.columns[1]]
        self.buffers = []
        for _ in range(2):
            device = [cupy.empty(size, dtype) for size, dtype in shapes]
            memory = [cupy.cuda.alloc_pinned_memory(a.nbytes) for a in device]
            pinned = [
                np.frombuffer(m, a.dtype, len(a)) for m, a in zip(memory, device, strict=True)
            ]
            self.buffers.append((device, pinned, cupy.cuda.Event(), cupy.cuda.Event()))

    @staticmethod
    def most(grid):
        """(runs, ratings) that a stratum can have."""
        n = grid.n_bands
        sizes = (
            np.diff(a).reshape(n, n).max(axis=1).sum() for a in (grid.block_runs, grid.block_start)
        )
        n_runs, n_ratings = map(int, sizes)
        return n_runs, n_ratings + SPARE

    @classmethod
    def bytes_of(cls, grid):
        n_runs, n_ratings = cls.most(grid)
        by_run, by_rating = (sum(column.itemsize for column in part) for part in columns_of(grid))
        return (
            2 * (n_runs * by_run + n_ratings * by_rating + grid.n_bands * TASK.itemsize)
            + grid.n_bands**2 * 8
        )

    def launch_all(self, kernel, blocks, _, after):
        self.launch_strata(kernel, blocks.reshape(self.grid.n_bands, -1), after)

    def launch_strata(self, kernel, blocks, after):
        current = self.cupy.cuda.get_current_stream()
        for d, stratum in enumerate(blocks):
            device, pinned, copied, done = self.buffers[d % 2]
            if d >= 2:
                copied.synchronize()  # the copy before has left the pinned memory
                self.stream.wait_event(done)  # and the kernel before has read the card's
            sizes = self._fill(pinned, stratum)
            for a, host, size in zip(device, pinned, sizes, strict=True):
                a[:size].set(host[:size], stream=self.stream)
            copied.record(self.stream)
            current.wait_event(copied)
            arguments = (
                device[0],
                self.order,
                np.int32(len(stratum)),
                *as_arguments(device[1:]),
                *after,
            )
            kernel((len(stratum),), (32,), arguments)
            done.record(current)
        current.synchronize()  # an interrupted pass leaves no copy behind

    def _fill(self, pinned, stratum):
        """Bring a stratum's blocks together in the pinned memory; returns the length of each array."""
        tasks, start = self.tasks[stratum], (self.grid.block_runs, self.grid.block_start)
        sizes = [pinned[0].size]
        at = 1
        for columns, begin, name in zip(self.columns, start, ("run", "rating"), strict=True):
            first, last = begin[stratum], begin[stratum + 1]
            ends = np.cumsum(last - first)
            tasks[name] = ends - (last - first)
            for column in columns:
                parts = [column[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True)]
                np.concatenate(parts, out=pinned[at][: ends[-1]])
                sizes.append(int(ends[-1]))
                at += 1
        pinned[0][:] = tasks.view(np.uint8)
        return sizes
