"""The commands that write pictures, other formats and descriptions: plot, convert, info, demo."""

import os
import sys

import numpy as np
import pytest
from command_checks import fails, out_json, run, shown

import funksvd
from funksvd import datasets

pytest_plugins = ["command_files"]


def without_matplotlib(monkeypatch):
    """Make the parts of matplotlib that are used not importable."""
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)


# plot


@pytest.mark.parametrize("kind", ["learning-curve", "predictions", "popularity", "map", "spectrum"])
def test_plot(folder, tmp_path, capsys, kind):
    pytest.importorskip("matplotlib")
    ratings = folder / "ratings.csv"
    path = tmp_path / "p.svg"
    argv = [
        "plot",
        kind,
        folder / "model.npz",
        "-o",
        path,
        "--ratings",
        ratings,
        "--train",
        ratings,
    ]
    assert shown(capsys, *argv) == f"Drew {path}.\n"
    assert "<svg" in path.read_text()


def test_plot_errors(folder, capsys, monkeypatch):
    model = folder / "model.npz"
    error = fails(capsys, "plot", "predictions", model)
    assert "funksvd plot predictions needs --ratings" in error
    error = fails(capsys, "plot", "popularity", model, "--ratings", folder / "ratings.csv")
    assert "funksvd plot popularity needs --train" in error
    without_matplotlib(monkeypatch)
    assert 'pip install "funksvd[plots]"' in fails(capsys, "plot", "spectrum", model)


# convert


def test_convert_models(folder, tmp_path, capsys):
    there = tmp_path / "m.safetensors"
    back = tmp_path / "m.npz"
    out = shown(capsys, "convert", folder / "words.npz", there)
    assert f"Wrote the model to {there}" in out
    assert run("convert", there, back) == 0
    assert back.read_bytes() == (folder / "words.npz").read_bytes()


def test_convert_ratings(folder, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    source = folder / "words.tsv"
    parquet = tmp_path / "r.parquet"
    text = tmp_path / "r.csv"
    assert run("convert", source, parquet) == 0
    assert "Wrote 900 ratings" in shown(capsys, "convert", parquet, text)
    expected = [column.tolist() for column in datasets.read_ratings(source)]
    for path in (parquet, text):
        assert [column.tolist() for column in datasets.read_ratings(path)] == expected


def test_convert_needs_the_right_name(folder, tmp_path, capsys):
    error = fails(capsys, "convert", folder / "words.tsv", tmp_path / "m.npz")
    assert "must end in .csv or .parquet" in error
    error = fails(capsys, "convert", folder / "model.npz", tmp_path / "m.csv")
    assert "must end in .npz or .safetensors" in error


def test_convert_to_parquet_without_pyarrow(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    error = fails(capsys, "convert", folder / "words.tsv", tmp_path / "r.parquet")
    assert 'pip install "funksvd[frames]"' in error


# info


def test_info(folder, capsys):
    path = folder / "model.npz"
    out = shown(capsys, "info", path)
    assert f"{path.stat().st_size:,} bytes" in out
    assert "users   60 (ids are whole numbers, 0 to 59)" in out
    assert "n_factors = 4" in out
    assert "val_rmse" in out
    [described], _ = out_json(capsys, "info", path)
    assert described["parameters"]["n_factors"] == 4
    assert described["bytes"] == path.stat().st_size


def test_info_of_the_installation(capsys):
    assert funksvd.show_config().strip() in shown(capsys, "info")
    [installed], _ = out_json(capsys, "info")
    assert installed["funksvd"] == funksvd.__version__


# demo


@pytest.fixture
def small_demo(monkeypatch):
    """Make the demo small; return its ratings."""
    small = datasets.make_ratings(300, 200, 8000, rank=2)
    monkeypatch.setattr("funksvd.cli.demo.make_ratings", lambda: small)
    return small


def test_demo(small_demo, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "demo.npz"
    out = shown(capsys, "demo", "-o", path, "--n-jobs", 1)
    biases, model, floor = (
        float(out.split(f"  {name}")[0].split()[-1])
        for name in ("biases only", "this model", "the noise floor")
    )
    # The planted model is the lower bound of any model; the tests of accuracy hold the rest.
    assert floor < min(model, biases)
    noise = small_demo.ratings - small_demo.truth
    assert floor == pytest.approx(np.std(noise[7200:]), abs=2e-3)
    assert out.count("  item ") == 10
    assert funksvd.load(path).n_factors == funksvd.FunkSVD().n_factors
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_without_matplotlib(small_demo, tmp_path, monkeypatch, capsys):
    without_matplotlib(monkeypatch)
    assert "pip install" in shown(capsys, "demo", "-o", tmp_path / "demo.npz")
    assert os.listdir(tmp_path) == ["demo.npz"]


def test_an_interrupted_demo_says_so(small_demo, tmp_path, capsys, monkeypatch):
    def interrupt(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(funksvd.EarlyStopping, "on_epoch_begin", interrupt)
    assert run("demo", "-o", tmp_path / "demo.npz") == 130
    assert "Stopped by Ctrl-C after 1 epoch" in capsys.readouterr().out
    assert funksvd.load(tmp_path / "demo.npz").n_epochs_ == 1
