"""Mini-batches: the kernel against its twin in NumPy, and changes that must not change a bit."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from naive import mini_batch

from funksvd import FunkSVD, Ratings, parameters
from funksvd.engines.minibatch import MiniBatchEngine
from funksvd.hyper import resolve
from funksvd.machine.kernels import kernels, levels

SOLVERS: dict[str, dict[str, Any]] = {
    "sgd": {"learning_rate": 0.2},
    "momentum": {"solver": "sgd", "momentum": 0.8, "learning_rate": 0.1},
    "adagrad": {"learning_rate": 0.05},
    "adam": {"beta_1": 0.8, "beta_2": 0.99, "learning_rate": 0.02},
    "adamax": {"learning_rate": 0.03, "epsilon": 1e-3},
}
PENALTIES: dict[str, dict[str, Any]] = {
    "none": {"l2": 0, "l2_bias": 0},
    "l2": {"l2": (0.02, 0.05), "l2_bias": 0.04},
    "l1": {"l2": 0, "l2_bias": 0, "l1": (0.03, 0.01), "l1_bias": 0.02},
    "both": {"l2": 0.02, "l2_bias": (0.01, 0.02), "l1": 0.01, "l1_bias": (0.01, 0.03)},
}
TABLES = ("user_factors", "item_factors", "user_biases", "item_biases")


def full_ratings(
    n: int = 900,
    n_users: int = 40,
    n_items: int = 30,
    seed: int = 0,
    weighted: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Return random ratings (users, items, values, weights or None) that name every id."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, n_users, n)
    items = rng.integers(0, n_items, n)
    values = rng.normal(3.5, 1, n)
    users[:n_users] = np.arange(n_users)
    items[:n_items] = np.arange(n_items)
    weights = rng.integers(0, 5, n) / 2 if weighted else None
    return users, items, values, weights


def options_of(
    penalty: str,
    biased: bool,
    reg_scale: str,
    non_negative: bool,
) -> dict[str, Any]:
    """Return parameters of a penalty, where those of biases keep their defaults without biases."""
    options = dict(PENALTIES[penalty])
    if not biased:
        options |= {"l2_bias": 0.02, "l1_bias": 0.0}
    options |= {"biased": biased, "reg_scale": reg_scale, "non_negative": non_negative}
    return options


def engine_of(
    data: Any,
    held_out: Ratings | None = None,
    n_jobs: int = 1,
    seed: int = 0,
    engine: type[MiniBatchEngine] = MiniBatchEngine,
    **params: Any,
) -> MiniBatchEngine:
    """Return an engine on ratings, for one of SOLVERS."""
    solver = params.pop("solver", None)
    options = {"n_factors": 5, "batch_size": 200, "init_std": 0.3, **SOLVERS.get(solver, {})}
    if solver not in (None, "momentum"):
        options["solver"] = solver
    model = FunkSVD(**options | params)
    parameters.check(model)
    hyper = resolve(model.get_params())
    if engine is not MiniBatchEngine:
        hyper = replace(hyper, device="cuda")
    return engine(Ratings.from_arrays(*data), held_out, hyper, seed=seed, n_jobs=n_jobs)


def tables_of(engine: MiniBatchEngine) -> dict[str, np.ndarray]:
    """Return copies of the four learned tables by name."""
    weights = engine.weights()
    return {name: getattr(weights, name).copy() for name in TABLES}


class Twin:
    """`naive.mini_batch` over the batches of a file order, in float64, from an engine's start."""

    def __init__(self, engine: MiniBatchEngine, data: Any) -> None:
        users, items, values, sample_weights = data
        if sample_weights is None:
            sample_weights = np.ones(len(users))
        self.columns = (users, items, values, sample_weights)
        self.engine = engine
        self.hyper = vars(engine.hyper)
        self.steps = 0
        tables = tables_of(engine)
        self.tables = {name: table.astype(np.float64) for name, table in tables.items()}
        solver = engine.hyper.solver
        momentum = bool(engine.hyper.momentum)
        n_states = {"sgd": momentum, "adagrad": 1, "adam": 2, "adamax": 2}[solver]
        first = engine.hyper.initial_accumulator_value if solver == "adagrad" else 0.0
        self.states = {
            name: [np.full(table.shape, first) for _ in range(n_states)]
            for name, table in tables.items()
        }

    def epoch(self) -> float:
        """Make a step for each batch; return the mean squared error seen on the way."""
        hyper = self.engine.hyper
        squares = 0.0
        for start in range(0, len(self.columns[0]), hyper.batch_size):
            self.steps += 1
            squares += mini_batch(
                self.tables,
                self.states,
                [column[start : start + hyper.batch_size] for column in self.columns],
                self.engine.mean,
                hyper.solver,
                self.hyper,
                hyper.learning_rate,
                self.steps,
            )
        return squares / self.columns[3].sum()


def compare_with_naive(
    engine: MiniBatchEngine,
    data: Any,
    dtype: str,
    epochs: int = 2,
) -> None:
    """Compare epochs in file order with those of the twin."""
    twin = Twin(engine, data)
    tolerance = 1e-9 if dtype == "float64" else 2e-5
    for epoch in range(epochs):
        loss = engine.epoch(epoch, engine.hyper.learning_rate)
        assert loss == pytest.approx(twin.epoch(), rel=tolerance)
    for name, table in tables_of(engine).items():
        want = twin.tables[name]
        atol = tolerance * np.abs(want).max() + 1e-30
        np.testing.assert_allclose(table, want, rtol=tolerance, atol=atol)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_kernel_equals_naive(
    solver,
    penalty,
    dtype,
) -> None:
    ways = product((True, False), ("row", "rating"), (False, True), (False, True))
    for number, (biased, scale, weighted, above) in enumerate(ways):
        data = full_ratings(weighted=weighted, seed=number)
        params = options_of(penalty, biased, scale, above)
        engine = engine_of(data, solver=solver, dtype=dtype, shuffle=False, **params)
        compare_with_naive(engine, data, dtype)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("k", [1, 6, 13, 14, 22, 32, 70])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_row_length_and_build(
    k,
    dtype,
    level,
) -> None:
    """Rows of every width that the kernels know as a constant, and others; a last batch of 1."""
    data = full_ratings(401)
    params = {"solver": "adamax", "n_factors": k, "dtype": dtype, "l2": 0.01, "reg_scale": "row"}
    engine = engine_of(data, shuffle=False, **params)
    engine.kernel = kernels("engines._minibatch", dtype, level)
    compare_with_naive(engine, data, dtype)


@pytest.mark.parametrize(
    ("n", "n_users", "n_items"), [(3, 1, 1), (50, 50, 2), (50, 2, 50), (500, 3, 3), (60, 30, 30)]
)
def test_any_shape(
    n,
    n_users,
    n_items,
) -> None:
    """Fewer ratings than a batch, repeated pairs, one row."""
    data = full_ratings(n, n_users, n_items)
    engine = engine_of(data, solver="adam", dtype="float64", shuffle=False, batch_size=1000)
    compare_with_naive(engine, data, "float64")


def state_of(engine: MiniBatchEngine) -> dict[str, bytes]:
    """Return the bytes of an engine's snapshot by name."""
    return {name: array.tobytes() for name, array in engine.snapshot().items()}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shuffle", [True, False])
def test_same_bytes_for_any_threads(
    shuffle,
    weighted,
    monkeypatch,
) -> None:
    monkeypatch.setattr("funksvd.engines.minibatch.BUSY", 0)
    monkeypatch.setattr("funksvd.engines.batches.DEAL", 300)
    data = full_ratings(5000, 300, 200, weighted=weighted)
    held_out = Ratings.from_arrays(*full_ratings(100))
    got = []
    for n_jobs in (1, 2, 3, 8):
        engine = engine_of(data, held_out, n_jobs=n_jobs, solver="adamax", shuffle=shuffle)
        losses = [engine.epoch(epoch, 0.05) for epoch in range(3)]
        got.append((losses, engine.validate(), state_of(engine)))
    assert all(result == got[0] for result in got)


def test_same_bytes_for_any_row_order() -> None:
    """Repeated pairs, weights and unknown ids are among the ratings."""
    data = full_ratings(3000, 30, 20, weighted=True)
    held_out = full_ratings(200, 35, 20, weighted=True, seed=1)
    got = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(data[0]))
        held_order = np.random.default_rng(seed).permutation(len(held_out[0]))
        engine = engine_of(
            [column[order] for column in data],
            Ratings.from_arrays(*(column[held_order] for column in held_out)),
            solver="adam",
        )
        losses = [engine.epoch(epoch, 0.05) for epoch in range(2)]
        got.append((losses, engine.validate(), state_of(engine)))
    assert all(result == got[0] for result in got)


@pytest.mark.parametrize("shuffle", [True, False])
def test_transposed_input_gives_the_transposed_model(shuffle) -> None:
    users, items, values, _ = full_ratings(3000, 50, 50)
    params = {"solver": "adamax", "batch_size": 400, "shuffle": shuffle, "random_state": 0}
    model = FunkSVD(5, 3, **params).fit((users, items), values)
    transposed = FunkSVD(5, 3, **params).fit((items, users), values)
    assert (model.user_factors_ == transposed.item_factors_).all()
    assert (model.item_biases_ == transposed.user_biases_).all()


def test_a_shuffled_epoch_deals_every_rating_once_into_full_batches(monkeypatch) -> None:
    monkeypatch.setattr("funksvd.engines.batches.DEAL", 100)
    data = full_ratings(1050, 40, 30, weighted=True)
    engine = engine_of(data)
    want = sorted(zip(*(column.astype(np.float32) for column in data), strict=True))
    seen = []
    for epoch in range(3):
        engine.epoch(epoch, 0.1)
        assert sorted(zip(*engine.batches, strict=True)) == want
        seen.append([column.copy() for column in engine.batches])
        for first in range(0, 1050, 200):
            row = engine.batches.row[first : first + 200].astype(int)
            assert (np.diff(row) >= 0).all()
    assert not all((a == b).all() for a, b in zip(*seen[:2], strict=True))


def test_batches_are_uniformly_random(monkeypatch) -> None:
    """In batches of two every pair of ratings meets equally often, within five standard errors."""
    monkeypatch.setattr("funksvd.engines.batches.DEAL", 2)
    monkeypatch.setattr("funksvd.engines.minibatch.MiniBatchEngine._step", lambda *a: None)
    engine = engine_of((np.arange(6), np.zeros(6, int), np.arange(6.0)), batch_size=2)
    together = np.zeros((6, 6))
    for epoch in range(3000):
        engine.epoch(epoch, 0.1)
        for pair in engine.batches.row.reshape(3, 2):
            together[tuple(pair)] += 1
    got = together[np.triu_indices(6, 1)]
    assert got.sum() == 9000
    np.testing.assert_allclose(got, 600, atol=5 * np.sqrt(600 * 0.8))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_snapshot_resumes_to_the_same_bytes(solver) -> None:
    data = full_ratings()
    whole = engine_of(data, solver=solver)
    losses = [whole.epoch(epoch, 0.05) for epoch in range(4)]
    half = engine_of(data, solver=solver)
    for epoch in range(2):
        half.epoch(epoch, 0.05)
    state = half.snapshot()
    half.epoch(2, 0.05)  # is undone
    again = engine_of(data, solver=solver, init_std=0.1)
    for engine in (half, again):
        engine.restore(state)
        assert [engine.epoch(epoch, 0.05) for epoch in (2, 3)] == losses[2:]
        assert state_of(engine) == state_of(whole)


def test_load_and_weights_are_inverse() -> None:
    engine = engine_of(full_ratings())
    other = engine_of(full_ratings(), seed=1)
    other.load(engine.weights())
    for name, table in tables_of(engine).items():
        assert (tables_of(other)[name] == table).all()


def test_validation_is_the_error_of_predict() -> None:
    users, items, values, _ = full_ratings()
    rng = np.random.default_rng(3)
    pairs = (rng.integers(0, 45, 300), rng.integers(0, 35, 300))
    held_values = rng.normal(3, 1, 300)
    weights = rng.random(300)
    model = FunkSVD(4, 2, solver="adam", batch_size=128, random_state=0)
    model.fit((users, items), values, validation_data=(pairs, held_values, weights))
    with pytest.warns(UserWarning, match="unknown to the model"):
        predicted = model.predict(pairs)
    want = np.average((held_values - predicted) ** 2, weights=weights)
    assert model.history_["val_loss"][-1] == pytest.approx(want, rel=1e-5)


def test_mini_batches_learn_a_planted_model() -> None:
    """On ratings of rank 2 without noise the error of withheld ratings ends near zero."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, 100, 8000)
    items = rng.integers(0, 80, 8000)
    p = rng.normal(0, 0.7, (100, 2))
    q = rng.normal(0, 0.7, (80, 2))
    values = 3 + (p[users] * q[items]).sum(1)
    params = {"solver": "adam", "batch_size": 256, "learning_rate": 0.02, "random_state": 0}
    model = FunkSVD(2, 60, l2=0, l2_bias=0, **params)
    model.fit((users[1000:], items[1000:]), values[1000:])
    assert model.evaluate((users[:1000], items[:1000]), values[:1000])["rmse"] < 0.03


def test_l1_and_the_lower_bound() -> None:
    users, items, values, _ = full_ratings(4000)
    params = {"solver": "adamax", "batch_size": 500, "random_state": 0}
    model = FunkSVD(4, 20, non_negative=True, l1=0.05, **params)
    model.fit((users, items), values)
    assert model.user_factors_.min() == 0
    assert model.item_factors_.min() == 0
    assert model.user_biases_.min() < 0


def test_too_many_ratings_are_refused(monkeypatch) -> None:
    monkeypatch.setattr("funksvd.engines.minibatch.MOST", 900)
    with pytest.raises(ValueError, match="batch_size must be 1 for 900 ratings or more, got 200"):
        engine_of(full_ratings())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_solver_without_mini_batches_is_refused(dtype) -> None:
    engine = engine_of(full_ratings(), dtype=dtype)
    engine.solver = "adagrad_row"
    with pytest.raises(ValueError, match="solver='adagrad_row' has no mini-batches"):
        engine.epoch(0, 0.1)
