"""Plant one fault at a time in the kernels or their driver; the tests on the shim must catch every one.

``python -m tests.cuda_host.mutate`` from the repository's root. Exits with the number of faults that were missed.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
CU, PY = "_sgd.cu", "gpu.py"
QUICK = ("equals_the_cpu_engine and (20 or l1 or sides or unbiased or row) and not 512",
         "float16 or streaming or outside or bits")  # fmt: skip
PLANTS = [
    (CU, "no __syncwarp after a run", "      __syncwarp(ALL);  // the", "      // the"),
    (CU, "a reduction misses its last step", "int o = LANES / 2; o > 0;", "int o = LANES / 2; o > 1;"),
    (CU, "groups are summed from the wrong distance", "for (int o = LANES; o < 32;", "for (int o = 2 * LANES; o < 32;"),
    (CU, "shfl_down: only lane 0 has the sum", "for (int o = LANES / 2; o > 0; o >>= 1) v += __shfl_xor_sync(ALL, v, o);",
     "for (int o = LANES / 2; o > 0; o >>= 1) v += __shfl_down_sync(ALL, v, o);"),
    (CU, "a shuffle names half of the warp", "o < 32; o <<= 1) v += __shfl_xor_sync(ALL,",
     "o < 32; o <<= 1) v += __shfl_xor_sync(0xffffu,"),
    (CU, "no guard on the slot (writes past the row)", "if (c * AT_ONCE + group >= m || slot >= SLOTS) continue;",
     "if (c * AT_ONCE + group >= m) continue;"),
    (CU, "no guard on the micro-batch's size", "if (c * AT_ONCE + group >= m || slot >= SLOTS) continue;",
     "if (slot >= SLOTS) continue;"),
    (CU, "the penalty's sign", "1.0f - h.rate * l2", "1.0f + h.rate * l2"),
    (CU, "the run's penalty counts once", "shrinkage(h, (float)m * h.l2)", "shrinkage(h, h.l2)"),
    (CU, "the sides' penalties are swapped", "step_slot(h.gathered, 1,", "step_slot(h.run, 1,"),
    (CU, "indices fetched ahead are one off", "__ldcs(index + (t + m + c", "__ldcs(index + (t + m - 1 + c"),
    (CU, "the last run of a block is skipped", "r < task.runs; ++r) {", "r < task.runs - 1; ++r) {"),
    (CU, "tasks are skipped", "c < n_tasks; c += gridDim.x", "c < n_tasks - 1; c += gridDim.x"),
    (CU, "a bias is left out of the prediction", "mean + (bias + other_bias) + dot", "mean + bias + dot"),
    (CU, "a bias step for ratings that are not there", "if (sub == 0 && c * AT_ONCE + group < m) gathered",
     "if (sub == 0) gathered"),
    (CU, "AdaGrad adds after use", "    a += g * g;\n    return x - rate * g / sqrtf(a + h.epsilon);",
     "    x -= rate * g / sqrtf(a + h.epsilon);\n    a += g * g;\n    return x;"),
    (CU, "the run's state is not stored", "store_states(p_state, n * LANES + sub, p_states[n]);", ";"),
    (CU, "Adam's second clock stands still", "if (SOLVER == ADAM) extra.y", "if (SOLVER == ADAMAX) extra.y"),
    (CU, "AdaMax forgets to decay its maximum", "fmaxf(h.beta_2 * b, fabsf(g))", "fmaxf(b, fabsf(g))"),
    (CU, "row-wise AdaGrad divides by the padded length", "sum_in_group(p_seen) / (float)N_FACTORS",
     "sum_in_group(p_seen) / (float)STRIDE"),
    (CU, "halves swapped on their way to memory", "rounded(x[2 * j], bits & 0xffffu) | (rounded(x[2 * j + 1], bits >> 16)",
     "rounded(x[2 * j + 1], bits & 0xffffu) | (rounded(x[2 * j], bits >> 16)"),
    (CU, "rounding to the nearest", "h = (float)random16 * (1.0f / 65536.0f)", "h = 0.5f"),
    (CU, "a weight is left out of the gradient", "        e[c] *= w;\n", ""),
    (CU, "L1 before L1's own scale", "(float)m * h.l1 * reach", "h.l1 * reach"),
    (CU, "row penalties leave the biases alone", "if (slot == 0) biases[", "if (slot < 0) biases["),
    (PY, "the kernel does not wait for its copy", "            current.wait_event(copied)\n", ""),
    (PY, "a copy does not wait for the kernel", "                self.stream.wait_event(done)", "                pass"),
    (PY, "pinned memory is filled too soon", "                copied.synchronize()", "                pass"),
    (PY, "spare rows are forgotten", "grid.bands[:-1] + np.arange(n)", "grid.bands[:-1] + 0 * np.arange(n)"),
]  # fmt: skip


def run(plant=None):
    """The first test that fails, or None."""
    with tempfile.TemporaryDirectory(prefix="funksvd-mutant-") as folder:
        package = Path(folder) / "funksvd"
        package.mkdir()
        for path in (ROOT / "funksvd").iterdir():
            (package / path.name).symlink_to(path)
        if plant:
            file, _, old, new = plant
            text = (ROOT / "funksvd" / file).read_text()
            if old not in text:
                raise SystemExit(f"nothing to change in {file}: {old}")
            (package / file).unlink()
            (package / file).write_text(text.replace(old, new))
        environment = {**os.environ, "PYTHONPATH": folder, "FUNKSVD_CUDA_HOST": str(Path(folder) / "host")}
        for chosen in QUICK:
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
            done = subprocess.run([*command, str(ROOT / "tests" / "test_gpu.py"), "-k", chosen], env=environment, cwd=folder,
                                  capture_output=True, text=True)  # fmt: skip
            if done.returncode:
                lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
                return lines[0].partition("::")[2] if lines else done.stdout[-300:] + done.stderr[-300:]
    return None


def main():
    if run():
        raise SystemExit("the tests fail without any fault planted")
    missed = 0
    with ThreadPoolExecutor(2) as pool:
        for plant, caught in zip(PLANTS, pool.map(run, PLANTS), strict=True):
            missed += caught is None
            sys.stdout.write(f"{'MISSED' if caught is None else 'caught'}  {plant[1]}  {(caught or '')[:90]}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(PLANTS) - missed} of {len(PLANTS)} planted faults caught\n")
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
