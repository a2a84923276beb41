"""Users' moods in the sampler: against their naive twin, dense Gaussians and the joint test."""

import gibbs_checks
import mood_checks
import numpy as np
import pytest
from gibbs_checks import distinct_ratings, hyper_of, state_of, take_over
from scipy import stats

from funksvd import Callback, FunkSVD, ModelCheckpoint, Ratings
from funksvd.engines import chain as chain_module
from funksvd.engines import moods as moods_module
from funksvd.engines.gibbs import GibbsEngine
from funksvd.machine.kernels import kernels, levels

DAY = 86_400


def timed_ratings(n=3000, n_users=80, n_items=50, seed=0, weights=None):
    """Return ratings in sessions, some of them at the same second."""
    users, items, values = distinct_ratings(n, n_users, n_items, seed)
    rng = np.random.default_rng(seed + 1)
    days = rng.integers(0, 5, n)
    times = 10**9 + DAY * days + 600 * users + rng.integers(0, 300, n)
    return Ratings.from_arrays(users, items, values, weights, times)


def engine_of(ratings, held_out=None, n_factors=3, n_epochs=40, n_jobs=1, **parameters):
    """Return an engine of ratings."""
    return GibbsEngine(
        ratings, held_out, hyper_of(n_factors, n_epochs, **parameters), seed=1, n_jobs=n_jobs
    )


def slots_of(moods):
    """Return (n,) the place in the blocks of each of the users' ratings."""
    out = np.empty(len(moods.layout.slots), np.int64)
    out[moods.layout.by_time] = moods.layout.slots
    return out


def normals_in_blocks(moods, key):
    """Return all normals of a draw, at the places of the blocks."""
    lanes = moods.kernel.BLOCK_USERS
    parts = []
    for number, (first, last) in enumerate(
        np.column_stack([moods.layout.start[:-1], moods.layout.start[1:]])
    ):
        size = int(last - first) * lanes
        out = np.zeros((1, size), np.float32)
        moods.kernel.normal_rows(key, number, np.zeros(size + 64, np.float32), out)
        parts.append(out.ravel())
    return np.concatenate(parts)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("process", range(len(moods_module.TIME_CONSTANTS)))
def test_a_draw_is_that_of_the_naive_twin(process, level, monkeypatch):
    monkeypatch.setattr(moods_module, "kernels", lambda name, dtype: kernels(name, dtype, level))
    weights = np.random.default_rng(3).uniform(0.5, 2, 3000)
    engine = engine_of(timed_ratings(weights=weights))
    chain = engine.chain
    moods = chain.moods
    for epoch in range(6):
        engine.epoch(epoch, 0.0)
    users = chain.sides[0]
    e = np.array(users.residual, float)  # as the rows leave it
    chain._draw_rows(1)
    chain._draw_rows(0)
    e = np.array(users.residual, float)
    owners = np.repeat(np.arange(len(users.scalars)), np.diff(users.start))
    w = chain.alpha * np.array(users.scalars)[owners, 1] ** 2 * np.array(users.squared_scale)
    slots = slots_of(moods)
    old = np.array(moods.moods.mood)[process].ravel()[slots]
    s = moods.variances[process]
    key = 12345
    z = normals_in_blocks(moods, key)[slots]
    total_mean = np.zeros(np.array(moods.moods.mood).shape[1:], np.float32)
    scratch = np.zeros(moods.kernel.scratch_size(chain.longest), np.float32)
    n_blocks = len(moods.layout.start) - 1
    squares, force, square = moods.kernel.draw(
        moods.moods, process, key, chain.alpha, s, 0, n_blocks, scratch, total_mean
    )
    drawn = np.array(moods.moods.mood)[process].ravel()[slots]
    means = total_mean.ravel()[slots]
    expected_squares = 0.0
    for user, (first, last) in enumerate(np.column_stack([users.start[:-1], users.start[1:]])):
        own = np.arange(first, last)
        own = own[np.argsort(moods.times[own], kind="stable")]
        time_constant = moods_module.TIME_CONSTANTS[process]
        r = mood_checks.correlations_of(moods.times[own], time_constant)
        x, mean = mood_checks.draw_process((e + old)[own], w[own], r, s, z[own])
        np.testing.assert_allclose(drawn[own], x, atol=2e-4, err_msg=f"user {user}")
        np.testing.assert_allclose(means[own], mean, atol=2e-4)
        steps = drawn[own] - r * np.append(0.0, drawn[own][:-1])
        expected_squares += np.sum(steps**2 / (1 - r**2))
    rest = e + old - drawn
    assert squares == pytest.approx(expected_squares, rel=1e-3)
    assert force == pytest.approx(np.sum(w * drawn * rest), rel=1e-3, abs=1e-2)
    assert square == pytest.approx(np.sum(w * drawn**2), rel=1e-3)


def test_the_naive_twin_draws_from_the_dense_conditional():
    """A draw is mean + L z; mean and L L' are those of the Gaussian with all its covariances."""
    rng = np.random.default_rng(0)
    n = 7
    r = mood_checks.correlations_of(np.cumsum(rng.uniform(0.01, 3, n)), 1.0)
    s = 0.7
    w = rng.uniform(0.5, 4, n)
    e = rng.normal(size=n)
    prior = s * mood_checks.covariance(r)
    covariance = np.linalg.inv(np.linalg.inv(prior) + np.diag(w))
    expected = covariance @ (w * e)
    at_zero, mean = mood_checks.draw_process(e, w, r, s, np.zeros(n))
    np.testing.assert_allclose(at_zero, expected)
    np.testing.assert_allclose(mean, expected)
    root = np.column_stack(
        [mood_checks.draw_process(e, w, r, s, unit)[0] - expected for unit in np.eye(n)]
    )
    np.testing.assert_allclose(root @ root.T, covariance, atol=1e-12)


def test_the_chain_keeps_its_books():
    """Both sides have the ratings less the moods, and the sums are those of the residuals."""
    weights = np.random.default_rng(3).uniform(0.5, 2, 3000)
    engine = engine_of(timed_ratings(weights=weights))
    chain = engine.chain
    moods = chain.moods
    users, items = chain.sides
    given = np.array(users.value)
    for epoch in range(8):
        loss = engine.epoch(epoch, 0.0)
    slots = slots_of(moods)
    total = np.array(moods.moods.mood).reshape(len(moods.variances), -1)[:, slots].sum(0)
    np.testing.assert_allclose(np.array(users.value), given - total, atol=1e-5)
    owners = np.repeat(np.arange(len(users.scalars)), np.diff(users.start))
    item_owners = np.repeat(np.arange(len(items.scalars)), np.diff(items.start))
    pairs = np.column_stack([owners, users.index])
    order = np.lexsort(pairs.T)
    assert (np.array(items.index) == pairs[order, 0]).all()
    assert (item_owners == pairs[order, 1]).all()
    np.testing.assert_array_equal(np.array(items.value), np.array(users.value)[order])
    levels_ = np.bincount(owners, total) / np.diff(users.start)
    np.testing.assert_allclose(np.array(moods.moods.level), levels_, atol=1e-5)
    fitted = gibbs_checks.predictions(state_of(chain))[owners, users.index]
    e = np.array(users.value) - fitted
    root = np.array(users.root_weight, float)
    assert loss == pytest.approx(engine.std**2 * np.sum(root**2 * e**2) / np.sum(root**2), rel=1e-4)


def test_stretching_factor_is_that_of_the_naive_twin():
    for seed in range(200):
        arguments = (20.0 * (seed % 7 - 3), 5.0 + seed, 0.01 + seed / 100)
        ours, naive_one = (
            function(*arguments, np.random.default_rng(seed), *prior)
            for function, prior in (
                (moods_module.stretching_factor, ()),
                (mood_checks.stretching_factor, (moods_module.VARIANCE_PRIOR,)),
            )
        )
        assert ours == pytest.approx(naive_one)


@pytest.fixture
def small_model(monkeypatch):
    """Give the chain the priors and processes of the joint-distribution test."""
    monkeypatch.setattr(chain_module, "NU", gibbs_checks.NU)
    monkeypatch.setattr(chain_module, "PRIOR", gibbs_checks.PRIOR)
    monkeypatch.setattr(chain_module, "PLAIN_SWEEPS", 0)
    monkeypatch.setattr(moods_module, "VARIANCE_PRIOR", mood_checks.VARIANCE_PRIOR)
    monkeypatch.setattr(moods_module, "TIME_CONSTANTS", mood_checks.TIME_CONSTANTS)


def engine_step():
    """Return a function that makes a sweep of the compiled engine, for `mood_checks`."""
    users, items = np.nonzero(gibbs_checks.KNOWN)
    weights = gibbs_checks.WEIGHTS[users, items]
    times = mood_checks.TIMES[users, items]
    # All ids are in the tables; rows without ratings have some that count for nothing.
    ratings = Ratings.from_arrays(
        np.append(users, [4, 0]),
        np.append(items, [0, 3]),
        np.append(np.arange(len(users)) % 3.0, [0, 0]),
        np.append(weights, [0, 0]),
        np.append(times, [0, 0]),
    )
    engine = engine_of(ratings, n_factors=gibbs_checks.N_FACTORS, sets=False)
    engine.burn_in = 10**9
    chain = engine.chain
    chain.sweep = 10
    moods = chain.moods
    slots = slots_of(moods)
    value = np.asarray(moods.moods.value).ravel()
    mood = np.asarray(moods.moods.mood).reshape(len(moods.variances), -1)

    def step(state, y, rng):
        take_over(chain, state.rest)
        value[slots] = y[users, items]
        mood[:, slots] = state.moods[:, users, items]
        moods.variances[:] = state.variances
        moods.write_values()
        engine.epoch(0, 0.0)
        state.rest = state_of(chain)
        state.moods[:, users, items] = mood[:, slots]
        state.variances[:] = moods.variances

    return step


def test_geweke(small_model):
    p, quantity = mood_checks.smallest_p(engine_step(), 600, n_sweeps=4, seed=1)
    assert p > 1e-3, quantity


def test_simulation_based_calibration(small_model):
    """Over data drawn from the prior, the truth's rank among draws is uniform (Talts 2018)."""
    rng = np.random.default_rng(0)
    step = engine_step()
    n_burned, thinned, n_kept = 24, 6, 15

    def summary(state):
        x = state.moods
        return *state.variances, *x[:, 0, 1], *x[:, 2, 2], x.sum(0)[0, 0], state.rest.alpha

    ranks = []
    for _ in range(64):
        truth = mood_checks.prior_draw(rng)
        y = mood_checks.data(truth, rng)
        state = mood_checks.prior_draw(rng)  # an unrelated start
        draws = []
        for t in range(n_burned + thinned * n_kept):
            step(state, y, rng)
            if t >= n_burned and t % thinned == 0:
                draws.append(summary(state))
        ranks.append((np.array(draws) < summary(truth)).sum(0))
    for column in np.array(ranks).T:
        counts = np.bincount(column // 4, minlength=4)
        assert stats.chisquare(counts).pvalue > 1e-3


QUICK = (
    "smoothing left out",
    "variance of the filter instead of the smoother",
    "the process itself left out of its residual",
    "degrees of freedom of the variance",
)


@pytest.mark.parametrize("bug", QUICK)
def test_geweke_catches(bug):
    p, _ = mood_checks.smallest_p(mood_checks.step_with_bug(bug), 800, seed=1, stop=1e-5)
    assert p < 1e-5


def arrays_of(model, path):
    """Return the bytes of a model's arrays by name."""
    model.save(path)
    with np.load(path) as file:
        return {name: file[name].tobytes() for name in file.files if name != "meta"}


def test_same_bytes_for_any_threads_and_row_order(tmp_path):
    users, items, values = distinct_ratings(60_000, 400, 300)
    rng = np.random.default_rng(2)
    times = rng.integers(0, 10**6, len(users)) // 100  # with many ties
    shuffled = rng.permutation(60_000)
    files = []
    for n_jobs, order in ((1, slice(None)), (2, slice(None)), (3, shuffled)):
        ratings = Ratings.from_arrays(users[order], items[order], values[order], times=times[order])
        model = FunkSVD(5, 12, solver="gibbs", random_state=3, n_jobs=n_jobs).fit(ratings)
        files.append(arrays_of(model, tmp_path / "m.npz"))
    assert files[0] == files[1] == files[2]
    assert "mood_means" in files[0]


def test_repeated_pairs_of_different_times_in_any_order():
    rng = np.random.default_rng(0)
    n = 300
    columns = [rng.integers(0, 5, n), rng.integers(0, 4, n), rng.integers(1, 3, n) * 1.0]
    times = rng.integers(0, 50, n)
    means = []
    for order in (np.arange(n), rng.permutation(n)):
        parts = [column[order] for column in columns]
        engine = engine_of(Ratings.from_arrays(*parts, times=times[order]), n_epochs=8)
        for epoch in range(8):
            engine.epoch(epoch, 0.0)
        means.append(engine.weights().mood_means)
    np.testing.assert_array_equal(*means)


def test_moods_none_is_the_model_without_times(tmp_path):
    timed = timed_ratings()
    untimed = Ratings.from_arrays(timed.users, timed.items, timed.values)
    files = []
    for ratings, moods in ((timed, "none"), (untimed, "keep")):
        model = FunkSVD(3, 12, solver="gibbs", random_state=0, moods=moods).fit(ratings)
        files.append(arrays_of(model, tmp_path / "m.npz"))
    assert files[0] == files[1]


class Crash(Callback):
    """Ends training by an error after some epochs."""

    def on_epoch_end(self, epoch, logs):
        if epoch == 13:
            raise RuntimeError("stopped")


@pytest.mark.parametrize("moods", ["keep", "variances"])
def test_a_resumed_fit_ends_with_the_same_bytes(tmp_path, moods):
    train, held_out = timed_ratings().split(0.1)
    make = {"n_factors": 3, "n_epochs": 20, "solver": "gibbs", "random_state": 0, "moods": moods}
    whole = FunkSVD(**make).fit(train, validation_data=held_out)
    path = tmp_path / "checkpoint.npz"
    callbacks = [ModelCheckpoint(path), Crash()]
    with pytest.raises(RuntimeError, match="stopped"):
        FunkSVD(**make).fit(train, validation_data=held_out, callbacks=callbacks)
    callbacks = [ModelCheckpoint(path)]
    resumed = FunkSVD(**make).fit(train, validation_data=held_out, callbacks=callbacks, resume=path)
    assert arrays_of(whole, tmp_path / "a.npz") == arrays_of(resumed, tmp_path / "b.npz")
    assert whole.history_["val_loss"] == resumed.history_["val_loss"]


def test_snapshot_resumes_exactly():
    train, held_out = timed_ratings().split(0.2)
    whole, begun, other = (engine_of(train, held_out, n_epochs=20) for _ in range(3))
    for epoch in range(14):
        whole.epoch(epoch, 0.0)
        begun.epoch(epoch, 0.0)
        if epoch == 8:
            state = begun.snapshot()
    other.make_room(state)
    other.restore(state)
    for epoch in range(9, 14):
        other.epoch(epoch, 0.0)
    for name, array in whole.snapshot().items():
        np.testing.assert_array_equal(array, other.snapshot()[name], err_msg=name)


def moody_ratings(n_users=150, n_items=60, per_user=60, seed=0):
    """Return ratings whose users have moods of ten minutes, with a standard deviation of 1/2."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), per_user)
    items = rng.integers(0, n_items, len(users))
    times = np.cumsum(rng.exponential(120, (n_users, per_user)), axis=1).astype(np.int64)
    r = np.exp(-np.diff(times, axis=1) / 600)
    mood = np.empty((n_users, per_user))
    mood[:, 0] = rng.normal(0, 0.5, n_users)
    for t in range(1, per_user):
        fresh = rng.normal(0, 0.5, n_users)
        mood[:, t] = r[:, t - 1] * mood[:, t - 1] + np.sqrt(1 - r[:, t - 1] ** 2) * fresh
    values = 3 + rng.normal(0, 0.4, n_items)[items] + mood.ravel()
    values += rng.normal(0, 0.4, len(users))
    return Ratings.from_arrays(users, items, values, times=times.ravel() + 10**9)


def test_planted_moods_are_found():
    train, test = moody_ratings().split(0.2, random_state=1)
    errors = {}
    for moods in ("keep", "none"):
        model = FunkSVD(2, 40, solver="gibbs", random_state=0, moods=moods)
        model.fit(train, validation_data=test)
        errors[moods] = model.evaluate(test)["rmse"]
        validated = model.history_["val_loss"][-1] ** 0.5
        assert validated == pytest.approx(errors[moods], rel=0.02)
    # Without moods the error has the variance of the mood, 0.25, beside that of the noise, 0.16.
    assert errors["none"] > 0.61
    assert errors["keep"] < 0.53
    kept = FunkSVD(2, 40, solver="gibbs", random_state=0).fit(train)
    variances = kept.get_weights().moods[:, 1]
    assert variances.sum() == pytest.approx(0.25, rel=0.2)
    assert variances.argmax() == 1  # of ten minutes
