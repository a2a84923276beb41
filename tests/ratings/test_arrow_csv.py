"""Text read by pyarrow gives the same as text read without it."""

import gzip
import io
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rating_checks import assert_ratings

from funksvd.datasets import make_ratings, read_ratings
from funksvd.ratings import text as text_module

pytest_plugins = ["rating_files"]


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
