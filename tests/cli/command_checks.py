"""What the tests of the commands share: small files, and ways to run a command."""

from __future__ import annotations

import json

import numpy as np

from funksvd import cli, datasets

SMALL = ["--n-factors", "4", "--n-epochs", "4", "--n-jobs", "1"]


def write_table(path, rows, sep=","):
    """Write rows as text; return the path as text."""
    path.write_text("".join(sep.join(map(str, row)) + "\n" for row in rows))
    return str(path)


def made_rows(n_users=60, n_items=40, n_ratings=900):
    """Return made-up (user, item, rating) rows."""
    data = datasets.make_ratings(n_users, n_items, n_ratings, rank=2)
    ratings = np.round(data.ratings, 2).tolist()
    return list(zip(data.users.tolist(), data.items.tolist(), ratings, strict=True))


def run(*argv):
    """Run a command; return its exit code."""
    return cli.main([str(arg) for arg in argv])


def shown(capsys, *argv):
    """Return the standard output of a command that succeeds."""
    capsys.readouterr()
    assert run(*argv) == 0
    return capsys.readouterr().out


def fails(capsys, *argv):
    """Return the error of a command that must exit with 2 and print one line."""
    capsys.readouterr()
    assert run(*argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("funksvd: error: ")
    assert error.count("\n") == 1
    return error


def out_json(capsys, *argv):
    """Return the JSON lines of a command, and its standard error."""
    capsys.readouterr()
    assert run(*argv, "--json") == 0
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err
