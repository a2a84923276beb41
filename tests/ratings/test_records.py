"""The records of text tables: separators, line ends, blanks and quotes."""

import csv
import io

import numpy as np
import pytest
from rating_checks import THREE, assert_ratings, joined

from funksvd.datasets import read_ratings

pytest_plugins = ["rating_files"]


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


def test_a_line_number_counts_the_lines_inside_quotes(write):
    with pytest.raises(
        ValueError, match=r"1 of 3 ratings cannot be used, the first in line 4: '9,x,bad'"
    ):
        read_ratings(write('1,"a\nb\nc",3\n9,x,bad\n2,y,4\n'), header=False, sep=",")


@pytest.mark.parametrize("on_bad_lines", ["raise", "skip"])
def test_quotes_left_open_are_never_skipped(write, on_bad_lines):
    """Skipping would drop the good lines that the open quotes swallowed."""
    path = write('1,2,3\n"4,5,1\n1,3,2\n1,4,2\n')
    with pytest.raises(
        ValueError, match=r"ratings\.txt: quotes opened on line 2 are not closed properly"
    ):
        read_ratings(path, on_bad_lines=on_bad_lines)
