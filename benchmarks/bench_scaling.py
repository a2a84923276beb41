"""Measure how FunkSVD scales with ratings, factors and threads; the kernel alone; predictions.

    python benchmarks/bench_scaling.py [--quick] [--plot scaling.png]

A rating costs 8 k floating-point operations: 2 k for the dot product, 2 k for each of the two steps
and k for each of the two penalties. Their rate stands beside that of a float32 matrix product on
one core, which is the best that the machine can do.
"""

import argparse
import contextlib
import time

import numpy as np
from common import Shape, aligned, check, median_seconds, planted, print_header, print_table

RATINGS = (1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000)
FACTORS = (16, 32, 64, 128, 256)
THREADS = (1, 2)
BASE_RATINGS = 10_000_000  # where the factors vary
BASE_FACTORS = 32  # where the ratings vary
EPOCHS = 6
MIB = 1 << 20


def shape_of(ratings):
    """Return the shape of the Netflix Prize at another size, as dense and as uneven.

    Users and items grow with the root of the ratings.
    """
    scale = (ratings / 100_480_507) ** 0.5
    return Shape(int(480_189 * scale), int(17_770 * scale), ratings, 1.1, 1.7)


def matmul_gflops():
    """Return the GFLOP/s of a 1024 x 1024 float32 matrix product, and the cores that it had.

    It has one core where threadpoolctl is installed.
    """
    try:
        from threadpoolctl import threadpool_limits

        limits = threadpool_limits(1)
        where = "one core"
    except ImportError:
        limits = contextlib.nullcontext()
        where = "all cores: install threadpoolctl for one"
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 1024, 1024), dtype=np.float32)
    out = np.empty_like(a)
    with limits:
        seconds = median_seconds(lambda: np.matmul(a, b, out=out), 20, 3)
    return 2 * 1024**3 / seconds / 1e9, where


def padded(array, extra=8):
    """Return `array` with `extra` zeros after it, from a multiple of 64 bytes."""
    result = aligned(len(array) + extra, array.dtype)
    result[: len(array)] = array
    return result


def kernel_rate(factors, users=2000, items=200, run=36):
    """Return the ratings a second of a training pass over one block that stays in the cache.

    It also returns the size of the block's data in MiB.
    """
    from funksvd import FunkSVD
    from funksvd.engines.start import rule
    from funksvd.hyper import resolve
    from funksvd.machine.kernels import kernels

    kernel = kernels("engines._sgd", np.float32)
    rng = np.random.default_rng(0)
    width = -(-factors // 8) * 8
    mean = 3.5
    rate = 0.005
    l2 = 0.02
    run_factors = aligned((users, width), np.float32)
    item_factors = aligned((items + 1, width), np.float32)  # the last row is the spare one
    run_factors[:, :factors] = rng.normal(0, 0.1, (users, factors))
    item_factors[:items, :factors] = rng.normal(0, 0.1, (items, factors))
    run_biases = aligned(users, np.float32)
    item_biases = aligned(items + 1, np.float32)
    run_row = np.arange(users, dtype=np.int32)
    run_end = np.arange(run, users * run + 1, run, dtype=np.uint32)
    # Items of a run are distinct.
    chosen = rng.permuted(np.tile(np.arange(items, dtype=np.uint16), (users, 1)), axis=1)[:, :run]
    index = padded(np.ascontiguousarray(chosen).ravel())
    rating = padded(rng.integers(1, 6, users * run).astype(np.float32))

    none = np.empty((users, 0), np.float32)
    sides = [
        kernel.Side(run_factors, run_biases, none, none),
        kernel.Side(item_factors, item_biases, none[: items + 1], none[: items + 1]),
    ]
    counts = [np.array([0, n]) for n in (users, users * run, items + 1)]
    blocks = kernel.Blocks(*counts, run_row, run_end, index, rating, np.empty(0, np.float32))
    hyper = resolve(FunkSVD(factors, l2=l2, l2_bias=l2).get_params())
    rules = np.array([rule(hyper, side, rate) for side in ("users", "items")])

    def epoch(solver="sgd"):
        return kernel.block(*sides, blocks, 0, 0, mean, solver, rules)

    p = run_factors.astype(float)
    q = item_factors[chosen].astype(float)
    predicted = np.einsum("uk,urk->ur", p, q) + mean
    exact = np.square(rating[: users * run].reshape(users, run) - predicted).sum()
    check(abs(epoch(None) / exact - 1) < 1e-4, "the kernel's squared errors are not NumPy's")
    first = epoch()
    seconds = median_seconds(epoch, 50, 5)
    last = epoch()
    check(last < first, "the kernel does not lower the error")
    spare_is_zero = not item_factors[items].any() and not item_biases[items]
    check(spare_is_zero, "the kernel moves the spare row")
    working_set = sum(a.nbytes for a in (run_factors, item_factors, index, rating)) / MIB
    return users * run / seconds, working_set


def bench_kernel(all_factors, matmul):
    """Print the table of the kernel alone."""
    rows = []
    for factors in all_factors:
        rate, working_set = kernel_rate(factors)
        gflops = 8 * factors * rate / 1e9
        rows.append([f"k = {factors}", rate / 1e6, gflops, f"{gflops / matmul:.0%}", working_set])
    print("## the kernel alone: one block, one thread, float32")
    print_table(["", "M ratings/s", "GFLOP/s", "of matmul", "working set, MiB"], rows, "kernel")


def epoch_seconds(users, items, ratings, factors, threads):
    """Return the median seconds of an epoch after the first, and the seconds of fit before it."""
    from funksvd import FunkSVD

    model = FunkSVD(n_factors=factors, n_epochs=EPOCHS, n_jobs=threads, random_state=0)
    model.fit((users, items), ratings, verbose=0)
    errors = model.history_["rmse"]
    falls = errors[-1] < min(errors[0], ratings.std())
    check(falls, f"training RMSE {errors} does not fall below the mean's")
    return float(np.median(model.history_["seconds"][1:])), model.setup_seconds_


def bench_predict(pairs, factors, threads):
    """Print the pairs a second of `model.predict`, the look-up of the integer ids included."""
    from funksvd import FunkSVD

    rows = []
    for name, n_users, n_items in (("ml-20m", 138_493, 26_744), ("netflix", 480_189, 17_770)):
        rng = np.random.default_rng(0)
        ids = [np.arange(max(n_users, n_items), dtype=np.int32) % n for n in (n_users, n_items)]
        model = FunkSVD(factors, 1, n_jobs=threads, random_state=0).fit(
            tuple(ids), rng.normal(size=len(ids[0]))
        )
        users, items = (rng.integers(0, n, pairs, dtype=np.int32) for n in (n_users, n_items))
        u = users[:1000]  # every id is there, so that ids are codes
        i = items[:1000]
        products = np.einsum("tk,tk->t", model.user_factors_[u], model.item_factors_[i])
        want = products + model.global_mean_ + model.user_biases_[u] + model.item_biases_[i]
        same = np.allclose(model.predict((u, i)), want, rtol=1e-4)
        check(same, "predictions differ from the formula")
        seconds = median_seconds(lambda m=model, x=(users, items): m.predict(x), 5, 1)
        rows.append([name, f"{pairs:,}", str(factors), str(threads), pairs / seconds / 1e6])
    print("\n## predict: random pairs of integer ids, median of 5 calls after 1")
    print_table(["shape", "pairs", "k", "threads", "M pairs/s"], rows, "predict")


def plot(path, by_ratings, by_factors):
    """Draw two log-log panels; a dotted line of slope one starts at each series' first point."""
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot as plt
    except ImportError:
        print("no plot: pip install matplotlib")
        return
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=False)
    draw_panel(panels[0], "ratings", f"k = {BASE_FACTORS}", by_ratings, 0)
    draw_panel(panels[1], "factors", f"{by_factors[0][0]:,} ratings", by_factors, 1)
    panels[1].set_xticks(FACTORS, [str(k) for k in FACTORS])
    panels[1].minorticks_off()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    print(f"wrote {path}")


def draw_panel(panel, label, title, points, column):
    """Draw the seconds of an epoch against one column of points (ratings, k, threads, seconds)."""
    for threads in sorted({point[2] for point in points}):
        series = [point for point in points if point[2] == threads]
        x = np.array([point[column] for point in series], float)
        y = np.array([point[3] for point in series])
        (line,) = panel.loglog(x, y, "o-", label=f"{threads} thread{'s' * (threads > 1)}")
        panel.loglog(x, y[0] * x / x[0], ":", color=line.get_color(), linewidth=1)
    panel.set_xlabel(label)
    panel.set_ylabel("seconds an epoch")
    panel.set_title(title)
    panel.legend(title="dotted: linear")
    panel.grid(alpha=0.3)


def bench_fit(wanted, all_threads, matmul):
    """Print the table of `fit`; return the seconds of an epoch for each (ratings, k, threads).

    `wanted` lists the pairs (ratings, k) to measure.
    """
    points = {}
    rows = []
    for n in sorted({size for size, _ in wanted}):
        start = time.perf_counter()
        data = planted(shape_of(n))
        print(f"{n:,} ratings generated in {time.perf_counter() - start:.1f} s", flush=True)
        for factors in sorted({k for size, k in wanted if size == n}):
            for threads in all_threads:
                seconds, setup = epoch_seconds(*data, factors, threads)
                points[n, factors, threads] = seconds
                gflops = 8 * factors * n / seconds / 1e9
                share = f"{gflops / (matmul * threads):.0%}"
                speedup = points[n, factors, all_threads[0]] / seconds
                row = [f"{n:,}", str(factors), str(threads), seconds, n / seconds / 1e6]
                rows.append([*row, gflops, share, speedup, setup])
    print("\n## fit")
    header = [
        "ratings",
        "k",
        "threads",
        "s/epoch",
        "M ratings/s",
        "GFLOP/s",
        "of matmul x threads",
        f"over {all_threads[0]} thread",
        "s before first epoch",
    ]
    print_table(header, rows, "fit")
    return points


def main():
    """Print the tables and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="at most 1 M ratings and 64 factors")
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--max-ratings", type=int, default=RATINGS[-1])
    parser.add_argument("--plot", metavar="PNG", default="scaling.png")
    parser.add_argument("--kernel-only", action="store_true", help="only the kernel in cache")
    options = parser.parse_args()
    sizes = RATINGS
    all_factors = FACTORS
    base = BASE_RATINGS
    if options.quick:
        sizes = (100_000, 300_000, 1_000_000)
        all_factors = (16, 32, 64)
        base = 300_000
    sizes = [n for n in sizes if n <= options.max_ratings]
    if not sizes:
        parser.error(f"--max-ratings must be at least {RATINGS[0]}, got {options.max_ratings}")
    base = min(base, sizes[-1])
    measured = f"median of epochs 2-{EPOCHS} of one fit; kernel: median of 50 passes after 5"
    print_header("scipy", measured=measured)
    matmul, where = matmul_gflops()
    print(f"float32 matrix product: {matmul:.1f} GFLOP/s ({where})\n", flush=True)
    bench_kernel(all_factors, matmul)
    if options.kernel_only:
        return
    bench_predict(1_000_000 if options.quick else 20_000_000, BASE_FACTORS, max(options.threads))
    print()
    wanted = [(n, BASE_FACTORS) for n in sizes] + [(base, k) for k in all_factors]
    points = bench_fit(wanted, options.threads, matmul)
    series = [(*key, seconds) for key, seconds in points.items()]
    plot(
        options.plot,
        [point for point in series if point[1] == BASE_FACTORS],
        [point for point in series if point[0] == base],
    )


if __name__ == "__main__":
    main()
