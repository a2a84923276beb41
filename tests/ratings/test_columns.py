"""The columns of a table of ratings: how they are chosen, guessed and refused."""

import numpy as np
import pytest
from rating_checks import THREE, assert_ratings, whole

from funksvd.datasets import read_ratings, resolve_columns

pytest_plugins = ["rating_files"]


@pytest.mark.parametrize(
    "names",
    [
        ["userId", "movieId", "rating", "timestamp"],
        ["User-ID", "ISBN", "Book-Rating"],
        ["user", "item", "stars"],
        ["uid", "iid", "score"],
        ["CUSTOMER_ID", "Product ID", "Value"],
        ["reviewerID", "asin", "overall", "title"],
        ["user_id", "artist id", "Ratings"],
        ["user_id", "business_id", "stars", "text"],
        ["member", "track_id", "rating"],
    ],
)
def test_well_known_names(names):
    assert resolve_columns(names, None, None, None, "it") == (0, 1, 2)
    backwards = names[::-1]
    positions = resolve_columns(backwards, None, None, None, "it")
    assert [backwards[position] for position in positions] == names[:3]


def test_guessed_columns_come_from_the_names_not_the_order(write):
    assert_ratings(read_ratings(write("book_id,user_id,rating\n7,1,4\n8,20,2.5\n7,-3,1\n")), *THREE)


@pytest.mark.parametrize(
    ("names", "role", "why"),
    [
        (["who", "item", "rating"], "user", "no name is known"),
        (["user", "user_id", "item", "rating"], "user", "several look like it"),
        (["user", "artist", "track", "rating"], "item", "several look like it"),
        (["user", "item", "when"], "rating", "no name is known"),
    ],
)
def test_names_that_cannot_be_guessed_are_listed(names, role, why):
    listed = ", ".join(map(repr, names))
    message = rf"^x.csv: cannot tell which column is the {role} \({why}\) of {listed}; pass {role}="
    with pytest.raises(ValueError, match=message):
        resolve_columns(names, None, None, None, "x.csv")


def test_names_are_stripped(write):
    path = write(" who , what,how much\n1,7,4\n20,8,2.5\n-3,7,1\n")
    assert_ratings(read_ratings(path, user="who", item="what", rating="how much"), *THREE)


def test_a_choice_settles_what_cannot_be_guessed():
    names = ["user", "artist", "track", "rating"]
    assert resolve_columns(names, None, "track", None, "it") == (0, 2, 3)
    assert resolve_columns(["a", "b", "c"], 2, "a", 1, "it") == (2, 0, 1)
    assert resolve_columns(["a", "b", "c"], np.int64(2), "a", 1, "it") == (2, 0, 1)


def test_without_names_there_are_only_positions():
    assert resolve_columns(3, None, None, None, "it") == (0, 1, 2)
    assert resolve_columns(9, 8, None, 0, "it") == (8, 1, 0)
    with pytest.raises(
        ValueError, match=r"item='movie' names a column, but there is no header.*header=True"
    ):
        resolve_columns(3, None, "movie", None, "it")


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("userid", "; did you mean 'userId'?"),
        ("USER_ID", "; did you mean 'userId'?"),
        ("usrId", "; did you mean 'userId'?"),
        ("zzz", ""),
    ],
)
def test_a_misspelt_name_is_answered_with_a_hint(write, wanted, hint):
    path = write("userId,movieId,rating\n1,2,3\n")
    message = (
        f"{path}: user={wanted!r} is not among the columns 'userId', 'movieId', 'rating'{hint}"
    )
    with pytest.raises(ValueError, match=whole(message)):
        read_ratings(path, user=wanted)


@pytest.mark.parametrize("position", [3, -1])
@pytest.mark.parametrize("content", ["1,2,3\n", "user,item,rating\n1,2,3\n"])
def test_a_position_out_of_range_is_refused(write, content, position):
    for role in ("item", "rating"):
        with pytest.raises(
            ValueError, match=rf"{role}={position} is out of range: 3 columns, from 0"
        ):
            read_ratings(write(content), **{role: position})


def test_one_column_cannot_have_two_roles():
    message = whole("x.csv: user and item are both column 1; pass user= or item=")
    with pytest.raises(ValueError, match=message):
        resolve_columns(3, 1, None, None, "x.csv")
    with pytest.raises(ValueError, match="item and rating are both column 2"):
        resolve_columns(["user", "b", "score"], None, "score", None, "x.csv")


def test_a_name_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match=r"user='a' names 2 columns; pass a position of \[0, 2\]"):
        resolve_columns(["a", "item", "a", "rating"], "a", None, None, "x.csv")


def test_a_column_of_another_kind_is_refused(write):
    with pytest.raises(TypeError, match=r"user must be a column name or a position, got 1\.5"):
        read_ratings(write("1,2,3\n"), user=1.5)
