"""The sampler: its sweeps against the naive twin and closed forms, and models trained by it.

`test_low_rank.py` tests the samples' mean, `test_posterior.py` standard deviations and intervals.
"""

import gibbs_checks
import naive
import numpy as np
import pytest
from gibbs_checks import (
    FEW,
    SameDraws,
    distinct_ratings,
    engine_of,
    hyper_of,
    needs_sets,
    state_of,
    take_over,
)
from scipy import stats

from funksvd import Callback, EarlyStopping, FunkSVD, ModelCheckpoint, Ratings, load
from funksvd.engines import chain as chain_module
from funksvd.engines.gibbs import GibbsEngine
from funksvd.engines.linear import cholesky_of
from funksvd.machine.kernels import kernels, levels
from funksvd.machine.memory import aligned


def uneven_ratings():
    """Return (users, items, values, weights) with rows of few ratings and of many on both sides."""
    users, items, values = distinct_ratings(900, 60, 40)
    keep = (users > 1) & (items > 1)
    keep &= (users % 7 != 0) | (items <= 8)
    users = np.append(users[keep], [2, 3])
    items = np.append(items[keep], [2, 3])
    values = np.append(values[keep], [2, 3])
    _, first = np.unique(np.column_stack([users, items]), axis=0, return_index=True)
    weights = np.random.default_rng(1).uniform(0.2, 2, len(first))
    return users[first], items[first], values[first], weights


def assert_states_close(got, wanted):
    assert got.alpha == pytest.approx(wanted.alpha, rel=2e-3, abs=2e-3)
    for name in ("x", "b", "a", "m", "l", "mb", "lb"):
        for side in (0, 1):
            np.testing.assert_allclose(
                np.asarray(getattr(got, name)[side]),
                np.asarray(getattr(wanted, name)[side]),
                rtol=2e-3,
                atol=2e-3,
                err_msg=f"{name} {side}",
            )
    for side in (0, 1):
        for own, group in zip(got.groups[side], wanted.groups[side], strict=True):
            for name, array in vars(own).items():
                close = np.allclose(array, getattr(group, name), rtol=2e-3, atol=2e-3)
                assert close, f"{name} of the features of side {side}"


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("k", [1, 3, 16, 20, 32])
@pytest.mark.parametrize("sets", [False, True])
def test_sweep_equals_naive(sets, k, level, monkeypatch):
    monkeypatch.setattr(chain_module, "kernels", lambda name, dtype: kernels(name, dtype, level))
    users, items, values, weights = uneven_ratings()
    engine = engine_of(users, items, values, weights, n_factors=k, sets=sets)
    chain = engine.chain
    codes = tuple(np.unique(ids, return_inverse=True)[1] for ids in (users, items))
    y = np.full((codes[0].max() + 1, codes[1].max() + 1), np.nan)
    w = y.copy()
    y[codes] = (values - engine.mean) / engine.std
    w[codes] = weights
    counts = np.diff(chain.sides[0].start)
    assert counts.min() <= FEW < counts.max()
    chain.sweep = 5
    for _ in range(2):
        state = state_of(chain)
        draws = SameDraws(chain)
        loss = engine.epoch(0, 0.0)
        kurtosis = naive.gibbs_sweep(state, y, w, draws)
        assert_states_close(state_of(chain), state)
        error = (y - gibbs_checks.predictions(state)) * engine.std
        assert loss == pytest.approx(np.nansum(w * error**2) / weights.sum(), rel=1e-3)
        assert chain.kurtosis == pytest.approx(kurtosis, rel=5e-3)


@pytest.mark.parametrize("level", levels())
def test_generators(level):
    kernel = kernels("engines._gibbs", np.float32, level)
    z = np.empty((4000, 96), np.float32)
    kernel.normal_rows(kernel.stream(3, (1, 2)), 0, np.zeros(128, np.float32), z)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(z[:, 0] * z[:, 1], z[:, 40] * z[::-1, 17]).pvalue > 1e-3
    assert np.abs(np.corrcoef(z.T) - np.eye(96)).max() < 5 / np.sqrt(len(z))
    assert abs((z**4).mean() - 3) < 0.05
    for shape in (1.0, 2.5, 60.0):
        out = np.empty(20_000)
        normal = np.random.default_rng(0).standard_normal(len(out))
        kernel.gammas(kernel.stream(4, (7,)), 0, np.full(len(out), shape), normal, out)
        assert stats.kstest(out, stats.gamma(shape).cdf).pvalue > 1e-3


@pytest.mark.parametrize("few", [0, FEW])
def test_row_has_the_posterior_of_the_closed_form(few):
    """Bias and factors of one user with six ratings are drawn 20,000 times, given all else."""
    rng = np.random.default_rng(0)
    users = np.append(np.zeros(6, int), 1)
    items = np.append(np.arange(6), 0)
    values = rng.normal(size=7)
    weights = rng.uniform(0.5, 2, 7)
    chain = engine_of(users, items, values, weights, n_factors=2, sets=False).chain
    state = gibbs_checks.prior_draw(rng, shape=(2, 6))
    take_over(chain, state)
    user, item = chain.sides
    w = state.alpha * state.a[0][0] * state.a[1] * np.asarray(user.root_weight)[:6] ** 2
    g = np.column_stack([state.x[1], np.ones(6)])
    prior_precision = np.append(state.l[0], state.lb[0])
    prior_mean = np.append(state.m[0], state.mb[0])
    a = g.T * w @ g + np.diag(prior_precision)
    error = np.asarray(user.value)[:6] - state.b[1]
    mean = np.linalg.solve(a, g.T @ (w * error) + prior_precision * prior_mean)
    covariance = np.linalg.inv(a)
    scratch = aligned(1, 1000, np.float32)[0]
    draws = np.empty((20_000, 3))
    for t in range(len(draws)):
        sweep = chain.kernel.Sweep(
            key=t * 7919,
            alpha=chain.alpha,
            nu=20.0,
            draw_noise=False,
            relax=0.0,
            longest=8,
            few=few,
        )
        chain.kernel.rows(user, item, sweep, 0, 1, scratch)
        draws[t] = [*user.factors[0, :2], user.scalars[0, 0]]
    z = (draws.mean(0) - mean) / np.sqrt(np.diag(covariance) / len(draws))
    assert np.abs(z).max() < 4
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=4 * covariance.max() / 100)
    kept = [*user.means[0, :2], user.mean_biases[0]]
    np.testing.assert_allclose(kept, mean, rtol=1e-4, atol=1e-5)


@pytest.fixture
def narrow_priors(monkeypatch):
    """The priors of `gibbs_checks`, under which moments are finite."""
    monkeypatch.setattr(chain_module, "NU", gibbs_checks.NU)
    monkeypatch.setattr(chain_module, "PRIOR", gibbs_checks.PRIOR)


def engine_step(sets):
    """Return a function that makes a sweep of the compiled engine, for `gibbs_checks`."""
    users, items = np.nonzero(gibbs_checks.KNOWN)
    values = np.arange(len(users)) % 3
    weights = gibbs_checks.WEIGHTS[users, items]
    # All ids are in the tables; rows without ratings have some that count for nothing.
    engine = engine_of(
        np.append(users, [4, 0]),
        np.append(items, [0, 3]),
        np.append(values, [0, 0]),
        np.append(weights, [0, 0]),
        n_factors=gibbs_checks.N_FACTORS,
        sets=sets,
    )
    chain = engine.chain
    assert chain.n_rows == [5, 4]
    assert chain.n_ratings == len(users)
    chain.sweep = 10
    engine.burn_in = 10**9
    rows = [np.repeat(np.arange(len(s.scalars)), np.diff(s.start)) for s in chain.sides]

    def step(state, y, rng):
        take_over(chain, state)
        for own, row, matrix in zip(chain.sides, rows, (y, y.T), strict=True):
            np.asarray(own.value)[:] = matrix[row, own.index]
        engine.epoch(0, 0.0)
        vars(state).update(vars(state_of(chain)))

    return step


@pytest.mark.parametrize("relax", [chain_module.RELAX, 0.0])
@pytest.mark.parametrize("sets", [False, True])
def test_geweke(sets, relax, monkeypatch, narrow_priors):
    monkeypatch.setattr(chain_module, "RELAX", relax)
    p, quantity = gibbs_checks.smallest_p(engine_step(sets), 1000, seed=1, with_sets=sets)
    assert p > 1e-3, quantity


@pytest.mark.parametrize("bug", gibbs_checks.QUICK)
def test_geweke_catches(bug):
    step = gibbs_checks.step_with_bug(bug)
    p, _ = gibbs_checks.smallest_p(step, 800, seed=1, stop=1e-5, with_sets=needs_sets(bug))
    assert p < 1e-5


def calibrated_ranks(known, summary, sets):
    """Return (64, quantities): ranks of a truth from the prior among 15 draws given its data."""
    rng = np.random.default_rng(0)
    n_burned, thinned, n_kept = 15, 3, 15
    users, items = np.nonzero(known)
    engine = engine_of(users, items, np.arange(len(users)) % 3, n_factors=2, sets=sets)
    engine.burn_in = 10**9
    chain = engine.chain
    matrices = gibbs_checks.sets_of(known) if sets else ()
    by_item = np.lexsort((users, items))

    def drawn():
        return gibbs_checks.prior_draw(rng, shape=known.shape, sets=matrices)

    ranks = []
    for _ in range(64):
        truth = drawn()
        y = gibbs_checks.data(truth, rng, known, np.ones(known.shape))[users, items]
        take_over(chain, drawn())  # an unrelated start
        np.asarray(chain.sides[0].value)[:] = y
        np.asarray(chain.sides[1].value)[:] = y[by_item]
        draws = []
        chain.sweep += 10
        for t in range(n_burned + thinned * n_kept):
            engine.epoch(0, 0.0)
            if t >= n_burned and t % thinned == 0:
                draws.append(summary(state_of(chain)))
        ranks.append((np.array(draws) < summary(truth)).sum(0))
    return np.array(ranks)


@pytest.mark.parametrize("sets", [False, True])
def test_simulation_based_calibration(sets, narrow_priors):
    """Over data drawn from the prior, the truth's rank among draws is uniform (Talts 2018)."""
    known = np.ones((6, 5), bool)
    if sets:  # rows with the same set would all have one prior mean
        known[[0, 1, 2, 3, 5], [4, 0, 1, 2, 3]] = False

    def summary(state):
        f = gibbs_checks.predictions(state)
        precisions = state.l[0].sum() + state.l[1].sum()
        noise_weights = state.a[0][1], state.a[1][2]
        norm = (state.x[0] ** 2).sum()
        out = [state.alpha, f[0, 0], f[3, 4], state.lb[0], precisions, *noise_weights, norm]
        for groups in state.groups:
            for g in groups:
                out += [g.L.sum(), g.Lb, g.beta[0], (g.B**2).sum()]
        return out

    for column in calibrated_ranks(known, summary, sets).T:
        counts = np.bincount(column // 4, minlength=4)
        assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("average", ["low_rank", "factors"])
def test_same_bytes_for_any_threads_and_row_order(tmp_path, average):
    users, items, values = distinct_ratings(60_000, 400, 300)
    users, items, values = (np.append(array, array[:50]) for array in (users, items, values))
    weights = np.random.default_rng(2).uniform(0.5, 2, len(users))
    shuffled = np.random.default_rng(1).permutation(len(users))
    files = []
    for n_jobs, order in ((1, slice(None)), (2, slice(None)), (5, shuffled)):
        ratings = Ratings.from_arrays(users[order], items[order], values[order], weights[order])
        model = FunkSVD(5, 12, solver="gibbs", random_state=3, n_jobs=n_jobs, average=average)
        model.fit(ratings).save(tmp_path / "m.npz")
        with np.load(tmp_path / "m.npz") as file:
            files.append({name: file[name].tobytes() for name in file.files if name != "meta"})
    assert files[0] == files[1] == files[2]


def test_a_set_has_each_partner_once():
    users, items = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2])
    engine = engine_of(users, items, np.arange(5.0), np.array([1, 1, 1, 1, 0]))
    known = np.array([[1, 1, 0], [0, 1, 0]])  # the rating of weight 0 is in no set
    for groups, wanted in zip(
        state_of(engine.chain).groups, gibbs_checks.sets_of(known), strict=True
    ):
        np.testing.assert_allclose(groups[0].V, wanted, rtol=1e-6)


def test_repeated_pairs_in_any_order():
    rng = np.random.default_rng(0)
    users = rng.integers(0, 5, 300)
    items = rng.integers(0, 4, 300)
    values = rng.normal(size=300)
    factors = []
    for order in (np.arange(300), rng.permutation(300)):
        engine = engine_of(users[order], items[order], values[order], n_epochs=8)
        for epoch in range(8):
            engine.epoch(epoch, 0.0)
        factors.append(engine.weights().user_factors)
    np.testing.assert_array_equal(*factors)


@pytest.mark.parametrize("average", ["low_rank", "factors"])
def test_snapshot_resumes_exactly(average):
    train, held_out = Ratings.from_arrays(*distinct_ratings()).split(0.2)
    hyper = hyper_of(4, 20, average=average)
    whole, begun, other = (GibbsEngine(train, held_out, hyper, seed=1) for _ in range(3))
    for epoch in range(12):
        whole.epoch(epoch, 0.0)
        begun.epoch(epoch, 0.0)
        if epoch == 7:
            state = begun.snapshot()
            then = {name: array.copy() for name, array in state.items()}
    begun.restore(state)
    begun.epoch(8, 0.0)
    for name, array in state.items():  # whatever the engine has done since
        np.testing.assert_array_equal(array, then[name], err_msg=name)
    other.restore(state)
    for epoch in range(8, 12):
        other.epoch(epoch, 0.0)
    assert other.validate() == whole.validate()
    for name, array in whole.snapshot().items():
        np.testing.assert_array_equal(array, other.snapshot()[name], err_msg=name)
    np.testing.assert_array_equal(whole.weights().user_factors, other.weights().user_factors)


def test_nothing_to_validate_on():
    with pytest.raises(ValueError, match="no held-out ratings"):
        engine_of(*distinct_ratings(100)).validate()


def test_more_sweeps_than_were_planned(tmp_path):
    """They are made as if they had been planned, where the burn-in is the same."""
    users, items, values = distinct_ratings()

    def trained(n_epochs, resume=None):
        saver = ModelCheckpoint(tmp_path / f"{n_epochs}.npz")
        model = FunkSVD(4, n_epochs, solver="gibbs", random_state=0)
        return model.fit((users, items), values, resume=resume, callbacks=saver)

    for n_epochs in (20, 40):
        trained(n_epochs)
    prolonged = trained(45, tmp_path / "40.npz")
    np.testing.assert_array_equal(prolonged.user_factors_, trained(45).user_factors_)
    with pytest.raises(ValueError, match="n_epochs is 20 there, 45 here"):
        trained(45, tmp_path / "20.npz")


def test_early_stopping_and_interruption():
    train, held_out = Ratings.from_arrays(*distinct_ratings()).split(0.2)

    class Stop(Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 20:
                raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        model = FunkSVD(4, 40, solver="gibbs", random_state=0).fit(train, callbacks=[Stop()])
    assert model.user_factors_.shape == (80, 12)  # of 11 samples
    stopping = EarlyStopping("val_loss", patience=3, min_delta=1e-3, restore_best_weights=True)
    model = FunkSVD(4, 200, solver="gibbs", random_state=0)
    model.fit(train, validation_data=held_out, callbacks=[stopping])
    assert model.n_epochs_ < 200
    best = min(model.history_["val_rmse"])
    assert model.evaluate(held_out)["rmse"] == pytest.approx(best, abs=2e-3)


@pytest.mark.filterwarnings("ignore:all 6 ratings are")
@pytest.mark.parametrize("values", [np.zeros(6), np.array([1.0, 1e-30, 2, 3, 4, 5])])
def test_edges(values):
    """Predictions are finite with one rating a row, all ratings equal, or one factor."""
    X = (np.arange(6), np.arange(6) // 2)
    model = FunkSVD(1, 4, solver="gibbs", random_state=0).fit(X, values)
    mean, std = model.predict(X, return_std=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    unbiased = FunkSVD(3, 4, solver="gibbs", biased=False, random_state=0).fit(X, values)
    assert np.isfinite(unbiased.user_factors_).all()


def test_sizes_are_the_solvers_own_where_none_are_given(tmp_path):
    """There is nothing to tune, and a file keeps that no sizes were given."""
    X = (np.arange(60) % 12, np.arange(60) % 7)
    y = np.arange(60) % 5 + 1.0
    model = FunkSVD(solver="gibbs", random_state=0).fit(X, y)
    assert (model.n_epochs_, model.user_factors_.shape[1]) == (120, 2 * 32)
    model.save(tmp_path / "m.npz")
    np.testing.assert_array_equal(load(tmp_path / "m.npz").predict(X), model.predict(X))
    usual = FunkSVD(random_state=0).fit(X, y)
    assert (usual.n_epochs_, usual.user_factors_.shape[1]) == (40, 100)


# A value other than the default of each parameter that means nothing to the sampler.
UNUSED = {
    "training": "featurewise",
    "batch_size": 32,
    "shuffle": False,
    "learning_rate": 0.5,
    "momentum": 0.5,
    "learning_rate_schedule": "constant",
    "learning_rate_decay": 0.5,
    "beta_1": 0.5,
    "beta_2": 0.5,
    "epsilon": 0.5,
    "initial_accumulator_value": 0.5,
    "l2": 0.5,
    "l1": 0.5,
    "l2_bias": (0.1, 0.2),
    "l1_bias": 0.5,
    "reg_scale": "row",
    "non_negative": True,
    "min_improvement": 0.5,
    "center": False,
    "init_std": 0.5,
    "schedule": "hogwild",
    "max_device_bytes": 10**9,
    "dtype": "float64",
    "unseen_weight": 0.5,
    "exposure_l2": 0.5,
}
USED = {
    "n_factors",
    "n_epochs",
    "solver",
    "biased",
    "average",
    "sets",
    "moods",
    "exposure",
    "rating_scale",
    "n_jobs",
    "device",
    "random_state",
    "verbose",
}


def test_refuses_parameters_that_mean_nothing():
    users, items, values = distinct_ratings(100)
    assert set(UNUSED) | USED == set(FunkSVD().get_params())
    for name, value in UNUSED.items():
        with pytest.raises(ValueError, match=f"^{name} must be .* unless .*, got"):
            FunkSVD(solver="gibbs", **{name: value}).fit((users, items), values)
    FunkSVD(2, 2, solver="gibbs", dtype=np.float32, random_state=0).fit((users, items), values)
    with pytest.raises(ValueError, match="average"):
        FunkSVD(average="factors").fit((users, items), values)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("average", ["low_rank", "factors"])
def test_one_user_with_fewer_items_than_factors(seed, average):
    """All items' equations have rank 1, and single precision cannot solve them."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 9, 3000)
    values = rng.normal(3, 1, 3000)
    model = FunkSVD(33, 12, solver="gibbs", average=average, random_state=seed)
    model.fit((np.zeros(3000, int), items), values)
    predicted = model.predict((np.zeros(9, int), np.arange(9)))
    assert np.isfinite(predicted).all()
    if average == "low_rank":  # means of factors mean little where nothing ties their signs
        means = [values[items == item].mean() for item in range(9)]
        np.testing.assert_allclose(predicted, means, atol=0.3)


def test_a_shift_of_sums_that_are_mostly_rounding():
    """Their matrix has a negative eigenvalue, as far as rounding allows."""
    a = np.diag([1e6, 1.0, 1.0])
    a[0, 1] = a[1, 0] = 1000.3
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(a)
    lower = cholesky_of(a)
    np.testing.assert_allclose(lower @ lower.T, a, rtol=1.001e-3)  # at most a thousandth
    with pytest.raises(FloatingPointError, match="lower n_factors"):
        cholesky_of(-a)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("offset", [0, 4])
def test_a_tilt_by_a_vector_at_any_address(level, offset):
    kernel = kernels("engines._gibbs", np.float32, level)
    side = kernel.Side()
    side.factors = aligned(100, 16, np.float32)
    rng = np.random.default_rng(0)
    np.asarray(side.factors)[:] = rng.normal(0, 1, (100, 16))
    side.scalars = np.zeros((100, 2), np.float32)
    delta = aligned(1, 32, np.float32)[0][offset : offset + 16]
    delta[:] = rng.normal(0, 1, 16)
    kernel.tilt(side, delta, 0, 100)
    expected = np.asarray(side.factors, np.float64) @ delta
    np.testing.assert_allclose(np.asarray(side.scalars)[:, 0], expected, atol=1e-5)
