"""The scripts that the README links run, alone and on files."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from funksvd import Ratings, datasets

FOLDER = Path(__file__).parent / "examples"


def run(monkeypatch, capsys, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Examples write where they are started."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path):
    made = datasets.make_ratings(80, 60, 2000, rank=2)
    rows = zip(
        made.users.tolist(), made.items.tolist(), made.ratings.round(1).tolist(), strict=True
    )
    (tmp_path / "ratings.csv").write_text(
        "user,item,rating\n" + "".join("{},{},{}\n".format(*row) for row in rows)
    )
    (tmp_path / "titles.csv").write_text(
        "item_id,title\n" + "".join(f"{i},Film {i}\n" for i in range(60))
    )
    return tmp_path


@pytest.mark.filterwarnings(
    "ignore:.*unknown to the model"
)  # folds that hold all ratings of an item
@pytest.mark.parametrize("name", ["article.py", "quickstart.py", "search.py", "serving.py"])
def test_alone(monkeypatch, capsys, name):
    if name == "search.py":
        pytest.importorskip("sklearn")
    assert len(run(monkeypatch, capsys, name).splitlines()) >= 2


def test_quickstart(monkeypatch, capsys, files):
    out = run(monkeypatch, capsys, "quickstart.py", files / "ratings.csv")
    assert "2,000 ratings by" in out
    before, after = (float(line.rpartition(" ")[2]) for line in out.splitlines()[-2:])
    assert before == after


def test_article(monkeypatch, capsys, files):
    first, kept = run(monkeypatch, capsys, "article.py", files / "ratings.csv").splitlines()
    assert re.match(r"\d+ epochs, val_loss \d+\.\d{4} at the best of them", first)
    assert kept.startswith("FunkSVD(n_factors=20, n_epochs=30, solver='adamax', batch_size=22,")
    assert Path("movie_weights.npz").exists()


def test_movies(monkeypatch, capsys, files):
    lines = run(
        monkeypatch, capsys, "movies.py", files / "ratings.csv", files / "titles.csv"
    ).splitlines()
    assert len(lines) == 12
    assert sum("  Film " in line for line in lines) == 10
    scores = [float(line.split()[0]) for line in lines[1:6]]
    assert scores == sorted(scores, reverse=True)


def test_movies_by_download(monkeypatch, capsys, files):
    ratings = Ratings.read(files / "ratings.csv")
    titles = {item: f"Film {item}" for item in range(60)}
    monkeypatch.setattr(
        datasets, "load_movielens", lambda name: datasets.Dataset(ratings, titles, None)
    )
    assert run(monkeypatch, capsys, "movies.py").count("  Film ") == 10


@pytest.mark.filterwarnings("ignore:.*unknown to the model")
def test_search(monkeypatch, capsys, files):
    pytest.importorskip("sklearn")
    first, second = run(monkeypatch, capsys, "search.py", files / "ratings.csv").splitlines()
    assert first.startswith("scikit-learn: {")
    assert (
        abs(float(first.split()[-1]) - float(second.split("RMSE ")[1].split()[0])) < 0.15
    )  # other folds, fewer epochs


def test_serving(monkeypatch, capsys, files):
    lines = run(monkeypatch, capsys, "serving.py", files / "ratings.csv").splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "after 1 ratings",
        "after 2 ratings",
        "after 3 ratings",
        "the next morning",
    ]
    assert np.isfinite([float(line.rpartition(": ")[2].rstrip("}")) for line in lines]).all()
