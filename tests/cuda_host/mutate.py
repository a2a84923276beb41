"""Plant one fault at a time in the kernels or their driver; the tests on the shim must catch every one.

``python -m tests.cuda_host.mutate`` from the root of a source tree, built in place or with funksvd installed. Exits with
the number of faults that were missed.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import funksvd

SOURCE = Path(funksvd.__file__).parent
TESTS = Path(__file__).parents[1]
CU, SOLVERS, PY = "engines/_sgd.cu", "engines/_solvers.cu", "engines/cuda_grid.py"
BATCH, BATCH_PY = "engines/_minibatch.cu", "engines/cuda_minibatch.py"
EQUALS = "engines/test_cuda.py::test_equals_the_cpu_engine_and_naive[shim-{}-20]"
OPTION = "engines/test_cuda.py::test_every_option_equals_the_cpu_engine_and_naive[shim-{}-sgd]"
BATCHES = "engines/test_cuda_minibatch.py::test_{}"
CAUGHT_BY = {
    **{
        solver: EQUALS.format(solver)
        for solver in ("sgd", "momentum", "adagrad_row", "adagrad", "adam", "adamax")
    },
    **{option: OPTION.format(option) for option in ("l1", "sides", "row")},
    "half": "engines/test_cuda.py::test_float16_storage_stays_near_float32[shim]",
    "streaming": "engines/test_cuda.py::test_streaming_gives_the_bytes_of_a_resident_run[shim-False-params0]",
    "batches": BATCHES.format("equals_the_cpu_engine_and_naive[shim-20-adam]"),
    "batches l2": BATCHES.format("every_option_equals_naive[shim-l2-sgd]"),
    "batches l1": BATCHES.format("every_option_equals_naive[shim-both-sgd]"),
}
PLANTS = [  # file, the test that must fail, the fault, the text before and after
    (CU, "momentum", "no __syncwarp after a run", "      __syncwarp(ALL);  // the", "      // the"),
    (
        SOLVERS,
        "sgd",
        "a reduction misses its last step",
        "int o = LANES / 2; o > 0;",
        "int o = LANES / 2; o > 1;",
    ),
    (
        SOLVERS,
        "sgd",
        "groups are summed from the wrong distance",
        "for (int o = LANES; o < 32;",
        "for (int o = 2 * LANES; o < 32;",
    ),
    (
        SOLVERS,
        "sgd",
        "shfl_down: only lane 0 has the sum",
        "for (int o = LANES / 2; o > 0; o >>= 1) v += __shfl_xor_sync(ALL, v, o);",
        "for (int o = LANES / 2; o > 0; o >>= 1) v += __shfl_down_sync(ALL, v, o);",
    ),
    (
        SOLVERS,
        "sgd",
        "a shuffle names half of the warp",
        "o < 32; o <<= 1) v += __shfl_xor_sync(ALL,",
        "o < 32; o <<= 1) v += __shfl_xor_sync(0xffffu,",
    ),
    (
        CU,
        "sgd",
        "no guard on the slot (writes past the row)",
        "if (c * AT_ONCE + group >= m || slot >= SLOTS) continue;",
        "if (c * AT_ONCE + group >= m) continue;",
    ),
    (
        CU,
        "sgd",
        "no guard on the micro-batch's size",
        "if (c * AT_ONCE + group >= m || slot >= SLOTS) continue;",
        "if (slot >= SLOTS) continue;",
    ),
    (SOLVERS, "sgd", "the penalty's sign", "1.0f - rate * l2", "1.0f + rate * l2"),
    (
        CU,
        "sgd",
        "the run's penalty counts once",
        "shrinkage(rate, (float)m * h.l2)",
        "shrinkage(rate, h.l2)",
    ),
    (
        CU,
        "sides",
        "the sides' penalties are swapped",
        "step_slot(h.gathered, 1,",
        "step_slot(h.run, 1,",
    ),
    (
        CU,
        "sgd",
        "indices fetched ahead are one off",
        "__ldcs(index + (t + m + c",
        "__ldcs(index + (t + m - 1 + c",
    ),
    (
        CU,
        "sgd",
        "the last run of a block is skipped",
        "r < task.runs; ++r) {",
        "r < task.runs - 1; ++r) {",
    ),
    (
        CU,
        "sgd",
        "tasks are skipped",
        "c < n_tasks; c += gridDim.x",
        "c < n_tasks - 1; c += gridDim.x",
    ),
    (
        CU,
        "sgd",
        "a bias is left out of the prediction",
        "mean + (bias + other_bias) + dot",
        "mean + bias + dot",
    ),
    (
        CU,
        "sgd",
        "a bias step for ratings that are not there",
        "if (sub == 0 && c * AT_ONCE + group < m) gathered",
        "if (sub == 0) gathered",
    ),
    (
        SOLVERS,
        "adagrad",
        "AdaGrad adds after use",
        "    a += g * g;\n    return x - rate * g / sqrtf(a + h.epsilon);",
        "    x -= rate * g / sqrtf(a + h.epsilon);\n    a += g * g;\n    return x;",
    ),
    (
        CU,
        "momentum",
        "the run's state is not stored",
        "store_states(p_state, n * LANES + sub, p_states[n]);",
        ";",
    ),
    (
        SOLVERS,
        "adam",
        "Adam's second clock stands still",
        "if (SOLVER == ADAM) extra.y",
        "if (SOLVER == ADAMAX) extra.y",
    ),
    (
        SOLVERS,
        "adamax",
        "AdaMax forgets to decay its maximum",
        "fmaxf(h.beta_2 * b, fabsf(g))",
        "fmaxf(b, fabsf(g))",
    ),
    (
        CU,
        "adagrad_row",
        "row-wise AdaGrad divides by the padded length",
        "total * total) / N_VALUES",
        "total * total) / STRIDE",
    ),
    (CU, "adagrad_row", "row-wise AdaGrad leaves the bias out", "(p_square + BIASED)", "p_square"),
    (
        CU,
        "adagrad_row",
        "row-wise AdaGrad steps with the new accumulator",
        "const float p_rate = scaled_rate(h.run, p_extra.x, p_extra.y)",
        "const float p_rate = scaled_rate(h.run, p_extra.x + total * total, p_extra.y)",
    ),
    (
        CU,
        "momentum",
        "a bias' state is left behind",
        "if (SOLVER != SGD) runs.extra[row] = p_extra;",
        ";",
    ),
    (
        SOLVERS,
        "half",
        "halves swapped on their way to memory",
        "rounded(x[2 * j], bits & 0xffffu) | (rounded(x[2 * j + 1], bits >> 16)",
        "rounded(x[2 * j + 1], bits & 0xffffu) | (rounded(x[2 * j], bits >> 16)",
    ),
    (
        SOLVERS,
        "half",
        "rounding to the nearest",
        "h = (float)random16 * (1.0f / 65536.0f)",
        "h = 0.5f",
    ),
    (CU, "l1", "a weight is left out of the gradient", "        e[c] *= w;\n", ""),
    (CU, "l1", "L1 before L1's own scale", "(float)m * h.l1 * reach", "h.l1 * reach"),
    (
        CU,
        "row",
        "row penalties leave the biases alone",
        "if (slot == 0) biases[",
        "if (slot < 0) biases[",
    ),
    (
        PY,
        "streaming",
        "the kernel does not wait for its copy",
        "            current.wait_event(copied)\n",
        "",
    ),
    (
        PY,
        "streaming",
        "a copy does not wait for the kernel",
        "                self.stream.wait_event(done)",
        "                pass",
    ),
    (
        PY,
        "streaming",
        "pinned memory is filled too soon",
        "                copied.synchronize()",
        "                pass",
    ),
    (
        PY,
        "sgd",
        "spare rows are forgotten",
        "grid.bands[:-1] + np.arange(n)",
        "grid.bands[:-1] + 0 * np.arange(n)",
    ),
    (
        BATCH,
        "batches",
        "the other side's ratings in the order of the batch",
        "FORWARD ? t + group : __ldcs(batch.order + t + group)",
        "t + group",
    ),
    (
        BATCH,
        "batches",
        "the clocks are swapped",
        "scaled_rate(h, clocks.beta_1, clocks.beta_2)",
        "scaled_rate(h, clocks.beta_2, clocks.beta_1)",
    ),
    (BATCH, "batches", "the column of ones is learnt", "sum[n][v] * learnt[v]", "sum[n][v]"),
    (
        BATCH,
        "batches l2",
        "a row's share of the penalty",
        "clocks.share > 0.0f ? clocks.share * m : 1.0f",
        "1.0f",
    ),
    (
        BATCH,
        "batches l2",
        "a weight is left out of a batch's gradient",
        "push = batch.scale * e * w",
        "push = batch.scale * e",
    ),
    (
        BATCH,
        "batches l1",
        "L1 pushes the wrong way",
        "- penalty * l1[v] * sign",
        "+ penalty * l1[v] * sign",
    ),
    (
        BATCH_PY,
        "batches",
        "new rows are left aside",
        "        self.cards, self.fresh = self.fresh, self.cards\n",
        "",
    ),
    (
        BATCH_PY,
        "batches",
        "unknown ids get no bias of the other side",
        "unknown[0, self.k + 1 - side] = 1",
        "pass",
    ),
]


def run(host, tests, plant=None):
    """What pytest says where one of the tests fails, else None. Compiled kernels are kept in the folder `host`."""
    with tempfile.TemporaryDirectory(prefix="funksvd-mutant-") as folder:
        package = Path(folder) / "funksvd"
        shutil.copytree(SOURCE, package, copy_function=os.symlink)
        if plant:
            file, _, _, old, new = plant
            text = (SOURCE / file).read_text()
            if old not in text:
                raise SystemExit(f"nothing to change in {file}: {old}")
            (package / file).unlink()
            (package / file).write_text(text.replace(old, new))
        environment = {**os.environ, "PYTHONPATH": folder, "FUNKSVD_CUDA_HOST": host}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *(f"{TESTS}/{test}" for test in tests),
        ]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        return done.stdout + done.stderr if done.returncode else None


def main():
    missed, start = 0, time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="funksvd-cuda-host-") as host,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        failed = run(host, CAUGHT_BY.values())
        if failed:
            raise SystemExit(f"{failed}\nthe tests fail without any fault planted")
        tests = [[CAUGHT_BY[plant[1]]] for plant in PLANTS]
        for plant, caught in zip(
            PLANTS, pool.map(run, itertools.repeat(host), tests, PLANTS), strict=True
        ):
            missed += caught is None
            sys.stdout.write(
                f"{'MISSED' if caught is None else 'caught'}  {plant[2]}  ({plant[1]})\n"
            )
            sys.stdout.flush()
    seconds = time.perf_counter() - start
    sys.stdout.write(
        f"{len(PLANTS) - missed} of {len(PLANTS)} planted faults caught in {seconds:.0f} s\n"
    )
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
