"""Ratings held out for validation: at random, or the last ones as Keras does."""

import numpy as np
import pytest
from conftest import random_ratings

from funksvd import FunkSVD, Ratings
from funksvd.model_selection import UserHoldout


def test_splits_of_neighbouring_seeds_differ_and_ignore_row_order():
    users, items, values = random_ratings(2000, 60, 40)
    order = np.random.default_rng(1).permutation(len(users))
    ratings = Ratings.from_arrays(users, items, values)
    shuffled = Ratings.from_arrays(users[order], items[order], values[order])

    def held_out(ratings, seed):
        _, part = ratings.split(0.1, seed)
        return set(zip(part.users.tolist(), part.items.tolist(), part.values.tolist(), strict=True))

    assert held_out(ratings, 0) == held_out(shuffled, 0)
    assert len(held_out(ratings, 0) & held_out(ratings, 1)) < 50  # 20 by chance


# (ratings, share held out, ratings to train on), as
# keras.src.trainers.data_adapters.array_slicing of Keras 3.15 splits them.
KERAS_SPLITS = [
    (10, 0.1, 9),
    (10, 0.3, 7),
    (100, 0.29, 71),
    (100, 0.7, 30),
    (101, 0.1, 90),
    (7, 0.5, 3),
    (1000, 0.001, 999),
    (1000, 0.9, 99),
    (99, 0.01, 98),
]


@pytest.mark.parametrize(("n", "share", "n_train"), KERAS_SPLITS)
def test_the_tail_is_that_of_keras(n, share, n_train):
    users, items, values = random_ratings(n, 60, 40)
    ratings = Ratings.from_arrays(users, items, values, 1.0 + np.arange(n) % 3)
    train, held_out = ratings.split_tail(share)
    assert len(train) == n_train
    assert len(held_out) == n - n_train
    assert (np.append(train.values, held_out.values) == values).all()
    assert (np.append(train.weights, held_out.weights) == ratings.weights).all()
    by_name = FunkSVD(2, 2, random_state=0)
    by_name.fit(ratings, validation_split=share, validation_split_order="tail")
    by_hand = FunkSVD(2, 2, random_state=0).fit(train, validation_data=held_out)
    assert by_name.history_["val_loss"] == by_hand.history_["val_loss"]


def test_a_tail_that_leaves_a_single_rating_is_refused():
    """Keras trains on it, but one rating has no factors to learn."""
    users, items, values = random_ratings(3, 60, 40)
    ratings = Ratings.from_arrays(users, items, values)
    message = r"test_size must leave ratings on both sides, got 0\.34 of 3"
    with pytest.raises(ValueError, match=message):
        ratings.split_tail(0.34)


def test_the_order_of_the_split_is_checked():
    users, items, values = random_ratings(2000, 60, 40)
    message = "validation_split_order must be 'random' or 'tail', got 'head'"
    with pytest.raises(ValueError, match=message):
        FunkSVD().fit((users, items), values, validation_split=0.1, validation_split_order="head")


def repeated_pairs(seed):
    """Return ratings of few pairs in a random order of the rows; equal ones differ in weight."""
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 5, 400), rng.integers(0, 6, 400), rng.integers(1, 4, 400) / 1.0]
    columns.append(rng.random(400))
    order = np.random.default_rng(seed).permutation(400)
    return [column[order] for column in columns]


def test_folds_of_repeated_pairs_do_not_depend_on_the_order_of_the_rows():
    found = set()
    for seed in range(5):
        *_, (_, held_out) = Ratings.from_arrays(*repeated_pairs(seed)).folds(3)
        found.add(tuple(sorted(held_out.weights.tolist())))
    assert len(found) == 1


@pytest.mark.parametrize("as_ratings", [False, True])
def test_held_out_repeated_pairs_do_not_depend_on_the_order_of_the_rows(as_ratings):
    found = set()
    for seed in range(5):
        users, items, values, weights = repeated_pairs(seed)
        if as_ratings:
            ratings = Ratings.from_arrays(users, items, values, weights)
            _, test = next(UserHoldout().split(ratings))
            found.add(tuple(sorted(test.weights.tolist())))
        else:
            _, test = next(UserHoldout().split((users, items), values))
            found.add(tuple(sorted(values[test].tolist())))
    assert len(found) == 1
