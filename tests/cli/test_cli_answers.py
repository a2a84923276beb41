"""The commands that use a model: evaluate, predict, recommend, similar and fold-in."""

import csv
import os

import numpy as np
import pytest
from command_checks import SMALL, fails, made_rows, out_json, run, shown, write_table

import funksvd

pytest_plugins = ["command_files"]


def csv_rows(text):
    """Return the rows of a CSV text as dicts."""
    return list(csv.DictReader(text.splitlines()))


# evaluate


@pytest.fixture(scope="module")
def parts(folder):
    """Return (train.csv, test.csv, a model of the first)."""
    rows = made_rows()
    header = ("user", "item", "rating")
    train = write_table(folder / "train.csv", [header, *rows[:700]])
    test = write_table(folder / "test.csv", [header, *rows[700:]])
    assert run("train", train, "-o", folder / "part.npz", *SMALL) == 0
    return train, test, folder / "part.npz"


def test_evaluate_lists(parts, capsys):
    train, test, path = parts
    argv = ["evaluate", path, test, "--top", 5, "--exclude", train, "--threshold", 3.5]
    out = shown(capsys, *argv)
    arguments = {"k": 5, "exclude": funksvd.Ratings.read(train), "threshold": 3.5}
    result = funksvd.load(path).evaluate(funksvd.Ratings.read(test), baselines=True, **arguments)
    baselines = result["baselines"]
    assert f"Lists of 5 unseen items for {result['n_users']} users" in out
    assert "rated 3.5 or higher" in out
    lines = {line.split()[0]: line.split() for line in out.split("\n\n")[-1].splitlines()}
    columns = [result, baselines["popularity"], baselines["biases_only"]]
    assert lines["NDCG"][1:4] == [f"{column['ndcg']:.4f}" for column in columns]
    assert lines["novelty"][1:4] == [f"{column['novelty']:.4f}" for column in columns]
    rmse = [f"{column['rmse']:.4f}" for column in (result, baselines["biases_only"])]
    assert out.splitlines()[-1].split() == ["RMSE", *rmse]
    assert out_json(capsys, *argv)[0] == [result]
    del result["baselines"]
    assert out_json(capsys, *argv, "--no-baselines")[0] == [result]


def test_evaluate_on_the_training_file_warns(folder, capsys):
    assert run("evaluate", folder / "model.npz", folder / "ratings.csv") == 0
    assert "warning: the model was trained on these ratings" in capsys.readouterr().err


def test_evaluate_lists_errors(parts, capsys):
    train, test, path = parts
    assert "--exclude needs --top" in fails(capsys, "evaluate", path, test, "--exclude", train)
    assert "--threshold needs --top" in fails(capsys, "evaluate", path, test, "--threshold", 4)
    argv = ["evaluate", path, test, "--top", 5]
    assert "--top needs --exclude" in fails(capsys, *argv)
    argv += ["--exclude", train]
    assert "--threshold must be within the scale" in fails(capsys, *argv, "--threshold", 40)
    assert "--exclude holds all" in fails(capsys, "evaluate", path, train, *argv[3:])
    argv[4] = 0
    assert "--top must be an int >= 1, got 0" in fails(capsys, *argv)


def test_evaluate(folder, capsys):
    argv = ["evaluate", folder / "model.npz", folder / "ratings.csv"]
    out = shown(capsys, *argv)
    model = funksvd.load(folder / "model.npz")
    with pytest.warns(UserWarning, match="was trained on these ratings"):
        scores = model.evaluate(funksvd.Ratings.read(folder / "ratings.csv"))
    assert f"RMSE     {scores['rmse']:.4f}" in out
    assert f"MAE      {scores['mae']:.4f}" in out
    assert "ratings  900" in out
    assert "unknown  0.00%" in out
    assert out_json(capsys, *argv)[0] == [scores]


def test_evaluate_counts_unknown_ids(folder, tmp_path, capsys):
    rows = [("user", "item", "rating"), (1, 2, 3), (10**6, 2, 3), (1, 3, 3), (2, 2, 4)]
    source = write_table(tmp_path / "r.csv", rows)
    assert "unknown  25.00%" in shown(capsys, "evaluate", folder / "model.npz", source)


# predict


def test_predict(folder, tmp_path, capsys):
    pairs = [(5, 7), (1, 2), (5, 8)]
    rows = [("note", "item", "user"), *(("x", item, user) for user, item in pairs)]
    source = write_table(tmp_path / "pairs.csv", rows)
    path = tmp_path / "out.csv"
    out = shown(capsys, "predict", folder / "model.npz", source, "-o", path)
    assert "Wrote 3 predictions" in out
    rows = csv_rows(path.read_text())
    assert [(int(row["user"]), int(row["item"])) for row in rows] == pairs
    users, items = np.array(pairs).T
    expected = funksvd.load(folder / "model.npz").predict((users, items))
    np.testing.assert_allclose([float(row["prediction"]) for row in rows], expected, rtol=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "pairs.csv"]
    assert shown(capsys, "predict", folder / "model.npz", source) == path.read_text()


def test_predict_without_header_or_with_ratings(folder, tmp_path, capsys):
    two = write_table(tmp_path / "two.txt", [(5, 7), (1, 2)], sep="::")
    rows = [("userId", "movieId", "rating"), (5, 7, 1), (1, 2, 1)]
    three = write_table(tmp_path / "three.csv", rows)
    outputs = [shown(capsys, "predict", folder / "model.npz", source) for source in (two, three)]
    assert outputs[0] == outputs[1]
    assert outputs[0].count("\n") == 3


def test_predict_unknown(folder, tmp_path, capsys):
    source = write_table(tmp_path / "pairs.csv", [("user", "item"), (5, 7), (10**6, 7)])
    argv = ["predict", folder / "model.npz", source]
    assert run(*argv) == 0
    captured = capsys.readouterr()
    assert "funksvd: warning: 50.0%" in captured.err
    assert captured.out.count("\n") == 3
    assert shown(capsys, *argv, "--unknown", "nan").endswith(",nan\n")
    lines, _ = out_json(capsys, *argv, "--unknown", "nan")
    expected = funksvd.load(folder / "model.npz").predict(([5], [7]))
    assert lines[0]["prediction"] == float(expected[0])
    assert lines[1] == {"user": 10**6, "item": 7, "prediction": None}
    assert "unknown" in fails(capsys, *argv, "--unknown", "raise")


def test_predict_lines_that_cannot_be_used(folder, tmp_path, capsys):
    source = write_table(tmp_path / "pairs.csv", [("user", "item"), (5, 7), (5,), (1, 2)])
    argv = ["predict", folder / "model.npz", source]
    assert "line 3" in fails(capsys, *argv)
    assert run(*argv, "--on-bad-lines", "skip") == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 3
    assert "left out" in captured.err


def test_pairs_in_a_line_of_too_many_fields_are_bad(folder, tmp_path, capsys):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user,item\n1,2\n1,2,3\n")
    error = fails(capsys, "predict", folder / "model.npz", pairs)
    assert "1 of 2 pairs" in error
    assert "the first in line 3: '1,2,3'" in error


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", [], "is empty"),
        ("user\n1\n", [], "--sep"),
        ("user,item\n", [], "no pairs"),
        ("user,item\n1,2\n", ["--user", "usr"], "did you mean 'user'"),
        ("user,item\n1,2\n", ["--user", "4"], "out of range"),
        ("user,item\n1,2\n", ["--user", "item"], "both column 1"),
        ("user,item\n1,2\nx,2\n", [], "user id 'x' is not a plain whole number"),
        (f"user,item\n1,2\n{10**30},2\n", [], "is not a plain whole number"),
        ("PAR1", [], "Parquet"),
    ],
)
def test_predict_errors(folder, tmp_path, capsys, text, options, message):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(text)
    out = tmp_path / "out.csv"
    assert message in fails(capsys, "predict", folder / "model.npz", pairs, "-o", out, *options)
    assert not out.exists()


def test_number_ids_of_a_file_fit_a_model_with_text_ids(tmp_path, capsys):
    rows = [(user or "x", item or "y", rating) for user, item, rating in made_rows()]
    source = write_table(tmp_path / "mixed.csv", [("user", "item", "rating"), *rows])
    model = tmp_path / "m.npz"
    run("train", source, "-o", model, *SMALL)
    part = write_table(tmp_path / "part.csv", [("user", "item", "rating"), (5, 7, 3), (1, 2, 3)])
    assert "unknown  0.00%" in shown(capsys, "evaluate", model, part)
    assert run("predict", model, part) == 0
    assert run("recommend", model, "--user", "5", "--exclude", part) == 0


# recommend


@pytest.mark.parametrize(
    ("model", "prefix", "ratings"), [("model", "", "ratings.csv"), ("words", "u", "words.tsv")]
)
def test_recommend(folder, capsys, model, prefix, ratings):
    path = folder / f"{model}.npz"
    argv = ["recommend", path, "--user", f"{prefix}5", "-n", 6]
    rows = csv_rows(shown(capsys, *argv))
    user = f"{prefix}5" if prefix else 5
    items, scores = funksvd.load(path).recommend(user, n=6)
    assert [row["item"] for row in rows] == [str(item) for item in items]
    np.testing.assert_allclose([float(row["score"]) for row in rows], scores, atol=1e-4)

    rows = csv_rows(shown(capsys, *argv, "--exclude", folder / ratings))
    rated = {f"i{item}" if prefix else str(item) for user, item, _ in made_rows() if user == 5}
    assert rows
    assert not rated & {row["item"] for row in rows}


@pytest.mark.parametrize("name", ["item_id", "id", "movieId"])
def test_recommend_with_titles(folder, tmp_path, capsys, name):
    rows = [("genre", name, "title"), *(("x", i, f'"Film, the {i}th"') for i in range(40))]
    titles = write_table(tmp_path / "titles.csv", rows)
    argv = ["recommend", folder / "model.npz", "--user", 5, "--titles", titles]
    rows = csv_rows(shown(capsys, *argv))
    assert len(rows) == 10
    assert all(row["title"] == f"Film, the {row['item']}th" for row in rows)


def test_recommend_errors(folder, tmp_path, capsys):
    number = folder / "model.npz"
    words = folder / "words.npz"
    assert "nearest id is 59" in fails(capsys, "recommend", number, "--user", "77")
    assert "not a plain whole number" in fails(capsys, "recommend", number, "--user", "u5")
    assert "nearest id is u5" in fails(capsys, "recommend", words, "--user", "uu5")
    assert "-n must be 1 or more" in fails(capsys, "recommend", number, "--user", "5", "-n", "0")
    titles = write_table(tmp_path / "titles.csv", [("item_id", "words"), (1, "x")])
    error = fails(capsys, "recommend", number, "--user", "5", "--titles", titles)
    assert "a column title" in error


@pytest.mark.parametrize("user", ["01", "1_0", " 1"])
def test_a_user_is_written_as_in_files(folder, capsys, user):
    error = fails(capsys, "recommend", folder / "model.npz", "--user", user)
    assert "not a plain whole number" in error


def test_recommend_to_several_and_to_all(folder, tmp_path, capsys):
    model = funksvd.load(folder / "model.npz")
    seen = funksvd.Ratings.read(folder / "ratings.csv")
    argv = ["recommend", folder / "model.npz", "-n", 3, "--exclude", folder / "ratings.csv"]
    some = csv_rows(shown(capsys, *argv, "--user", 5, "--user", 7))
    assert [row["user"] for row in some] == ["5"] * 3 + ["7"] * 3
    path = tmp_path / "all.csv"
    assert "Wrote recommendations for 60 users" in shown(capsys, *argv, "--all", "-o", path)
    rows = csv_rows(path.read_text())
    assert [row for row in rows if row["user"] in ("5", "7")] == some
    for user in model.user_ids_.tolist():
        items, scores = model.recommend(user, n=3, exclude=seen)
        found = [row for row in rows if row["user"] == str(user)]
        assert [int(row["item"]) for row in found] == items.tolist()
        np.testing.assert_allclose([float(row["score"]) for row in found], scores, atol=1e-4)
    lines, _ = out_json(capsys, *argv, "--all")
    assert [line["user"] for line in lines] == model.user_ids_.tolist()
    recommended = [entry["item"] for line in lines for entry in line["recommendations"]]
    assert recommended == [int(row["item"]) for row in rows]
    with pytest.raises(SystemExit):
        run(*argv, "--all", "--user", "5")


# similar


def test_similar_items(folder, tmp_path, capsys):
    model = funksvd.load(folder / "words.npz")
    rows = [("id", "title"), *((f"i{i}", f"Film {i}") for i in range(40))]
    titles = write_table(tmp_path / "titles.csv", rows)
    argv = ["similar", folder / "words.npz", "--item", "i3", "-n", 4, "--titles", titles]
    rows = csv_rows(shown(capsys, *argv))
    factors = model.item_factors_ / np.linalg.norm(model.item_factors_, axis=1, keepdims=True)
    cosine = factors @ factors[model.item_ids_.tolist().index("i3")]
    best = [item for item in model.item_ids_[np.argsort(-cosine)].tolist() if item != "i3"][:4]
    assert [row["item"] for row in rows] == best
    assert [row["title"] for row in rows] == [f"Film {item[1:]}" for item in best]


def test_similar_users(folder, capsys):
    argv = ["similar", folder / "words.npz", "--user", "u3", "-n", 2, "--measure", "dot"]
    [found], _ = out_json(capsys, *argv)
    ids, scores = funksvd.load(folder / "words.npz").similar_users("u3", 2, "dot")
    similar = [
        {"user": user, "similarity": score}
        for user, score in zip(ids.tolist(), scores.tolist(), strict=True)
    ]
    assert found == {"user": "u3", "measure": "dot", "similar": similar}


def test_similar_errors(folder, capsys):
    error = fails(capsys, "similar", folder / "words.npz", "--item", "i77")
    assert "--item i77: the model has not seen this item" in error


# fold-in


def test_fold_in(folder, tmp_path, capsys):
    before = funksvd.load(folder / "model.npz")
    known = before.item_ids_[:20].tolist()
    rows = [("user", "item", "rating"), *((1000, item, 1 + item % 5) for item in known)]
    new = write_table(tmp_path / "new.csv", rows)
    out = tmp_path / "more.npz"
    argv = ["fold-in", folder / "model.npz", new, "-o", out]
    [folded], _ = out_json(capsys, *argv)
    assert folded == {"model": str(out), "folded_in": 1, "new": 1, "ratings": 20}
    after = funksvd.load(out)
    assert after.user_ids_.tolist() == [*before.user_ids_.tolist(), 1000]
    assert np.array_equal(after.item_factors_, before.item_factors_)
    expected = before.fold_in(funksvd.Ratings.read(new))
    assert np.array_equal(after.user_factors_, expected.user_factors_)
    assert "Folded in 1 user, 1 of them new, from 20 ratings." in shown(capsys, *argv)
