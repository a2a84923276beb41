"""Times of ratings: the forms in which they come, what is refused, and the parts that keep them."""

import sys
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from conftest import random_ratings
from rating_checks import whole

from funksvd import FunkSVD, Ratings
from funksvd.datasets import read_ratings
from funksvd.ratings import text as text_module
from funksvd.ratings.columns import Chosen
from funksvd.ratings.times import checked_times

pytest_plugins = ["rating_files"]

NOON = 1_577_880_000  # 2020-01-01 12:00 UTC
DAY = 86_400
NAIVE = [datetime(2020, 1, 1, 12), datetime(2020, 1, 2, 12)]
AWARE = [moment.replace(tzinfo=UTC) for moment in NAIVE]
IN_INDIA = timezone(timedelta(hours=5, minutes=30))

FORMS = {
    "integers": [NOON, NOON + DAY],
    "floats": [NOON + 0.75, NOON + DAY + 0.25],
    "unsigned": np.array([NOON, NOON + DAY], np.uint32),
    "milliseconds": [1000 * NOON + 999, 1000 * (NOON + DAY)],
    "microseconds": [10**6 * NOON, 10**6 * (NOON + DAY) + 1],
    "nanoseconds": np.array([NOON, NOON + DAY]) * 10**9,
    "numpy, seconds": np.array(NAIVE, "datetime64[s]"),
    "numpy, nanoseconds": np.array(NAIVE, "datetime64[ns]"),
    "datetimes": NAIVE,
    "aware datetimes": AWARE,
    "another time zone": [moment.astimezone(IN_INDIA) for moment in AWARE],
    "texts": ["2020-01-01 12:00", "2020-01-02T12:00:00.5"],
    "texts with a time zone": ["2020-01-01T12:00Z", "2020-01-02 17:30+05:30"],
    "texts of numbers": [str(NOON), f" {NOON + DAY}.5"],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_seconds_since_1970(form):
    seconds = checked_times(FORMS[form], 2)
    assert seconds.dtype == np.int64
    assert seconds.tolist() == [NOON, NOON + DAY]


def test_dates_are_midnights():
    days = checked_times([date(2020, 1, 1), date(2020, 1, 2)], 2)
    assert days.tolist() == [NOON - DAY // 2, NOON + DAY // 2]


TABLE_FORMS = ["integers", "milliseconds", "numpy, nanoseconds", "aware datetimes", "texts"]


@pytest.mark.parametrize("form", TABLE_FORMS)
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_columns_of_tables(library, form):
    table_library = pytest.importorskip(library)
    make_table = table_library.table if library == "pyarrow" else table_library.DataFrame
    times = FORMS[form]
    if isinstance(times, np.ndarray) and library == "pyarrow":
        times = NAIVE
    table = make_table({"user": [1, 2], "item": [3, 4], "rating": [5.0, 1.0], "timestamp": times})
    expected = [NOON, NOON + DAY]
    assert Ratings.from_frame(table).times.tolist() == expected
    assert Ratings.from_frame(table, time=3).times.tolist() == expected
    assert Ratings.from_frame(table, time=False).times is None
    by_hand = Ratings.from_arrays([1, 2], [3, 4], [5.0, 1.0], times=table["timestamp"])
    assert by_hand.times.tolist() == expected


def test_zones_of_pandas_become_utc():
    pd = pytest.importorskip("pandas")
    moments = pd.Series(pd.to_datetime(NAIVE)).dt.tz_localize("Asia/Tokyo")
    seconds = Ratings.from_arrays([1, 2], [3, 4], [5.0, 1.0], times=moments).times
    assert seconds.tolist() == [NOON - 9 * 3600, NOON + DAY - 9 * 3600]


# What is refused: times, kind of error, message.
REFUSED = {
    "NaN": ([1.0, np.nan], ValueError, "times must be finite, got nan at index 1"),
    "NaT": (
        np.array(["2020-01-01", "NaT"], "datetime64[s]"),
        ValueError,
        "times must not be missing, got NaT at index 1",
    ),
    "None": ([datetime(2020, 1, 1), None], ValueError, "times must not be missing, got None at"),
    "negative": ([5, -1], ValueError, r"times must not be negative.*got -1 at index 1 \(1 of 2"),
    "before 1970": ([date(1969, 1, 1), date(2020, 1, 1)], ValueError, "that is, before 1970"),
    "mixed units": (
        [NOON, 1000 * NOON],
        ValueError,
        rf"^times are in mixed units: {NOON} reads as seconds since 1970 \(2020-01-01T12:00:00\) "
        rf"and {1000 * NOON} as milliseconds \(2020-01-01T12:00:00\); convert all of them to sec",
    ),
    "mixed zones": (
        [AWARE[0], NAIVE[1]],
        TypeError,
        r"^times mix dates with a time zone \(.*\) and dates without one \(.*\); write all of",
    ),
    "numbers and dates": ([NOON, NAIVE[1]], TypeError, "^times mix numbers .* and dates"),
    "no dates": (["soon", "later"], ValueError, "times must not be missing, got soon at index 0"),
    "booleans": ([True, False], TypeError, "must be numbers of seconds or dates, got dtype bool"),
    "lists": ([[1], [2]], ValueError, r"must be one time a rating, \(2,\), got shape \(2, 1\)"),
    "too few": ([1], ValueError, r"must be one time a rating, \(2,\), got shape \(1,\)"),
    "masked": (np.ma.array([1, 2], mask=[0, 1]), ValueError, "1 times are masked"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_times_are_refused(name):
    times, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        Ratings.from_arrays([1, 2], [3, 4], [5.0, 1.0], times=times)


def test_missing_times_of_tables_are_refused():
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"user": [1, 2], "item": [3, 4], "rating": [5.0, 1.0], "time": [1, None]})
    with pytest.raises(ValueError, match="column 'time' has 1 missing times; drop these rows"):
        Ratings.from_frame(table)
    assert len(Ratings.from_frame(table, time=False)) == 2


TEXT = {
    "seconds": f"user,item,rating,timestamp\n1,7,4,{NOON}\n20,8,2.5,{NOON + DAY}\n",
    "fractions": f"user,date,item,rating\n1,{NOON}.9,7,4\n20, {NOON + DAY},8,2.5\n",
    "dates": "user,item,rating,Date\n1,7,4,2020-01-01 12:00\n20,8,2.5,2020-01-02T12:00:00\n",
    "zones": "user,item,rating,time\n1,7,4,2020-01-01T12:00Z\n20,8,2.5,2020-01-02T13:00+01:00\n",
}


@pytest.mark.parametrize("least_bytes", [0, sys.maxsize])
@pytest.mark.parametrize("name", TEXT)
def test_text_files(write, monkeypatch, name, least_bytes):
    monkeypatch.setattr(text_module, "LEAST_BYTES_FOR_ARROW", least_bytes)
    path = write(TEXT[name])
    ratings = Ratings.read(path)
    assert ratings.times.tolist() == [NOON, NOON + DAY]
    assert ratings.values.tolist() == [4.0, 2.5]
    assert Ratings.read(path, time=False).times is None
    assert len(read_ratings(path)) == 3


def test_a_file_without_names_needs_the_position(write):
    path = write(f"1\t7\t4\t{NOON}\n20\t8\t2.5\t{NOON + DAY}\n")
    assert Ratings.read(path).times is None
    assert Ratings.read(path, time=3).times.tolist() == [NOON, NOON + DAY]


@pytest.mark.parametrize("least_bytes", [0, sys.maxsize])
def test_lines_without_a_time_are_bad(write, monkeypatch, least_bytes):
    monkeypatch.setattr(text_module, "LEAST_BYTES_FOR_ARROW", least_bytes)
    path = write(f"user,item,rating,time\n1,7,4,\n20,8,2.5,{NOON}\n")
    message = r"1 of 2 ratings cannot be used, the first in line 2.*a time \(time=False leaves the"
    with pytest.raises(ValueError, match=message):
        Ratings.read(path)
    with pytest.warns(UserWarning, match="They are left out"):
        assert Ratings.read(path, on_bad_lines="skip").times.tolist() == [NOON]


@pytest.mark.parametrize("least_bytes", [0, sys.maxsize])
def test_mixed_forms_in_a_file_are_refused(write, monkeypatch, least_bytes):
    monkeypatch.setattr(text_module, "LEAST_BYTES_FOR_ARROW", least_bytes)
    path = write(f"user,item,rating,time\n1,7,4,{NOON}\n20,8,2.5,2020-01-01\n")
    with pytest.raises(TypeError, match=r"the time column mix numbers .* and dates without one"):
        Ratings.read(path)
    path = write(f"user,item,rating,time\n1,7,4,{NOON}\n20,8,2.5,{NOON}000\n")
    with pytest.raises(ValueError, match=r"the times are in mixed units"):
        Ratings.read(path)


def test_two_columns_of_times_have_to_be_told_apart():
    names = ["user", "item", "rating", "date", "timestamp"]
    message = (
        "x: cannot tell which column holds the times of 'date', 'timestamp'; pass time=, a column"
        " name or a position from 0, or time=False to leave the times out"
    )
    with pytest.raises(ValueError, match=whole(message)):
        Chosen(None, None, None, None).positions(names, "x")
    assert Chosen(None, None, None, "date").positions(names, "x") == (0, 1, 2, 3)
    assert Chosen(None, None, None).positions(names, "x") == (0, 1, 2)


@pytest.mark.parametrize("form", ["integers", "milliseconds", "datetimes", "aware datetimes"])
def test_parquet_files(write_parquet, form):
    columns = {"user": [1, 20], "item": [7, 8], "rating": [4.0, 2.5], "timestamp": FORMS[form]}
    path = write_parquet(**columns)
    assert Ratings.read(path).times.tolist() == [NOON, NOON + DAY]
    assert Ratings.read(path, time=False).times is None


def timed_ratings(n=300):
    users, items, values = random_ratings(n, 20, 15)
    weights = 1.0 + np.arange(n) % 3
    return Ratings.from_arrays(users, items, values, weights, times=1000 + np.arange(n))


def rows_in(ratings):
    """Return {time: (user, item, rating, weight)}; each rating has a time of its own."""
    columns = (ratings.users, ratings.items, ratings.values, ratings.weights)
    lists = [column.tolist() for column in columns]
    return dict(zip(ratings.times.tolist(), zip(*lists, strict=True), strict=True))


def test_every_part_keeps_the_times_of_its_ratings():
    whole_set = timed_ratings()
    pairs = [whole_set.split(0.2), whole_set.split_tail(0.2), *whole_set.folds(3)]
    for train, held_out in pairs:
        assert rows_in(train) | rows_in(held_out) == rows_in(whole_set)
    few = Ratings.from_arrays(range(10), range(10), np.ones(10))
    known, _ = whole_set.like(few)
    assert 0 < len(known) < len(whole_set)
    assert rows_in(known).items() <= rows_in(whole_set).items()


def test_times_tell_ratings_apart():
    one = timed_ratings()
    other = timed_ratings()
    assert one.fingerprint(True) == other.fingerprint(True)
    other.times[0] += 1
    assert one.fingerprint(True) != other.fingerprint(True)
    assert one.fingerprint(False) != other.fingerprint(False)


def test_equal_ratings_of_different_times_are_split_alike_in_any_order():
    n = 40
    times = np.arange(n)
    order = np.random.default_rng(0).permutation(n)
    ones = np.ones(n)
    ratings = Ratings.from_arrays(ones, ones, ones, times=times)
    shuffled = Ratings.from_arrays(ones, ones, ones, times=times[order])
    held_out = [set(part.split(0.25)[1].times.tolist()) for part in (ratings, shuffled)]
    assert held_out[0] == held_out[1]


def test_fit_takes_times():
    users, items, values = random_ratings(100, 20, 15)
    times = np.arange(100)
    model = FunkSVD(2, 2, random_state=0).fit((users, items), values, times=times)
    assert model.n_ratings_ == 100
    with pytest.raises(ValueError, match="times must not be negative"):
        FunkSVD(2, 2).fit((users, items), values, times=-1 - times)
    with pytest.raises(ValueError, match="these Ratings have times of their own"):
        FunkSVD(2, 2).fit(Ratings.from_arrays(users, items, values), times=times)
