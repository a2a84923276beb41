"""Plant one fault at a time in the CUDA kernels or their driver; the tests on the shim catch each.

``python -m tests.cuda_host.mutate`` runs from the root of a source tree, built in place or with
funksvd installed. Its exit status is the number of faults that no test caught.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import funksvd

SOURCE = Path(funksvd.__file__).parent
TESTS = Path(__file__).parents[1]

GRID_KERNELS = "engines/_sgd.cu"
BATCH_KERNELS = "engines/_minibatch.cu"
SHARED = "engines/_solvers.cu"
GRID_DRIVER = "engines/cuda_grid.py"
BATCH_DRIVER = "engines/cuda_minibatch.py"

SOLVERS = ("sgd", "momentum", "adagrad_row", "adagrad", "adam", "adamax")
EQUALS = "engines/test_cuda.py::test_equals_the_cpu_engine_and_naive[shim-{}-20]"
OPTION = "engines/test_cuda.py::test_every_option_equals_the_cpu_engine_and_naive[shim-{}-sgd]"
STREAMING = "engines/test_cuda.py::test_streaming_gives_the_bytes_of_a_resident_run"
BATCHES = "engines/test_cuda_minibatch.py::test_{}"

# The name of a test in the plants -> the test.
CAUGHT_BY = {
    **{solver: EQUALS.format(solver) for solver in SOLVERS},
    **{option: OPTION.format(option) for option in ("l1", "sides", "row")},
    "half": "engines/test_cuda.py::test_float16_storage_stays_near_float32[shim]",
    "streaming": f"{STREAMING}[shim-False-params0]",
    "batches": BATCHES.format("equals_the_cpu_engine_and_naive[shim-20-adam]"),
    "batches l2": BATCHES.format("every_option_equals_naive[shim-l2-sgd]"),
    "batches l1": BATCHES.format("every_option_equals_naive[shim-both-sgd]"),
}


class Plant(NamedTuple):
    """A fault: the text of a file before and after, and the test that must fail."""

    file: str
    test: str
    fault: str
    before: str
    after: str


PLANTS = [
    Plant(
        GRID_KERNELS,
        "momentum",
        "no __syncwarp after a run",
        "  __syncwarp(ALL);  // the",
        "  // the",
    ),
    Plant(
        SHARED,
        "sgd",
        "a reduction misses its last step",
        "int o = LANES / 2; o > 0;",
        "int o = LANES / 2; o > 1;",
    ),
    Plant(
        SHARED,
        "sgd",
        "groups are summed from the wrong distance",
        "for (int o = LANES; o < 32;",
        "for (int o = 2 * LANES; o < 32;",
    ),
    Plant(
        SHARED,
        "sgd",
        "shfl_down: only lane 0 has the sum",
        "for (int o = LANES / 2; o > 0; o >>= 1) v += __shfl_xor_sync(ALL, v, o);",
        "for (int o = LANES / 2; o > 0; o >>= 1) v += __shfl_down_sync(ALL, v, o);",
    ),
    Plant(
        SHARED,
        "sgd",
        "a shuffle names half of the warp",
        "o < 32; o <<= 1) v += __shfl_xor_sync(ALL,",
        "o < 32; o <<= 1) v += __shfl_xor_sync(0xffffu,",
    ),
    Plant(
        GRID_KERNELS,
        "sgd",
        "no guard on the slot (writes past the row)",
        "if (!batch.has(c) || slot >= SLOTS) continue;",
        "if (!batch.has(c)) continue;",
    ),
    Plant(
        GRID_KERNELS,
        "sgd",
        "no guard on the micro-batch's size",
        "if (!batch.has(c) || slot >= SLOTS) continue;",
        "if (slot >= SLOTS) continue;",
    ),
    Plant(
        SHARED,
        "sgd",
        "the penalty's sign",
        "1.0f - rate * l2",
        "1.0f + rate * l2",
    ),
    Plant(
        GRID_KERNELS,
        "sgd",
        "the run's penalty counts once",
        "shrinkage(rate, (float)m * h.l2)",
        "shrinkage(rate, h.l2)",
    ),
    Plant(
        GRID_KERNELS,
        "sides",
        "the sides' penalties are swapped",
        "run, gathered, h.gathered, push);",
        "run, gathered, h.run, push);",
    ),
    Plant(
        GRID_KERNELS,
        "sgd",
        "indices fetched ahead are one off",
        "fetch(next, data, t + m, lane);",
        "fetch(next, data, t + m - 1, lane);",
    ),
    Plant(
        GRID_KERNELS,
        "sgd",
        "the last run of a block is skipped",
        "r < task.runs; ++r) {",
        "r < task.runs - 1; ++r) {",
    ),
    Plant(
        GRID_KERNELS,
        "sgd",
        "tasks are skipped",
        "c < tasks.n; c += gridDim.x",
        "c < tasks.n - 1; c += gridDim.x",
    ),
    Plant(
        GRID_KERNELS,
        "sgd",
        "a bias is left out of the prediction",
        "mean + (bias + other_bias) + dot",
        "mean + bias + dot",
    ),
    Plant(
        GRID_KERNELS,
        "sgd",
        "a bias step for ratings that are not there",
        "if (batch.lane.sub == 0 && batch.has(c)) gathered.biases",
        "if (batch.lane.sub == 0) gathered.biases",
    ),
    Plant(
        SHARED,
        "adagrad",
        "AdaGrad adds after use",
        "    a += g * g;\n    return x - rate * g / sqrtf(a + h.epsilon);",
        "    x -= rate * g / sqrtf(a + h.epsilon);\n    a += g * g;\n    return x;",
    ),
    Plant(
        GRID_KERNELS,
        "momentum",
        "the run's state is not stored",
        "store_states(run.state, slot, run.states[n]);",
        ";",
    ),
    Plant(
        SHARED,
        "adam",
        "Adam's second clock stands still",
        "if (SOLVER == ADAM) extra.y",
        "if (SOLVER == ADAMAX) extra.y",
    ),
    Plant(
        SHARED,
        "adamax",
        "AdaMax forgets to decay its maximum",
        "fmaxf(h.beta_2 * b, fabsf(g))",
        "fmaxf(b, fabsf(g))",
    ),
    Plant(
        GRID_KERNELS,
        "adagrad_row",
        "row-wise AdaGrad divides by the padded length",
        "total * total) / N_VALUES",
        "total * total) / STRIDE",
    ),
    Plant(
        GRID_KERNELS,
        "adagrad_row",
        "row-wise AdaGrad leaves the bias out",
        "(p_square + BIASED)",
        "p_square",
    ),
    Plant(
        GRID_KERNELS,
        "adagrad_row",
        "row-wise AdaGrad steps with the new accumulator",
        "run.rate = scaled_rate(h.run, run.extra.x, run.extra.y);",
        "run.rate = scaled_rate(h.run, run.extra.x + 1.0f, run.extra.y);",
    ),
    Plant(
        GRID_KERNELS,
        "momentum",
        "a bias' state is left behind",
        "if (SOLVER != SGD) runs.extra[row] = run.extra;",
        ";",
    ),
    Plant(
        SHARED,
        "half",
        "halves swapped on their way to memory",
        "pairs[j] = even | (odd << 16);",
        "pairs[j] = odd | (even << 16);",
    ),
    Plant(
        SHARED,
        "half",
        "rounding to the nearest",
        "const float uniform = (float)random16 * (1.0f / 65536.0f);",
        "const float uniform = 0.5f;",
    ),
    Plant(
        GRID_KERNELS,
        "l1",
        "a weight is left out of the gradient",
        "    e *= w;\n",
        "",
    ),
    Plant(
        GRID_KERNELS,
        "l1",
        "L1 before L1's own scale",
        "(float)m * h.l1 * reach",
        "h.l1 * reach",
    ),
    Plant(
        GRID_KERNELS,
        "row",
        "row penalties leave the biases alone",
        "if (slot == 0) biases[row]",
        "if (slot < 0) biases[row]",
    ),
    Plant(
        GRID_DRIVER,
        "streaming",
        "the kernel does not wait for its copy",
        "            current.wait_event(buffer.copied)\n",
        "",
    ),
    Plant(
        GRID_DRIVER,
        "streaming",
        "a copy does not wait for the kernel",
        "self.stream.wait_event(buffer.done)",
        "pass",
    ),
    Plant(
        GRID_DRIVER,
        "streaming",
        "pinned memory is filled too soon",
        "buffer.copied.synchronize()",
        "pass",
    ),
    Plant(
        GRID_DRIVER,
        "sgd",
        "spare rows are forgotten",
        "grid.bands[:-1] + np.arange(n)",
        "grid.bands[:-1] + 0 * np.arange(n)",
    ),
    Plant(
        BATCH_KERNELS,
        "batches",
        "the other side's ratings in the order of the batch",
        "FORWARD ? place : __ldcs(batch.order + place)",
        "place",
    ),
    Plant(
        BATCH_KERNELS,
        "batches",
        "the clocks are swapped",
        "scaled_rate(h, clocks.beta_1, clocks.beta_2)",
        "scaled_rate(h, clocks.beta_2, clocks.beta_1)",
    ),
    Plant(
        BATCH_KERNELS,
        "batches",
        "the column of ones is learned",
        "of.sum[n][v] * c.learned[v]",
        "of.sum[n][v]",
    ),
    Plant(
        BATCH_KERNELS,
        "batches l2",
        "a row's share of the penalty",
        "clocks.share > 0.0f ? clocks.share * m : 1.0f",
        "1.0f",
    ),
    Plant(
        BATCH_KERNELS,
        "batches l2",
        "a weight is left out of a batch's gradient",
        "push = batch.scale * e * w",
        "push = batch.scale * e",
    ),
    Plant(
        BATCH_KERNELS,
        "batches l1",
        "L1 pushes the wrong way",
        "- penalty * c.l1[v] * sign_of",
        "+ penalty * c.l1[v] * sign_of",
    ),
    Plant(
        BATCH_DRIVER,
        "batches",
        "new rows are left aside",
        "            card.rows, card.spare = card.spare, card.rows\n",
        "            pass\n",
    ),
    Plant(
        BATCH_DRIVER,
        "batches",
        "unknown ids get no bias of the other side",
        "unknown[0, self._one(side)] = 1",
        "pass",
    ),
]


def planted_copy(folder: str, plant: Plant | None) -> None:
    """Make a copy of the package in a folder: links, but for the file of the plant."""
    package = Path(folder) / "funksvd"
    shutil.copytree(SOURCE, package, copy_function=os.symlink)
    if plant is None:
        return
    text = (SOURCE / plant.file).read_text()
    if plant.before not in text:
        raise SystemExit(f"nothing to change in {plant.file}: {plant.before}")
    (package / plant.file).unlink()
    (package / plant.file).write_text(text.replace(plant.before, plant.after))


def run(host: str, tests: Iterable[str], plant: Plant | None = None) -> str | None:
    """Return the output of pytest if one of the tests fails, else None.

    Compiled kernels are kept in the folder `host`.
    """
    with tempfile.TemporaryDirectory(prefix="funksvd-mutant-") as folder:
        planted_copy(folder, plant)
        environment = {**os.environ, "PYTHONPATH": folder, "FUNKSVD_CUDA_HOST": host}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [f"{TESTS}/{test}" for test in tests]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        return done.stdout + done.stderr if done.returncode else None


def main() -> None:
    """Print which faults were caught."""
    missed = 0
    start = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="funksvd-cuda-host-") as host,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        failed = run(host, CAUGHT_BY.values())
        if failed:
            raise SystemExit(f"{failed}\nthe tests fail without any fault planted")
        tests = [[CAUGHT_BY[plant.test]] for plant in PLANTS]
        outputs = pool.map(run, itertools.repeat(host), tests, PLANTS)
        for plant, output in zip(PLANTS, outputs, strict=True):
            missed += output is None
            verdict = "MISSED" if output is None else "caught"
            sys.stdout.write(f"{verdict}  {plant.fault}  ({plant.test})\n")
            sys.stdout.flush()
    seconds = time.perf_counter() - start
    n = len(PLANTS)
    sys.stdout.write(f"{n - missed} of {n} planted faults caught in {seconds:.0f} s\n")
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
