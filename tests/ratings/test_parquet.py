"""Ratings from Parquet files."""

import importlib
import sys

import numpy as np
import pytest
from rating_checks import THREE, assert_ratings

from funksvd.datasets import read_ratings

pytest_plugins = ["rating_files"]


def test_parquet_is_recognised_by_content(write_parquet):
    users, items, ratings = THREE
    assert_ratings(
        read_ratings(write_parquet("x.csv", item=items, user=users, stars=ratings)), *THREE
    )
    path = write_parquet(a=items, b=users, c=[4, 2, 1])
    assert_ratings(read_ratings(path, user="b", item=0, rating=2), users, items, [4.0, 2.0, 1.0])
    with pytest.raises(
        ValueError, match=r"user='B' is not among the columns .*; did you mean 'b'\?"
    ):
        read_ratings(path, user="B", item=0, rating=2)


def test_parquet_ids_follow_the_rule_of_text(write_parquet):
    pa = pytest.importorskip("pyarrow")
    ratings = pa.array([1, 2, 3], pa.float32())
    path = write_parquet(user=["1", "20", "-3"], item=["7", "007", "b"], rating=ratings)
    assert_ratings(read_ratings(path), [1, 20, -3], ["7", "007", "b"], [1.0, 2.0, 3.0])
    items = pa.array([b"a", b"b", b"a"]).dictionary_encode()
    path = write_parquet(user=[1.0, 2e12, -3.0], item=items, rating=ratings)
    assert_ratings(read_ratings(path), [1, 2 * 10**12, -3], ["a", "b", "a"], [1.0, 2.0, 3.0])
    path = write_parquet(
        user=pa.array([1, 2, 2**64 - 1], pa.uint64()), item=[1.5, 2.0, 3.0], rating=ratings
    )
    assert_ratings(
        read_ratings(path), ["1", "2", str(2**64 - 1)], ["1.5", "2", "3"], [1.0, 2.0, 3.0]
    )


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
@pytest.mark.parametrize("rows", [1, 7, 100, 10_000])
def test_parquet_text_is_the_same_from_any_row_groups(tmp_path, kind, rows):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(rows)
    n = min(30 * rows, 20_000)
    texts = np.array(["é", "long " * 50, *(f"user-{k}" for k in range(3000))])
    users, items = texts[rng.integers(0, len(texts), (2, n))]
    stars = rng.integers(1, 6, n)
    text_type = pa.large_string() if kind == "large_string" else pa.string()
    user_column = pa.array(users.tolist(), text_type)
    item_column = pa.array(items.tolist(), text_type)
    if kind == "dictionary":
        user_column = user_column.dictionary_encode()
        item_column = item_column.dictionary_encode()
    table = pa.table({"user": user_column, "item": item_column, "rating": stars})
    path = tmp_path / "ratings.parquet"
    parquet.write_table(table, path, row_group_size=rows)
    stripped_users = np.char.strip(users).tolist()
    stripped_items = np.char.strip(items).tolist()
    assert_ratings(read_ratings(path), stripped_users, stripped_items, stars.tolist())


@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_parquet_dictionaries_are_taken_as_they_are_where_they_hold_all_texts(
    tmp_path, monkeypatch, kind
):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet_module = importlib.import_module("funksvd.ratings.parquet")
    rng = np.random.default_rng(0)
    n = 50_000
    # The texts of users do not fit one dictionary page, those of items do.
    users = [None if k == 5 else f"é{k}" for k in rng.integers(0, 20_000, n)]
    items = [None if k == 5 else f"é{k}" for k in rng.integers(0, 50, n)]
    stars = rng.integers(1, 6, n).tolist()
    text_type = getattr(pa, kind)()
    table = pa.table(
        {
            "nested": [{"item": "no"}] * n,  # its leaves stand between the columns
            "user": pa.array(users, text_type),
            "item": pa.array(items, text_type),
            "rating": stars,
        }
    )
    path = tmp_path / "ratings.parquet"
    parquet.write_table(table, path, row_group_size=20_000, dictionary_pagesize_limit=20_000)
    with parquet.ParquetFile(path) as file:
        assert not parquet_module.is_encoded(file, "user")
        assert parquet_module.is_encoded(file, "item")
        assert not parquet_module.is_encoded(file, "rating")
    rows = zip(users, items, stars, strict=True)
    good = [row for row in rows if None not in row]
    expected = [list(column) for column in zip(*good, strict=True)]

    def assert_good_rows_are_read():
        with pytest.warns(UserWarning, match="the first in row"):
            assert_ratings(read_ratings(path, on_bad_lines="skip"), *expected)

    assert_good_rows_are_read()
    for answer in (True, False):  # slower, yet the same
        monkeypatch.setattr(parquet_module, "is_encoded", lambda *_, answer=answer: answer)
        assert_good_rows_are_read()


def test_parquet_nulls_and_nans_are_bad_rows(write_parquet):
    nan = float("nan")
    path = write_parquet(
        user=[1.0, None, 20.0, nan, 5.0, 5.0, 5.0, -3.0],
        item=["7", "8", "8", "8", None, " ", "8", "7"],
        rating=[4.0, 3.0, 2.5, 3.0, 3.0, 3.0, None, 1.0],
    )
    message = (
        r"5 of 8 .* the first in row 1 \(from 0\): .*'user': None, 'item': '8', 'rating': 3\.0"
    )
    with pytest.raises(ValueError, match=message):
        read_ratings(path)
    with pytest.warns(UserWarning, match=message):
        found = read_ratings(path, on_bad_lines="skip")
    assert_ratings(found, *THREE)


def test_parquet_ratings_may_be_any_numbers(write_parquet):
    pa = pytest.importorskip("pyarrow")
    for kind in (pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(4, 1)):
        path = write_parquet(user=[1, 2], item=[3, 4], rating=pa.array([1, 2], kind))
        assert_ratings(read_ratings(path), [1, 2], [3, 4], [1.0, 2.0])
    path = write_parquet(user=[1, 2], item=[3, 4], rating=[2**53 + 1, 2])
    assert_ratings(read_ratings(path), [1, 2], [3, 4], [2.0**53, 2.0])


@pytest.mark.parametrize("rating", [["1", "2"], [True, False]])
def test_parquet_ratings_must_be_numbers(write_parquet, rating):
    with pytest.raises(
        ValueError, match=r"the rating column 'rating' holds (string|bool), not numbers"
    ):
        read_ratings(write_parquet(user=[1, 2], item=[1, 2], rating=rating))


def test_parquet_that_cannot_be_used_is_named(write_parquet):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    with pytest.raises(ValueError, match=r"ratings\.bin: cannot read this Parquet file .*list"):
        read_ratings(write_parquet(user=[[1], [2]], item=[1, 2], rating=[1, 2]))
    path = write_parquet(user=[1])
    equal_names = pa.Table.from_arrays([pa.array([1])] * 3, ["user", "user", "rating"])
    parquet.write_table(equal_names, path)
    with pytest.raises(ValueError, match=r"ratings\.bin: cannot read this Parquet file"):
        read_ratings(path, user=0, item=1)
    path = write_parquet(user=[1, 2], item=[1, 2], rating=[1, 2])
    for argument in ({"sep": ","}, {"header": True}):
        with pytest.raises(ValueError, match="is a Parquet file; sep and header are for text"):
            read_ratings(path, **argument)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"ratings\.bin: cannot read this Parquet file"):
        read_ratings(path)
    offsets = pa.py_buffer(np.int32([0, 1]))
    not_utf8 = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])
    with pytest.raises(ValueError, match=r"ratings\.bin: cannot read this Parquet file .*utf-8"):
        read_ratings(write_parquet(user=not_utf8, item=[1], rating=[1]))


def test_empty_parquet_is_refused(write_parquet):
    pa = pytest.importorskip("pyarrow")
    ids = pa.array([], pa.int64())
    with pytest.raises(ValueError, match=r"ratings\.bin holds no ratings"):
        read_ratings(write_parquet(user=ids, item=ids, rating=ids))


def test_parquet_without_pyarrow_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'needs pyarrow: pip install "funksvd\[frames\]"'):
        read_ratings(write(b"PAR1..."))
