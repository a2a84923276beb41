"""Promises of `fit` with the CPU engine of SGD: weights, order, interrupts and refusals."""

import numpy as np
import pytest
from conftest import random_ratings
from random_models import fit_random

from funksvd import Callback, FunkSVD


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
    with pytest.warns(UserWarning, match="trained on these ratings"):
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


def test_bad_input_is_refused():
    users, items, ratings = random_ratings()
    with pytest.raises(ValueError, match="equal lengths"):
        FunkSVD().fit((users[1:], items), ratings)
    with pytest.raises(ValueError, match="n_factors"):
        FunkSVD(n_factors=-1).fit((users, items), ratings)
    ratings[7] = np.nan
    with pytest.raises(ValueError, match="first at index 7"):
        FunkSVD().fit((users, items), ratings)


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
