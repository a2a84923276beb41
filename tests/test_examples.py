"""The scripts that README links run, without arguments and on files."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from funksvd import Ratings, datasets

EXAMPLES = Path(__file__).parent / "examples"
Run = Callable[..., list[str]]

# Some folds of a search hold all ratings of an item.
folds_with_unknown_items = pytest.mark.filterwarnings("ignore:.*unknown to the model")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs an example with arguments and returns the lines it prints."""

    def run_example(name: str, *arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run_example


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own: examples write where they are started."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with ratings.csv and titles.csv."""
    made = datasets.make_ratings(80, 60, 2000, rank=2)
    columns = (made.users.tolist(), made.items.tolist(), made.ratings.round(1).tolist())
    lines = ["user,item,rating"]
    lines += ["{},{},{}".format(*row) for row in zip(*columns, strict=True)]
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    titles = ["item_id,title", *(f"{item},Film {item}" for item in range(60))]
    (tmp_path / "titles.csv").write_text("\n".join(titles) + "\n")
    return tmp_path


@folds_with_unknown_items
@pytest.mark.parametrize("name", ["article.py", "quickstart.py", "search.py", "serving.py"])
def test_without_arguments(run: Run, name: str) -> None:
    if name == "search.py":
        pytest.importorskip("sklearn")
    assert len(run(name)) >= 2


def test_quickstart(run: Run, files: Path) -> None:
    lines = run("quickstart.py", files / "ratings.csv")
    assert any("2,000 ratings by" in line for line in lines)
    before, after = (float(line.rpartition(" ")[2]) for line in lines[-2:])
    assert before == after


def test_article(run: Run, files: Path) -> None:
    first, kept = run("article.py", files / "ratings.csv")
    assert re.match(r"\d+ epochs, val_loss \d+\.\d{4} at the best of them", first)
    assert kept.startswith("FunkSVD(n_factors=20, n_epochs=30, solver='adamax', batch_size=22,")
    assert Path("movie_weights.npz").exists()


def test_movies(run: Run, files: Path) -> None:
    lines = run("movies.py", files / "ratings.csv", files / "titles.csv")
    assert len(lines) == 12
    assert sum("  Film " in line for line in lines) == 10
    scores = [float(line.split()[0]) for line in lines[1:6]]
    assert scores == sorted(scores, reverse=True)


def test_movies_by_download(run: Run, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ratings = Ratings.read(files / "ratings.csv")
    titles = {item: f"Film {item}" for item in range(60)}
    dataset = datasets.Dataset(ratings, titles, None)
    monkeypatch.setattr(datasets, "load_movielens", lambda name: dataset)
    assert sum("  Film " in line for line in run("movies.py")) == 10


@folds_with_unknown_items
def test_search(run: Run, files: Path) -> None:
    pytest.importorskip("sklearn")
    first, second = run("search.py", files / "ratings.csv")
    assert first.startswith("scikit-learn: {")
    theirs = float(first.split()[-1])
    ours = float(second.split("RMSE ")[1].split()[0])
    assert abs(theirs - ours) < 0.15  # other folds, fewer epochs


def test_serving(run: Run, files: Path) -> None:
    lines = run("serving.py", files / "ratings.csv")
    moments = [line.partition(":")[0] for line in lines]
    assert moments == ["after 1 ratings", "after 2 ratings", "after 3 ratings", "the next morning"]
    scores = [float(line.rpartition(": ")[2].rstrip("}")) for line in lines]
    assert np.isfinite(scores).all()
