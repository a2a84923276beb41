"""The command ``funksvd``: its options, messages and exit status. What its commands do stands in `commands`.

`main` returns the exit status: 0, 2 after an error (told in one line on standard error), 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from contextlib import contextmanager

from funksvd.cli.convert import convert
from funksvd.cli.demo import run
from funksvd.cli.evaluate import evaluate
from funksvd.cli.fold_in import fold_in
from funksvd.cli.info import info
from funksvd.cli.options import (
    add_command,
    add_file_options,
    add_json,
    add_model,
    add_parameters,
    add_titles,
    default_parameters,
    number,
)
from funksvd.cli.plot import plot
from funksvd.cli.predict import predict
from funksvd.cli.recommend import recommend
from funksvd.cli.similar import similar
from funksvd.cli.train import train
from funksvd.cli.tune import tune
from funksvd.version import __version__

__all__ = ["main"]

_EPILOG = """\
a first session:
  funksvd train ratings.csv -o movies.npz            learn from user,item,rating lines
  funksvd evaluate movies.npz held_out.csv           how far off are its predictions?
  funksvd recommend movies.npz --user 42 --exclude ratings.csv --titles movies.csv
  funksvd recommend movies.npz --all --exclude ratings.csv -o recommendations.csv
  funksvd similar movies.npz --item 50 --titles movies.csv
  funksvd tune ratings.csv                           are other parameters better?
  funksvd fold-in movies.npz new_users.csv -o movies.npz

funksvd COMMAND --help explains a command; funksvd demo needs no file.
Results go to standard output, as JSON with --json; messages and progress bars go to standard error where results or
JSON take the output. Exit status: 0 done, 1 the reader of a pipe left, 2 an error, 130 Ctrl-C.
"""


def main(argv=None):
    """Run one command and return its exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before the start
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    args = _parser().parse_args(argv)
    try:
        with _plain_warnings():
            status = args.run(args)
            sys.stdout.flush()  # here, where a closed pipe is still caught
    except BrokenPipeError:
        # The reader has left (`| head`). What is still in the buffer must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, ImportError, ArithmeticError, RuntimeError) as error:
        print(f"funksvd: error: {_in_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("funksvd: interrupted, nothing was saved", file=sys.stderr)
        return 130
    return status or 0


@contextmanager
def _plain_warnings():
    """Show warnings for users, such as skipped lines, without source code."""

    def show(message, category, filename, lineno, file=None, line=None):
        print(f"funksvd: warning: {_in_one_line(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


def _in_one_line(error):
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    # The library speaks of arguments where the user of this command has options.
    text = re.sub(r"\b(user|item|rating)=(?=['\"\d])", r"--\1-column ", text)
    text = re.sub(r"\b(user|item|rating)=(?!\w)", r"--\1-column", text)
    text = re.sub(r"\bon_bad_lines='(\w+)'", r"--on-bad-lines \1", text)
    text = re.sub(r"\bunknown='(\w+)'", r"--unknown \1", text)
    text = re.sub(r"\bsep=(?!\w)", "--sep", text)
    return " ".join(text.split()) or type(error).__name__


# Options
def _parser():
    parser = argparse.ArgumentParser(
        prog="funksvd",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Funk's SVD of ratings: train, evaluate and use a model.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"funksvd {__version__}")
    added = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = add_command(
        added,
        "train",
        train,
        "train a model on a file of ratings",
        """
        Read ratings from delimited text (also gzipped) or Parquet, train a model on them and save it. A part of the
        ratings is held out; training ends when the error on that part has stopped improving, and the model of the
        best epoch is saved. Ctrl-C ends training and saves what has been learned, with exit status 130.
        """,
        "funksvd train ratings.csv -o movies.npz --n-factors 32 --rating-scale 1 5",
    )
    command.add_argument("file", metavar="FILE", help="ratings, one a line: user, item, rating")
    command.add_argument(
        "-o",
        "--output",
        metavar="MODEL",
        default="funksvd-model.npz",
        help="file for the model (default: funksvd-model.npz)",
    )
    add_file_options(command)
    command.add_argument(
        "--validation-split",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the ratings to hold out; 0 holds out none and trains all epochs (default: 0.1)",
    )
    command.add_argument(
        "--patience",
        type=int,
        default=3,
        metavar="EPOCHS",
        help="epochs without improvement after which training ends (default: 3)",
    )
    command.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="keep the state of the training there after each epoch (default: none, or --resume FILE)",
    )
    command.add_argument(
        "--resume",
        metavar="FILE",
        help="go on from such a file, with the same ratings and options; --epochs may be more",
    )
    add_parameters(command)
    add_json(command)

    command = add_command(
        added,
        "evaluate",
        evaluate,
        "measure a model's error on a file of ratings",
        """
        Print a model's root mean squared error (RMSE) and mean absolute error (MAE) on the ratings of a file, and the
        share of them whose user or item the model has not seen in training.
        """,
        "funksvd evaluate movies.npz held_out.csv",
    )
    add_model(command)
    command.add_argument("file", metavar="FILE", help="ratings, one a line: user, item, rating")
    add_file_options(command)
    add_json(command)

    command = add_command(
        added,
        "predict",
        predict,
        "predict a rating for each user and item of a file",
        """
        Predict a rating for each pair of user and item in a file, and write them as CSV with the columns user, item and
        prediction, in the order of the file. Other columns of the file are ignored.
        """,
        "funksvd predict movies.npz pairs.csv -o predictions.csv",
    )
    add_model(command)
    command.add_argument("file", metavar="FILE", help="pairs, one a line: user, item")
    command.add_argument(
        "-o", "--output", metavar="CSV", help="file to write (default: standard output)"
    )
    command.add_argument(
        "--unknown",
        choices=("mean", "nan", "raise"),
        default="mean",
        help="for users and items not seen in training: predict what is known without them, "
        "write nan, or fail (default: mean)",
    )
    add_file_options(command, columns=("user", "item"))
    add_json(command, "a line of JSON for each pair")

    command = add_command(
        added,
        "recommend",
        recommend,
        "list the items with the highest predictions for users",
        """
        Print the items with the highest predicted ratings, best first, for some users or for all. With --exclude, items
        that a user has rated in that file are left out: a model does not keep its training ratings.
        """,
        "funksvd recommend movies.npz --user 42 -n 10 --exclude ratings.csv --titles movies.csv",
        "funksvd recommend movies.npz --all --exclude ratings.csv -o recommendations.csv",
    )
    add_model(command)
    whom = command.add_mutually_exclusive_group(required=True)
    whom.add_argument(
        "--user",
        metavar="ID",
        action="append",
        help="whom to recommend to; may be given several times",
    )
    whom.add_argument("--all", action="store_true", help="recommend to every user of the model")
    command.add_argument(
        "-n", type=int, default=10, metavar="ITEMS", help="how many items a user (default: 10)"
    )
    command.add_argument(
        "--exclude", metavar="FILE", help="ratings whose items not to recommend again"
    )
    add_titles(command)
    command.add_argument(
        "-o", "--output", metavar="CSV", help="file to write (default: standard output)"
    )
    add_file_options(command, short=False)
    add_json(command, "a line of JSON for each user")

    command = add_command(
        added,
        "similar",
        similar,
        "list the items (or users) that are most like one",
        """
        Print the items whose factors are most like those of one item, or the users most like one user. Cosine compares
        what kind of item it is; dot also counts how strongly people feel about it.
        """,
        "funksvd similar movies.npz --item 50 --titles movies.csv",
    )
    add_model(command)
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--item", metavar="ID", help="item to compare with")
    which.add_argument("--user", metavar="ID", help="user to compare with")
    command.add_argument("-n", type=int, default=10, metavar="N", help="how many (default: 10)")
    command.add_argument(
        "--measure", choices=("cosine", "dot"), default="cosine", help="(default: cosine)"
    )
    add_titles(command)
    add_json(command)

    command = add_command(
        added,
        "fold-in",
        fold_in,
        "add users or items to a model without training it again",
        """
        Compute factors for the users of a file of ratings, given the items that the model knows, and save a model that
        knows these users, too. Nothing else of the model changes. A user that it knows already gets new factors from
        the ratings in the file alone, so the file should hold all ratings of such a user.
        """,
        "funksvd fold-in movies.npz new_users.csv -o movies.npz",
    )
    add_model(command)
    command.add_argument(
        "file", metavar="FILE", help="ratings of new users, one a line: user, item, rating"
    )
    command.add_argument(
        "-o", "--output", metavar="MODEL", required=True, help="file for the extended model"
    )
    command.add_argument(
        "--side",
        choices=("users", "items"),
        default="users",
        help="what to fold in: users, or items given the users that the model knows (default: users)",
    )
    add_file_options(command)
    add_json(command)

    command = add_command(
        added,
        "tune",
        tune,
        "search for better parameters by cross-validation",
        """
        Train every setting of a small grid on each fold of the ratings, stop each fit when its error on the part held
        out has stopped improving, and print a table, the best setting first. The number of epochs needs no place in the
        grid. The table is a little optimistic: measure the winner on ratings that the search has not seen.
        """,
        "funksvd tune ratings.csv --grid n_factors=32,64,128 --grid l2=0.04,0.08 --folds 3 -o movies.npz",
    )
    command.add_argument("file", metavar="FILE", help="ratings, one a line: user, item, rating")
    command.add_argument(
        "--grid",
        metavar="NAME=V,V",
        action="append",
        help="values of a parameter to try; may be given several times "
        "(default: twelve settings of n_factors, l2 and learning_rate)",
    )
    command.add_argument(
        "--folds", type=int, default=3, metavar="N", help="parts, each held out once (default: 3)"
    )
    command.add_argument(
        "--patience",
        type=int,
        default=3,
        metavar="EPOCHS",
        help="epochs without improvement after which a fit ends (default: 3)",
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="MODEL",
        help="train on all ratings with the best setting and save it",
    )
    add_file_options(command)
    add_parameters(command)
    add_json(command, "the settings as JSON")

    command = add_command(
        added,
        "plot",
        plot,
        "draw a model: its learning curve, errors or factors",
        """
        Draw one picture; needs matplotlib. learning-curve: RMSE of each epoch. predictions: predicted against actual
        ratings of --ratings. popularity: RMSE on --ratings by how many ratings an item (or user) has in --train. map:
        items in the plane of their factors, with --titles. spectrum: how much each direction of the factors adds.
        """,
        "funksvd plot map movies.npz --titles movies.csv --ratings ratings.csv -o map.png",
    )
    command.add_argument(
        "kind",
        choices=("learning-curve", "predictions", "popularity", "map", "spectrum"),
        metavar="KIND",
        help="learning-curve, predictions, popularity, map or spectrum",
    )
    add_model(command)
    command.add_argument(
        "-o", "--output", metavar="IMAGE", help="png, svg or pdf (default: KIND.png)"
    )
    command.add_argument(
        "--ratings",
        metavar="FILE",
        help="ratings to measure on; for map, the items with most of these",
    )
    command.add_argument(
        "--train", metavar="FILE", help="ratings that the model was trained on, to count"
    )
    command.add_argument(
        "--by", choices=("item", "user"), default="item", help="whose popularity (default: item)"
    )
    add_titles(command)
    add_file_options(command, short=False)
    add_json(command)

    command = add_command(
        added,
        "convert",
        convert,
        "change the format of a model or of ratings",
        """
        Write a model as npz or safetensors, or ratings as CSV or Parquet (which reads several times faster); the end of
        the output's name says which.
        """,
        "funksvd convert movies.npz movies.safetensors",
        "funksvd convert ratings.csv ratings.parquet",
    )
    command.add_argument("file", metavar="FILE", help="a model, or ratings")
    command.add_argument(
        "output", metavar="OUTPUT", help="file to write: .npz, .safetensors; .csv, .parquet"
    )
    add_file_options(command)
    add_json(command)

    command = add_command(
        added,
        "info",
        info,
        "describe a model file, or this installation",
        """
        Print what a model file holds: sizes, parameters, epochs and the errors of the last one. Without a file, print
        what this installation of funksvd runs on.
        """,
        "funksvd info movies.npz",
    )
    command.add_argument("model", metavar="MODEL", nargs="?", help="file written by funksvd train")
    add_json(command)

    command = add_command(
        added,
        "demo",
        run,
        "train on made-up ratings whose best possible error is known",
        """
        Make a million ratings from a planted model plus noise, in the shape of MovieLens 1M, train on nine tenths of
        them and compare the error on the last tenth with the best possible one. Needs no file and no network, takes a
        few seconds, and writes a model and, with matplotlib, a picture of the learning curve beside it.
        """,
        "funksvd demo",
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="MODEL",
        default="funksvd-demo.npz",
        help="file for the model (default: funksvd-demo.npz)",
    )
    command.add_argument(
        "--n-jobs",
        type=number,
        default=default_parameters()["n_jobs"],
        metavar="THREADS",
        help=f"threads; -1 is all cores (default: {default_parameters()['n_jobs']})",
    )
    return parser
