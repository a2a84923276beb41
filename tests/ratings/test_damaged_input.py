"""Arrays, Arrow columns and Parquet files that are damaged, or changed by their owner later."""

import io
import itertools
import struct
import threading

import numpy as np
import pytest
from conftest import random_ratings

from funksvd import FunkSVD, Ratings
from funksvd.ratings.ids import Encoded
from funksvd.ratings.sorting import count_keys

# ---- arrays that their owner changes ----


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.int16])
@pytest.mark.parametrize("change", [2000, -1000])
def test_arrays_changed_later_change_no_rating(dtype, change):
    """An array that a loop fills again must be neither read nor written out of bounds."""
    users, items, values = random_ratings()
    users = users.astype(dtype)
    items = items.astype(dtype)
    expected = FunkSVD(4, 2, random_state=0).fit((users, items), values).user_factors_
    ratings = Ratings.from_arrays(users, items, values)
    users += dtype(change)
    items[:] = items[::-1].copy()
    values *= 1e9
    found = FunkSVD(4, 2, random_state=0).fit(ratings).user_factors_
    np.testing.assert_array_equal(found, expected)


def test_ratings_share_no_memory_with_what_they_were_made_of():
    users, items, values = random_ratings()
    values = values.astype(np.float32)
    weights = np.ones(len(values))
    ratings = Ratings.from_arrays(users, items, values, weights)
    own = [*ratings.keys, ratings.values, ratings.weights]
    for array in (users, items, values, weights):
        assert not any(np.shares_memory(array, kept) for kept in own)


def test_an_array_that_a_thread_fills_meanwhile_does_no_harm():
    n = 300_000
    users = np.zeros(n, np.int64)
    items = np.arange(n) % 1000
    values = np.ones(n)
    values[0] = 2
    stop = threading.Event()

    def fill():
        while not stop.is_set():
            users[:] = np.arange(n) % 7919 * 37
            users[:] = -5

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        for _ in range(20):
            try:
                ratings = Ratings.from_arrays(users, items, values)
            except ValueError as error:
                assert "changed while they were read" in str(error)  # noqa: PT017
            else:
                FunkSVD(2, 1, random_state=0).fit(ratings)
    finally:
        stop.set()
        thread.join()


def test_narrow_ids_do_not_overflow():
    ids = np.array([-128, 127, 5], np.int8)
    ratings = Ratings.from_arrays(ids, ids, [1.0, 2.0, 3.0])
    assert ratings.user_ids.tolist() == [-128, 5, 127]


@pytest.mark.parametrize("low", [-(2**63), 2**63 - 3])
def test_ids_at_the_ends_of_64_bits(low):
    ids = [low, low + 2, low]
    for users in (np.array(ids), Encoded(np.array([0, 1, 0]), np.array([low, low + 2]))):
        ratings = Ratings.from_arrays(users, [1, 2, 3], [1.0, 2.0, 3.0])
        assert ratings.user_ids[ratings.users].tolist() == ids
        FunkSVD(2, 1, random_state=0).fit(ratings)


def test_a_lone_lowest_id():
    lowest = np.array([-(2**63)])
    ratings = Ratings.from_arrays(Encoded(np.zeros(3, np.int32), lowest), [1, 2, 3], np.ones(3))
    assert ratings.users.tolist() == [0, 0, 0]


# ---- codes outside of their table ----


@pytest.mark.parametrize("bad", [-1, 2, -300_000_000, 300_000_000])
def test_a_code_outside_of_its_dictionary_is_refused(bad):
    users = Encoded(np.array([0, 1, bad], np.int32), np.array(["a", "b"]))
    with pytest.raises(ValueError, match=f"the code {bad} of a rating is not from 0 to 1"):
        Ratings.from_arrays(users, [1, 2, 3], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_keys_outside_of_a_span_are_not_counted(dtype):
    keys = np.array([10, 11, 12, 11], dtype)
    assert count_keys(keys, 10, 3, 2).tolist() == [1, 2, 1]
    for base, span in ((11, 3), (10, 2), (-5, 3), (2**62, 3)):
        with pytest.raises(ValueError, match="is not from"):
            count_keys(keys, base, span, 2)


# ---- Arrow ----


def dictionary(pa, codes):
    """Return an Arrow dictionary of the texts a and b with codes that Arrow does not check."""
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, pa.int32()), pa.array(["a", "b"]), safe=False
    )


def texts(pa, offsets, content=b"abcdef"):
    """Return an Arrow array of texts with offsets that Arrow does not check."""
    buffers = [None, pa.py_buffer(np.array(offsets, np.int32)), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


DAMAGED = {
    "an index too large": lambda pa: dictionary(pa, [0, 1, 300_000_000]),
    "an index below 0": lambda pa: dictionary(pa, [0, 1, -300_000_000]),
    "a text outside": lambda pa: texts(pa, [0, 2_000_000_000, 5, 6]),
    "a negative length": lambda pa: texts(pa, [0, 6, 1, 6]),
    "no UTF-8": lambda pa: texts(pa, [0, 1, 2, 3], b"a\xff\xfe"),
}


@pytest.mark.parametrize("harm", DAMAGED)
def test_damaged_arrow_columns_are_refused(harm):
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("narwhals")
    column = DAMAGED[harm](pa)
    table = pa.table({"user": column, "item": [1, 2, 3], "rating": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match=r"column 'user'"):
        Ratings.from_frame(table)
    with pytest.raises(ValueError, match=r"user ids"):
        Ratings.from_arrays(column, [1, 2, 3], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("harm", ["an index too large", "a negative length", "a text outside"])
def test_damaged_columns_of_a_file_of_arrow_are_refused(harm):
    """Arrow reads its own files without a check."""
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("narwhals")
    column = DAMAGED[harm](pa)
    table = pa.table({"user": column, "item": [1, 2, 3], "rating": [1.0, 2.0, 3.0]})
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    file.seek(0)
    with pytest.raises(ValueError, match=r"column 'user'"):
        Ratings.from_frame(pa.ipc.open_file(file).read_all())


# ---- Parquet ----

N_ROWS = 1000
VARINT = b"\xd0\x0f"  # 1000 as Parquet writes it
VARINTS = {"8000": b"\x80\x7d", "500": b"\xe8\x07", "-1000": b"\xcf\x0f"}


def footer_places(content):
    """Return where the number of rows stands in the footer of a Parquet file."""
    (length,) = struct.unpack("<I", content[-8:-4])
    first = len(content) - 8 - length
    return [at for at in range(first, len(content) - 8) if content[at : at + 2] == VARINT]


@pytest.mark.parametrize("number", VARINTS)
def test_parquet_footers_that_lie_invent_no_ratings(tmp_path, number):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "r.parquet"
    table = pa.table(
        {
            "user": [f"u{k % 97}" for k in range(N_ROWS)],
            "item": list(range(N_ROWS)),
            "rating": [float(k % 5) for k in range(N_ROWS)],
        }
    )
    parquet.write_table(
        table, path, compression="none", use_dictionary=False, write_statistics=False
    )
    whole = path.read_bytes()
    expected = Ratings.read(path)
    places = footer_places(whole)
    assert len(places) >= 5
    for count in (1, 2, len(places)):
        for chosen in itertools.combinations(places, count):
            content = bytearray(whole)
            for at in chosen:
                content[at : at + 2] = VARINTS[number]
            path.write_bytes(content)
            try:
                found = Ratings.read(path)
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017
            else:
                assert len(found) <= N_ROWS
                np.testing.assert_array_equal(found.values, expected.values[: len(found)])


def test_a_parquet_footer_with_more_rows_than_fit_the_memory(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "r.parquet"
    table = pa.table({"user": ["a"] * N_ROWS, "item": range(N_ROWS), "rating": [1.0] * N_ROWS})
    parquet.write_table(table, path)
    content = path.read_bytes()
    huge = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # 2**63 - 1
    for at in reversed(footer_places(content)):
        content = content[:at] + huge + content[at + 2 :]
    (length,) = struct.unpack("<I", path.read_bytes()[-8:-4])
    grown = length + len(content) - path.stat().st_size
    path.write_bytes(content[:-8] + struct.pack("<I", grown) + content[-4:])
    with pytest.raises(ValueError, match=r"r\.parquet"):
        Ratings.read(path)
