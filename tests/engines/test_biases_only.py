"""Models of biases alone: n_factors=0."""

import numpy as np
import pytest
from conftest import planted_ratings

import funksvd
from funksvd import FunkSVD, Ratings

# Not adagrad_row: its accumulator is a mean over the bias and the factors.
STEPPING = ["sgd", "adagrad", "adam", "adamax"]


def data():
    """Return planted ratings."""
    users, items, values = planted_ratings()
    return Ratings.from_arrays(users, items, values)


@pytest.mark.parametrize("solver", STEPPING)
def test_it_is_the_model_whose_factors_are_zeros(solver):
    options = {"solver": solver, "n_epochs": 5, "random_state": 0}
    biases = FunkSVD(n_factors=0, **options).fit(data())
    assert biases.user_factors_.shape == (80, 0)
    assert biases.item_factors_.shape == (50, 0)
    zeros = FunkSVD(n_factors=1, init_std=0.0, **options).fit(data())
    np.testing.assert_array_equal(biases.user_biases_, zeros.user_biases_)
    np.testing.assert_array_equal(biases.item_biases_, zeros.item_biases_)
    assert biases.history_["rmse"] == zeros.history_["rmse"]


def test_adagrad_row_differs_by_the_share_of_its_accumulator_alone():
    options = {"solver": "adagrad_row", "n_epochs": 5, "random_state": 0}
    biases = FunkSVD(n_factors=0, **options).fit(data())
    zeros = FunkSVD(n_factors=1, init_std=0.0, **options).fit(data())
    assert np.corrcoef(biases.user_biases_, zeros.user_biases_)[0, 1] > 0.98
    assert biases.history_["rmse"] == pytest.approx(zeros.history_["rmse"], rel=0.02)


def test_it_nears_the_least_squares_solution():
    ratings = data()
    model = FunkSVD(
        n_factors=0,
        n_epochs=300,
        l2_bias=0.0,
        learning_rate=0.02,
        learning_rate_decay=0.02,
        random_state=0,
        dtype="float64",
    ).fit(ratings)
    n = len(ratings)
    columns = np.zeros((n, ratings.n_users + ratings.n_items))
    columns[np.arange(n), ratings.users] = 1
    columns[np.arange(n), ratings.n_users + ratings.items] = 1
    residual = ratings.values - model.global_mean_
    solution, *_ = np.linalg.lstsq(columns, residual, rcond=None)
    rmse = np.sqrt(np.mean((residual - columns @ solution) ** 2))
    predicted = model.predict((ratings.user_ids[ratings.users], ratings.item_ids[ratings.items]))
    np.testing.assert_allclose(predicted - model.global_mean_, columns @ solution, atol=0.02)
    assert model.score(ratings) == pytest.approx(1 - rmse**2 / ratings.values.var(), abs=1e-4)


def test_it_serves_as_any_model(tmp_path):
    ratings = data()
    model = FunkSVD(n_factors=0, n_epochs=5, random_state=0).fit(ratings)
    by_bias = model.item_ids_[np.argsort(-model.item_biases_, kind="stable")]
    assert model.recommend(3, 5)[0].tolist() == by_bias[:5].tolist()
    for name in ("model.npz", "model.safetensors"):
        model.save(tmp_path / name)
        for mmap in (False, True):
            loaded = funksvd.load(tmp_path / name, mmap=mmap)
            np.testing.assert_array_equal(loaded.predict_all(), model.predict_all())
    pair = ([10**6], [0])
    folded = model.fold_in(pair, [5.0])
    assert folded.predict(pair) > model.global_mean_ + model.item_biases_[0]
    updated = model.partial_fit(pair, [5.0])
    assert len(updated.user_ids_) == 81
    why = model.explain(3, 0, ratings)
    assert why.prediction == pytest.approx(model.predict(([3], [0]))[0])


def test_threads_and_checkpoints_change_nothing(tmp_path):
    ratings = data()
    options = {"n_factors": 0, "random_state": 0}
    whole = FunkSVD(n_epochs=6, n_jobs=1, **options).fit(ratings)
    several = FunkSVD(n_epochs=6, n_jobs=3, **options).fit(ratings)
    np.testing.assert_array_equal(several.predict_all(), whole.predict_all())
    path = tmp_path / "checkpoint.npz"
    saving = funksvd.ModelCheckpoint(path)
    FunkSVD(n_epochs=3, **options).fit(ratings, callbacks=saving)
    resumed = FunkSVD(n_epochs=6, **options).fit(ratings, callbacks=saving, resume=path)
    np.testing.assert_array_equal(resumed.predict_all(), whole.predict_all())


def test_the_sampler_finds_the_exact_posterior_mean():
    """Given the hyper-parameters, the posterior is normal, and its mean solves ridge equations."""
    ratings = data()
    model = FunkSVD(n_factors=0, solver="gibbs", n_epochs=600, random_state=0).fit(ratings)
    weights = model.get_weights()
    n_users, n_items = ratings.n_users, ratings.n_items
    noise = weights.noise[0]
    prior = [rows[-1, 1] for rows in (weights.user_posterior, weights.item_posterior)]
    columns = np.zeros((len(ratings), 1 + n_users + n_items))
    columns[:, 0] = 1
    columns[np.arange(len(ratings)), 1 + ratings.users] = 1
    columns[np.arange(len(ratings)), 1 + n_users + ratings.items] = 1
    ridge = np.repeat([0, noise / prior[0], noise / prior[1]], [1, n_users, n_items])
    solution = np.linalg.solve(columns.T @ columns + np.diag(ridge), columns.T @ ratings.values)
    pairs = (ratings.user_ids[ratings.users], ratings.item_ids[ratings.items])
    np.testing.assert_allclose(model.predict(pairs), columns @ solution, atol=0.03)
    covariance = noise * np.linalg.inv(columns.T @ columns + np.diag(ridge))
    exact = np.sqrt(noise + np.einsum("nk,kl,nl->n", columns, covariance, columns))
    _, std = model.predict(pairs, return_std=True)
    np.testing.assert_allclose(std, exact, rtol=0.03)


def test_the_sampler_serves_and_goes_on(tmp_path):
    ratings = data()
    train, test = ratings.split(0.2)
    options = {"n_factors": 0, "solver": "gibbs", "random_state": 0}
    model = FunkSVD(n_epochs=60, **options).fit(train, validation_data=test)
    assert model.history_["val_rmse"][-1] == pytest.approx(model.evaluate(test)["rmse"])
    low, high = model.predict_interval(test, 0.8)
    inside = np.mean((low <= test.values) & (test.values <= high))
    assert inside == pytest.approx(0.8, abs=0.05)
    model.save(tmp_path / "model.npz")
    loaded = funksvd.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.predict_all(), model.predict_all())
    folded = model.fold_in(([10**6] * 3, [0, 1, 2]), [5.0, 5.0, 5.0])
    assert folded.predict(([10**6], [4])) > model.global_mean_ + model.item_biases_[4]
    saving = funksvd.ModelCheckpoint(tmp_path / "checkpoint.npz")
    FunkSVD(n_epochs=50, **options).fit(train, callbacks=saving)
    path = tmp_path / "checkpoint.npz"
    resumed = FunkSVD(n_epochs=60, **options).fit(train, callbacks=saving, resume=path)
    np.testing.assert_array_equal(resumed.predict_all(), model.predict_all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"training": "featurewise"}, "training is 'joint'"),
        ({"batch_size": 8}, "batch_size is 1"),
        ({"biased": False}, "biased is True"),
        ({"solver": "ials"}, "solver is other than 'ials'"),
    ],
)
def test_what_needs_factors_is_refused(options, message):
    with pytest.raises(ValueError, match=f"n_factors must be at least 1 unless {message}, got 0"):
        FunkSVD(n_factors=0, **options).fit(data())
