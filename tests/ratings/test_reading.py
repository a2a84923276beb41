"""Reading ratings, pairs and titles from files, and choosing their columns."""

import csv
import gzip
import importlib
import io
import re
import sys
import tempfile
import warnings
from pathlib import Path

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funksvd.datasets import (
    make_ratings,
    read_pairs,
    read_ratings,
    read_titles,
    resolve_columns,
)
from funksvd.ratings import _texts
from funksvd.ratings import text as text_module


@pytest.fixture
def write(tmp_path):
    """Return a function that writes text or bytes to a file and returns its path."""

    def write(content, name="ratings.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def write_parquet(tmp_path):
    """Return a function that writes columns to a Parquet file and returns its path."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write_parquet(name="ratings.bin", **columns):
        parquet.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    return write_parquet


def assert_ratings(found, users, items, ratings):
    """Check values and dtypes: int64 or object for ids, float64 for ratings."""
    for values, expected in zip(found[:2], (users, items), strict=True):
        assert values.dtype == (np.int64 if isinstance(expected[0], int) else object)
        assert values.tolist() == expected
    assert found[2].dtype == np.float64
    assert found[2].tolist() == ratings
    assert all(values.flags.writeable for values in found)


def whole(message):
    """Return a pattern that matches `message` and nothing else."""
    return f"^{re.escape(message)}$"


# The fields of three lines, and the users, items and ratings that they hold.
LINES = [("1", "7", "4", "x"), ("20", "8", "2.5", "y"), ("-3", "7", "1e0", "z")]
THREE = ([1, 20, -3], [7, 8, 7], [4.0, 2.5, 1.0])


def joined(sep, eol="\n", header=None):
    """Return the text of `LINES`, with a line of column names if `header` names them."""
    lines = [header, *LINES] if header else LINES
    return "".join(sep.join(fields) + eol for fields in lines)


# Separators, line ends, encodings


@pytest.mark.parametrize("sep", ["\t", "::", ",", ";", "|", " ", "   \t"])
@pytest.mark.parametrize("eol", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends_are_detected(write, sep, eol):
    assert_ratings(read_ratings(write(joined(sep, eol))), *THREE)


@pytest.mark.parametrize("sep", [":", "::", "--", "é", " ", "\x1f"])
def test_separator_can_be_given(write, sep):
    assert_ratings(read_ratings(write(joined(sep)), sep=sep), *THREE)


def test_detection_prefers_tab_then_double_colon_then_comma(write):
    assert_ratings(read_ratings(write("a::b::c\t2\t3\n")), ["a::b::c"], [2], [3.0])
    assert_ratings(read_ratings(write("a,b,c::2::3\n")), ["a,b,c"], [2], [3.0])
    assert_ratings(read_ratings(write("a;b;c,2,3\n")), ["a;b;c"], [2], [3.0])


def test_detection_needs_three_fields(write):
    assert_ratings(
        read_ratings(write("1\ta;b;3\n"), user=0, item=1, rating=2), ["1\ta"], ["b"], [3.0]
    )
    with pytest.raises(
        ValueError, match=r"no separator of .*cuts the first line, '1,2', into .*pass sep="
    ):
        read_ratings(write("1,2\n"))


def test_white_space_runs_and_indents_do_not_count(write):
    assert_ratings(read_ratings(write("  1   7  4\n20\t8 2.5  \n -3 7 1\n")), *THREE)


def test_fields_are_stripped(write):
    assert_ratings(read_ratings(write("1, 7 , 4\n 20,8, 2.5\n-3,\t7,1\n")), *THREE)


def test_lines_may_be_short_or_end_in_empty_fields_as_long_as_three_are_there(write):
    assert_ratings(read_ratings(write("1,7,4,x\n20,8,2.5\n-3,7,1,, \n")), *THREE)


def test_gzip_is_recognised_by_content_not_name(write):
    assert_ratings(read_ratings(write(gzip.compress(joined(",").encode()), "plain.csv")), *THREE)
    assert_ratings(read_ratings(write(joined(","), "text.csv.gz")), *THREE)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_byte_order_mark_is_skipped(write, compress):
    with_header = joined(",", header=("user", "item", "rating", "time"))
    for text in (joined(","), with_header):
        assert_ratings(read_ratings(write(compress(b"\xef\xbb\xbf" + text.encode()))), *THREE)


def test_blank_lines_are_ignored_also_at_both_ends(write):
    text = joined(",", header=("user", "item", "rating", "time"))
    assert_ratings(read_ratings(write("\n  \n" + text.replace("\n", "\n\n \t\n") + "\n\n")), *THREE)


def test_quotes_hold_separators_line_ends_and_quotes(write):
    text = 'user,title,item,rating\n"a,1","two\nlines, ""quoted""",7,4\n"b ""2""",x,"8","2.5"\n'
    assert_ratings(read_ratings(write(text)), ["a,1", 'b "2"'], [7, 8], [4.0, 2.5])


def test_line_ends_inside_quotes_are_kept(write):
    assert_ratings(
        read_ratings(write('"a\r\nb","c\nd",3\r\n1,2,3\r\n'), sep=","),
        ["a\r\nb", "1"],
        ["c\nd", "2"],
        [3.0, 3.0],
    )


def test_quotes_mean_nothing_to_long_separators_and_white_space(write):
    assert_ratings(read_ratings(write('"a::2::3\nb"::2::4\n')), ['"a', 'b"'], [2, 2], [3.0, 4.0])
    assert_ratings(read_ratings(write('"a 2 3\nb" 2 4\n')), ['"a', 'b"'], [2, 2], [3.0, 4.0])


def test_quoted_files_match_what_csv_wrote(write):
    rng = np.random.default_rng(0)
    ids = []
    for _ in range(60):
        odd = "".join(rng.choice(list('ab",\n;'), 4))
        ids.append(f"<{odd}x")
    text = io.StringIO()
    writer = csv.writer(text)
    for user, item in zip(ids, reversed(ids), strict=True):
        writer.writerow([user, item, 3])
    users, items, _ = read_ratings(write(text.getvalue()), sep=",")
    assert users.tolist() == ids
    assert items.tolist() == ids[::-1]


def test_names_in_utf8(write):
    found = read_ratings(write("Jürgen,Amélie,5\n李,Amélie,4\n"))
    assert_ratings(found, ["Jürgen", "李"], ["Amélie", "Amélie"], [5.0, 4.0])


def test_str_and_path_and_any_name_are_taken(write):
    assert_ratings(read_ratings(str(write(joined("\t"), "u.data"))), *THREE)


def test_more_lines_than_one_chunk(write, monkeypatch):
    monkeypatch.setattr(text_module, "RECORDS_AT_ONCE", 4)
    users = list(range(1, 12))
    items = [f"x{user % 3}" for user in users]
    ratings = [user / 2 for user in users]
    lines = zip(users, items, ratings, strict=True)
    text = "".join(f"{user},{item},{rating}\n" for user, item, rating in lines)
    assert_ratings(read_ratings(write(text)), users, items, ratings)


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


# Header and columns


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


def test_a_line_number_counts_the_lines_inside_quotes(write):
    with pytest.raises(
        ValueError, match=r"1 of 3 ratings cannot be used, the first in line 4: '9,x,bad'"
    ):
        read_ratings(write('1,"a\nb\nc",3\n9,x,bad\n2,y,4\n'), header=False, sep=",")


def test_a_first_bad_line_is_counted_without_a_header(write):
    with pytest.raises(ValueError, match="the first in line 1: '1,2,bad'"):
        read_ratings(write("1,2,bad\n1,2,3\n"), header=False)


def test_a_long_bad_line_is_cut_to_80_characters(write):
    with pytest.raises(ValueError, match="line 2: '5,6," + "y" * 76 + r"\.\.\.';"):
        read_ratings(write("1,2,3\n5,6," + "y" * 200 + "\n"))


def test_skipped_ids_leave_no_trace(write):
    with pytest.warns(UserWarning, match="1 of 2"):
        found = read_ratings(write("1,2,3\nabc,007,\n"), on_bad_lines="skip")
    assert_ratings(found, [1], [2], [3.0])


@pytest.mark.parametrize("on_bad_lines", ["raise", "skip"])
def test_quotes_left_open_are_never_skipped(write, on_bad_lines):
    """Skipping would drop the good lines that the open quotes swallowed."""
    path = write('1,2,3\n"4,5,1\n1,3,2\n1,4,2\n')
    with pytest.raises(
        ValueError, match=r"ratings\.txt: quotes opened on line 2 are not closed properly"
    ):
        read_ratings(path, on_bad_lines=on_bad_lines)


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


def test_missing_files_and_directories_raise_what_python_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_ratings(tmp_path / "nowhere.csv")
    with pytest.raises(IsADirectoryError if sys.platform != "win32" else PermissionError):
        read_ratings(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "zeros in the middle", "no checksum"])
def test_damaged_gzip_is_named(write, damage):
    text = "".join(f"{user},{user * 7919 % 1009},3\n" for user in range(5000))
    data = gzip.compress(text.encode())
    middle = len(data) // 2
    if damage == "cut":
        data = data[:-9]
    elif damage == "zeros in the middle":
        data = data[:middle] + b"\0" * 40 + data[middle:]
    else:
        data = data[:-8] + b"\0" * 8
    with pytest.raises(ValueError, match=r"ratings\.txt: the gzip data is damaged or cut short"):
        read_ratings(write(data))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_text_that_is_not_utf8_is_named_by_line(write, compress):
    # Longer than the first block that is decoded.
    good = b"".join(b"%d,2,3\n" % user for user in range(4000))
    with pytest.raises(ValueError, match=r"ratings\.txt: line 4001 is not UTF-8 text"):
        read_ratings(write(compress(good + "Jürgen,2,3\n".encode("latin-1") + good)))
    with pytest.raises(ValueError, match="line 1 is not UTF-8 text"):
        read_ratings(write("1,2,3\n".encode("utf-16")))


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


# Parquet


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


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_text_codes_equal_a_dict(dtype):
    rng = np.random.default_rng(0)
    table = _texts.TextCodes()
    codes = []
    texts = []
    for n in (0, 1, 31, 32, 33, 5000, 5000):  # one table for all, from a few slots to many
        batch = ["", "user-1", "user-12"]
        for _ in range(n):
            length = rng.integers(0, 40)
            batch.append(rng.bytes(20).hex()[:length])
        batch += rng.permutation(texts[: len(texts) // 2]).tolist()
        lengths = [len(text) for text in batch]
        offsets = np.cumsum([0, *lengths]).astype(dtype)
        data = np.frombuffer("".join(batch).encode(), np.uint8)
        out = np.empty(len(batch), np.int32)
        table.encode(offsets, data, out)
        codes += out.tolist()
        texts += batch
    assert (codes, table.texts()) == naive.text_codes(texts)


def test_text_codes_refuse_offsets_beyond_the_texts():
    offsets = np.array([0, 2], np.int32)
    data = np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match="do not fit"):
        _texts.TextCodes().encode(offsets, data, np.empty(1, np.int32))


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


# Text read by pyarrow: every result must be the same as without it


def outcome(path, fast, **arguments):
    """Read a file; return whether pyarrow parsed it, and (result or error, warnings)."""
    parsed = []
    parse_with_arrow = text_module._parse_with_arrow

    def spy(*args):
        table = parse_with_arrow(*args)
        parsed.append(table is not None)
        return table

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr(text_module, "_parse_with_arrow", spy)
        patch.setattr(text_module, "LEAST_BYTES_FOR_ARROW", 0 if fast else sys.maxsize)
        try:
            arrays = read_ratings(path, **arguments)
        except ValueError as error:
            result = str(error)
        else:
            result = [(array.dtype, array.flags.writeable, array.tolist()) for array in arrays]
    messages = [str(warning.message) for warning in caught]
    return any(parsed), (result, messages)


# Files that pyarrow may parse.
FAST = {
    "integers": "1,7,4,x\n20,8,2.5,y\n",
    "header": "\nuser,time,item,rating\n1,,7,4\n\n20,0,8,2.5\n",
    "leading zeros": "007,7,4\n7,+7,3\n",
    "null spellings": "NA,null,4\n#N/A,NaN,3\n,a,2\n",
    "bad ratings": "1,7,nan\n1,8,inf\n1,9,1\n",
    "white space": " 1,7 , 4\n1,\t7, 3 \n",
    "tabs and CRLF": "1\t7\t4\r\n20\t8\t2.5\r\n",
    "quotes around fields": '"user","item","rating","a,b"\r\n"1","7",4,""\r\n20,"8","2.5",x\r\n',
    "not ASCII": "é,7,4\n20,8,2.5\n",
    "long separator": "1::7::4\n20::8::2.5\n:2:::8::3\n",
    "quotes beside a long separator": '"1::7::4\n20::8"::2.5\n',
}
# Files that are left to Python's csv.
SLOW = {
    "quotes in quotes": '"1""2",7,4\n20,8,2.5\n',
    "quotes in fields": '1"2,7,4\n20,8",2.5\n',
    "line ends in quotes": '"1\n2",7,4\n20,8,2.5\n',
    "quotes that stay open": '1,7,4\n"20,8,2.5\n1,8,2\n',
    "the separator in quotes": '",",7,4\n20,8,2.5\n',
    "not UTF-8": b"\xff,7,4\n20,8,2.5\n",
    "ragged": "1,7,4\n20,8,2.5,x\n",
    "too few": "1,7,4\n20,8\n",
    "blank": "1,7,4\n \n20,8,2.5\n",
    "odd number": "1,7,4\n20,8,1_0\n",
    "no number": "1,7,4\n20,8,\n",
    "long separator and its stand-in": "1::7::4\n2\x1f0::8::2.5\n",
    "runs of blanks": "1 7 4 5\n20  8 2\n",
}


@pytest.mark.parametrize("on_bad_lines", ["raise", "skip"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_pyarrow_agrees_or_steps_back(write, name, compress, on_bad_lines):
    pytest.importorskip("pyarrow")
    content = (FAST | SLOW)[name]
    if isinstance(content, str):
        content = content.encode()
    path = write(compress(content))
    parsed, fast = outcome(path, True, on_bad_lines=on_bad_lines)
    assert parsed == (name in FAST)
    parsed, slow = outcome(path, False, on_bad_lines=on_bad_lines)
    assert not parsed
    assert fast == slow


ODD_IDS = ["1", "2", "-3", "0", "007", "+7", "a", "NA", "", " 5", "9223372036854775808", "é"]
ODDER_IDS = ["1", "2", "x y", "null", "1.0", "\x00", '"q"', '"', "\x0b1", "_"]
ODDER_IDS += ['"a\nb"', '"a,b"', '""', '"a""b"', ":", "\x1f"]
ODD_RATINGS = [
    "1",
    "2.5",
    " 3",
    "+4",
    "1e2",
    ".5",
    "5.",
    "nan",
    "",
    "x",
    "1_0",
    "0x1",
    "-inf",
    "1e400",
]


@given(
    sep=st.sampled_from(["\t", ",", ";", "|", ":", " ", "::", "--"]),
    eol=st.sampled_from(["\n", "\r\n", "\r"]),
    lines=st.lists(
        st.tuples(*map(st.sampled_from, (ODD_IDS, ODDER_IDS, ODD_RATINGS, ["", "0", "z"])))
        | st.sampled_from([(), (" ",), ("1", "2"), ("1", "2", "3"), ("1", "2", "3", "4", "5")]),
        max_size=8,
    ),
    plain_start=st.booleans(),
    on_bad_lines=st.sampled_from(["raise", "skip"]),
)
@settings(max_examples=150, deadline=None)
def test_pyarrow_agrees_on_random_files(sep, eol, lines, plain_start, on_bad_lines):
    pytest.importorskip("pyarrow")
    plain = [("1", "2", "3", "4")] if plain_start else []
    text = eol.join(sep.join(fields) for fields in plain + lines)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ratings")
        path.write_bytes(text.encode())
        _, fast = outcome(path, True, sep=sep, on_bad_lines=on_bad_lines)
        _, slow = outcome(path, False, sep=sep, on_bad_lines=on_bad_lines)
        assert fast == slow


@given(st.text('a,"\n\r:é', max_size=30), st.sampled_from([",", "::", ":a:"]))
@settings(deadline=None)
def test_blocks_on_the_way_to_arrow_may_end_anywhere(text, sep):
    arrow_csv = pytest.importorskip("funksvd.ratings.arrow_csv")

    def passed_on(size):
        checked = arrow_csv.CheckedFile(io.BytesIO(text.encode()), sep.encode())
        try:
            return b"".join(iter(lambda: checked.read(size), b""))
        except arrow_csv.ReadersDiffer:
            return "step back"

    at_once = passed_on(1 << 20)
    if at_once != "step back":
        expected = text.replace(sep, "\x1f") if len(sep) > 1 else text
        assert at_once == expected.encode()
    for size in (1, 2, 3, 7):
        assert passed_on(size) == at_once


def test_progress_is_shown_after_a_second(write, monkeypatch, capsys):
    path = write("user,item,rating\n" + "1,2,3\n" * 5000)
    read_ratings(path, progress=True)
    assert capsys.readouterr().err == ""  # it was quick
    import tqdm

    def tqdm_without_delay(*args, **options):
        return tqdm.std.tqdm(*args, **options | {"delay": 0})

    monkeypatch.setattr(tqdm, "tqdm", tqdm_without_delay)
    read_ratings(path, progress=True)
    assert "reading ratings.txt" in capsys.readouterr().err
    read_ratings(path)
    assert capsys.readouterr().err == ""


def test_pyarrow_reads_large_files(write, monkeypatch):
    pytest.importorskip("pyarrow")
    made = make_ratings(2000, 500, 60_000)
    users = [f"u{user}" for user in made.users]
    items = made.items.tolist()
    ratings = made.ratings.tolist()
    lines = ["user,item,rating,time"]
    for user, item, rating in zip(users, items, ratings, strict=True):
        lines.append(f"{user},{item},{rating!r},978300760")
    path = write("\n".join(lines))
    # Large enough for pyarrow, which reads it in several blocks.
    assert path.stat().st_size > text_module.LEAST_BYTES_FOR_ARROW
    monkeypatch.setattr(text_module, "_parse", None)
    assert_ratings(read_ratings(path), users, items, ratings)


def test_text_needs_no_pyarrow(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(text_module, "LEAST_BYTES_FOR_ARROW", 0)
    assert_ratings(read_ratings(write(joined(","))), *THREE)


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
