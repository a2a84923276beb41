"""Opening files of ratings: gzip, UTF-8, damage, and the progress bar."""

import gzip
import sys

import pytest
from rating_checks import THREE, assert_ratings, joined

from funksvd.datasets import read_ratings

pytest_plugins = ["rating_files"]


def test_gzip_is_recognised_by_content_not_name(write):
    assert_ratings(read_ratings(write(gzip.compress(joined(",").encode()), "plain.csv")), *THREE)
    assert_ratings(read_ratings(write(joined(","), "text.csv.gz")), *THREE)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_byte_order_mark_is_skipped(write, compress):
    with_header = joined(",", header=("user", "item", "rating", "time"))
    for text in (joined(","), with_header):
        assert_ratings(read_ratings(write(compress(b"\xef\xbb\xbf" + text.encode()))), *THREE)


def test_names_in_utf8(write):
    found = read_ratings(write("Jürgen,Amélie,5\n李,Amélie,4\n"))
    assert_ratings(found, ["Jürgen", "李"], ["Amélie", "Amélie"], [5.0, 4.0])


def test_str_and_path_and_any_name_are_taken(write):
    assert_ratings(read_ratings(str(write(joined("\t"), "u.data"))), *THREE)


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
