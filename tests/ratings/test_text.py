"""Ratings from delimited text: the header, and parsing without pyarrow."""

import sys

import pytest
from rating_checks import THREE, assert_ratings, joined

from funksvd.datasets import read_ratings
from funksvd.ratings import text as text_module

pytest_plugins = ["rating_files"]


def test_more_lines_than_one_chunk(write, monkeypatch):
    monkeypatch.setattr(text_module, "RECORDS_AT_ONCE", 4)
    users = list(range(1, 12))
    items = [f"x{user % 3}" for user in users]
    ratings = [user / 2 for user in users]
    lines = zip(users, items, ratings, strict=True)
    text = "".join(f"{user},{item},{rating}\n" for user, item, rating in lines)
    assert_ratings(read_ratings(write(text)), users, items, ratings)


def test_header_is_detected_by_a_rating_that_is_no_number(write):
    header = ("user", "item", "rating", "time")
    assert_ratings(read_ratings(write(joined(",", header=header))), *THREE)
    path = write(joined(",", header=("7", "8", "-", "9")))
    assert_ratings(read_ratings(path, user=0, item=1, rating=2), *THREE)
    # The rating's column counts: here the last one, not the titles in front of it.
    assert_ratings(read_ratings(write("1,7,Up,4\n20,8,Heat,2.5\n-3,7,Up,1\n"), rating=3), *THREE)


def test_header_can_be_forced(write):
    path = write("1,7,3\n2,8,4\n")
    assert_ratings(read_ratings(path, header=False), [1, 2], [7, 8], [3.0, 4.0])
    assert_ratings(read_ratings(path, header=True, user=0, item=1, rating=2), [2], [8], [4.0])
    assert_ratings(read_ratings(path, header=True, user="3", item="7", rating="1"), [4], [8], [2.0])
    assert_ratings(read_ratings(path, user="3", item="7", rating="1"), [4], [8], [2.0])
    with pytest.raises(
        ValueError, match=r"1 of 1 ratings .* the first in line 1: 'user,item,rating'"
    ):
        read_ratings(write("user,item,rating\n"), header=False)


def test_a_first_bad_line_is_counted_without_a_header(write):
    with pytest.raises(ValueError, match="the first in line 1: '1,2,bad'"):
        read_ratings(write("1,2,bad\n1,2,3\n"), header=False)


def test_text_needs_no_pyarrow(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(text_module, "LEAST_BYTES_FOR_ARROW", 0)
    assert_ratings(read_ratings(write(joined(","))), *THREE)
