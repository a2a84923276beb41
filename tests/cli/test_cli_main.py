"""The command `funksvd` as a whole: help, exit codes, streams, and files that it must not lose."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_checks import fails, run, write_table

import funksvd
from funksvd import cli

pytest_plugins = ["command_files"]

COMMANDS = [
    "split",
    "train",
    "evaluate",
    "compare",
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


def test_help_lists_every_command_on_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("  COMMAND") + 1
    listed = [line.split(maxsplit=1) for line in lines[start : start + len(COMMANDS)]]
    assert [command for command, _ in listed] == COMMANDS


def test_module_and_version():
    done = subprocess.run(
        [sys.executable, "-m", "funksvd", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"funksvd {funksvd.__version__}\n"


def test_no_command_is_a_usage_error():
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("argv", "suggestion"),
    [
        (["evalute", "m.npz", "r.csv"], "did you mean evaluate?"),
        (["train", "r.csv", "--n-factor", "3"], "did you mean --n-factors?"),
        (["train", "r.csv", "--n-factor=3"], "did you mean --n-factors?"),
        (["predict", "m.npz", "p.csv", "--unknown", "nann"], "did you mean nan?"),
        (["split", "r.csv", "--zzz"], None),
        (["zzz"], None),
    ],
)
def test_a_name_that_is_nearly_right_leads_to_the_right_one(argv, suggestion, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    if suggestion is None:
        assert "did you mean" not in last
    else:
        assert last.endswith(suggestion)


def test_no_command_writes_over_its_input(folder, tmp_path, capsys):
    ratings = tmp_path / "ratings.csv"
    model = tmp_path / "model.npz"
    shutil.copy(folder / "ratings.csv", ratings)
    shutil.copy(folder / "model.npz", model)
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
    assert run("fold-in", model, ratings, "-o", model) == 0  # an update in place


@pytest.mark.parametrize("command", ["info", "evaluate", "predict", "recommend"])
def test_a_file_that_is_no_model(command, tmp_path, capsys):
    path = tmp_path / "ratings.npz"
    path.write_text("user,item,rating\n1,2,3\n")
    rest = {"info": [], "recommend": ["--user", "1"]}.get(command, [path])
    assert str(path) in fails(capsys, command, path, *rest)
    assert "missing.npz" in fails(capsys, command, tmp_path / "missing.npz", *rest)


def test_standard_output_may_be_closed(folder):
    code = (
        "import sys; sys.stdout = None; from funksvd import cli;"
        " sys.exit(cli.main(['info', sys.argv[1]]))"
    )
    assert subprocess.run([sys.executable, "-c", code, folder / "model.npz"]).returncode == 0


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
