"""`get_weights` and `set_weights`: copies, and only of the same model."""

import threading

import numpy as np
import pytest
from conftest import random_ratings

from funksvd import EarlyStopping, FunkSVD, LambdaCallback, load


def fitted(n_users=80, n_factors=4, **params):
    users, items, values = random_ratings(n_users=n_users)
    model = FunkSVD(n_factors, 2, random_state=0, **params)
    return model.fit((users, items), values)


def test_get_weights_is_a_copy():
    model = fitted()
    weights = model.get_weights()
    weights.user_factors[:] = 0
    weights.item_biases[:] = 0
    assert model.user_factors_.any()
    assert model.item_biases_.any()


def test_set_weights_copies():
    model = fitted()
    weights = model.get_weights()
    model.set_weights(weights)
    weights.user_factors[:] = 0
    assert model.user_factors_.any()


@pytest.mark.parametrize(
    "other",
    [{"n_users": 40}, {"n_factors": 5}, {"dtype": "float64"}],
    ids=["users", "factors", "dtype"],
)
def test_weights_of_another_model_are_refused(other):
    model = fitted()
    before = model.predict(([0, 1], [0, 1]))
    with pytest.raises(ValueError, match="weights are of another model: their user_"):
        model.set_weights(fitted(**other).get_weights())
    np.testing.assert_array_equal(model.predict(([0, 1], [0, 1])), before)


def test_weights_must_be_weights():
    with pytest.raises(TypeError, match="weights must be those of get_weights"):
        fitted().set_weights([np.zeros(3)])


@pytest.mark.parametrize("solver", ["sgd", "gibbs"])
def test_weights_of_another_model_are_refused_in_a_callback(solver):
    users, items, values = random_ratings()
    small = fitted(n_users=40).get_weights()
    model = FunkSVD(4, 2, solver=solver, random_state=0)
    callback = LambdaCallback(on_epoch_end=lambda epoch, logs: model.set_weights(small))
    with pytest.raises(ValueError, match="weights are of another model"):
        model.fit((users, items), values, callbacks=callback)


def test_threads_see_the_old_model_or_the_new_one():
    """Eight threads ask a model that is fitted again and again, with other ids each time."""
    few = random_ratings(n_users=40)
    users, items, values = random_ratings(n_users=90)
    many = (users + 1000, items, values)
    model = FunkSVD(4, 1, random_state=0, n_jobs=1).fit(few[:2], few[2])
    n_users = {0: 40, 1: 90}
    wrong = []
    done = threading.Event()

    def ask():
        while not done.is_set():
            table = model.recommend(None, 1, table="pyarrow")
            asked = table["user"].to_numpy()
            fit = asked[0] // 1000
            if (asked // 1000 != fit).any() or len(asked) != n_users[fit]:
                wrong.append(asked)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        users, items, values = few if turn % 2 else many
        model.fit((users, items), values)
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_fold_in_and_save_one_whole_model(tmp_path):
    """Eight threads, while fits run whose blocks are trained in parallel."""
    many = 220_000
    models = []
    for size in (3000, 2000):
        users, items, values = random_ratings(many, size, 900)
        model = FunkSVD(4, 1, random_state=0, n_jobs=2)
        models.append((model.fit((users, items), values), (users, items), values))
    model = FunkSVD(4, 1, random_state=0, n_jobs=2)
    model.fit(*models[0][1:])
    new = (np.full(20, 10**6), np.arange(20))
    folded = {m.fold_in(new, np.arange(20.0)).user_factors_.tobytes() for m, *_ in models}
    saved = {m.item_factors_.tobytes(): m.history_["loss"] for m, *_ in models}
    wrong = []
    done = threading.Event()

    def work(number):
        path = tmp_path / f"{number}.npz"
        while not done.is_set():
            if model.fold_in(new, np.arange(20.0)).user_factors_.tobytes() not in folded:
                wrong.append("fold_in")
            model.save(path)
            found = load(path)
            if saved.get(found.item_factors_.tobytes()) != found.history_["loss"]:
                wrong.append("save")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for turn in range(8):
        _, X, y = models[turn % 2]
        model.fit(X, y)
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_fold_in_by_a_callback_is_a_model_of_its_own():
    users, items, values = random_ratings()
    model = FunkSVD(4, 3, random_state=0)
    folded = []

    def fold(epoch, logs):
        folded.append(model.fold_in(([999], [0]), [4.0]))

    model.fit((users, items), values, callbacks=LambdaCallback(on_epoch_end=fold))
    assert [len(part.history_["loss"]) for part in folded] == [1, 2, 3]
    assert all(999 in part.user_ids_ for part in folded)
    assert not np.array_equal(folded[0].item_factors_, folded[2].item_factors_)


def test_get_weights_is_a_copy_for_other_threads_too():
    users, items, values = random_ratings()
    model = FunkSVD(4, 2, random_state=0).fit((users, items), values)
    before = model.get_weights()

    def spoil(epoch, logs):
        thread = threading.Thread(target=lambda: model.get_weights().user_factors.fill(0))
        thread.start()
        thread.join()

    learned = model._fitted.weights
    model.fit((users, items), values, callbacks=LambdaCallback(on_epoch_end=spoil))
    np.testing.assert_array_equal(learned.user_factors, before.user_factors)


def test_weights_that_overflow_in_the_last_step_are_an_error():
    model = FunkSVD(2, 1, learning_rate=3e38, random_state=0)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        model.fit(([0, 1, 2], [0, 1, 2]), [1.0, 2.0, 4.0])
    with pytest.raises(ValueError, match="not fitted yet"):
        model.predict(([0], [0]))


def test_a_validation_loss_that_is_not_finite_is_an_error():
    model = FunkSVD(2, 1, learning_rate=1e30, random_state=0)
    held_out = (([0], [1]), [2.0])
    with pytest.raises(FloatingPointError, match="training diverged in epoch 1"):
        model.fit(([0, 1, 2], [0, 1, 2]), [1.0, 2.0, 4.0], validation_data=held_out)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 1e39), ("float64", 1e160)])
def test_ratings_whose_squares_overflow_are_refused(dtype, size):
    model = FunkSVD(2, 1, dtype=dtype)
    with pytest.raises(ValueError, match=f"training ratings must be at most .* in {dtype}, got"):
        model.fit(([0, 1, 2], [0, 1, 2]), [size, 2.0, 4.0])
    model.fit(([0, 1, 2], [0, 1, 2]), [3.0, 2.0, 4.0])
    with pytest.raises(ValueError, match="new ratings must be at most"):
        model.partial_fit(([0, 1], [0, 1]), [-size, 2.0])


def test_a_callback_sees_the_state_of_the_moment():
    users, items, values = random_ratings()
    seen = []
    model = FunkSVD(4, 3, random_state=0)
    callback = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(model.user_factors_))
    model.fit((users, items), values, callbacks=callback)
    assert not np.array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[2], model.user_factors_)


def test_a_fit_that_fails_before_an_epoch_ends_leaves_no_model():
    users, items, values = random_ratings()
    model = FunkSVD(4, 2, random_state=0).fit((users, items), values)
    with pytest.raises(FloatingPointError, match="training diverged in epoch 1"):
        model.set_params(learning_rate=1e6, n_epochs=1).fit((users, items), values * 1e6)
    with pytest.raises(ValueError, match="not fitted yet"):
        model.predict(([0], [0]))


def test_the_best_epoch_of_a_sampled_model_may_lie_in_its_burn_in():
    rng = np.random.default_rng(0)
    users = rng.integers(0, 30, 500)
    items = rng.integers(0, 20, 500)
    model = FunkSVD(4, 30, solver="gibbs", random_state=0)
    stopping = EarlyStopping(patience=99)
    model.fit((users, items), rng.normal(3, 1, 500), validation_split=0.1, callbacks=stopping)
    assert stopping.best_epoch < 7
    assert model.user_factors_.shape[1] == 4
