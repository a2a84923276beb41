from types import SimpleNamespace

import gibbs_checks
import naive
import numpy as np
import pytest
from scipy import stats

from funksvd import Callback, EarlyStopping, FunkSVD, ModelCheckpoint, Ratings, load, posterior
from funksvd.engines import gibbs
from funksvd.machine.kernels import kernels, levels


def some(n=3000, n_users=80, n_items=50, seed=0):
    rng = np.random.default_rng(seed)
    users, items = np.divmod(rng.choice(n_users * n_items, n, replace=False), n_items)
    p, q = rng.normal(0, 0.6, (n_users, 3)), rng.normal(0, 0.6, (n_items, 3))
    return users, items, 3.5 + np.einsum("nk,nk->n", p[users], q[items]) + rng.normal(0, 0.5, n)


def engine_of(users, items, values, weights=None, k=3, **kw):
    hyper = SimpleNamespace(
        n_factors=k, n_epochs=kw.pop("n_epochs", 40), biased=True, average="low_rank"
    )
    return gibbs.GibbsEngine(Ratings.from_arrays(users, items, values, weights), None, hyper, **kw)


# ------------------------------------------------------------------------------------------------ the kernel's draws


class SameDraws:
    """What `naive.gibbs_sweep` draws, from the engine's own generators, so that both make the same sweep."""

    def __init__(self, engine):
        self.engine, self.sweep, self.few = engine, engine.sweep, 8
        rng = np.random.default_rng([engine.seed, 2, engine.sweep])
        self.hyper, self.gamma = rng.standard_normal, lambda shape: rng.gamma(shape)
        self.width = engine.sides[0].factors.shape[1]

    def _normals(self, side, row):
        out = np.zeros((1, self.width + 16), np.float32)
        key = self.engine._key(1, self.sweep, side)
        self.engine.kernel.normal_rows(key, row, np.zeros(self.width + 64, np.float32), out)
        return key, out[0].astype(np.float64)

    def normals(self, side, row, count):
        z = self._normals(side, row)[1]
        return np.concatenate([z[: self.engine.k], z[self.width : self.width + 1 + self.few]])

    def row_gamma(self, side, row, shape):
        key, z = self._normals(side, row)
        out = np.empty(1)
        self.engine.kernel.gammas(
            key, row, np.array([shape]), z[self.width + 9 : self.width + 10], out
        )
        return out[0]


def state_of(engine):
    sides = engine.sides
    return SimpleNamespace(
        alpha=engine.alpha,
        x=[np.array(s.factors, float)[:, : engine.k] for s in sides],
        b=[np.array(s.scalars, float)[:, 0] for s in sides],
        a=[np.array(s.scalars, float)[:, 1] ** 2 for s in sides],
        m=[np.array(s.mean, float)[: engine.k] for s in sides],
        l=[np.array(s.precision, float)[: engine.k] for s in sides],
        mb=[s.bias_mean for s in sides],
        lb=[s.bias_precision for s in sides],
    )


def take_over(engine, s):
    engine.alpha, k = s.alpha, engine.k
    for side, own in enumerate(engine.sides):
        np.asarray(own.factors)[:, :k] = s.x[side]
        np.asarray(own.scalars)[:] = np.column_stack([s.b[side], np.sqrt(s.a[side])])
        np.asarray(own.mean)[:k], np.asarray(own.precision)[:k] = s.m[side], s.l[side]
        own.bias_mean, own.bias_precision = float(s.mb[side]), float(s.lb[side])


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("k", [1, 3, 16, 20, 32])
def test_sweep_equals_naive(k, level, monkeypatch):
    monkeypatch.setattr(gibbs, "kernels", lambda source, dtype: kernels(source, dtype, level))
    users, items, values = some(900, 60, 40)
    keep = (users > 1) & (items > 1)
    users, items, values = (
        np.append(a[keep], [2, 3]) for a in (users, items, values)
    )  # all users, few ratings for some
    rare = (users % 7 == 0) & (items > 8)
    _, first = np.unique(np.column_stack([users, items])[~rare], axis=0, return_index=True)
    users, items, values = (a[~rare][first] for a in (users, items, values))
    weights = np.random.default_rng(1).uniform(0.2, 2, len(users))
    engine = engine_of(users, items, values, weights, k=k)
    codes = [np.unique(a, return_inverse=True)[1] for a in (users, items)]
    y, w = np.full((2, codes[0].max() + 1, codes[1].max() + 1), np.nan)
    y[tuple(codes)], w[tuple(codes)] = (values - engine.mean) / engine.sd, weights
    counts = np.diff(engine.sides[0].start)
    assert counts.min() <= 8 < counts.max()
    engine.sweep = 5
    for _ in range(2):
        s, draws = state_of(engine), SameDraws(engine)
        loss = engine.epoch(0, 0.0)
        kurtosis = naive.gibbs_sweep(s, y, w, draws)
        for name, got in vars(state_of(engine)).items():
            for side in (0, 1) if name != "alpha" else ((),):
                got_side, want = (
                    np.asarray(a[side] if side != () else a) for a in (got, getattr(s, name))
                )
                np.testing.assert_allclose(
                    got_side, want, rtol=2e-3, atol=2e-3, err_msg=f"{name} {side}"
                )
        error = (y - gibbs_checks.predictions(s)) * engine.sd
        assert loss == pytest.approx(np.nansum(w * error**2) / weights.sum(), rel=1e-3)
        assert engine.kurtosis_now == pytest.approx(kurtosis, rel=5e-3)


def load_level(level):
    return kernels("engines._gibbs", np.float32, level)


@pytest.mark.parametrize("level", levels())
def test_generators(level):
    kernel = load_level(level)
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


@pytest.mark.parametrize("few", [0, 8])
def test_row_has_the_posterior_of_the_closed_form(few):
    """Bias and factors of one user with six ratings, drawn 20,000 times, given everything else."""
    rng = np.random.default_rng(0)
    engine = engine_of(
        np.r_[np.zeros(6, int), 1],
        np.r_[np.arange(6), 0],
        rng.normal(size=7),
        rng.uniform(0.5, 2, 7),
        k=2,
    )
    s = gibbs_checks.prior_draw(rng, shape=(2, 6))
    take_over(engine, s)
    user, item = engine.sides
    w = s.alpha * s.a[0][0] * s.a[1] * np.asarray(user.weight)[:6] ** 2
    G = np.column_stack([s.x[1], np.ones(6)])
    A = G.T * w @ G + np.diag([*s.l[0], s.lb[0]])
    right = G.T @ (w * (np.asarray(user.value)[:6] - s.b[1])) + np.array(
        [*s.l[0], s.lb[0]]
    ) * np.array([*s.m[0], s.mb[0]])
    scratch = np.zeros(1000 + 64, np.float32)
    scratch = scratch[-scratch.ctypes.data % 64 // 4 :]
    draws = np.empty((20_000, 3))
    for t in range(len(draws)):
        engine.kernel.rows(
            user, item, 0, 1, scratch, t * 7919, engine.alpha, 20.0, False, 0.0, 8, few
        )
        draws[t] = [*user.factors[0, :2], user.scalars[0, 0]]
    mean, covariance = np.linalg.solve(A, right), np.linalg.inv(A)
    z = (draws.mean(0) - mean) / np.sqrt(np.diag(covariance) / len(draws))
    assert np.abs(z).max() < 4
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=4 * covariance.max() / 100)
    np.testing.assert_allclose(
        [*user.means[0, :2], user.mean_biases[0]], mean, rtol=1e-4, atol=1e-5
    )


# ------------------------------------------------------------------------------------------------ is it the posterior?


def engine_step(monkeypatch):
    """A sweep of the compiled engine, for `gibbs_checks`."""
    monkeypatch.setattr(gibbs, "NU", gibbs_checks.NU)
    monkeypatch.setattr(gibbs, "PRIOR", gibbs_checks.PRIOR)
    users, items = np.nonzero(gibbs_checks.KNOWN)
    values, weights = np.arange(len(users)) % 3, gibbs_checks.WEIGHTS[users, items]
    # All ids are in the tables; the cold ones only in ratings that count for nothing.
    cold = ([4, 0], [0, 3], [0, 0], [0, 0])
    columns = zip((users, items, values, weights), cold, strict=True)
    engine = engine_of(*(np.append(a, b) for a, b in columns), k=gibbs_checks.K)
    assert [len(s.scalars) for s in engine.sides] == [5, 4]
    assert engine.n == len(users)
    engine.sweep, engine.burn_in = 10, 10**9
    rows = [np.repeat(np.arange(len(s.scalars)), np.diff(s.start)) for s in engine.sides]

    def step(s, y, rng):
        take_over(engine, s)
        for side, matrix in zip((0, 1), (y, y.T), strict=True):
            np.asarray(engine.sides[side].value)[:] = matrix[rows[side], engine.sides[side].index]
        engine.epoch(0, 0.0)
        vars(s).update(vars(state_of(engine)))

    return step


@pytest.mark.parametrize("relax", [gibbs.RELAX, 0.0])
def test_geweke(relax, monkeypatch):
    monkeypatch.setattr(gibbs, "RELAX", relax)
    p, what = gibbs_checks.smallest_p(engine_step(monkeypatch), 1000, seed=1)
    assert p > 1e-3, what


@pytest.mark.parametrize("bug", gibbs_checks.QUICK)
def test_geweke_catches(bug):
    p, _ = gibbs_checks.smallest_p(gibbs_checks.step_with_bug(bug), 800, seed=1, stop=1e-5)
    assert p < 1e-5


# ------------------------------------------------------------------------------------------------ the model


def fitted(n_jobs=1, order=slice(None), **kw):
    users, items, values = some(60_000, 400, 300)
    weights = np.random.default_rng(2).uniform(0.5, 2, len(users))
    ratings = Ratings.from_arrays(users[order], items[order], values[order], weights[order])
    return FunkSVD(5, 12, solver="gibbs", random_state=3, n_jobs=n_jobs, **kw).fit(ratings)


@pytest.mark.parametrize("average", ["low_rank", "factors"])
def test_same_bytes_for_any_threads_and_row_order(tmp_path, average):
    shuffled = np.random.default_rng(1).permutation(60_000)
    files = []
    for n_jobs, order in ((1, slice(None)), (2, slice(None)), (3, shuffled)):
        fitted(n_jobs, order, average=average).save(tmp_path / "m.npz")
        with np.load(tmp_path / "m.npz") as file:
            files.append({name: file[name].tobytes() for name in file.files if name != "meta"})
    assert files[0] == files[1] == files[2]


def test_repeated_pairs_in_any_order():
    rng = np.random.default_rng(0)
    users, items, values = rng.integers(0, 5, 300), rng.integers(0, 4, 300), rng.normal(size=300)
    order = rng.permutation(300)
    a, b = (engine_of(users[o], items[o], values[o], n_epochs=8) for o in (slice(None), order))
    for engine in (a, b):
        for t in range(8):
            engine.epoch(t, 0.0)
    np.testing.assert_array_equal(a.weights().user_factors, b.weights().user_factors)


def test_snapshot_resumes_exactly():
    users, items, values = some()
    ratings = Ratings.from_arrays(users, items, values)
    train, held_out = ratings.split(0.2)
    hyper = SimpleNamespace(n_factors=4, n_epochs=20, biased=True, average="low_rank")
    whole, begun, other = (gibbs.GibbsEngine(train, held_out, hyper, seed=1) for _ in range(3))
    for t in range(12):
        whole.epoch(t, 0.0)
        begun.epoch(t, 0.0)
        if t == 7:
            state, then = (
                begun.snapshot(),
                {name: array.copy() for name, array in begun.snapshot().items()},
            )
    begun.restore(state)
    begun.epoch(8, 0.0)
    assert all(
        (array == then[name]).all() for name, array in state.items()
    )  # whatever the engine did since
    other.restore(state)
    for t in range(8, 12):
        other.epoch(t, 0.0)
    assert other.validate() == whole.validate()
    for name, array in whole.snapshot().items():
        np.testing.assert_array_equal(array, other.snapshot()[name], err_msg=name)
    np.testing.assert_array_equal(whole.weights().user_factors, other.weights().user_factors)


def test_more_sweeps_than_were_planned(tmp_path):
    """As if they had been planned, where the burn-in is the same."""
    users, items, values = some()

    def trained(n_epochs, resume=None):
        model = FunkSVD(4, n_epochs, solver="gibbs", random_state=0)
        return model.fit(
            (users, items),
            values,
            resume=resume,
            callbacks=ModelCheckpoint(tmp_path / f"{n_epochs}.npz"),
        )

    for n_epochs in (20, 40):
        trained(n_epochs)
    np.testing.assert_array_equal(
        trained(45, tmp_path / "40.npz").user_factors_, trained(45).user_factors_
    )
    with pytest.raises(ValueError, match="n_epochs is 20 there, 45 here"):
        trained(45, tmp_path / "20.npz")


def test_low_rank_is_the_mean_of_the_samples():
    """The rank is at last that of the matrix: the model is the running mean that validation sees, but for early cuts."""
    train, held_out = Ratings.from_arrays(*some()).split(0.2)
    model = FunkSVD(6, 200, solver="gibbs", random_state=0).fit(train, validation_data=held_out)
    assert model.user_factors_.shape == (80, 54)  # of 50 items
    assert model.evaluate(held_out)["rmse"] == pytest.approx(
        model.history_["val_rmse"][-1], abs=2e-4
    )
    assert model.history_["val_rmse"][-1] < 0.6 < np.std(held_out.values)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("k", [1, 5, 16])
def test_cut_keeps_the_largest_singular_values(k, level, monkeypatch):
    """Of A B' with rows weighted by their ratings, as NumPy finds them; so few samples that nothing else was cut."""
    monkeypatch.setattr(gibbs, "kernels", lambda source, dtype: kernels(source, dtype, level))
    engine = engine_of(*some(n_users=300, n_items=200), k=k, n_epochs=8)
    mean, weights = 0.0, [np.sqrt(np.diff(side.start) + 3.0) for side in engine.sides]
    for t in range(7):
        engine.epoch(t, 0.0)
        if engine.kept:
            p, q = (np.asarray(side.means, np.float64)[:, :k] for side in engine.sides)
            mean = mean + weights[0][:, None] * (p @ q.T) * weights[1]
        if engine.kept in (1, 3, 4):  # samples that wait, and none
            left, s, right = np.linalg.svd(mean)
            params, kept = engine.weights(), 2 * k
            model = (
                params.user_factors.astype(np.float64)
                @ params.item_factors.T
                * engine.kept
                / engine.sd
            )
            got = weights[0][:, None] * model * weights[1]
            np.testing.assert_allclose(
                got, left[:, :kept] * s[:kept] @ right[:kept], atol=2e-4 * s[0]
            )
            dropped = np.sum(s[kept:] ** 2)
            assert np.sum((got - mean) ** 2) < 1.001 * dropped + 1e-6 * s[0] ** 2


def test_rank_grows_with_the_samples(tmp_path):
    assert [posterior.terms_of(n, 16, 10**6) for n in (1, 9, 10, 50, 99, 100, 10**6)] == [
        2,
        2,
        3,
        7,
        11,
        12,
        12,
    ]
    assert [posterior.terms_of(110, k, 10**6) for k in (32, 64, 100, 200, 1000)] == [12, 6, 3, 2, 2]
    assert [posterior.terms_of(110, 16, n) for n in (5, 32, 33, 100)] == [2, 2, 3, 7]
    users, items, values = some()

    def trained(n_epochs, resume=None):
        model = FunkSVD(2, n_epochs, solver="gibbs", random_state=0)
        return model.fit(
            (users, items),
            values,
            resume=resume,
            callbacks=ModelCheckpoint(tmp_path / f"{n_epochs}.npz"),
        )

    model = trained(70)
    assert model.user_factors_.shape == (80, 16)  # of 60 samples
    model.save(tmp_path / "m.npz")
    assert load(tmp_path / "m.npz").item_factors_.shape == (50, 16)
    trained(45)  # a lower rank, and samples that wait
    np.testing.assert_array_equal(
        trained(70, tmp_path / "45.npz").user_factors_, model.user_factors_
    )


def test_intervals_from_the_saved_model(tmp_path):
    users, items, values = some(20_000, 300, 200)
    noisy = users % 10 == 0  # whose ratings scatter twice as much
    values = values + noisy * np.random.default_rng(5).normal(0, 0.87, len(values))
    train, held_out = Ratings.from_arrays(users, items, values).split(0.2)
    FunkSVD(6, 40, solver="gibbs", random_state=0).fit(train).save(tmp_path / "m.npz")
    model = load(tmp_path / "m.npz")
    for coverage in (0.5, 0.8, 0.95):
        low, high = model.predict_interval(held_out, coverage)
        assert np.mean((low <= held_out.values) & (held_out.values <= high)) == pytest.approx(
            coverage, abs=0.03
        )
    weights = model.user_noise_weights_
    assert np.median(weights[::10]) < 0.5 * np.median(weights[1::10])
    mean, std = model.predict((np.array([0, 1]), np.array([3, 3])), return_std=True)
    assert std[0] > std[1] > 0
    np.testing.assert_array_equal(mean, model.predict((np.array([0, 1]), np.array([3, 3]))))
    with pytest.warns(UserWarning, match="unknown"):
        _, strange = model.predict((np.array([10**6]), np.array([3])), return_std=True)
    assert strange[0] > std[1]
    model.rating_scale = (1, 5)
    low, high = model.predict_interval(held_out, 0.99)
    assert low.min() == 1
    assert high.max() == 5
    model.rating_scale = None
    careful, scores = model.recommend(1, 5, risk=-1.0)
    mean, std = model.predict((np.ones(5, int), careful), return_std=True)
    np.testing.assert_allclose(scores, mean - std, rtol=1e-5)


def test_refuses_what_means_nothing():
    users, items, values = some(100)
    unused = {
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
    }
    used = {
        "n_factors",
        "n_epochs",
        "solver",
        "biased",
        "average",
        "rating_scale",
        "n_jobs",
        "device",
        "random_state",
        "verbose",
    }
    assert set(unused) | used == set(FunkSVD().get_params())
    for name, value in unused.items():
        with pytest.raises(ValueError, match=f"^{name} must be .* unless .*, got"):
            FunkSVD(solver="gibbs", **{name: value}).fit((users, items), values)
    FunkSVD(2, 2, solver="gibbs", dtype=np.float32, random_state=0).fit((users, items), values)
    with pytest.raises(ValueError, match="average"):
        FunkSVD(average="factors").fit((users, items), values)
    with pytest.raises(ValueError, match="solver='gibbs'"):
        FunkSVD(2, 1, random_state=0).fit((users, items), values).predict(
            (users, items), return_std=True
        )


def test_early_stopping_and_interruption():
    train, held_out = Ratings.from_arrays(*some()).split(0.2)

    class Stop(Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 20:
                raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        model = FunkSVD(4, 40, solver="gibbs", random_state=0).fit(train, callbacks=[Stop()])
    assert model.user_factors_.shape == (80, 12)  # of 11 samples
    stopping = EarlyStopping("val_loss", patience=3, min_delta=1e-3, restore_best_weights=True)
    model = FunkSVD(4, 200, solver="gibbs", random_state=0).fit(
        train, validation_data=held_out, callbacks=[stopping]
    )
    assert model.n_epochs_ < 200
    assert model.evaluate(held_out)["rmse"] == pytest.approx(
        min(model.history_["val_rmse"]), abs=2e-3
    )


@pytest.mark.parametrize("values", [np.zeros(6), np.array([1.0, 1e-30, 2, 3, 4, 5])])
def test_edges(values):
    """One rating a row, all ratings equal, one factor: finite predictions."""
    model = FunkSVD(1, 4, solver="gibbs", random_state=0).fit(
        (np.arange(6), np.arange(6) // 2), values
    )
    mean, std = model.predict((np.arange(6), np.arange(6) // 2), return_std=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    unbiased = FunkSVD(3, 4, solver="gibbs", biased=False, random_state=0).fit(
        (np.arange(6), np.arange(6) // 2), values
    )
    assert np.isfinite(unbiased.user_factors_).all()


def test_fold_in_has_its_own_posterior():
    """Users the model has not seen, from half of their ratings: nearly as good and as sure as after a fit with these."""
    users, items, values = some(20_000, 300, 200)
    new, half = users % 5 == 0, np.random.default_rng(0).random(len(users)) < 0.5
    known, given, asked = ~new, new & half, new & ~half
    make = {"n_factors": 6, "n_epochs": 40, "solver": "gibbs", "random_state": 0}
    base = FunkSVD(**make).fit((users[known], items[known]), values[known])
    folded = base.fold_in((users[given], items[given]), values[given])
    whole = FunkSVD(**make).fit((users[known | given], items[known | given]), values[known | given])
    errors = [
        m.evaluate((users[asked], items[asked]), values[asked])["rmse"] for m in (folded, whole)
    ]
    assert errors[0] < 1.03 * errors[1]
    for coverage in (0.5, 0.8, 0.95):
        low, high = folded.predict_interval((users[asked], items[asked]), coverage)
        assert np.mean((low <= values[asked]) & (values[asked] <= high)) == pytest.approx(
            coverage, abs=0.03
        )
    alone = base.fold_in((users[given], items[given]), values[given], extend=False)
    for a, b in zip(
        *(m.predict((users[asked], items[asked]), return_std=True) for m in (alone, folded)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        folded.predict((users[known], items[known]), return_std=True)[1],
        base.predict((users[known], items[known]), return_std=True)[1],
    )
    with pytest.raises(ValueError, match="partial_fit"):
        base.partial_fit((users[given], items[given]), values[given])
    base.set_params(solver="sgd", n_epochs=1).fit((users, items), values)
    assert not hasattr(base, "user_noise_weights_")


@pytest.mark.parametrize("n", [1, 4, 6, 30])
def test_new_row_equals_naive(n):
    rng = np.random.default_rng(n)
    g, y, noise, more = (
        rng.normal(size=(n, 5)),
        rng.normal(size=n),
        rng.uniform(0.5, 2, n),
        rng.uniform(0, 1, n),
    )
    root = rng.normal(size=(5, 5))
    prior = root @ root.T
    got = posterior.row_posterior(g, y, prior, np.linalg.inv(prior), noise, more)
    for ours, theirs in zip(got, naive.gibbs_row(g, y, prior, noise, more), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)


def test_simulation_based_calibration(monkeypatch):
    """Ranks of the truth among the chain's draws are uniform over data sets drawn from the prior (Talts et al. 2018)."""
    monkeypatch.setattr(gibbs, "NU", gibbs_checks.NU)
    monkeypatch.setattr(gibbs, "PRIOR", gibbs_checks.PRIOR)
    rng, shape, thinned, kept = np.random.default_rng(0), (6, 5), 3, 15
    users, items = (a.ravel() for a in np.indices(shape))
    engine = engine_of(users, items, np.arange(len(users)) % 3, k=2)
    engine.burn_in = 10**9

    def summary(s):
        f = gibbs_checks.predictions(s)
        return (
            s.alpha,
            f[0, 0],
            f[3, 4],
            s.lb[0],
            s.l[0].sum() + s.l[1].sum(),
            s.a[0][1],
            s.a[1][2],
            (s.x[0] ** 2).sum(),
        )

    ranks = []
    for _ in range(64):
        truth = gibbs_checks.prior_draw(rng, shape=shape)
        y = gibbs_checks.data(truth, rng, np.ones(shape, bool), np.ones(shape))
        take_over(engine, gibbs_checks.prior_draw(rng, shape=shape))  # an unrelated start
        for side, matrix in enumerate((y, y.T)):
            np.asarray(engine.sides[side].value)[:] = matrix.ravel()
        draws = []
        engine.sweep += 10
        for t in range(15 + thinned * kept):
            engine.epoch(0, 0.0)
            if t >= 15 and t % thinned == 0:
                draws.append(summary(state_of(engine)))
        ranks.append((np.array(draws) < summary(truth)).sum(0))
    for column in np.array(ranks).T:
        counts = np.bincount(column // 4, minlength=4)
        assert stats.chisquare(counts).pvalue > 1e-3


def test_sizes_are_the_solvers_own_where_none_are_given(tmp_path):
    """Nothing to tune: and a file keeps that none were given."""
    X, y = (np.arange(60) % 12, np.arange(60) % 7), np.arange(60) % 5 + 1.0
    model = FunkSVD(solver="gibbs", random_state=0).fit(X, y)
    assert (model.n_epochs_, model.user_factors_.shape[1]) == (120, 2 * 32)
    model.save(tmp_path / "m.npz")
    assert (load(tmp_path / "m.npz").predict(X) == model.predict(X)).all()
    usual = FunkSVD(random_state=0).fit(X, y)
    assert (usual.n_epochs_, usual.user_factors_.shape[1]) == (40, 100)
