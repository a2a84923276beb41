"""Mini-batches: the kernel against its twin in NumPy, and what must not change a bit."""

from itertools import product

import numpy as np
import pytest
from naive import mini_batch

from funksvd import FunkSVD, Ratings, parameters
from funksvd.engines.minibatch import MiniBatchEngine
from funksvd.machine.kernels import kernels, levels

SOLVERS = {
    "sgd": {"learning_rate": 0.2},
    "momentum": {"solver": "sgd", "momentum": 0.8, "learning_rate": 0.1},
    "adagrad": {"learning_rate": 0.05},
    "adam": {"beta_1": 0.8, "beta_2": 0.99, "learning_rate": 0.02},
    "adamax": {"learning_rate": 0.03, "epsilon": 1e-3},
}
PENALTIES = {
    "none": {"l2": 0, "l2_bias": 0},
    "l2": {"l2": (0.02, 0.05), "l2_bias": 0.04},
    "l1": {"l2": 0, "l2_bias": 0, "l1": (0.03, 0.01), "l1_bias": 0.02},
    "both": {"l2": 0.02, "l2_bias": (0.01, 0.02), "l1": 0.01, "l1_bias": (0.01, 0.03)},
}


def some(n=900, n_users=40, n_items=30, seed=0, weighted=False):
    rng = np.random.default_rng(seed)
    users, items, values = (
        rng.integers(0, n_users, n),
        rng.integers(0, n_items, n),
        rng.normal(3.5, 1, n),
    )
    users[:n_users], items[:n_items] = np.arange(n_users), np.arange(n_items)
    return users, items, values, rng.integers(0, 5, n) / 2 if weighted else None


def engine_of(data, held_out=None, n_jobs=1, seed=0, engine=MiniBatchEngine, **params):
    solver = params.pop("solver", None)
    params = {
        **SOLVERS.get(solver, {}),
        **({"solver": solver} if solver not in (None, "momentum") else {}),
        **params,
    }
    model = FunkSVD(**{"n_factors": 5, "batch_size": 200, "init_std": 0.3, **params})
    parameters.check(model)
    hyper = parameters.resolve(model.get_params())
    if engine is not MiniBatchEngine:
        hyper.device = "cuda"
    return engine(Ratings.from_arrays(*data), held_out, hyper, seed=seed, n_jobs=n_jobs)


def tables_of(engine):
    params = engine.weights()
    return {
        name: getattr(params, name).copy()
        for name in ("user_factors", "item_factors", "user_biases", "item_biases")
    }


def compare_with_naive(engine, data, dtype, epochs=2):
    """Epochs in file order beside the twin's, from the same start; the twin works in float64."""
    users, items, values, weights = data
    tables = {name: table.astype(np.float64) for name, table in tables_of(engine).items()}
    hyper, solver = vars(engine.hyper), engine.hyper.solver
    first = hyper["initial_accumulator_value"] if solver == "adagrad" else 0.0
    count = {"sgd": bool(hyper["momentum"]), "adagrad": 1, "adam": 2, "adamax": 2}[solver]
    states = {
        name: [np.full(table.shape, first) for _ in range(count)] for name, table in tables.items()
    }
    weights = np.ones(len(users)) if weights is None else weights
    steps, size = 0, engine.hyper.batch_size
    for epoch in range(epochs):
        squares = 0.0
        for start in range(0, len(users), size):
            steps += 1
            batch = [x[start : start + size] for x in (users, items, values, weights)]
            squares += mini_batch(
                tables, states, batch, engine.mean, solver, hyper, hyper["learning_rate"], steps
            )
        tolerance = 1e-9 if dtype == "float64" else 2e-5
        assert engine.epoch(epoch, hyper["learning_rate"]) == pytest.approx(
            squares / weights.sum(), rel=tolerance
        )
    for name, table in tables_of(engine).items():
        np.testing.assert_allclose(
            table, tables[name], rtol=tolerance, atol=tolerance * np.abs(tables[name]).max() + 1e-30
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_kernel_equals_naive(solver, penalty, dtype):
    ways = product((True, False), ("row", "rating"), (False, True), (False, True))
    for number, (biased, scale, weighted, above) in enumerate(ways):
        data = some(weighted=weighted, seed=number)
        bias = {} if biased else {"l2_bias": 0.02, "l1_bias": 0.0}
        params = {
            **PENALTIES[penalty],
            **bias,
            "biased": biased,
            "reg_scale": scale,
            "non_negative": above,
        }
        engine = engine_of(data, solver=solver, dtype=dtype, shuffle=False, **params)
        compare_with_naive(engine, data, dtype)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("k", [1, 6, 13, 14, 22, 32, 70])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_row_length_and_build(k, dtype, level):
    """Rows of every width that the kernels know as a constant, and others; a last batch of one rating."""
    data = some(401)
    engine = engine_of(
        data, solver="adamax", n_factors=k, dtype=dtype, shuffle=False, l2=0.01, reg_scale="row"
    )
    engine.kernel = kernels("engines._minibatch", dtype, level)
    compare_with_naive(engine, data, dtype)


@pytest.mark.parametrize(
    ("n", "n_users", "n_items"), [(3, 1, 1), (50, 50, 2), (50, 2, 50), (500, 3, 3), (60, 30, 30)]
)
def test_any_shape(n, n_users, n_items):
    """Fewer ratings than a batch, repeated pairs, one row."""
    data = some(n, n_users, n_items)
    compare_with_naive(
        engine_of(data, solver="adam", dtype="float64", shuffle=False, batch_size=1000),
        data,
        "float64",
    )


def state_of(engine):
    return {name: array.tobytes() for name, array in engine.snapshot().items()}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shuffle", [True, False])
def test_same_bytes_for_any_threads(shuffle, weighted, monkeypatch):
    monkeypatch.setattr("funksvd.engines.minibatch.BUSY", 0)
    monkeypatch.setattr("funksvd.engines.minibatch.DEAL", 300)
    data, got = some(5000, 300, 200, weighted=weighted), []
    for n_jobs in (1, 2, 3, 8):
        engine = engine_of(
            data, Ratings.from_arrays(*some(100)), n_jobs=n_jobs, solver="adamax", shuffle=shuffle
        )
        losses = [engine.epoch(e, 0.05) for e in range(3)]
        got.append((losses, engine.validate(), state_of(engine)))
    assert all(one == got[0] for one in got)


def test_same_bytes_for_any_row_order():
    """Repeated pairs, weights and unknown ids among them."""
    data, held_out, got = (
        some(3000, 30, 20, weighted=True),
        some(200, 35, 20, weighted=True, seed=1),
        [],
    )
    for seed in range(3):
        order, other = (
            np.random.default_rng(seed).permutation(len(d[0])) for d in (data, held_out)
        )
        engine = engine_of(
            [x[order] for x in data],
            Ratings.from_arrays(*(x[other] for x in held_out)),
            solver="adam",
        )
        got.append(([engine.epoch(e, 0.05) for e in range(2)], engine.validate(), state_of(engine)))
    assert all(one == got[0] for one in got)


@pytest.mark.parametrize("shuffle", [True, False])
def test_transposed_input_gives_the_transposed_model(shuffle):
    users, items, values, _ = some(3000, 50, 50)
    made = [
        FunkSVD(5, 3, solver="adamax", batch_size=400, shuffle=shuffle, random_state=0).fit(
            X, values
        )
        for X in ((users, items), (items, users))
    ]
    assert (made[0].user_factors_ == made[1].item_factors_).all()
    assert (made[0].item_biases_ == made[1].user_biases_).all()


def test_a_shuffled_epoch_deals_every_rating_once_into_full_batches(monkeypatch):
    monkeypatch.setattr("funksvd.engines.minibatch.DEAL", 100)
    data = some(1050, 40, 30, weighted=True)
    engine = engine_of(data)
    want, seen = sorted(zip(*(x.astype(np.float32) for x in data), strict=True)), []
    for epoch in range(3):
        engine.epoch(epoch, 0.1)
        assert sorted(zip(*engine.batches, strict=True)) == want
        seen.append([x.copy() for x in engine.batches])
        for first in range(0, 1050, 200):
            row = engine.batches[0][first : first + 200].astype(int)
            assert (np.diff(row) >= 0).all()
    assert not all((a == b).all() for a, b in zip(*seen[:2], strict=True))


def test_batches_are_uniformly_random(monkeypatch):
    """Ratings that meet in a batch of two: every pair equally often, within five standard errors."""
    monkeypatch.setattr("funksvd.engines.minibatch.DEAL", 2)
    monkeypatch.setattr("funksvd.engines.minibatch.MiniBatchEngine._step", lambda *a: None)
    engine = engine_of((np.arange(6), np.zeros(6, int), np.arange(6.0)), batch_size=2)
    together = np.zeros((6, 6))
    for epoch in range(3000):
        engine.epoch(epoch, 0.1)
        for pair in engine.batches[0].reshape(3, 2):
            together[tuple(pair)] += 1
    got = together[np.triu_indices(6, 1)]
    assert got.sum() == 9000
    np.testing.assert_allclose(got, 600, atol=5 * np.sqrt(600 * 0.8))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_snapshot_resumes_to_the_same_bytes(solver):
    data = some()
    whole = engine_of(data, solver=solver)
    losses = [whole.epoch(e, 0.05) for e in range(4)]
    half = engine_of(data, solver=solver)
    for e in range(2):
        half.epoch(e, 0.05)
    state = half.snapshot()
    half.epoch(2, 0.05)  # is undone
    again = engine_of(data, solver=solver, init_std=0.1)
    for engine in (half, again):
        engine.restore(state)
        assert [engine.epoch(e, 0.05) for e in (2, 3)] == losses[2:]
        assert state_of(engine) == state_of(whole)


def test_load_and_params_are_inverse():
    engine, other = engine_of(some()), engine_of(some(), seed=1)
    other.load(engine.weights())
    for name, table in tables_of(engine).items():
        assert (tables_of(other)[name] == table).all()


def test_validation_is_the_error_of_predict():
    users, items, values, _ = some()
    rng = np.random.default_rng(3)
    check = rng.integers(0, 45, 300), rng.integers(0, 35, 300), rng.normal(3, 1, 300)
    weights = rng.random(300)
    model = FunkSVD(4, 2, solver="adam", batch_size=128, random_state=0)
    model.fit((users, items), values, validation_data=(check[:2], check[2], weights))
    with pytest.warns(UserWarning, match="unknown to the model"):
        predicted = model.predict(check[:2])
    want = np.average((check[2] - predicted) ** 2, weights=weights)
    assert model.history_["val_loss"][-1] == pytest.approx(want, rel=1e-5)


def test_mini_batches_learn_what_one_at_a_time_learns():
    """A planted model of rank 2 without noise: both ways end near zero, from other sides."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 100, 8000), rng.integers(0, 80, 8000)
    p, q = rng.normal(0, 0.7, (100, 2)), rng.normal(0, 0.7, (80, 2))
    values = 3 + (p[users] * q[items]).sum(1)
    model = FunkSVD(
        2, 60, solver="adam", batch_size=256, learning_rate=0.02, l2=0, l2_bias=0, random_state=0
    )
    model.fit((users[1000:], items[1000:]), values[1000:])
    assert model.evaluate((users[:1000], items[:1000]), values[:1000])["rmse"] < 0.03


def test_l1_and_the_lower_bound():
    users, items, values, _ = some(4000)
    model = FunkSVD(
        4, 20, solver="adamax", batch_size=500, non_negative=True, l1=0.05, random_state=0
    )
    model.fit((users, items), values)
    assert model.user_factors_.min() == 0
    assert model.item_factors_.min() == 0
    assert model.user_biases_.min() < 0


def test_too_many_ratings_are_refused(monkeypatch):
    monkeypatch.setattr("funksvd.engines.minibatch.MOST", 900)
    with pytest.raises(ValueError, match="batch_size must be 1 for 900 ratings or more, got 200"):
        engine_of(some())
