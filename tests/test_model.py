"""FunkSVD on data of all kinds: tables, matrices, odd ids, real ratings."""

import os
import signal
import subprocess
import sys
import time
import uuid
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from conftest import random_ratings
from scipy import sparse

from funksvd import FunkSVD, LambdaCallback, Ratings, datasets, load

DATA = Path(os.environ.get("FUNKSVD_DATA", "nowhere"))
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="real ratings are not there: FUNKSVD_DATA names their folder"
)


def ratings_of_60_users():
    """Return (users, items, values) of 60 users and 40 items."""
    return random_ratings(2000, 60, 40)


def same(model, other):
    """Return whether two models have the same users' factors and items' biases."""
    same_factors = (model.user_factors_ == other.user_factors_).all()
    return same_factors and (model.item_biases_ == other.item_biases_).all()


# ---- ratings in all forms ----


def test_every_form_of_input_gives_the_same_model():
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    pyarrow = pytest.importorskip("pyarrow")
    users, items, values = ratings_of_60_users()
    # A sparse matrix adds up repeated pairs, so only the first of each stays.
    first = np.unique(users * 1000 + items, return_index=True)[1]
    users = users[first]
    items = items[first]
    values = values[first]
    columns = {"user": users, "item": items, "rating": values}
    expected = FunkSVD(4, 3, random_state=0).fit((users, items), values)
    forms = [
        (np.column_stack([users, items]), values),
        (sparse.coo_matrix((values, (users, items))), None),
        (pandas.DataFrame(columns), None),
        (polars.DataFrame(columns), None),
        (pyarrow.table(columns), None),
        (Ratings.from_arrays(users.astype(np.uint8), items.astype(float), values), None),
    ]
    for X, y in forms:
        assert same(FunkSVD(4, 3, random_state=0).fit(X, y), expected)


USERS, ITEMS, VALUES = ratings_of_60_users()
BAD_INPUTS = [
    ((USERS, ITEMS), VALUES[:-1], "equal lengths, got 2000, 2000, 1999"),
    ((USERS[:0], ITEMS[:0]), VALUES[:0], "at least 1 rating is needed, got none"),
    ((USERS[:1], ITEMS[:1]), VALUES[:1], "at least 2 ratings are needed, got 1"),
    (np.zeros((5, 3)), np.ones(5), r"X must be \(n, 2\)"),
    (
        (USERS, ITEMS),
        np.where(VALUES > 4, np.inf, VALUES),
        r"\d+ of 2000 ratings are NaN or infinite, the first at",
    ),
    ((USERS + 0.5, ITEMS), VALUES, "user ids are floats that are not whole numbers"),
    (([None, "a"], [1, 2]), [1, 2], "user ids hold missing values"),
    (([2**63, -1], [1, 2]), [1, 2], "user ids are .* ints that do not fit 64 bits"),
    (([1e19, 5.0], [1, 2]), [1, 2], "user ids are floats of 2.*53 or more"),
    (([2**53 + 1, 2**53, 0.0], [1, 2, 3]), [1, 2, 3], "user ids are floats of 2.*53 or more"),
    (
        (USERS, np.ma.array(ITEMS, mask=ITEMS == 3)),
        VALUES,
        r"\d+ item ids are masked",
    ),
    ((USERS, ITEMS), np.ma.array(VALUES, mask=VALUES > 4), r"\d+ ratings are masked"),
    ((USERS, ITEMS), None, "y is missing"),
]


@pytest.mark.parametrize(("X", "y", "message"), BAD_INPUTS)
def test_malformed_input_is_named(X, y, message):
    with pytest.raises(ValueError, match=message):
        FunkSVD().fit(X, y)


@pytest.mark.parametrize("ratings", [["good", "bad"], [1j, 2], np.array([1, 2], "M8[s]")])
def test_ratings_must_be_numbers(ratings):
    with pytest.raises(TypeError, match="ratings must be numbers"):
        FunkSVD().fit(([1, 2], [1, 2]), ratings)


def test_a_dense_matrix_is_refused():
    with pytest.raises(TypeError, match="from_sparse takes a SciPy sparse matrix, got ndarray"):
        Ratings.from_sparse(np.eye(3))


def test_the_validation_split_is_checked():
    users, items, values = ratings_of_60_users()
    X = (users, items)
    with pytest.raises(ValueError, match=r"validation_split must be in \[0, 1\), got '0.1'"):
        FunkSVD().fit(X, values, validation_split="0.1")
    with pytest.raises(ValueError, match="not both"):
        FunkSVD().fit(X, values, validation_split=0.1, validation_data=(X, values))


def test_a_part_without_weight_is_refused():
    users, items, values = ratings_of_60_users()
    weights = np.zeros(len(values))
    weights[0] = 1
    model = FunkSVD(2, 1, random_state=0)
    with pytest.raises(ValueError, match="all validation ratings weigh 0"):
        model.fit((users, items), values, sample_weight=weights, validation_split=0.1)
    for bad in (-1.0, np.nan):
        weights[3] = bad
        with pytest.raises(ValueError, match=r"finite and at least 0, got .* at index 3"):
            model.fit((users, items), values, sample_weight=weights)


# ---- ids of all types ----


def day(number):
    """Return the date so many days after the first of the year 2000."""
    return date(2000, 1, 1) + timedelta(int(number))


def unique_id(number):
    """Return the UUID of a number."""
    return uuid.UUID(int=int(number))


def sparse_id(number):
    """Return a multiple of a large number."""
    return int(number) * 10**15


def negative_id(number):
    """Return a whole number of at most 0."""
    return -int(number)


@pytest.mark.parametrize("make", [str, unique_id, sparse_id, negative_id, day])
def test_ids_of_many_types(make, tmp_path):
    users, items, values = ratings_of_60_users()
    ids = np.array([make(user) for user in users])
    ratings = Ratings.from_arrays(ids, items, values)
    model = FunkSVD(4, 3, random_state=0).fit((ids, items), values)
    assert np.isfinite(model.predict((ids, items), unknown="raise")).all()
    found, scores = model.recommend(ids[0], n=5, exclude=ratings)
    assert not set(found.tolist()) & set(items[ids == ids[0]].tolist())
    assert (np.diff(scores) <= 0).all()
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert [type(own) for own in again.user_ids_] == [type(own) for own in model.user_ids_]
    assert (again.predict((ids, items)) == model.predict((ids, items))).all()


def test_ids_of_mixed_types_stay_apart():
    users = [1, "1", 2, "b", 2, 1]
    items = ["x"] * 6
    model = FunkSVD(2, 3, random_state=0).fit((users, items), [1.0, 2, 3, 4, 5, 3])
    found = {(type(own), own) for own in model.user_ids_}
    assert found == {(int, 1), (str, "1"), (int, 2), (str, "b")}


def test_a_model_of_mixed_ids_answers_for_each_of_them():
    ids = [1, "1", b"1", (1, 1)]
    model = FunkSVD(2, 2, random_state=0).fit((ids, ["a", "b", "c", "d"]), [1, 2, 3, 4])
    together = model.predict((ids, ["a"] * 4))
    assert len(set(together.tolist())) == 4
    assert [model.predict(([own], ["a"]))[0] for own in ids] == together.tolist()
    assert len(model.recommend("1")[0]) == 4


def test_integer_ids_spread_wide_and_dense():
    rng = np.random.default_rng(0)
    for span in (1 << 23, 1 << 26, 1 << 40):
        distinct = rng.integers(0, span, 50)
        users = rng.choice(distinct, 3000) - span // 2
        items = rng.integers(0, 40, 3000)
        ratings = Ratings.from_arrays(users, items, 1 + rng.random(3000))
        assert (ratings.user_ids[ratings.users] == users).all()
        model = FunkSVD(3, 2, random_state=0).fit(ratings)
        assert np.isfinite(model.predict((users, items), unknown="raise")).all()
    with pytest.raises(ValueError, match="must fit 64 bits"):
        Ratings.from_arrays([2**70, 1], [1, 2], [1.0, 2.0])


def test_times_as_ids():
    users, items, values = ratings_of_60_users()
    days = (np.datetime64("2000-01-01") + users).astype("M8[ns]")
    model = FunkSVD(2, 2, random_state=0).fit((days, items), values)
    assert np.isfinite(model.predict((days, items), unknown="raise")).all()
    with pytest.raises(ValueError, match="finer than a microsecond"):
        Ratings.from_arrays(users.astype("M8[ns]") + np.timedelta64(1, "ns"), items, values)


# ---- predictions ----


@pytest.mark.parametrize("k", [1, 7, 20, 32])
def test_predict_is_the_formula(k):
    users, items, values = ratings_of_60_users()
    model = FunkSVD(k, 3, random_state=0, dtype="float64").fit((users, items), values)
    u = np.searchsorted(model.user_ids_, users)
    i = np.searchsorted(model.item_ids_, items)
    products = np.einsum("tk,tk->t", model.user_factors_[u], model.item_factors_[i])
    expected = model.global_mean_ + model.user_biases_[u] + model.item_biases_[i] + products
    np.testing.assert_allclose(model.predict((users, items)), expected, rtol=1e-12)


def test_huge_penalty_gives_the_mean():
    users, items, values = ratings_of_60_users()
    model = FunkSVD(
        n_factors=4,
        n_epochs=60,
        l2=50,
        l2_bias=50,
        learning_rate=0.002,
        learning_rate_decay=0,
        random_state=0,
    )
    model.fit((users, items), values)
    np.testing.assert_allclose(model.predict((users, items)), values.mean(), atol=0.05)


def test_recommend_agrees_with_predict():
    users, items, values = ratings_of_60_users()
    model = FunkSVD(4, 5, random_state=0).fit((users, items), values)
    found, scores = model.recommend(3, n=100)
    assert sorted(found) == sorted(model.item_ids_)
    np.testing.assert_array_equal(scores, model.predict((np.full(len(found), 3), found)))


def test_validation_loss_is_the_prediction_error():
    users, items, values = ratings_of_60_users()
    train, held_out = Ratings.from_arrays(users, items, values).split(0.2, 3)
    assert len(held_out) == 400
    model = FunkSVD(4, 5, random_state=0).fit(train, validation_data=held_out)
    error = model.evaluate(held_out)["rmse"]
    assert error == pytest.approx(model.history_["val_rmse"][-1], rel=1e-5)


@pytest.mark.parametrize("only_unknown", [False, True])
def test_unknown_ids_in_validation_count_as_predict_does(only_unknown):
    users, items, values = ratings_of_60_users()
    known = (users < 50) & (items < 35)
    part = ~known if only_unknown else slice(None)
    held_out = ((users[part], items[part]), values[part])
    model = FunkSVD(4, 5, random_state=0)
    model.fit((users[known], items[known]), values[known], validation_data=held_out)
    errors = model.evaluate(*held_out)
    assert errors["unknown"] > 0
    assert model.history_["val_rmse"][-1] == pytest.approx(errors["rmse"], rel=1e-5)


# ---- accuracy ----


def test_planted_ratings_are_found():
    made = datasets.make_ratings(600, 400, 60_000, rank=4, noise=0.5, random_state=1)

    def best_error(model):
        model.fit((made.users, made.items), made.ratings, validation_split=0.1)
        return min(model.history_["val_rmse"])

    error = best_error(FunkSVD(8, 60, random_state=0))
    biases = best_error(FunkSVD(1, 60, init_std=0, random_state=0))
    assert made.noise < error < 0.5 * (made.noise + biases)


@needs_data
def test_defaults_on_the_official_folds():
    ratings = np.loadtxt(DATA / "ml-100k" / "u.data", dtype=np.int64)
    X = ratings[:, :2]
    y = ratings[:, 2]
    errors = []
    for fold in range(5):
        test = np.zeros(len(ratings), bool)
        test[20_000 * fold : 20_000 * (fold + 1)] = True
        model = FunkSVD(random_state=0).fit(X[~test], y[~test])
        errors.append(model.evaluate(X[test], y[test])["rmse"])
    assert np.mean(errors) <= 0.918


@needs_data
def test_defaults_on_goodbooks():
    train, test = Ratings.read(DATA / "goodbooks" / "ratings.csv.gz").split(0.1, 0)
    assert FunkSVD(random_state=0).fit(train).evaluate(test)["rmse"] <= 0.823


# ---- training that ends early ----


def test_a_failing_callback_leaves_the_last_whole_epoch():
    users, items, values = ratings_of_60_users()
    whole = FunkSVD(4, 2, random_state=0).fit((users, items), values)

    def fail(epoch, logs):
        if epoch == 1:
            raise RuntimeError("the callback's own error")

    model = FunkSVD(4, 9, random_state=0)
    with pytest.raises(RuntimeError, match="the callback's own error"):
        model.fit((users, items), values, callbacks=LambdaCallback(on_epoch_end=fail))
    assert model.n_epochs_ == 2
    assert (model.item_factors_ == whole.item_factors_).all()


def test_a_failed_refit_leaves_no_model_of_other_ids():
    users, items, values = ratings_of_60_users()
    model = FunkSVD(4, 3, random_state=0).fit((users, items), values)
    with pytest.raises(FloatingPointError):
        model.set_params(learning_rate=1e6).fit((users + 7, items), values)
    with pytest.raises(ValueError, match="not fitted"):
        model.predict((users, items))


# Trains for hours, prints each epoch, and tells what Ctrl-C leaves.
TRAIN = """
import warnings
import numpy as np
from funksvd import FunkSVD, LambdaCallback
warnings.simplefilter("always")
rng = np.random.default_rng(0)
n = 3_000_000
users = rng.integers(0, 50_000, n)
items = rng.integers(0, 9_000, n)
values = rng.normal(3, 1, n)
callback = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, flush=True))
model = FunkSVD(64, 100_000, random_state=0)
model.fit((users, items), values, callbacks=[callback])
model.predict((users[:1], items[:1]))
print("usable", model.interrupted_)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_ends_training_and_leaves_a_usable_model():
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(3):
        process.stdout.readline()
    begun = time.perf_counter()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.perf_counter() - begun < 30  # it finds a hang; it does not measure speed
    assert "usable True" in out, err
    assert "interrupted in epoch" in err
