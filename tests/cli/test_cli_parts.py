"""The commands that measure on parts of a file: split, compare, and train --refit."""

import numpy as np
import pytest
from command_checks import SMALL, fails, made_rows, out_json, run, shown, write_table

import funksvd
from funksvd import FunkSVD, Ratings

pytest_plugins = ["command_files"]


def triples_of(ratings):
    """Return the sorted (user, item, rating) triples of some ratings."""
    users = ratings.user_ids[ratings.users].tolist()
    items = ratings.item_ids[ratings.items].tolist()
    return sorted(zip(users, items, ratings.values.tolist(), strict=True))


@pytest.fixture
def timed(tmp_path):
    """Return a file of ratings with times, in no order."""
    rows = [(*row, 10**9 + 7919 * n % 900) for n, row in enumerate(made_rows())]
    return write_table(tmp_path / "timed.csv", [("user", "item", "rating", "timestamp"), *rows])


# split


@pytest.mark.parametrize("name", ["ratings.csv", "words.tsv"])
def test_split_is_that_of_ratings(folder, tmp_path, capsys, name):
    source = folder / name
    out = shown(capsys, "split", source, "--test-size", 0.2, "-o", tmp_path / "new" / "parts")
    assert "Wrote 720 ratings to" in out
    assert "Wrote 180 ratings to" in out
    expected = Ratings.read(source).split(0.2)
    for part, wanted in zip(("train", "test"), expected, strict=True):
        written = Ratings.read(tmp_path / "new" / "parts" / f"{part}.csv")
        assert triples_of(written) == triples_of(wanted)
    argv = ["split", source, "--test-size", 0.2, "-o", tmp_path]
    assert out_json(capsys, *argv)[0] == [{"train": 720, "test": 180}]


def test_split_by_time_tests_on_the_last_ratings(timed, tmp_path):
    assert run("split", timed, "--by-time", "-o", tmp_path) == 0
    train = Ratings.read(tmp_path / "train.csv")
    test = Ratings.read(tmp_path / "test.csv")
    assert len(test) == 90
    assert train.times.max() < test.times.min()
    assert triples_of(Ratings.read(timed)) == sorted(triples_of(train) + triples_of(test))


def test_split_errors(folder, tmp_path, capsys):
    source = folder / "ratings.csv"
    into = ["-o", tmp_path]
    error = fails(capsys, "split", source, "--by-time", *into)
    assert "--by-time needs a column of times" in error
    assert "--time-column" in error
    for size in (0, 1, 0.0001):
        error = fails(capsys, "split", source, "--test-size", size, *into)
        assert "must leave ratings on both sides" in error
    train = tmp_path / "train.csv"
    train.write_bytes(source.read_bytes())
    assert "would be replaced" in fails(capsys, "split", train, *into)
    assert train.read_bytes() == source.read_bytes()


# train --refit


def test_refit_trains_on_all_ratings_for_the_best_number_of_epochs(folder, tmp_path, capsys):
    source = folder / "ratings.csv"
    argv = ["train", source, "--n-factors", 4, "--n-jobs", 1, "--patience", 1]
    [entry], _ = out_json(capsys, *argv, "-o", tmp_path / "part.npz")
    out = shown(capsys, *argv, "-o", tmp_path / "whole.npz", "--refit")
    assert "Trained again on all 900 ratings" in out
    whole = funksvd.load(tmp_path / "whole.npz")
    expected = FunkSVD(n_factors=4, n_epochs=entry["epoch"], random_state=0)
    expected.fit(Ratings.read(source))
    np.testing.assert_array_equal(whole.predict_all(), expected.predict_all())
    assert whole.n_ratings_ == 900
    error = fails(capsys, "train", "no-such-file.csv", "--refit", "--validation-split", 0)
    assert "--refit needs ratings that are held out" in error


# compare


def test_compare_prints_the_table_of_the_library(folder, capsys):
    source = folder / "ratings.csv"
    argv = ["compare", source, "--model", "n_factors=3,n-epochs=4", "--splits", 2, "--top", 5]
    argv += ["--threshold", 3.5]
    out = shown(capsys, *argv)
    model = FunkSVD(n_factors=3, n_epochs=4)
    result = funksvd.compare(
        {"n_factors=3,n-epochs=4": model}, Ratings.read(source), k=5, threshold=3.5, n_splits=2
    )
    columns = [line.split()[:-1] for line in str(result).splitlines()]  # but seconds
    shown_columns = [line.split()[:-1] for line in out.splitlines()[2:]]
    assert shown_columns == columns
    [rows], _ = out_json(capsys, *argv)
    assert list(rows) == ["popularity", "biases_only", "n_factors=3,n-epochs=4"]
    ndcg = result.rows["popularity"]["ndcg"]
    assert rows["popularity"]["ndcg"] == {"mean": ndcg.mean, "half": ndcg.half}


def test_compare_has_models_of_its_own(folder, capsys):
    out = shown(capsys, "compare", folder / "ratings.csv", "--splits", 1)
    assert [line.split()[0] for line in out.splitlines()[3:]] == [
        "popularity",
        "biases",
        "solver=sgd",
        "solver=gibbs",
    ]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gibbs", "--model takes PARAMETER=VALUE,PARAMETER=VALUE,..., got 'gibbs'"),
        ("solvr=gibbs", "did you mean solver?"),
        ("solver=", "solver has no value"),
        ("n_factors=-1", "n_factors must be None or an int >= 0"),
    ],
)
def test_models_are_checked_before_the_file_is_read(capsys, model, message):
    assert message in fails(capsys, "compare", "no-such-file.csv", "--model", model)


def test_a_model_of_a_split_is_measured(folder, tmp_path, capsys):
    """The first session of the help."""
    assert run("split", folder / "ratings.csv", "-o", tmp_path) == 0
    train = tmp_path / "train.csv"
    assert run("train", train, "-o", tmp_path / "m.npz", *SMALL) == 0
    argv = ["evaluate", tmp_path / "m.npz", tmp_path / "test.csv", "--top", 5, "--exclude", train]
    assert "NDCG" in shown(capsys, *argv)
