"""Ratings as an object: rows, repr, tables, joins and thinning."""

from collections import Counter

import numpy as np
import pytest
from conftest import random_ratings

from funksvd import FunkSVD, Ratings, tuning
from funksvd.model_selection import ColdUserSplit, LeaveLastOut, TimeSplit, UserHoldout

N = 500


@pytest.fixture(params=[int, str])
def ratings(request):
    """Return ratings with weights and times; ids are numbers, or texts."""
    users, items, values = random_ratings(N, 40, 30)
    users = [request.param(user) for user in users.tolist()]
    items = [request.param(item) for item in items.tolist()]
    times = 10**9 + np.random.default_rng(1).permutation(N) * 1000
    return Ratings.from_arrays(users, items, values.astype("f4"), 1.0 + np.arange(N) % 3, times)


def rows_of(ratings):
    """Return one (user, item, rating, weight, time) for each rating."""
    columns = [ratings.user_ids[ratings.users], ratings.item_ids[ratings.items], ratings.values]
    for column in (ratings.weights, ratings.times):
        columns.append(np.full(len(ratings), None) if column is None else column)
    return list(zip(*(column.tolist() for column in columns), strict=True))


# Rows


def test_rows_are_those_of_a_list(ratings):
    rows = rows_of(ratings)
    mask = ratings.values > 3.5
    assert rows_of(ratings[mask]) == [row for row, kept in zip(rows, mask, strict=True) if kept]
    assert rows_of(ratings[[5, 2, 5]]) == [rows[5], rows[2], rows[5]]
    assert rows_of(ratings[np.array([5, -1])]) == [rows[5], rows[-1]]
    assert rows_of(ratings[10:20:3]) == rows[10:20:3]
    assert len(ratings[[]]) == 0
    assert ratings[:3].user_ids is ratings.user_ids  # a model of a part knows all ids


def test_rows_that_are_none_are_refused(ratings):
    for rows in (5, "user", [1.5], None, [[1, 2]]):
        with pytest.raises(TypeError, match="rows of ratings are chosen by"):
            ratings[rows]
    with pytest.raises(IndexError):
        ratings[[N]]
    with pytest.raises(IndexError):
        ratings[np.ones(N - 1, bool)]


# repr


def test_repr_says_what_is_there():
    ratings = Ratings.from_arrays([1, 1, 3], [7, 8, 7], [1, 4.5, 5])
    assert repr(ratings) == "<Ratings: 3 by 2 users of 2 items, from 1 to 5>"
    assert repr(ratings[:2]) == "<Ratings: 2 by 1 users of 2 items, from 1 to 4.5>"
    assert repr(ratings[[]]) == "<Ratings: 0 by 0 users of 0 items>"
    times = ["1997-09-20", "1998-04-22", "1998-01-01"]
    timed = Ratings.from_arrays([1, 1, 3], [7, 8, 7], [1, 4, 5], [1, 2, 1], times)
    assert repr(timed).endswith("from 1 to 5, 1997-09-20 to 1998-04-22, weighted>")


# Tables


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_table_has_all_columns_and_leads_back(ratings, library):
    pytest.importorskip("narwhals")
    pytest.importorskip(library)
    table = ratings.to_frame(library)
    names = table.column_names if library == "pyarrow" else list(table.columns)
    assert names == ["user", "item", "rating", "weight", "time"]
    back = Ratings.from_frame(table, weights=ratings.weights)
    assert rows_of(back) == rows_of(ratings)
    plain = Ratings.from_arrays([1, 2], [3, 4], [5, 6]).to_frame(library)
    assert Ratings.from_frame(plain).times is None


def test_an_unknown_library_is_refused(ratings):
    message = "library must be 'pandas' or 'polars' or 'pyarrow', got 'numpy'"
    with pytest.raises(ValueError, match=message):
        ratings.to_frame("numpy")


# Joins


def test_parts_joined_are_the_whole(ratings):
    joined = Ratings.concat([ratings[:100], ratings[100:130], ratings[130:]])
    assert rows_of(joined) == rows_of(ratings)
    assert joined.user_ids.tolist() == ratings.user_ids.tolist()
    train, test = ratings.split(0.3)
    assert sorted(rows_of(Ratings.concat([test, train]))) == sorted(rows_of(ratings))


def test_joined_ids_are_those_of_both():
    first = Ratings.from_arrays([1, 5], [10, 20], [1, 2])
    second = Ratings.from_arrays([10**12, 1], [20, 30], [3, 4], [2, 2])
    joined = Ratings.concat([first, second])
    assert rows_of(joined) == [
        (1, 10, 1, 1, None),
        (5, 20, 2, 1, None),
        (10**12, 20, 3, 2, None),
        (1, 30, 4, 2, None),
    ]


def test_parts_that_do_not_fit_together_are_refused():
    numbers = Ratings.from_arrays([1, 5], [10, 20], [1, 2])
    texts = Ratings.from_arrays(["1", "5"], [10, 20], [1, 2])
    timed = Ratings.from_arrays([1, 5], [10, 20], [1, 2], times=[1, 2])
    with pytest.raises(TypeError, match="user ids are int in one part and str in another"):
        Ratings.concat([numbers, texts])
    with pytest.raises(ValueError, match="1 of the 2 parts have times"):
        Ratings.concat([numbers, timed])
    with pytest.raises(ValueError, match="at least one part"):
        Ratings.concat([])


# Thinning


def slow_filter(rows, min_user, min_item):
    """Return the rows whose users and items have enough rows, by leaving out one id at a time."""
    while True:
        users = Counter(row[0] for row in rows)
        items = Counter(row[1] for row in rows)
        few = [user for user, count in users.items() if count < min_user]
        few_items = [item for item, count in items.items() if count < min_item]
        if few:
            rows = [row for row in rows if row[0] != few[0]]
        elif few_items:
            rows = [row for row in rows if row[1] != few_items[0]]
        else:
            return rows


@pytest.mark.parametrize(("min_user", "min_item"), [(1, 1), (13, 1), (1, 17), (9, 12)])
def test_filter_leaves_ids_with_enough_ratings(ratings, min_user, min_item):
    kept = ratings.filter(min_user=min_user, min_item=min_item)
    expected = slow_filter(rows_of(ratings), min_user, min_item)
    assert 0 < len(expected) <= N
    assert rows_of(kept) == expected
    assert kept.user_ids.tolist() == sorted({row[0] for row in expected})
    assert kept.item_ids.tolist() == sorted({row[1] for row in expected})


def test_filter_refuses_what_leaves_nothing(ratings):
    with pytest.raises(ValueError, match="no ratings are left with min_user=99 and min_item=1"):
        ratings.filter(min_user=99)
    with pytest.raises(ValueError, match="min_item must be an int >= 1, got 0"):
        ratings.filter(min_item=0)


# Splitters


@pytest.mark.parametrize(
    "splitter", [UserHoldout(0.3, 2), LeaveLastOut(2), TimeSplit(0.2, 2), ColdUserSplit(3)]
)
def test_splitters_take_ratings_and_give_them(ratings, splitter):
    pairs = (ratings.user_ids[ratings.users], ratings.item_ids[ratings.items])
    by_rows = list(splitter.split(pairs, ratings.values, ratings.times))
    by_ratings = list(splitter.split(ratings))
    assert len(by_ratings) == len(by_rows) == splitter.get_n_splits()
    for parts, rows in zip(by_ratings, by_rows, strict=True):
        for part, chosen in zip(parts, rows, strict=True):
            assert rows_of(part) == rows_of(ratings[chosen])


def test_a_split_by_time_uses_the_times_of_ratings(ratings):
    [(train, test)] = TimeSplit(0.2).split(ratings)
    assert len(test) == 100
    assert train.times.max() < test.times.min()
    model = FunkSVD(n_factors=2, n_epochs=2, random_state=0).fit(train)
    assert model.evaluate(test)["unknown"] == 0


# Names of arguments


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        ("split", {"fraction": 0.1}, "split calls its argument 'fraction' now 'test_size'"),
        ("split", {"seed": 1}, "split calls its argument 'seed' now 'random_state'"),
        ("split_tail", {"fraction": 0.1}, "'fraction' now 'test_size'"),
        ("folds", {"n_folds": 3}, "folds calls its argument 'n_folds' now 'n_splits'"),
        ("split", {"size": 0.1}, "split has no argument 'size'"),
    ],
)
def test_old_names_lead_to_the_new_ones(ratings, call, arguments, message):
    with pytest.raises(TypeError, match=message):
        list(getattr(ratings, call)(**arguments))


def test_old_names_of_tune_lead_to_the_new_ones(ratings):
    with pytest.raises(TypeError, match="tune calls its argument 'n_folds' now 'n_splits'"):
        tuning.tune(ratings, n_epochs=3, n_folds=3)
