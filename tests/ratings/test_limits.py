"""What hostile input may take: memory in proportion to it, and time, too."""

import gzip
import resource
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from funksvd import FunkSVD, Ratings, load
from funksvd.files import model_file
from funksvd.machine import threads
from funksvd.ratings import encoding, sorting, text
from funksvd.ratings.ids import text_array
from funksvd.ratings.opening import LONGEST_LINE

GIB = 1 << 30
FEW = 20_000


def within(memory, code, *arguments):
    """Run code in a Python that may use so many bytes of memory; return what it printed."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))\n"
    found = subprocess.run(
        [sys.executable, "-c", limit + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return f"{found.stdout}{found.stderr}".strip()


# ---- long ids ----


def one_long(n=FEW, length=100_000):
    """Return n short texts and one that is very long."""
    return [*(f"u{number}" for number in range(n)), "x" * length]


def test_texts_are_kept_as_objects_where_padding_would_be_large():
    assert text_array(["a", "bcd"]).dtype == "U3"
    assert text_array([b"a", b"bcd"]).dtype == "S3"
    for texts in (one_long(), one_long(3), one_long(200_000, 200)):
        long = text_array(texts)
        assert long.dtype == object
        assert long.tolist() == texts


def test_one_long_id_takes_the_memory_of_its_text():
    users = one_long()
    items = np.arange(len(users)) % 50
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ratings = Ratings.from_arrays(users, items, np.ones(len(users)))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < GIB  # with a fixed width it is 8 GB
    assert ratings.user_ids[ratings.users].tolist() == users


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_model_with_a_long_id_is_saved_and_loaded(tmp_path, suffix, as_bytes):
    users = one_long()
    if as_bytes:
        users = [user.encode() for user in users]
    items = np.arange(len(users)) % 50
    values = np.random.default_rng(0).normal(3, 1, len(users))
    model = FunkSVD(2, 1, random_state=0).fit((users, items), values)
    path = tmp_path / f"m.{suffix}"
    model.save(path)
    assert path.stat().st_size < 4_000_000
    for map_arrays in (False, True):
        again = load(path, mmap=map_arrays)
        assert again.user_ids_.tolist() == model.user_ids_.tolist()
        pairs = (users[-3:], [1, 2, 3])
        np.testing.assert_array_equal(again.predict(pairs), model.predict(pairs))
        assert (
            again.recommend(users[-1], 3)[0].tolist() == model.recommend(users[-1], 3)[0].tolist()
        )


def test_a_file_of_ids_that_end_late_takes_little_memory(tmp_path):
    users = [f"u{number}" for number in range(5000)]
    items = np.arange(5000) % 9
    model = FunkSVD(1, 1, random_state=0)
    model.fit((users, items), np.random.default_rng(0).normal(3, 1, 5000))
    path = tmp_path / "m.safetensors"
    model.save(path)
    meta, arrays = model_file.read_file(path, map_arrays=False)
    ids = [b"z" * 1_000_000, *(b"%d" % number for number in range(4999))]
    arrays["user_ids.utf8"] = np.frombuffer(b"".join(ids), np.uint8)
    arrays["user_ids.ends"] = np.cumsum([len(own) for own in ids], dtype=np.int64)
    with open(path, "wb") as file:
        model_file.write_safetensors(file, model_file.json.dumps(meta), arrays)
    code = "import sys, funksvd; print(len(funksvd.load(sys.argv[1]).user_ids_))"
    assert within(2 * GIB, code, path) == "5000"


@pytest.mark.parametrize("length", [100_000, 130_000, 131_072, 140_000, 200_000])
def test_both_readers_of_text_find_the_same_fields_too_long(tmp_path, monkeypatch, length):
    pytest.importorskip("pyarrow")
    path = tmp_path / "r.csv"
    lines = [f"u{k % 9},{k % 50},3\n" for k in range(30_000)]
    lines.insert(20_000, f"{'x' * length},1,4\n")
    path.write_text("".join(lines))
    found = []
    for least in (0, 1 << 40):
        monkeypatch.setattr(text, "LEAST_BYTES_FOR_ARROW", least)
        ratings = Ratings.read(path) if length <= 131_072 else None
        if ratings is None:
            with pytest.raises(ValueError, match=r"1 of 30001 .* in line 20001") as error:
                Ratings.read(path)
            found.append(str(error.value))
        else:
            found.append(ratings.user_ids[ratings.users].tolist())
    assert found[0] == found[1]


# ---- lines ----


def test_a_line_without_an_end_is_refused(tmp_path):
    path = tmp_path / "line.csv.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(1000):
            file.write(b"1" * 1_000_000)
    code = """
    import sys
    from funksvd import Ratings
    try:
        Ratings.read(sys.argv[1])
    except ValueError as error:
        print(error)
    """
    said = within(2 * GIB, code, path)
    assert said == f"{path}: a line is longer than {LONGEST_LINE:,} bytes"


def test_a_line_without_an_end_behind_a_bad_byte_is_not_read_whole(tmp_path):
    path = tmp_path / "line.csv.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(b"1,2,3\n1,\xff,3\n")
        for _ in range(100):
            file.write(b"1" * 1_000_000)
    with pytest.raises(ValueError, match="line 2 is not UTF-8"):
        Ratings.read(path)


@pytest.mark.parametrize("cut", [0.3, 0.99])
def test_gzip_data_that_are_cut_short_are_refused_by_both_readers(tmp_path, monkeypatch, cut):
    lines = "".join(f"{k},{k * k % 997},{k % 5}\n" for k in range(100_000))
    content = gzip.compress(lines.encode())
    path = tmp_path / "r.csv.gz"
    path.write_bytes(content[: int(cut * len(content))])
    for least in (0, 1 << 40):
        monkeypatch.setattr(text, "LEAST_BYTES_FOR_ARROW", least)
        with pytest.raises(ValueError, match=r"r\.csv\.gz: the gzip data is damaged or cut short"):
            Ratings.read(path)


# ---- hashes ----

MASK = (1 << 64) - 1
FIRST_INVERSE = pow(0xBF58476D1CE4E5B9, -1, 1 << 64)
SECOND_INVERSE = pow(0x94D049BB133111EB, -1, 1 << 64)


def word_with_hash(hashed):
    """Return the eight bytes whose SplitMix64, without a key, is `hashed`."""
    x = hashed ^ (hashed >> 31) ^ (hashed >> 62)
    x = x * SECOND_INVERSE & MASK
    x ^= (x >> 27) ^ (x >> 54)
    x = x * FIRST_INVERSE & MASK
    return struct.pack("<Q", x ^ 8)


def test_texts_made_to_have_one_hash_take_no_longer_than_others(tmp_path):
    """Without a key 80,000 of them took 56 s, and 200,000 take minutes."""
    words = b"".join(word_with_hash((number << 32) | 0x12345678) for number in range(200_000))
    path = tmp_path / "words"
    path.write_bytes(words)
    code = """
    import resource, sys
    import numpy as np
    from funksvd.ratings import _texts
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    words = np.fromfile(sys.argv[1], np.uint8)
    codes = np.empty(len(words) // 8, np.int32)
    _texts.TextCodes().encode(np.arange(0, len(words) + 8, 8), words, codes)
    print(np.array_equal(codes, np.arange(len(codes))))
    """
    assert within(8 * GIB, code, path) == "True"


# ---- cores ----


@pytest.mark.parametrize("n_jobs", [1, 8, 1000])
def test_counts_of_all_threads_are_no_more_than_the_keys(monkeypatch, n_jobs):
    counted = []
    zeros = np.zeros

    def counting_zeros(shape, *arguments):
        counted.append(np.prod(shape))
        return zeros(shape, *arguments)

    monkeypatch.setattr(threads, "CHUNK", 1)
    monkeypatch.setattr(sorting, "CHUNK", 1)
    keys = np.random.default_rng(0).integers(0, 100, 5000).astype(np.int32)
    expected = np.bincount(keys, minlength=100)
    monkeypatch.setattr(sorting.np, "zeros", counting_zeros)
    assert sorting.count_keys(keys, 0, 100, n_jobs).tolist() == expected.tolist()
    start, items, *_ = sorting.by_user(keys, keys, None, 100, 100, n_jobs)
    assert np.diff(start).tolist() == expected.tolist()
    assert items.tolist() == sorted(keys.tolist())
    assert sum(counted) <= 4 * (len(keys) + 100)


def test_an_encoded_column_of_texts_is_the_same_for_any_key():
    texts = encoding.Codes()
    for word in ("a", "b", "a"):
        texts[word]
    assert list(texts) == ["a", "b"]
