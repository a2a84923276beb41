"""The samples' mean as a matrix of low rank."""

import numpy as np
import pytest
from gibbs_checks import distinct_ratings, engine_of

from funksvd import FunkSVD, ModelCheckpoint, Ratings, load
from funksvd.engines import low_rank
from funksvd.engines.low_rank import terms_of
from funksvd.machine.kernels import kernels, levels


def test_model_is_the_mean_of_the_samples():
    """The rank is at last that of the matrix: the model is the mean that validation sees.

    They differ by the early cuts alone.
    """
    train, held_out = Ratings.from_arrays(*distinct_ratings()).split(0.2)
    model = FunkSVD(6, 200, solver="gibbs", random_state=0).fit(train, validation_data=held_out)
    last = model.history_["val_rmse"][-1]
    assert model.user_factors_.shape == (80, 54)  # of 50 items
    assert model.evaluate(held_out)["rmse"] == pytest.approx(last, abs=2e-4)
    assert last < 0.6 < np.std(held_out.values)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("k", [1, 5, 16])
def test_cut_keeps_the_largest_singular_values(k, level, monkeypatch):
    """They are those of A B' with rows weighted by their ratings, as NumPy finds them.

    There are so few samples that nothing was cut before.
    """
    monkeypatch.setattr(low_rank, "kernels", lambda name, dtype: kernels(name, dtype, level))
    engine = engine_of(*distinct_ratings(n_users=300, n_items=200), n_factors=k, n_epochs=8)
    sides = engine.chain.sides
    root_weights = [np.sqrt(np.diff(side.start) + 3.0) for side in sides]
    mean = 0.0
    for epoch in range(7):
        engine.epoch(epoch, 0.0)
        n_samples = engine.sums.n_samples
        if n_samples:
            p, q = (np.asarray(side.means, np.float64)[:, :k] for side in sides)
            mean = mean + root_weights[0][:, None] * (p @ q.T) * root_weights[1]
        if n_samples in (1, 3, 4):  # samples that wait, and none
            left, s, right = np.linalg.svd(mean)
            weights = engine.weights()
            product = weights.user_factors.astype(np.float64) @ weights.item_factors.T
            model = product * n_samples / engine.std
            got = root_weights[0][:, None] * model * root_weights[1]
            rank = 2 * k
            best = left[:, :rank] * s[:rank] @ right[:rank]
            np.testing.assert_allclose(got, best, atol=2e-4 * s[0])
            dropped = np.sum(s[rank:] ** 2)
            assert np.sum((got - mean) ** 2) < 1.001 * dropped + 1e-6 * s[0] ** 2


@pytest.mark.parametrize(
    ("n_samples", "n_factors", "n_rows", "terms"),
    [
        (1, 16, 10**6, 2),
        (9, 16, 10**6, 2),
        (10, 16, 10**6, 3),
        (50, 16, 10**6, 7),
        (99, 16, 10**6, 11),
        (100, 16, 10**6, 12),
        (10**6, 16, 10**6, 12),
        (110, 32, 10**6, 12),
        (110, 64, 10**6, 6),
        (110, 100, 10**6, 3),
        (110, 200, 10**6, 2),
        (110, 1000, 10**6, 2),
        (110, 16, 5, 2),
        (110, 16, 32, 2),
        (110, 16, 33, 3),
        (110, 16, 100, 7),
    ],
)
def test_rank_of_so_many_samples(n_samples, n_factors, n_rows, terms):
    assert terms_of(n_samples, n_factors, n_rows) == terms


def test_rank_grows_with_the_samples(tmp_path):
    users, items, values = distinct_ratings()

    def trained(n_epochs, resume=None):
        saver = ModelCheckpoint(tmp_path / f"{n_epochs}.npz")
        model = FunkSVD(2, n_epochs, solver="gibbs", random_state=0)
        return model.fit((users, items), values, resume=resume, callbacks=saver)

    model = trained(70)
    assert model.user_factors_.shape == (80, 16)  # of 60 samples
    model.save(tmp_path / "m.npz")
    assert load(tmp_path / "m.npz").item_factors_.shape == (50, 16)
    trained(45)  # a lower rank, and samples that wait
    resumed = trained(70, tmp_path / "45.npz")
    np.testing.assert_array_equal(resumed.user_factors_, model.user_factors_)
