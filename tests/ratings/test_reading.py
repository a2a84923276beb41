"""Reading ratings, pairs and titles from files: ids, bad lines, and what is refused."""

import gzip

import numpy as np
import pytest
from rating_checks import THREE, assert_ratings, whole

from funksvd.datasets import read_pairs, read_ratings, read_titles

pytest_plugins = ["rating_files"]


# Ids


@pytest.mark.parametrize(
    "odd",
    [
        "007",
        "+7",
        "-0",
        "00",
        "7.0",
        "1e3",
        "1_0",
        "0x7",
        "NA",
        "null",
        "9223372036854775808",
        "\u0667",
    ],
)
def test_one_id_that_is_no_plain_integer_makes_the_column_text(write, odd):
    assert_ratings(read_ratings(write(f"1,5,3\n{odd},5,3\n")), ["1", odd], [5, 5], [3.0, 3.0])


def test_int64_is_used_up_to_its_limits(write):
    low = -(2**63)
    high = 2**63 - 1
    path = write(f"{low},0,3\n{high},0,3\n")
    assert_ratings(read_ratings(path), [low, high], [0, 0], [3.0, 3.0])


def test_equal_text_ids_share_one_object(write):
    users, _, _ = read_ratings(write("anna,1,3\nbert,1,3\nanna,2,3\n"))
    assert users[0] is users[2]


# Bad lines


BAD_LINES = {
    "too few fields": "5,6",
    "one field": "5",
    "too many fields": "5,Smith, John,6,3",
    "one field more, all numbers": "5,6,7,8",
    "NUL in an id": "5\0,6,3",
    "digits in groups": "5,6,1_0",
    "rating is text": "5,6,good",
    "rating is empty": "5,6,",
    "rating is NaN": "5,6,nan",
    "rating is infinite": "5,6,-inf",
    "rating overflows": "5,6,1e999",
    "no user": ",6,3",
    "blank item": "5,  ,3",
    "broken quotes": '5,"6"7,3',
}


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_or_skipped(write, bad):
    path = write(f"user,item,rating\n\n1,7,4\n{bad}\n20,8,2.5\n\n{bad}\n-3,7,1\n")
    problem = (
        f"{path}: 2 of 5 ratings cannot be used, the first in line 4: {bad!r}; "
        "each needs a user, an item and a finite number as rating, "
        "and no more fields than the first line"
    )
    with pytest.raises(
        ValueError, match=whole(f"{problem}. Pass on_bad_lines='skip' to leave them out")
    ):
        read_ratings(path)

    with pytest.warns(UserWarning, match=whole(f"{problem}. They are left out")) as warned:
        found = read_ratings(path, on_bad_lines="skip")
    assert_ratings(found, *THREE)
    assert [warning.filename for warning in warned] == [__file__]


def test_a_long_bad_line_is_cut_to_80_characters(write):
    with pytest.raises(ValueError, match="line 2: '5,6," + "y" * 76 + r"\.\.\.';"):
        read_ratings(write("1,2,3\n5,6," + "y" * 200 + "\n"))


def test_skipped_ids_leave_no_trace(write):
    with pytest.warns(UserWarning, match="1 of 2"):
        found = read_ratings(write("1,2,3\nabc,007,\n"), on_bad_lines="skip")
    assert_ratings(found, [1], [2], [3.0])


def test_nothing_but_bad_lines_is_an_error(write):
    with (
        pytest.warns(UserWarning, match="2 of 2"),
        pytest.raises(ValueError, match="holds no ratings"),
    ):
        read_ratings(write("user,item,rating\n1,2,x\n1,2\n"), on_bad_lines="skip")


# Files and arguments that cannot be used


@pytest.mark.parametrize(
    "content",
    ["", "\n \n\n", "\ufeff", "user,item,rating\n", gzip.compress(b""), "user,item,rating"],
)
@pytest.mark.parametrize("sep", [None, ","])
def test_a_file_without_ratings_is_refused(write, content, sep):
    with pytest.raises(ValueError, match=r"ratings\.txt holds no ratings"):
        read_ratings(write(content), sep=sep)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_bad_lines": "warn"}, "on_bad_lines must be 'raise' or 'skip', got 'warn'"),
        ({"header": 0}, "header must be None, True or False, got 0"),
        ({"sep": ""}, "sep must be None or a string without quotes and line ends, got ''"),
        ({"sep": '"'}, "sep must be"),
        ({"sep": "\n"}, "sep must be"),
        ({"sep": b","}, "sep must be"),
    ],
)
def test_arguments_are_checked(write, arguments, message):
    for read in (read_ratings, read_pairs):
        with pytest.raises(ValueError, match=message):
            read(write("1,2,3\n"), **arguments)


# Pairs and titles


def assert_pairs(found, users, items):
    for values, expected in zip(found, (users, items), strict=True):
        assert values.dtype == (np.int64 if isinstance(expected[0], int) else object)
        assert values.tolist() == expected


def test_pairs_need_no_ratings(write):
    assert_pairs(read_pairs(write("1,7\n20,b\n")), [1, 20], ["7", "b"])
    assert_pairs(read_pairs(write("movie_id,user\n7,1\n8,20\n")), [1, 20], [7, 8])
    assert_pairs(read_pairs(write("a;b;c\nx;1;7\n"), user="b", item="c"), [1], [7])


def test_bad_pairs_are_named_or_skipped(write):
    path = write("1,7\n20\n3,8,9\n4, \n5,8\n")
    problem = (
        f"{path}: 3 of 5 pairs lack a user or an item, or have more fields than the first line, "
        "the first in line 2: '20'"
    )
    message = whole(f"{problem}. Pass on_bad_lines='skip' to leave them out")
    with pytest.raises(ValueError, match=message):
        read_pairs(path)
    with pytest.warns(UserWarning, match=whole(f"{problem}. They are left out")) as warned:
        found = read_pairs(path, on_bad_lines="skip")
    assert_pairs(found, [1, 5], [7, 8])
    assert [warning.filename for warning in warned] == [__file__]


@pytest.mark.parametrize("content", ["", "\n \n", "user,item\n"])
def test_a_file_without_pairs_is_refused(write, content):
    with pytest.raises(ValueError, match=r"ratings\.txt holds no pairs of user and item"):
        read_pairs(write(content), sep=",")


def test_titles_by_item_id(write):
    expected = {"7": "Up", "8": "Heat, again"}
    assert read_titles(write('Title,year,ID\nUp,2009,7\n"Heat, again",1995,8\nx\n')) == expected
    assert read_titles(write('movieId,Name\n7, Up\n8,"Heat, again"\n')) == expected
    with pytest.raises(ValueError, match=r"titles need a column title; there are 'id', 'year'"):
        read_titles(write("id,year\n7,2009\n"))
    with pytest.raises(ValueError, match="titles need a column item_id or id"):
        read_titles(write("title,year\nUp,2009\n"))


@pytest.mark.parametrize("read", [read_pairs, read_titles])
def test_pairs_and_titles_are_text(write_parquet, read):
    path = write_parquet(user=[1], item=[2])
    with pytest.raises(ValueError, match="is a Parquet file; here only delimited text is read"):
        read(path)
