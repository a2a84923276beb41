"""`funksvd tune`, and the folds that it uses."""

import re

import numpy as np
import pytest
from command_checks import fails, out_json, shown

import funksvd
from funksvd import datasets

pytest_plugins = ["command_files"]


@pytest.mark.parametrize(
    ("options", "searched"),
    [
        ([], {"n_factors", "l2", "learning_rate"}),
        (["--solver", "adagrad"], {"n_factors", "l2"}),
        (["--solver", "gibbs"], {"n_factors"}),
    ],
)
def test_the_grid_suits_the_solver(folder, capsys, options, searched):
    argv = ["tune", folder / "ratings.csv", "--folds", 2, "--epochs", 2, *options]
    [settings], _ = out_json(capsys, *argv)
    assert all(set(setting["parameters"]) == searched for setting in settings)


def test_featurewise_training_tells_the_number_of_features(folder, capsys):
    options = "--training featurewise --n-factors 3 --grid l2=0.02,0.1 --folds 2 --epochs 9"
    out = shown(capsys, "tune", folder / "ratings.csv", *options.split())
    assert re.search(r"--l2 \S+ --n-factors [123]$", out.splitlines()[-1])


def test_tune_by_lists(folder, capsys):
    options = "--grid n-factors=0,4 --folds 2 --n-epochs 4 --metric ndcg --top 5 --threshold 3.5"
    argv = ["tune", folder / "ratings.csv", *options.split()]
    [settings], _ = out_json(capsys, *argv)
    assert settings[0]["score"] >= settings[1]["score"]
    best = settings[0]
    scores = []
    for train, held_out in funksvd.Ratings.read(folder / "ratings.csv").folds(2, 0):
        model = funksvd.FunkSVD(n_epochs=4, random_state=0, **best["parameters"])
        model.fit(train, validation_data=held_out, callbacks=funksvd.EarlyStopping(patience=3))
        scores.append(model.evaluate(held_out, k=5, exclude=train, threshold=3.5)["ndcg"])
    assert best["score"] == pytest.approx(np.mean(scores))
    assert best["sd"] == pytest.approx(np.std(scores))
    lines = shown(capsys, *argv).splitlines()
    assert lines[1].split() == ["n_factors", "ndcg@5", "sd", "RMSE", "epochs", "s"]
    assert lines[2].split()[1] == f"{best['score']:.4f}"


def test_tune_refuses_a_threshold_outside_the_scale(folder, capsys):
    argv = ["tune", folder / "ratings.csv", "--metric", "ndcg", "--threshold", 9]
    assert "--threshold must be within the scale" in fails(capsys, *argv)


def test_tune(folder, tmp_path, capsys):
    grid = "--grid n-factors=1,3 --grid l2=0.02,0.5 --folds 2 --n-jobs 1 --n-epochs 5"
    argv = ["tune", folder / "ratings.csv", *grid.split()]
    [settings], _ = out_json(capsys, *argv)
    tried = [(each["parameters"]["n_factors"], each["parameters"]["l2"]) for each in settings]
    assert sorted(tried) == [(1, 0.02), (1, 0.5), (3, 0.02), (3, 0.5)]
    assert [each["rmse"] for each in settings] == sorted(each["rmse"] for each in settings)
    # The table holds the errors that fits on the folds have.
    best = settings[0]
    errors = []
    for train, held_out in funksvd.Ratings.read(folder / "ratings.csv").folds(2, 0):
        model = funksvd.FunkSVD(n_epochs=5, random_state=0, **best["parameters"])
        errors.append(min(model.fit(train, validation_data=held_out).history_["val_rmse"]))
    assert best["rmse"] == pytest.approx(np.mean(errors))
    assert best["sd"] == pytest.approx(np.std(errors))

    path = tmp_path / "best.npz"
    out = shown(capsys, *argv, "-o", path)
    assert f"{best['rmse']:.4f}" in out.splitlines()[2]
    assert funksvd.load(path).l2 == best["parameters"]["l2"]
    command = shown(capsys, *argv).splitlines()[-1]
    assert command.endswith(f"--n-epochs {best['n_epochs']}")
    assert command.startswith(
        f"Train with the best: funksvd train {folder / 'ratings.csv'} --validation-split 0 --n-f"
    )


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("l3=1", "--grid takes PARAMETER=VALUE,VALUE,..., got 'l3=1'; "),
        ("l2", "got 'l2'"),
        ("l2=", "got 'l2='"),
        ("n_factor=3", "did you mean n_factors?"),
        ("n_factors=-1,3", "n_factors must be None or an int >= 0, got -1"),
        ("l2=much", "l2 must be a finite number"),
    ],
)
def test_grid_is_checked_before_the_file_is_read(capsys, grid, message):
    assert message in fails(capsys, "tune", "no-such-file.csv", "--grid", grid)


def triples_of(ratings):
    """Return the sorted (user, item, rating) triples of some ratings."""
    users = ratings.user_ids[ratings.users].tolist()
    items = ratings.item_ids[ratings.items].tolist()
    return sorted(zip(users, items, ratings.values.tolist(), strict=True))


def test_folds_part_the_ratings_in_any_order(folder):
    users, items, values = datasets.read_ratings(folder / "ratings.csv")
    order = np.random.default_rng(0).permutation(len(values))
    ratings = funksvd.Ratings.from_arrays(users, items, values)
    shuffled = funksvd.Ratings.from_arrays(users[order], items[order], values[order])
    found = []
    for parts, same_parts in zip(ratings.folds(3, 1), shuffled.folds(3, 1), strict=True):
        assert [triples_of(part) for part in parts] == [triples_of(part) for part in same_parts]
        held_out = parts[1]
        assert len(held_out) == 300
        found += triples_of(held_out)
    assert sorted(found) == triples_of(ratings)
    message = "n_splits must be from 2 to half of the 900 ratings, got 1"
    with pytest.raises(ValueError, match=message):
        next(ratings.folds(1))
