"""The files of the Netflix Prize."""

import naive
import numpy as np
import pytest
from dataset_checks import triples

from funksvd.datasets import load_netflix, netflix


def prize_files(eol="\n"):
    """Return the texts of four files in the prize's format."""
    rng = np.random.default_rng(4)
    texts = []
    movie = 0
    for _ in range(4):
        lines = []
        for _ in range(rng.integers(1, 6)):
            movie += 1
            lines.append(f"{movie}:")
            for _ in range(rng.integers(0, 40)):
                user = rng.integers(1, 10 ** rng.integers(1, 8))
                day = np.datetime64("1999-11-11") + rng.integers(0, 2240)
                lines.append(f"{user},{rng.integers(1, 6)},{day}")
        texts.append("".join(line + eol for line in lines))
    return texts


@pytest.mark.parametrize("block", [1, 50, 1 << 25])
@pytest.mark.parametrize("eol", ["\n", "\r\n"])
def test_netflix_combined_files(tmp_path, monkeypatch, block, eol):
    monkeypatch.setattr(netflix, "BYTES_OF_A_BLOCK", block)
    for number, text in enumerate(prize_files(eol), 1):
        (tmp_path / f"combined_data_{number}.txt").write_bytes(text.encode())
    (tmp_path / "movie_titles.csv").write_bytes(
        "1,2003,Dinosaur Planet\n2,NULL,Caf\xe9, the film\n".encode("latin-1")
    )
    found = load_netflix(tmp_path, times=True)
    users, movies, values, days = naive.netflix_prize("".join(prize_files()))
    assert triples(found) == (users, movies, values)
    assert found.times.astype(str).tolist() == days
    assert found.titles == {1: "Dinosaur Planet", 2: "Café, the film"}
    assert load_netflix(tmp_path).times is None


@pytest.mark.parametrize("inside", ["", "training_set"])
def test_netflix_single_files(tmp_path, inside):
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    text = "".join(prize_files())
    movie = None
    for line in text.splitlines():
        movie = int(line[:-1]) if line.endswith(":") else movie
        with open(folder / f"mv_{movie:07}.txt", "a") as file:
            file.write(line + "\n")
    found = load_netflix(tmp_path)
    users, movies, values, _ = naive.netflix_prize(text)
    assert triples(found) == (users, movies, values)
    assert found.titles == {}


@pytest.mark.parametrize(
    "line",
    [
        "1,2",
        "a,5,2005-09-06",
        "1,x,2005-09-06",
        "12,5;2005-09-06",
        "1234567890123,5,2005-09-06",
        "5,2005-09-06",
        "x:",
        ",5,2005-09-06",
    ],
)
def test_netflix_lines_that_are_none(tmp_path, line):
    (tmp_path / "combined_data_1.txt").write_text(f"1:\n12,4,2005-09-06\n{line}\n13,4,2005-09-06\n")
    with pytest.raises(
        ValueError, match=r"combined_data_1\.txt: '.*' is (neither MOVIE|not a number)"
    ):
        load_netflix(tmp_path)


def test_netflix_faults_in_single_files_name_the_files(tmp_path):
    (tmp_path / "mv_0000001.txt").write_text("1:\n12,4,2005-09-06\n")
    (tmp_path / "mv_0000002.txt").write_text("2:\n12,good,2005-09-06\n")
    message = r"mv_0000001\.txt to mv_0000002\.txt: '12,good,2005-09-06' is neither MOVIE"
    with pytest.raises(ValueError, match=message):
        load_netflix(tmp_path)


def test_netflix_needs_its_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither combined_data_"):
        load_netflix(tmp_path)
    (tmp_path / "combined_data_1.txt").write_text("12,4,2005-09-06\n1:\n13,4,2005-09-06\n")
    with pytest.raises(ValueError, match="the first line names no movie"):
        load_netflix(tmp_path)
