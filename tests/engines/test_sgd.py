"""The CPU engine of SGD: its kernel beside the slow twin, the grid, and promises of `fit`."""

import re
from unittest import mock

import numpy as np
import pytest
from conftest import random_ratings
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import block

from funksvd import Callback, FunkSVD, Ratings, load
from funksvd.engines.sgd import SgdEngine
from funksvd.engines.start import rule
from funksvd.machine.kernels import LEVEL, kernels, levels
from funksvd.parameters import resolve
from funksvd.ratings import _grid
from funksvd.ratings import grid as grid_module
from funksvd.ratings.grid import build


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("k", [1, 3, 8, 20, 32, 100, 257])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
def test_kernel_equals_naive(k, dtype, tolerance, level):
    engine = engine_of(Ratings.from_arrays(*random_ratings(20_000)), k, dtype)
    assert engine.grid.n_bands > 1
    compare_with_naive(engine, k, dtype, tolerance, level)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
def test_weighted_kernel_equals_naive(dtype, tolerance, level):
    """Zeros among the weights, runs of every length."""
    users, items, values = random_ratings(5000, 200, 50)
    weights = np.random.default_rng(1).integers(0, 5, len(values)) / 2
    engine = engine_of(Ratings.from_arrays(users, items, values, weights), 20, dtype)
    compare_with_naive(engine, 20, dtype, tolerance, level)


def test_weighted_fit_is_weighted_least_squares():
    """Biases without a penalty are those of NumPy's lstsq for the same weights.

    They are not those for equal weights.
    """
    users, items, values = random_ratings(2000, 12, 8)
    weights = np.where(values > 4, 5.0, 0.5)
    model = FunkSVD(
        1,
        400,
        init_std=0,
        l2_bias=0,
        learning_rate=0.01,
        learning_rate_decay=0.02,
        random_state=0,
    )
    model.fit((users, items), values, sample_weight=weights)
    right = least_squares(users, items, values, weights)
    wrong = least_squares(users, items, values, np.ones(len(values)))
    got = model.predict((users, items))
    np.testing.assert_allclose(got, right, atol=0.02)
    assert np.abs(got - wrong).min() > 0.1
    best = np.average((values - right) ** 2, weights=weights)
    assert model.history_["loss"][-1] == pytest.approx(best, rel=0.01)
    rmse = model.evaluate((users, items), values, weights)["rmse"]
    assert rmse**2 == pytest.approx(best, rel=0.01)


def test_validation_loss_is_weighted():
    users, items, values = random_ratings(2000, 12, 8)
    weights = np.where(values > 4, 5.0, 0.5)
    held_out = ((users, items), values, weights)
    model = FunkSVD(1, 1, random_state=0).fit((users, items), values, validation_data=held_out)
    predicted = model.predict((users, items))
    loss = np.average((values - predicted) ** 2, weights=weights)
    assert model.history_["val_loss"][0] == pytest.approx(loss, rel=1e-5)


def least_squares(users, items, values, weights):
    """Return the predictions of the best 12 user and 8 item biases for weighted ratings."""
    rows = np.arange(len(values))
    columns = np.zeros((len(values), 20))
    columns[rows, users] = 1
    columns[rows, 12 + items] = 1
    root = np.sqrt(weights)
    biases, *_ = np.linalg.lstsq(columns * root[:, None], values * root, rcond=None)
    return columns @ biases


def fit_random(model):
    """Fit a model on random ratings."""
    users, items, values = random_ratings()
    return model.fit((users, items), values)


def engine_of(ratings, k, dtype="float64", **params):
    hyper = resolve(FunkSVD(k, dtype=dtype, **params).get_params())
    return SgdEngine(ratings, None, hyper)


def compare_with_naive(engine, k, dtype, tolerance, level=LEVEL):
    """Train every block of one epoch with the kernel and with its twin, and compare the rows."""
    grid = engine.grid
    kernel = kernels("engines._sgd", dtype, level)
    sides = [(side.factors, side.biases, side.state, side.extra) for side in engine.sides]
    gathered = engine.sides[1]
    rules = [rule(engine.hyper, side, 0.02) for side in ("users", "items")]
    weight = np.empty(0, dtype) if grid.weight is None else grid.weight
    starts = grid.bands + np.arange(grid.n_bands + 1)
    blocks = kernel.Blocks(
        grid.block_runs,
        grid.block_start,
        starts,
        grid.run_row,
        grid.run_end,
        grid.index,
        grid.rating,
        weight,
    )
    fast = [kernel.Side(*arrays) for arrays in sides]
    for b in range(grid.n_bands**2):
        x, y = divmod(b, grid.n_bands)
        rows = slice(starts[y], starts[y + 1])
        runs = slice(grid.block_runs[b], grid.block_runs[b + 1])
        part = slice(grid.block_start[b], grid.block_start[b + 1] + 8)
        run_side = [array.copy() for array in sides[0]]
        side = [array[rows].copy() for array in sides[1]]
        want = block(
            run_side,
            side,
            grid.run_row[runs],
            grid.run_end[runs],
            grid.index[part],
            grid.rating[part],
            weight[part] if len(weight) else weight,
            engine.mean,
            engine.solver,
            *(dict(zip(kernel.RULE, rule, strict=True)) for rule in rules),
        )
        got = kernel.block(*fast, blocks, x, y, engine.mean, engine.solver, np.array(rules))
        assert got == pytest.approx(want, rel=tolerance)
        spare = starts[y + 1] - 1
        assert (gathered.factors[spare] == 0).all()
        gathered.state[spare] = side[2][-1]  # the clocks of the spare row may tick
        gathered.extra[spare] = side[3][-1]
        ours = [*sides[0], *(array[rows] for array in sides[1])]
        for array, expected in zip(ours, [*run_side, *side], strict=True):
            np.testing.assert_allclose(array, expected, rtol=tolerance, atol=tolerance)
        assert (engine.sides[0].factors[:, k:] == 0).all()


SOLVERS = [
    {"solver": "sgd", "momentum": 0.9},
    *({"solver": name} for name in ("adagrad_row", "adagrad", "adam", "adamax")),
]


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("k", [3, 20, 32, 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s["solver"])
def test_every_solver_equals_naive(solver, k, dtype, tolerance, level):
    engine = engine_of(
        Ratings.from_arrays(*random_ratings(1500)),
        k,
        dtype,
        l2=(0.05, 0.02),
        l2_bias=(0.01, 0.03),
        **solver,
    )
    engine.epoch(0, 0.01)
    compare_with_naive(engine, k, dtype, tolerance, level)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize(
    "extra",
    [
        {"l1": (0.12, 0.1)},
        {"l1_bias": 0.5},
        {"non_negative": True},
        {"biased": False},
    ],
)
@pytest.mark.parametrize(
    "solver",
    [{"solver": "sgd"}, *SOLVERS],
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_every_penalty_equals_naive(solver, extra, level):
    """Ratings have weights here; L1 gives exact zeros, and the bound no factor below 0."""
    users, items, values = random_ratings(1500, 60, 30)
    weights = np.random.default_rng(1).integers(0, 5, len(values)) / 2
    engine = engine_of(
        Ratings.from_arrays(users, items, values, weights),
        11,
        "float64",
        init_std=0.3,
        **solver,
        **extra,
    )
    engine.epoch(0, 0.01)
    compare_with_naive(engine, 11, "float64", 1e-6, level)
    gathered = engine.sides[1]
    factors = gathered.factors[gathered.places, :11]
    biases = gathered.biases[gathered.places]
    assert (factors == 0).any() == ("l1" in extra or "non_negative" in extra)
    assert (biases == 0).any() == ("l1_bias" in extra or "biased" in extra)
    assert (factors < 0).any() != ("non_negative" in extra)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 400),
    n_users=st.integers(1, 40),
    n_items=st.integers(1, 40),
    k=st.integers(1, 12),
    seed=st.integers(0, 99),
    bands=st.integers(1, 5),
)
def test_any_shape_equals_naive(n, n_users, n_items, k, seed, bands):
    """Shapes have repeated pairs, single rows and empty blocks; the grid has each rating once."""
    users, items, values = random_ratings(n, n_users, n_items, seed)
    with mock.patch.object(grid_module, "choose_bands", return_value=bands):
        engine = engine_of(Ratings.from_arrays(users, items, values), k)
    grid = engine.grid
    compare_with_naive(engine, k, "float64", 1e-6)
    found = []
    for b in range(grid.n_bands**2):
        x, y = divmod(b, grid.n_bands)
        start = 0
        for r in range(grid.block_runs[b], grid.block_runs[b + 1]):
            assert grid.run_bands[x] <= grid.run_row[r] < grid.run_bands[x + 1]
            part = slice(
                grid.block_start[b] + start,
                grid.block_start[b] + grid.run_end[r],
            )
            start = grid.run_end[r]
            index = grid.index[part].astype(int)
            assert (np.diff(index) > 0).all()  # no item twice in a run
            run_code, codes = (
                grid.run_codes[grid.run_row[r]],
                grid.codes[grid.bands[y] + index],
            )
            for code, value in zip(codes, grid.rating[part], strict=True):
                found.append((run_code, code, value) if grid.users_run else (code, run_code, value))
    user_codes = np.unique(users, return_inverse=True)[1]
    item_codes = np.unique(items, return_inverse=True)[1]
    assert sorted(found) == sorted(zip(user_codes, item_codes, values, strict=True))


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


def test_same_bytes_for_any_threads_and_row_order(tmp_path):
    users, items, ratings = random_ratings(300_000, 2000, 900)
    shuffled = np.random.default_rng(1).permutation(len(users))
    files = []
    for n_jobs, order in ((1, slice(None)), (2, slice(None)), (7, shuffled)):
        model = FunkSVD(8, 3, random_state=0, n_jobs=n_jobs)
        model.fit((users[order], items[order]), ratings[order], validation_split=0.1)
        model.save(tmp_path / "m.npz")
        files.append((tmp_path / "m.npz").read_bytes())
    assert files[0] == files[1] == files[2]


def test_transposed_input_gives_the_transposed_model():
    users, items, ratings = random_ratings()
    a = FunkSVD(5, 3, random_state=0).fit((users, items), ratings)
    b = FunkSVD(5, 3, random_state=0).fit((items, users), ratings)
    assert (a.user_factors_ == b.item_factors_).all()
    assert (a.item_biases_ == b.user_biases_).all()


def test_save_and_load_predict_the_same(tmp_path):
    users, items, ratings = random_ratings()
    model = FunkSVD(5, 3, random_state=0).fit((users.astype(str), items), ratings)
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    pairs = (users.astype(str), items)
    assert (again.predict(pairs) == model.predict(pairs)).all()
    with pytest.raises(TypeError, match="user ids are int"):
        again.predict((users, items))


def test_bad_input_is_refused():
    users, items, ratings = random_ratings()
    with pytest.raises(ValueError, match="equal lengths"):
        FunkSVD().fit((users[1:], items), ratings)
    ratings[7] = np.nan
    with pytest.raises(ValueError, match="first at index 7"):
        FunkSVD().fit((users, items), ratings)
    with pytest.raises(ValueError, match="n_factors"):
        FunkSVD(n_factors=0).fit((users, items), ratings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_factors", 0),
        ("n_factors", 2.5),
        ("n_epochs", -1),
        ("solver", "newton"),
        ("solver", ["sgd"]),
        ("training", "stepwise"),
        ("batch_size", 0),
        ("batch_size", 1e6),
        ("shuffle", 1),
        ("learning_rate", 0),
        ("learning_rate", np.nan),
        ("learning_rate", "fast"),
        ("learning_rate_schedule", "linear"),
        ("learning_rate_decay", 1),
        ("momentum", 1),
        ("beta_1", -0.1),
        ("beta_2", 1),
        ("epsilon", 0),
        ("initial_accumulator_value", -1),
        ("l2", -0.1),
        ("l2", (0.1, -1)),
        ("l1", (1, 2, 3)),
        ("l2_bias", np.inf),
        ("l1_bias", "none"),
        ("reg_scale", "user"),
        ("non_negative", None),
        ("min_improvement", -1),
        ("biased", "yes"),
        ("center", 0.0),
        ("init_std", -1),
        ("rating_scale", (5, 1)),
        ("n_jobs", 0),
        ("n_jobs", "two"),
        ("device", "gpu"),
        ("schedule", "random"),
        ("max_device_bytes", 0),
        ("dtype", "float16"),
        ("random_state", -1),
        ("verbose", 3),
    ],
)
def test_each_parameter_is_checked_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got "):
        fit_random(FunkSVD(**{name: value}))


@pytest.mark.parametrize(
    ("name", "params", "condition"),
    [
        (
            "training",
            {"training": "featurewise", "solver": "adam"},
            "solver is 'sgd'",
        ),
        (
            "batch_size",
            {"batch_size": 9, "training": "featurewise"},
            "training is 'joint'",
        ),
        (
            "batch_size",
            {"batch_size": 9, "solver": "adagrad_row"},
            "solver is one of 'sgd', 'adagrad', 'adam', 'adamax'",
        ),
        ("shuffle", {"shuffle": False}, "batch_size > 1"),
        (
            "learning_rate",
            {
                "learning_rate": 0.1,
                "learning_rate_schedule": lambda e: 0.1,
                "learning_rate_decay": 0.03,
            },
            "learning_rate_schedule is a name",
        ),
        (
            "learning_rate_decay",
            {"learning_rate_decay": 0.1, "learning_rate_schedule": "cosine"},
            "learning_rate_schedule is 'exponential' or 'inverse_time'",
        ),
        ("momentum", {"momentum": 0.9, "solver": "adam"}, "solver is 'sgd'"),
        (
            "momentum",
            {"momentum": 0.9, "training": "featurewise"},
            "training is 'joint'",
        ),
        ("beta_1", {"beta_1": 0.5}, "solver is 'adam' or 'adamax'"),
        (
            "beta_2",
            {"beta_2": 0.5, "solver": "adagrad"},
            "solver is 'adam' or 'adamax'",
        ),
        ("epsilon", {"epsilon": 1e-3}, "solver is neither 'sgd' nor 'gibbs'"),
        (
            "initial_accumulator_value",
            {"initial_accumulator_value": 1, "solver": "adam"},
            "solver is 'adagrad_row' or 'adagrad'",
        ),
        (
            "training",
            {"training": "featurewise", "device": "cuda"},
            "device is 'cpu'",
        ),
        ("schedule", {"schedule": "hogwild"}, "device is 'cuda'"),
        ("max_device_bytes", {"max_device_bytes": 1}, "device is 'cuda'"),
        (
            "min_improvement",
            {"min_improvement": 1},
            "training is 'featurewise'",
        ),
    ],
)
def test_a_parameter_that_means_nothing_is_refused(name, params, condition):
    with pytest.raises(
        ValueError,
        match=rf"^{name} must be .* unless {re.escape(condition)}, got ",
    ):
        fit_random(FunkSVD(**params))


def test_ctrl_c_keeps_the_last_whole_epoch():
    users, items, ratings = random_ratings()
    whole = FunkSVD(4, 3, random_state=0).fit((users, items), ratings)

    class CtrlC(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted in epoch 4"):
        model = FunkSVD(4, 9, random_state=0).fit((users, items), ratings, callbacks=[CtrlC()])
    assert model.interrupted_
    assert model.n_epochs_ == 3
    assert (model.item_factors_ == whole.item_factors_).all()


def test_divergence_names_the_epoch_and_the_cure():
    with pytest.raises(
        FloatingPointError,
        match=r"diverged in epoch \d+: .*lower learning_rate",
    ):
        fit_random(FunkSVD(4, 20, l2=0, l2_bias=0, learning_rate=50.0, random_state=0))


def test_unknown_ids_fall_back_and_are_counted():
    users, items, ratings = random_ratings()
    model = FunkSVD(4, 3, random_state=0).fit((users, items), ratings)
    with pytest.warns(UserWarning, match=r"100\.0% of the pairs"):
        got = model.predict((np.array([1, 9999]), np.array([9999, 9999])))
    bias = model.user_biases_[model.user_ids_ == 1][0]
    np.testing.assert_allclose(got, [model.global_mean_ + bias, model.global_mean_], rtol=1e-6)
    assert np.isnan(model.predict((np.array([9999]), np.array([1])), unknown="nan")).all()
    with pytest.raises(ValueError, match="unknown to the model"):
        model.predict((np.array([9999]), np.array([1])), unknown="raise")


def test_repeated_pairs_train_in_any_row_order():
    users, items, ratings = random_ratings(4000, 9, 5)
    order = np.random.default_rng(1).permutation(4000)
    a = FunkSVD(4, 3, random_state=0).fit((users, items), ratings)
    b = FunkSVD(4, 3, random_state=0).fit((users[order], items[order]), ratings[order])
    assert (a.user_factors_ == b.user_factors_).all()


@pytest.mark.parametrize("harm", ["cut", "foreign", "newer", "shape"])
def test_damaged_model_files_are_refused(tmp_path, harm):
    users, items, ratings = random_ratings()
    path = tmp_path / "m.npz"
    FunkSVD(4, 3, random_state=0).fit((users, items), ratings).save(path)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    elif harm == "foreign":
        path.write_text("not a model")
    else:
        with np.load(path) as file:
            arrays = dict(file)
        if harm == "newer":
            arrays["meta"] = np.frombuffer(
                arrays["meta"].tobytes().replace(b'"format": 1', b'"format": 9'),
                np.uint8,
            )
        else:
            arrays["user_biases"] = arrays["user_biases"][1:]
        np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"is not a (whole )?funksvd model"):
        load(path)


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
