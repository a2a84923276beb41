"""The command line, end to end on small files."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import funksvd
from funksvd import cli, datasets

SMALL = ["--n-factors", "4", "--n-epochs", "4", "--n-jobs", "1"]


def write_table(path, rows, sep=","):
    path.write_text("".join(sep.join(map(str, row)) + "\n" for row in rows))
    return str(path)


def made(n_users=60, n_items=40, n_ratings=900):
    data = datasets.make_ratings(n_users, n_items, n_ratings, rank=2)
    return list(
        zip(
            data.users.tolist(),
            data.items.tolist(),
            np.round(data.ratings, 2).tolist(),
            strict=True,
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ratings.csv with a header and number ids, model.npz trained on it, words.npz with text ids."""
    folder = tmp_path_factory.mktemp("cli")
    rows = made()
    write_table(folder / "ratings.csv", [("user_id", "item_id", "rating"), *rows])
    write_table(folder / "words.tsv", [(f"u{u}", f"i{i}", r) for u, i, r in rows], sep="\t")
    for source, model in (("ratings.csv", "model.npz"), ("words.tsv", "words.npz")):
        assert cli.main(["train", str(folder / source), "-o", str(folder / model), *SMALL]) == 0
    return folder


def fails(capsys, *argv):
    """The error line of a command that must exit with 2 and say one line only."""
    capsys.readouterr()
    assert cli.main([str(arg) for arg in argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("funksvd: error: ")
    assert error.count("\n") == 1
    return error


def test_train_tells_what_it_did(folder, tmp_path, capsys):
    path = tmp_path / "m.npz"
    assert cli.main(["train", str(folder / "ratings.csv"), "-o", str(path), *SMALL]) == 0
    out = capsys.readouterr().out
    assert "Read 900 ratings by 60 users of 39 items" in out
    assert out.count("\nepoch ") == 4
    model = funksvd.load(path)
    best = min(model.history_["val_rmse"])
    assert f"validation RMSE {best:.4f} on the 10% of the ratings held out" in out
    assert f"Saved the model to {path}" in out


def test_same_seed_by_default(folder, tmp_path):
    path = tmp_path / "m.npz"
    cli.main(["train", str(folder / "ratings.csv"), "-o", str(path), *SMALL])
    assert path.read_bytes() == (folder / "model.npz").read_bytes()


def test_every_parameter_is_an_option(folder, tmp_path):
    path = tmp_path / "m.npz"
    cli.main(
        [
            "train",
            str(folder / "ratings.csv"),
            "-o",
            str(path),
            "--n-factors",
            "3",
            "--epochs",
            "2",
            "--solver",
            "sgd",
            "--learning-rate",
            "0.01",
            "--learning-rate-schedule",
            "inverse_time",
            "--learning-rate-decay",
            "0",
            "--l2",
            "0.1,0.3",
            "--l2-bias",
            "0.2",
            "--no-biased",
            "--init-std",
            "0.3",
            "--rating-scale",
            "1",
            "5",
            "--n-jobs",
            "1",
            "--device",
            "cpu",
            "--dtype",
            "float64",
            "--random-state",
            "7",
            "--validation-split",
            "0",
            "--no-center",
            "--reg-scale",
            "row",
            "--training",
            "joint",
            "--batch-size",
            "1",
            "--shuffle",
            "--momentum",
            "0",
            "--beta-1",
            "0.9",
            "--beta-2",
            "0.999",
            "--epsilon",
            "1e-7",
            "--initial-accumulator-value",
            "0.1",
            "--l1",
            "0",
            "--l1-bias",
            "0,0",
            "--no-non-negative",
            "--min-improvement",
            "1e-4",
        ]
    )
    model = funksvd.load(path)
    params = model.get_params()
    assert params["rating_scale"] is not None
    assert tuple(params["rating_scale"]) == (1, 5)
    expected = {
        "n_factors": 3,
        "n_epochs": 2,
        "learning_rate": 0.01,
        "learning_rate_decay": 0,
        "learning_rate_schedule": "inverse_time",
        "l2": [0.1, 0.3],
        "l2_bias": 0.2,
        "l1_bias": [0, 0],
        "center": False,
        "reg_scale": "row",
        "biased": False,
        "init_std": 0.3,
        "dtype": "float64",
        "random_state": 7,
    }
    assert {name: params[name] for name in expected} == expected
    assert model.user_factors_.dtype == np.float64
    assert "val_rmse" not in model.history_


def test_training_goes_on_from_a_checkpoint(folder, tmp_path, capsys):
    def train(name, *options):
        status = cli.main(
            [
                "train",
                str(folder / "ratings.csv"),
                "-o",
                str(tmp_path / name),
                "--n-factors",
                "3",
                *map(str, options),
            ]
        )
        assert status == 0, capsys.readouterr().err
        return (tmp_path / name).read_bytes()

    whole = train("whole.npz", "--epochs", 9)
    train("short.npz", "--epochs", 4, "--checkpoint", tmp_path / "state.npz")
    assert train("long.npz", "--epochs", 9, "--resume", tmp_path / "state.npz") == whole
    assert funksvd.load(tmp_path / "state.npz").n_epochs_ == 9
    error = fails(
        capsys,
        "train",
        folder / "ratings.csv",
        "-o",
        tmp_path / "m.npz",
        "--epochs",
        "9",
        "--resume",
        tmp_path / "state.npz",
    )
    assert "cannot be resumed: n_factors is 3 there, 100 here" in error
    assert "does not exist" in fails(
        capsys, "train", "no.csv", "--checkpoint", tmp_path / "no" / "c.npz"
    )


@pytest.mark.parametrize("name", [n for n in funksvd.FunkSVD().get_params() if n != "verbose"])
def test_parameter_has_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert f"--{name.replace('_', '-')}" in out
    assert "see FunkSVD" not in out


COMMANDS = [
    "train",
    "evaluate",
    "predict",
    "recommend",
    "similar",
    "fold-in",
    "tune",
    "plot",
    "convert",
    "info",
    "demo",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"Example: funksvd {command}" in capsys.readouterr().out


def test_output_is_checked_before_the_file_is_read(tmp_path, capsys):
    assert "does not exist" in fails(
        capsys, "train", "no-such-file.csv", "-o", tmp_path / "no" / "m.npz"
    )
    assert "is a directory" in fails(capsys, "train", "no-such-file.csv", "-o", tmp_path)
    assert "regular file" in fails(capsys, "train", "no-such-file.csv", "-o", os.devnull)
    assert "no-such-file.csv" in fails(
        capsys, "train", "no-such-file.csv", "-o", tmp_path / "m.npz"
    )


def test_a_name_that_cannot_be_written_is_found_before_the_file_is_read(tmp_path, capsys):
    assert "is empty" in fails(capsys, "train", "no-such-file.csv", "-o", "")
    assert "too long" in fails(capsys, "train", "no-such-file.csv", "-o", tmp_path / ("m" * 300))
    if os.path.isdir("/proc/self"):
        assert "not writable" in fails(capsys, "train", "no-such-file.csv", "-o", "/proc/m.npz")


def test_no_command_writes_over_what_it_reads(folder, tmp_path, capsys):
    ratings, model = str(tmp_path / "ratings.csv"), str(tmp_path / "model.npz")
    for source, path in (("ratings.csv", ratings), ("model.npz", model)):
        shutil.copy(folder / source, path)
    before = [Path(path).read_bytes() for path in (ratings, model)]
    for argv in (
        ["train", ratings, "-o", ratings],
        ["train", ratings, "-o", tmp_path / "new.npz", "--checkpoint", ratings],
        ["predict", model, ratings, "-o", model],
        ["predict", model, ratings, "-o", ratings],
        ["recommend", model, "--all", "--exclude", ratings, "-o", ratings],
        ["recommend", model, "--user", "1", "-o", model],
        ["fold-in", model, ratings, "-o", ratings],
        ["tune", ratings, "-o", ratings],
        ["convert", model, model],
        ["plot", "map", model, "-o", model],
    ):
        assert "would be replaced" in fails(capsys, *argv)
    assert [Path(path).read_bytes() for path in (ratings, model)] == before
    assert cli.main(["fold-in", model, ratings, "-o", model]) == 0  # an update in place


def test_pairs_in_a_line_of_too_many_fields_are_bad(folder, tmp_path, capsys):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user,item\n1,2\n1,2,3\n")
    error = fails(capsys, "predict", folder / "model.npz", pairs)
    assert "1 of 2 pairs" in error
    assert "the first in line 3: '1,2,3'" in error


def test_an_interrupted_demo_says_so(tmp_path, capsys, monkeypatch):
    def interrupt(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(funksvd.EarlyStopping, "on_epoch_begin", interrupt)
    assert cli.main(["demo", "-o", str(tmp_path / "demo.npz")]) == 130
    assert "Stopped by Ctrl-C after 1 epoch" in capsys.readouterr().out
    assert funksvd.load(tmp_path / "demo.npz").n_epochs_ == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_in_words(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file but a pipe" in fails(
        capsys, "train", tmp_path / "pipe", "-o", tmp_path / "m.npz"
    )


def test_standard_output_may_be_closed(folder):
    code = "import sys; sys.stdout = None; from funksvd import cli; sys.exit(cli.main(['info', sys.argv[1]]))"
    assert subprocess.run([sys.executable, "-c", code, folder / "model.npz"]).returncode == 0


@pytest.mark.parametrize("user", ["01", "1_0", " 1"])
def test_a_user_is_written_as_in_files(folder, capsys, user):
    assert "not a plain whole number" in fails(
        capsys, "recommend", folder / "model.npz", "--user", user
    )


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_directory_without_permission(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "not writable" in fails(capsys, "train", "no-such-file.csv", "-o", tmp_path / "m.npz")


def test_parameters_are_checked_before_the_file_is_read(tmp_path, capsys):
    options = ["-o", tmp_path / "m.npz", "--learning-rate", "-1"]
    assert "learning_rate" in fails(capsys, "train", "no-such-file.csv", *options)


def test_divergence_is_one_line(folder, tmp_path, capsys):
    path = tmp_path / "m.npz"
    error = fails(
        capsys, "train", folder / "ratings.csv", "-o", path, *SMALL, "--learning-rate", "1e6"
    )
    assert "lower learning_rate" in error
    assert not path.exists()


def test_wrong_column_names_the_option(folder, tmp_path, capsys):
    error = fails(
        capsys, "train", folder / "ratings.csv", "-o", tmp_path / "m.npz", "--user", "usr_id"
    )
    assert "--user-column 'usr_id'" in error
    assert "did you mean 'user_id'" in error


def test_columns_separator_and_header(folder, tmp_path):
    rows = [(r, "x", i, u) for u, i, r in made()]
    plain = write_table(tmp_path / "plain.txt", rows, sep="|")
    named = write_table(tmp_path / "named.txt", [("r", "x", "i", "u"), *rows], sep="|")
    reference = (folder / "model.npz").read_bytes()
    for source, columns in (
        (plain, ("3", "2", "0", "--no-header")),
        (named, ("u", "i", "r", "--header")),
    ):
        user, item, rating, header = columns
        path = tmp_path / "m.npz"
        assert (
            cli.main(
                [
                    "train",
                    source,
                    "-o",
                    str(path),
                    "--user",
                    user,
                    "--item",
                    item,
                    "--rating",
                    rating,
                    header,
                    "--sep",
                    "|",
                    *SMALL,
                ]
            )
            == 0
        )
        assert path.read_bytes() == reference


def test_bad_lines(tmp_path, capsys):
    source = write_table(
        tmp_path / "bad.csv", [("user", "item", "rating"), *made(), ("1", "2", "many")]
    )
    options = ["train", source, "-o", tmp_path / "m.npz", *SMALL]
    assert "--on-bad-lines skip" in fails(capsys, *options)
    assert cli.main([*map(str, options), "--on-bad-lines", "skip"]) == 0
    captured = capsys.readouterr()
    assert "Read 900 ratings" in captured.out
    assert captured.err.startswith("funksvd: warning: ")


def test_evaluate(folder, capsys):
    assert cli.main(["evaluate", str(folder / "model.npz"), str(folder / "ratings.csv")]) == 0
    out = capsys.readouterr().out
    model = funksvd.load(folder / "model.npz")
    scores = model.evaluate(funksvd.Ratings.read(folder / "ratings.csv"))
    assert f"RMSE     {scores['rmse']:.4f}" in out
    assert f"MAE      {scores['mae']:.4f}" in out
    assert "ratings  900" in out
    assert "unknown  0.00%" in out


def test_evaluate_counts_unknown_ids(folder, tmp_path, capsys):
    source = write_table(
        tmp_path / "r.csv",
        [("user", "item", "rating"), (1, 2, 3), (10**6, 2, 3), (1, 3, 3), (2, 2, 4)],
    )
    assert cli.main(["evaluate", str(folder / "model.npz"), source]) == 0
    assert "unknown  25.00%" in capsys.readouterr().out


def test_predict(folder, tmp_path, capsys):
    pairs = [(5, 7), (1, 2), (5, 8)]
    source = write_table(
        tmp_path / "pairs.csv", [("note", "item", "user"), *(("x", i, u) for u, i in pairs)]
    )
    out = tmp_path / "out.csv"
    assert cli.main(["predict", str(folder / "model.npz"), source, "-o", str(out)]) == 0
    assert "Wrote 3 predictions" in capsys.readouterr().out
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["user"]), int(row["item"])) for row in rows] == pairs
    users, items = (np.array(ids) for ids in zip(*pairs, strict=True))
    expected = funksvd.load(folder / "model.npz").predict((users, items))
    np.testing.assert_allclose([float(row["prediction"]) for row in rows], expected, rtol=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "pairs.csv"]

    assert cli.main(["predict", str(folder / "model.npz"), source]) == 0
    assert capsys.readouterr().out == out.read_text()


def test_predict_without_header_or_with_ratings(folder, tmp_path, capsys):
    two = write_table(tmp_path / "two.txt", [(5, 7), (1, 2)], sep="::")
    three = write_table(
        tmp_path / "three.csv", [("userId", "movieId", "rating"), (5, 7, 1), (1, 2, 1)]
    )
    outputs = []
    for source in (two, three):
        assert cli.main(["predict", str(folder / "model.npz"), source]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0].count("\n") == 3


def test_predict_unknown(folder, tmp_path, capsys):
    source = write_table(tmp_path / "pairs.csv", [("user", "item"), (5, 7), (10**6, 7)])
    argv = ["predict", str(folder / "model.npz"), source]
    assert cli.main(argv) == 0
    captured = capsys.readouterr()
    assert "funksvd: warning: 50.0%" in captured.err
    assert captured.out.count("\n") == 3
    assert cli.main([*argv, "--unknown", "nan"]) == 0
    assert capsys.readouterr().out.endswith(",nan\n")
    assert "unknown" in fails(capsys, *argv, "--unknown", "raise")


def test_predict_lines_that_cannot_be_used(folder, tmp_path, capsys):
    source = write_table(tmp_path / "pairs.csv", [("user", "item"), (5, 7), (5,), (1, 2)])
    argv = ["predict", str(folder / "model.npz"), source]
    assert "line 3" in fails(capsys, *argv)
    assert cli.main([*argv, "--on-bad-lines", "skip"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 3
    assert "left out" in captured.err


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
        ("PAR1", [], "Parquet"),
    ],
)
def test_predict_errors(folder, tmp_path, capsys, text, options, message):
    (tmp_path / "pairs.csv").write_text(text)
    out = tmp_path / "out.csv"
    assert message in fails(
        capsys, "predict", folder / "model.npz", tmp_path / "pairs.csv", "-o", out, *options
    )
    assert not out.exists()


def test_number_ids_of_a_file_fit_a_model_with_text_ids(tmp_path, capsys):
    rows = [(u or "x", i or "y", r) for u, i, r in made()]
    source = write_table(tmp_path / "mixed.csv", [("user", "item", "rating"), *rows])
    model = str(tmp_path / "m.npz")
    cli.main(["train", source, "-o", model, *SMALL])
    part = write_table(tmp_path / "part.csv", [("user", "item", "rating"), (5, 7, 3), (1, 2, 3)])
    capsys.readouterr()
    assert cli.main(["evaluate", model, part]) == 0
    assert "unknown  0.00%" in capsys.readouterr().out
    assert cli.main(["predict", model, part]) == 0
    assert cli.main(["recommend", model, "--user", "5", "--exclude", part]) == 0


@pytest.mark.parametrize(
    ("model", "prefix", "ratings"), [("model", "", "ratings.csv"), ("words", "u", "words.tsv")]
)
def test_recommend(folder, capsys, model, prefix, ratings):
    path = folder / f"{model}.npz"
    argv = ["recommend", str(path), "--user", f"{prefix}5", "-n", "6"]
    assert cli.main(argv) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    user = f"{prefix}5" if prefix else 5
    items, scores = funksvd.load(path).recommend(user, n=6)
    assert [row["item"] for row in rows] == [str(item) for item in items]
    np.testing.assert_allclose([float(row["score"]) for row in rows], scores, atol=1e-4)

    assert cli.main([*argv, "--exclude", str(folder / ratings)]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    rated = {f"i{i}" if prefix else str(i) for u, i, _ in made() if u == 5}
    assert rows
    assert not rated & {row["item"] for row in rows}


@pytest.mark.parametrize("name", ["item_id", "id", "movieId"])
def test_recommend_with_titles(folder, tmp_path, capsys, name):
    rows = [("genre", name, "title"), *(("x", i, f'"Film, the {i}th"') for i in range(40))]
    titles = write_table(tmp_path / "titles.csv", rows)
    assert (
        cli.main(["recommend", str(folder / "model.npz"), "--user", "5", "--titles", titles]) == 0
    )
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 10
    assert all(row["title"] == f"Film, the {row['item']}th" for row in rows)


def test_recommend_errors(folder, tmp_path, capsys):
    number, words = folder / "model.npz", folder / "words.npz"
    assert "nearest id is 59" in fails(capsys, "recommend", number, "--user", "77")
    assert "not a plain whole number" in fails(capsys, "recommend", number, "--user", "u5")
    assert "nearest id is u5" in fails(capsys, "recommend", words, "--user", "uu5")
    assert "-n must be 1 or more" in fails(capsys, "recommend", number, "--user", "5", "-n", "0")
    titles = write_table(tmp_path / "titles.csv", [("item_id", "words"), (1, "x")])
    assert "a column title" in fails(capsys, "recommend", number, "--user", "5", "--titles", titles)


def out_json(capsys, *argv):
    """The JSON lines of a command, and what it says on standard error."""
    capsys.readouterr()
    assert cli.main([*map(str, argv), "--json"]) == 0
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_recommend_to_several_and_to_all(folder, tmp_path, capsys):
    model = funksvd.load(folder / "model.npz")
    seen = funksvd.Ratings.read(folder / "ratings.csv")
    argv = [
        "recommend",
        str(folder / "model.npz"),
        "-n",
        "3",
        "--exclude",
        str(folder / "ratings.csv"),
    ]
    assert cli.main([*argv, "--user", "5", "--user", "7"]) == 0
    some = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["user"] for row in some] == ["5"] * 3 + ["7"] * 3
    path = tmp_path / "all.csv"
    assert cli.main([*argv, "--all", "-o", str(path)]) == 0
    assert "Wrote recommendations for 60 users" in capsys.readouterr().out
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row for row in rows if row["user"] in ("5", "7")] == some
    for user in model.user_ids_.tolist():
        items, scores = model.recommend(user, n=3, exclude=seen)
        found = [row for row in rows if row["user"] == str(user)]
        assert [int(row["item"]) for row in found] == items.tolist()
        np.testing.assert_allclose([float(row["score"]) for row in found], scores, atol=1e-4)
    lines, _ = out_json(capsys, *argv, "--all")
    assert [line["user"] for line in lines] == model.user_ids_.tolist()
    assert [entry["item"] for line in lines for entry in line["recommendations"]] == [
        int(row["item"]) for row in rows
    ]
    with pytest.raises(SystemExit):
        cli.main([*argv, "--all", "--user", "5"])


def test_json_of_every_command(folder, tmp_path, capsys):
    model, ratings = folder / "model.npz", folder / "ratings.csv"
    [trained], err = out_json(capsys, "train", ratings, "-o", tmp_path / "m.npz", *SMALL)
    loaded = funksvd.load(tmp_path / "m.npz")
    assert trained["val_rmse"] == min(loaded.history_["val_rmse"])
    assert trained["users"] == 60
    assert "epoch 4/4" in err
    [scores], _ = out_json(capsys, "evaluate", model, ratings)
    assert scores == funksvd.load(model).evaluate(funksvd.Ratings.read(ratings))
    pairs = write_table(tmp_path / "pairs.csv", [("user", "item"), (5, 7), (10**6, 7)])
    lines, _ = out_json(capsys, "predict", model, pairs, "--unknown", "nan")
    assert lines[1] == {"user": 10**6, "item": 7, "prediction": None}
    assert lines[0]["prediction"] == float(funksvd.load(model).predict(([5], [7]))[0])
    [described], _ = out_json(capsys, "info", model)
    assert described["parameters"]["n_factors"] == 4
    assert described["bytes"] == model.stat().st_size
    [installed], _ = out_json(capsys, "info")
    assert installed["funksvd"] == funksvd.__version__


def test_similar(folder, tmp_path, capsys):
    model = funksvd.load(folder / "words.npz")
    titles = write_table(
        tmp_path / "titles.csv", [("id", "title"), *((f"i{i}", f"Film {i}") for i in range(40))]
    )
    assert (
        cli.main(
            ["similar", str(folder / "words.npz"), "--item", "i3", "-n", "4", "--titles", titles]
        )
        == 0
    )
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    factors = model.item_factors_ / np.linalg.norm(model.item_factors_, axis=1, keepdims=True)
    cosine = factors @ factors[model.item_ids_.tolist().index("i3")]
    best = [item for item in model.item_ids_[np.argsort(-cosine)].tolist() if item != "i3"][:4]
    assert [row["item"] for row in rows] == best
    assert [row["title"] for row in rows] == [f"Film {item[1:]}" for item in best]
    [found], _ = out_json(
        capsys, "similar", folder / "words.npz", "--user", "u3", "-n", "2", "--measure", "dot"
    )
    ids, scores = model.similar_users("u3", 2, "dot")
    assert found == {
        "user": "u3",
        "measure": "dot",
        "similar": [
            {"user": a, "similarity": b} for a, b in zip(ids.tolist(), scores.tolist(), strict=True)
        ],
    }
    assert "--item i77: the model has not seen this item" in fails(
        capsys, "similar", folder / "words.npz", "--item", "i77"
    )


def test_fold_in(folder, tmp_path, capsys):
    known = funksvd.load(folder / "model.npz").item_ids_[:20].tolist()
    new = write_table(
        tmp_path / "new.csv", [("user", "item", "rating"), *((1000, i, 1 + i % 5) for i in known)]
    )
    out = tmp_path / "more.npz"
    argv = ["fold-in", folder / "model.npz", new, "-o", out]
    [said], _ = out_json(capsys, *argv)
    assert said == {"model": str(out), "folded_in": 1, "new": 1, "ratings": 20}
    before, after = funksvd.load(folder / "model.npz"), funksvd.load(out)
    assert after.user_ids_.tolist() == [*before.user_ids_.tolist(), 1000]
    assert np.array_equal(after.item_factors_, before.item_factors_)
    expected = before.fold_in(funksvd.Ratings.read(new))
    assert np.array_equal(after.user_factors_, expected.user_factors_)
    assert cli.main([*map(str, argv)]) == 0
    assert "Folded in 1 user, 1 of them new, from 20 ratings." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "searched"),
    [
        ([], {"n_factors", "l2", "learning_rate"}),
        (["--solver", "adagrad"], {"n_factors", "l2"}),
        (["--solver", "gibbs"], {"n_factors"}),
    ],
)
def test_the_grid_of_tune_suits_the_solver(folder, capsys, options, searched):
    [settings], _ = out_json(
        capsys, "tune", folder / "ratings.csv", "--folds", 2, "--epochs", 2, *options
    )
    assert all(set(setting["parameters"]) == searched for setting in settings)


def test_tune_of_features_says_how_many(folder, capsys):
    options = [
        "--training",
        "featurewise",
        "--n-factors",
        "3",
        "--grid",
        "l2=0.02,0.1",
        "--folds",
        "2",
        "--epochs",
        "9",
    ]
    assert cli.main(["tune", str(folder / "ratings.csv"), *options]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert re.search(r"--l2 \S+ --n-factors [123]$", told)


def test_tune(folder, tmp_path, capsys):
    grid = [
        "--grid",
        "n-factors=1,3",
        "--grid",
        "l2=0.02,0.5",
        "--folds",
        "2",
        "--n-jobs",
        "1",
        "--n-epochs",
        "5",
    ]
    [settings], _ = out_json(capsys, "tune", folder / "ratings.csv", *grid)
    assert sorted((s["parameters"]["n_factors"], s["parameters"]["l2"]) for s in settings) == [
        (1, 0.02),
        (1, 0.5),
        (3, 0.02),
        (3, 0.5),
    ]
    assert [s["rmse"] for s in settings] == sorted(s["rmse"] for s in settings)
    # What the table says is what fits on the folds give.
    best = settings[0]
    errors = []
    for train, held_out in funksvd.Ratings.read(folder / "ratings.csv").folds(2, 0):
        model = funksvd.FunkSVD(n_epochs=5, random_state=0, **best["parameters"])
        errors.append(min(model.fit(train, validation_data=held_out).history_["val_rmse"]))
    assert best["rmse"] == pytest.approx(np.mean(errors))
    assert best["sd"] == pytest.approx(np.std(errors))

    path = tmp_path / "best.npz"
    assert cli.main(["tune", str(folder / "ratings.csv"), *grid, "-o", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"{best['rmse']:.4f}" in out.splitlines()[2]
    assert funksvd.load(path).l2 == best["parameters"]["l2"]
    assert cli.main(["tune", str(folder / "ratings.csv"), *grid]) == 0
    command = capsys.readouterr().out.splitlines()[-1]
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
        ("n_factors=0,3", "n_factors must be None or an int >= 1, got 0"),
        ("l2=much", "l2 must be a finite number"),
    ],
)
def test_grid_is_checked_before_the_file_is_read(capsys, grid, message):
    assert message in fails(capsys, "tune", "no-such-file.csv", "--grid", grid)


def test_folds_part_the_ratings_in_any_order(folder):
    users, items, values = datasets.read_ratings(folder / "ratings.csv")
    order = np.random.default_rng(0).permutation(len(values))

    def triples(ratings):
        rows = zip(
            ratings.user_ids[ratings.users].tolist(),
            ratings.item_ids[ratings.items].tolist(),
            ratings.values.tolist(),
            strict=True,
        )
        return sorted(rows)

    found = []
    for a, b in zip(
        funksvd.Ratings.from_arrays(users, items, values).folds(3, 1),
        funksvd.Ratings.from_arrays(users[order], items[order], values[order]).folds(3, 1),
        strict=True,
    ):
        assert [triples(part) for part in a] == [triples(part) for part in b]
        assert len(a[1]) == 300
        found += triples(a[1])
    assert sorted(found) == sorted(
        zip(users.tolist(), items.tolist(), values.tolist(), strict=True)
    )
    with pytest.raises(
        ValueError, match="n_folds must be from 2 to half of the 900 ratings, got 1"
    ):
        next(funksvd.Ratings.from_arrays(users, items, values).folds(1))


@pytest.mark.parametrize("kind", ["learning-curve", "predictions", "popularity", "map", "spectrum"])
def test_plot(folder, tmp_path, capsys, kind):
    pytest.importorskip("matplotlib")
    options = ["--ratings", folder / "ratings.csv", "--train", folder / "ratings.csv"]
    path = tmp_path / "p.svg"
    assert cli.main([*map(str, ["plot", kind, folder / "model.npz", "-o", path, *options])]) == 0
    assert capsys.readouterr().out == f"Drew {path}.\n"
    assert "<svg" in path.read_text()


def test_plot_errors(folder, capsys, monkeypatch):
    assert "funksvd plot predictions needs --ratings" in fails(
        capsys, "plot", "predictions", folder / "model.npz"
    )
    assert "funksvd plot popularity needs --train" in fails(
        capsys, "plot", "popularity", folder / "model.npz", "--ratings", folder / "ratings.csv"
    )
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    assert 'pip install "funksvd[plots]"' in fails(capsys, "plot", "spectrum", folder / "model.npz")


def test_convert_models(folder, tmp_path, capsys):
    there, back = tmp_path / "m.safetensors", tmp_path / "m.npz"
    assert cli.main(["convert", str(folder / "words.npz"), str(there)]) == 0
    assert f"Wrote the model to {there}" in capsys.readouterr().out
    assert cli.main(["convert", str(there), str(back)]) == 0
    assert back.read_bytes() == (folder / "words.npz").read_bytes()


def test_convert_ratings(folder, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    parquet, text = tmp_path / "r.parquet", tmp_path / "r.csv"
    assert cli.main(["convert", str(folder / "words.tsv"), str(parquet)]) == 0
    assert cli.main(["convert", str(parquet), str(text)]) == 0
    assert "Wrote 900 ratings" in capsys.readouterr().out
    for path in (parquet, text):
        for found, expected in zip(
            datasets.read_ratings(path), datasets.read_ratings(folder / "words.tsv"), strict=True
        ):
            assert found.tolist() == expected.tolist()
    assert "must end in .csv or .parquet" in fails(
        capsys, "convert", folder / "words.tsv", tmp_path / "m.npz"
    )
    assert "must end in .npz or .safetensors" in fails(
        capsys, "convert", folder / "model.npz", tmp_path / "m.csv"
    )


def test_convert_to_parquet_without_pyarrow(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    argv = "convert", folder / "words.tsv", tmp_path / "r.parquet"
    assert 'pip install "funksvd[frames]"' in fails(capsys, *argv)


def test_info(folder, capsys):
    path = folder / "model.npz"
    assert cli.main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"{path.stat().st_size:,} bytes" in out
    assert "users   60 (ids are whole numbers, 0 to 59)" in out
    assert "n_factors = 4" in out
    assert "val_rmse" in out


def test_info_of_the_installation(capsys):
    assert cli.main(["info"]) == 0
    assert funksvd.show_config().strip() in capsys.readouterr().out


@pytest.mark.parametrize("command", [["info"], ["evaluate"], ["predict"], ["recommend"]])
def test_not_a_model(command, tmp_path, capsys):
    path = tmp_path / "ratings.npz"
    path.write_text("user,item,rating\n1,2,3\n")
    rest = {"info": [], "recommend": ["--user", "1"]}.get(command[0], [path])
    assert str(path) in fails(capsys, *command, path, *rest)
    assert "missing.npz" in fails(capsys, *command, tmp_path / "missing.npz", *rest)


def test_demo(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    small = datasets.make_ratings(300, 200, 8000, rank=2)
    monkeypatch.setattr("funksvd.cli.demo.make_ratings", lambda: small)
    path = tmp_path / "demo.npz"
    assert cli.main(["demo", "-o", str(path), "--n-jobs", "1"]) == 0
    out = capsys.readouterr().out
    biases, model, floor = (
        float(out.split(f"  {what}")[0].split()[-1])
        for what in ("biases only", "this model", "the noise floor")
    )
    # The planted model is the lower bound for any model; the rest is in the tests of accuracy.
    assert floor < min(model, biases)
    assert floor == pytest.approx(np.std((small.ratings - small.truth)[7200:]), abs=2e-3)
    assert out.count("  item ") == 10
    assert funksvd.load(path).n_factors == funksvd.FunkSVD().n_factors
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_without_matplotlib(tmp_path, monkeypatch, capsys):
    small = datasets.make_ratings(300, 200, 8000, rank=2)
    monkeypatch.setattr("funksvd.cli.demo.make_ratings", lambda: small)
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["demo", "-o", str(tmp_path / "demo.npz")]) == 0
    assert "pip install" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["demo.npz"]


def interrupt_after(epochs):
    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == epochs:
            raise KeyboardInterrupt

    return on_epoch_end


def test_interrupted_between_epochs(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(funksvd.EarlyStopping, "on_epoch_begin", interrupt_after(3))
    path = tmp_path / "m.npz"
    assert cli.main(["train", str(folder / "ratings.csv"), "-o", str(path), *SMALL]) == 130
    out = capsys.readouterr().out
    assert "Stopped by Ctrl-C after 2 epochs" in out
    assert funksvd.load(path).n_epochs_ == 2


def test_interrupted_before_the_first_epoch(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(funksvd.EarlyStopping, "on_epoch_begin", interrupt_after(1))
    path = tmp_path / "m.npz"
    assert cli.main(["train", str(folder / "ratings.csv"), "-o", str(path), *SMALL]) == 130
    assert "nothing was saved" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to a single process on Windows")
def test_ctrl_c_in_a_process(folder, tmp_path):
    path = tmp_path / "m.npz"
    command = [
        sys.executable,
        "-m",
        "funksvd",
        "train",
        folder / "ratings.csv",
        "-o",
        path,
        "--n-epochs",
        "1000000",
        "--patience",
        "1000000",
        "--n-jobs",
        "1",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Stopped by Ctrl-C" in out
    assert "Traceback" not in err
    assert len(funksvd.load(path).user_ids_) == 60


def test_module_and_version():
    done = subprocess.run(
        [sys.executable, "-m", "funksvd", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"funksvd {funksvd.__version__}\n"


def test_no_command_is_a_usage_error():
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 2


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise on Windows")
def test_broken_pipe_is_quiet(folder, tmp_path):
    pairs = write_table(tmp_path / "pairs.csv", [("user", "item"), *[(5, 7)] * 50_000])
    command = [sys.executable, "-m", "funksvd", "predict", folder / "model.npz", pairs]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=20)
    assert err == ""
    assert process.returncode == 1
