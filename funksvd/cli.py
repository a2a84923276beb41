"""The command ``funksvd``: train, evaluate, predict, recommend, info and demo.

`main` returns the exit status: 0, 2 after an error (told in one line on standard error), 130 after Ctrl-C.
"""

import argparse
import csv
import difflib
import inspect
import os
import re
import sys
import time
import warnings
from contextlib import contextmanager

import numpy as np

import funksvd
from funksvd import EarlyStopping, FunkSVD, Ratings, datasets, load, show_config
from funksvd.files import replacing

__all__ = ["main"]

_COLUMNS = ("user", "item", "rating")
_PARAMETER_HELP = {
    "n_factors": "factors of each user and item",
    "n_epochs": "passes over the ratings, at most",
    "learning_rate": "step size of the first epoch",
    "learning_rate_decay": "how the step size shrinks from epoch to epoch",
    "l2": "L2 regularization of the factors",
    "l2_bias": "L2 regularization of the biases",
    "biased": "learn a bias for each user and item",
    "solver": "update rule",
    "init_std": "standard deviation of the initial factors",
    "rating_scale": "lowest and highest rating; predictions are clipped to them",
    "n_jobs": "threads; -1 is all cores",
    "device": "where to train",
    "dtype": "precision of the factors",
    "random_state": "seed: the same seed gives the same model",
}


def main(argv=None):
    """Run one command and return its exit status."""
    args = _parser().parse_args(argv)
    try:
        with _plain_warnings():
            status = args.run(args)
            sys.stdout.flush()  # here, where a closed pipe is still caught
    except BrokenPipeError:
        # The reader has left (`| head`). What is still in the buffer must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, ImportError, ArithmeticError) as error:
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
    text = re.sub(r"\bsep=(?!\w)", "--sep", text)
    return " ".join(text.split()) or type(error).__name__


# Options


def _parser():
    parser = argparse.ArgumentParser(
        prog="funksvd", description="Funk's SVD of ratings: train, evaluate and use a model.",
        epilog="funksvd COMMAND --help explains a command. funksvd demo needs no file.",
    )
    parser.add_argument("--version", action="version", version=f"funksvd {funksvd.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = _add_command(
        commands, "train", _train, "train a model on a file of ratings",
        """
        Read ratings from delimited text (also gzipped) or Parquet, train a model on them and save it. A part of the
        ratings is held out; training ends when the error on that part has stopped improving, and the model of the
        best epoch is saved. Ctrl-C ends training and saves what has been learned, with exit status 130.
        """,
        "funksvd train ratings.csv -o movies.npz --n-factors 32 --rating-scale 1 5",
    )
    command.add_argument("file", metavar="FILE", help="ratings, one a line: user, item, rating")
    command.add_argument("-o", "--output", metavar="MODEL", default="funksvd-model.npz",
                         help="file for the model (default: funksvd-model.npz)")
    _add_file_options(command)
    command.add_argument("--validation-split", type=float, default=0.1, metavar="SHARE",
                         help="share of the ratings to hold out; 0 holds out none and trains all epochs (default: 0.1)")
    command.add_argument("--patience", type=int, default=3, metavar="EPOCHS",
                         help="epochs without improvement after which training ends (default: 3)")
    _add_parameters(command)

    command = _add_command(
        commands, "evaluate", _evaluate, "measure a model's error on a file of ratings",
        """
        Print a model's root mean squared error (RMSE) and mean absolute error (MAE) on the ratings of a file, and the
        share of them whose user or item the model has not seen in training.
        """,
        "funksvd evaluate movies.npz held_out.csv",
    )
    _add_model(command)
    command.add_argument("file", metavar="FILE", help="ratings, one a line: user, item, rating")
    _add_file_options(command)

    command = _add_command(
        commands, "predict", _predict, "predict a rating for each user and item of a file",
        """
        Predict a rating for each pair of user and item in a file, and write them as CSV with the columns user, item and
        prediction, in the order of the file. Other columns of the file are ignored.
        """,
        "funksvd predict movies.npz pairs.csv -o predictions.csv",
    )
    _add_model(command)
    command.add_argument("file", metavar="FILE", help="pairs, one a line: user, item")
    command.add_argument("-o", "--output", metavar="CSV", help="file to write (default: standard output)")
    command.add_argument("--unknown", choices=("mean", "nan", "raise"), default="mean",
                         help="for users and items not seen in training: predict what is known without them, "
                         "write nan, or fail (default: mean)")
    _add_file_options(command, columns=("user", "item"))

    command = _add_command(
        commands, "recommend", _recommend, "list the items with the highest predictions for one user",
        """
        Print the items with the highest predicted ratings for one user, best first. With --exclude, items that the
        user has rated in that file are left out. A model does not keep its training ratings.
        """,
        "funksvd recommend movies.npz --user 42 -n 10 --exclude ratings.csv --titles movies.csv",
    )
    _add_model(command)
    command.add_argument("--user", metavar="ID", required=True, help="whom to recommend to")
    command.add_argument("-n", type=int, default=10, metavar="ITEMS", help="how many items (default: 10)")
    command.add_argument("--exclude", metavar="FILE", help="ratings whose items not to recommend again")
    command.add_argument("--titles", metavar="CSV", help="table with a column item_id or id and a column title")
    _add_file_options(command, short=False)

    command = _add_command(
        commands, "info", _info, "describe a model file, or this installation",
        """
        Print what a model file holds: sizes, parameters, epochs and the errors of the last one. Without a file, print
        what this installation of funksvd runs on.
        """,
        "funksvd info movies.npz",
    )
    command.add_argument("model", metavar="MODEL", nargs="?", help="file written by funksvd train")

    command = _add_command(
        commands, "demo", _demo, "train on made-up ratings whose best possible error is known",
        """
        Make a million ratings from a planted model plus noise, in the shape of MovieLens 1M, train on nine tenths of
        them and compare the error on the last tenth with the best possible one. Needs no file and no network, takes a
        few seconds, and writes a model and, with matplotlib, a picture of the learning curve beside it.
        """,
        "funksvd demo",
    )
    command.add_argument("-o", "--output", metavar="MODEL", default="funksvd-demo.npz",
                         help="file for the model (default: funksvd-demo.npz)")
    command.add_argument("--n-jobs", type=_number, default=_defaults()["n_jobs"], metavar="THREADS",
                         help=f"threads; -1 is all cores (default: {_defaults()['n_jobs']})")
    return parser


def _add_command(commands, name, run, summary, description, example):
    command = commands.add_parser(name, help=summary, description=" ".join(description.split()),
                                  epilog=f"Example: {example}", allow_abbrev=False)
    command.set_defaults(run=run)
    return command


def _add_model(command):
    command.add_argument("model", metavar="MODEL", help="file written by funksvd train")


def _add_file_options(command, columns=_COLUMNS, short=True):
    group = command.add_argument_group("how FILE is read")
    for name in columns:
        flags = [f"--{name}", f"--{name}-column"] if short else [f"--{name}-column"]
        group.add_argument(*flags, dest=f"{name}_column", type=_column, metavar="COLUMN",
                           help=f"name of the {name} column, or its position from 0 (default: found by its name)")
    group.add_argument("--sep", type=_separator, help=r"what separates fields, such as , or :: or \t (default: found)")
    group.add_argument("--header", action=argparse.BooleanOptionalAction,
                       help="whether the first line holds column names (default: found)")
    group.add_argument("--on-bad-lines", choices=("raise", "skip"), default="raise",
                       help="fail at a line that cannot be used, or leave it out with a warning (default: raise)")


def _add_parameters(command):
    """One option for each parameter of `FunkSVD`; their values are checked there."""
    group = command.add_argument_group("model parameters")
    for name, default in _defaults().items():
        flags = [f"--{name.replace('_', '-')}"] + (["--epochs"] if name == "n_epochs" else [])
        about = _PARAMETER_HELP.get(name, "see FunkSVD")
        options = {"dest": name, "default": default, "help": f"{about} (default: {default})"}
        if isinstance(default, bool):
            options["action"] = argparse.BooleanOptionalAction
        elif name == "rating_scale":
            options.update(nargs=2, type=float, metavar=("LOW", "HIGH"))
        else:
            options.update(type=str if isinstance(default, str) else _number, metavar="N" if type(default) is int else "X")
        group.add_argument(*flags, **options)


def _defaults():
    parameters = inspect.signature(FunkSVD).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters if parameter.name != "verbose"}
    return defaults | {"random_state": 0}


def _number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None if text == "None" else text


def _column(text):
    return int(text) if text.isdecimal() else text


def _separator(text):
    return text.replace("\\t", "\t")


# Commands


def _train(args):
    _check_output(args.output)
    parameters = {name: getattr(args, name) for name in _defaults()}
    if args.rating_scale is not None:
        parameters["rating_scale"] = tuple(args.rating_scale)
    model = FunkSVD(**parameters)
    stopping = EarlyStopping("val_loss", patience=args.patience)
    model._check_params()  # before a large file is read
    start = time.perf_counter()
    ratings = Ratings.from_arrays(*_read(args, args.file))
    _say(f"Read {len(ratings):,} ratings by {_count(ratings.n_users, 'user')} of {_count(ratings.n_items, 'item')} "
         f"from {args.file} in {time.perf_counter() - start:.1f} s.")

    validated = args.validation_split != 0
    model.fit(ratings, validation_split=args.validation_split, callbacks=[stopping] if validated else [], verbose=2)
    if model.interrupted_:
        _say(f"Stopped by Ctrl-C after {_count(model.n_epochs_, 'epoch')}; saving what was learned.")
    if validated:
        best = stopping.best_epoch
        _say(f"Best epoch {best + 1}: validation RMSE {model.history_['val_rmse'][best]:.4f} on the "
             f"{args.validation_split:.0%} of the ratings held out; its weights are kept.")
    else:
        _say(f"Training RMSE {model.history_['rmse'][-1]:.4f} in the last epoch; nothing was held out.")
    _save(model, args.output)
    return 130 if model.interrupted_ else 0


def _evaluate(args):
    model = load(args.model)
    scores = model.evaluate(Ratings.from_arrays(*_typed(model, args.file, *_read(args, args.file))))
    print(f"RMSE     {scores['rmse']:.4f}  root mean squared error")
    print(f"MAE      {scores['mae']:.4f}  mean absolute error")
    print(f"ratings  {scores['n']:,}")
    print(f"unknown  {scores['unknown']:.2%}  of them have a user or an item not seen in training")


def _predict(args):
    if args.output is not None:
        _check_output(args.output)
    model = load(args.model)
    pairs = datasets.read_pairs(args.file, user=args.user_column, item=args.item_column, sep=args.sep, header=args.header,
                                on_bad_lines=args.on_bad_lines)
    users, items = _typed(model, args.file, *pairs)
    predictions = model.predict((users, items), unknown=args.unknown)
    rows = zip(users.tolist(), items.tolist(), map("{:.6g}".format, predictions.tolist()), strict=True)
    if args.output is None:
        _write_csv(sys.stdout, rows)
        return
    with replacing(args.output, "w", newline="", encoding="utf-8") as file:
        _write_csv(file, rows)
    _say(f"Wrote {len(predictions):,} predictions to {args.output}.")


def _recommend(args):
    if args.n < 1:
        raise ValueError(f"-n must be 1 or more, got {args.n}")
    model = load(args.model)
    user = _known_user(model, args.user)
    titles = datasets.read_titles(args.titles) if args.titles else {}
    seen = None
    if args.exclude:
        seen = Ratings.from_arrays(*_typed(model, args.exclude, *_read(args, args.exclude)))
    items, scores = model.recommend(user, n=args.n, exclude=seen)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["item", "score"] + (["title"] if titles else []))
    for item, score in zip(items.tolist(), scores.tolist(), strict=True):
        writer.writerow([item, f"{score:.4f}"] + ([titles.get(str(item), "")] if titles else []))


def _info(args):
    if args.model is None:
        print(f"funksvd {funksvd.__version__}, Python {sys.version.split()[0]}, numpy {np.__version__}")
        print(show_config())
        return
    model = load(args.model)
    n_factors = model.user_factors_.shape[1]
    print(f"{args.model}: {os.path.getsize(args.model):,} bytes")
    for side, ids in {"users": model.user_ids_, "items": model.item_ids_}.items():
        kind = "whole numbers" if ids.dtype.kind in "iu" else "text"
        print(f"  {side:<8}{len(ids):,} (ids are {kind}, {ids[0]} to {ids[-1]})")
    print(f"  factors {n_factors} of dtype {model.user_factors_.dtype}")
    print(f"  mean    {model.global_mean_:.4f}")
    print(f"  epochs  {model.n_epochs_}")
    print("parameters")
    for name, value in model.get_params().items():
        print(f"  {name} = {value!r}")
    last = {name: values[-1] for name, values in model.history_.items() if len(values)}
    if last:
        print("last epoch of training")
        for name, value in last.items():
            print(f"  {name:<14}{value:.6g}")


def _demo(args):
    _check_output(args.output)
    start = time.perf_counter()
    made = datasets.make_ratings()
    n_train = len(made.ratings) * 9 // 10  # they are in random order
    train = Ratings.from_arrays(made.users[:n_train], made.items[:n_train], made.ratings[:n_train])
    test = Ratings.from_arrays(made.users[n_train:], made.items[n_train:], made.ratings[n_train:])
    error = (made.ratings - made.truth)[n_train:]
    floor = float(np.sqrt(np.mean(np.square(error), dtype=np.float64)))
    _say(f"Made {len(made.ratings):,} ratings by {_count(train.n_users, 'user')} of {_count(train.n_items, 'item')} "
         f"from a planted model plus noise, in {time.perf_counter() - start:.1f} s.")
    _say(f"Training on {n_train:,} of them, a tenth of which is held out to end training (val_rmse below); "
         f"the other {len(test):,} are the test.")

    common = {"n_jobs": args.n_jobs, "random_state": 0}
    model = FunkSVD(**common)
    stopping = EarlyStopping("val_loss", patience=3)
    model.fit(train, validation_split=0.1, callbacks=[stopping], verbose=2)
    # Factors that start at zero stay zero, so this one learns biases only.
    biases = FunkSVD(n_factors=1, init_std=0.0, **common)
    biases.fit(train, validation_split=0.1, callbacks=[EarlyStopping("val_loss", patience=3)], verbose=0)
    _say(f"\nRMSE on the {len(test):,} test ratings, which training never saw:")
    _say(f"  {biases.evaluate(test)['rmse']:.4f}  biases only: mean + user's bias + item's bias")
    _say(f"  {model.evaluate(test)['rmse']:.4f}  this model: biases and {model.n_factors} factors, "
         f"of epoch {stopping.best_epoch + 1}")
    _say(f"  {floor:.4f}  the noise floor: the planted model itself; nothing can do better")

    user = made.users[0].item()
    items, scores = model.recommend(user, n=10, exclude=train)
    _say(f"\nThe ten items with the highest predicted ratings for user {user}, of those not rated in training:")
    for item, score in zip(items.tolist(), scores.tolist(), strict=True):
        _say(f"  item {item:>5}  {score:.2f}")
    _say("")
    _save(model, args.output)
    _draw(model, os.path.splitext(args.output)[0] + ".png", floor)
    _say(f"Everything took {time.perf_counter() - start:.1f} s. Next: funksvd info {args.output}")


def _draw(model, path, floor):
    from funksvd.plots import learning_curve

    try:
        learning_curve(model.history_, path, floor=floor)
    except ImportError as error:
        _say(f"No learning curve was drawn: {error}")
    else:
        _say(f"Drew the RMSE of each epoch in {path}.")


# Files


def _check_output(path):
    """Fail now, not after minutes of training, where nothing could be saved."""
    directory = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise IsADirectoryError(f"cannot write {path}: it is a directory; add a file name")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"cannot write {path}: it is no regular file, and it would be replaced")
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"cannot write {path}: the directory {directory} does not exist")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write {path}: the directory {directory} is not writable")


def _save(model, path):
    model.save(path)
    _say(f"Saved the model to {path} ({os.path.getsize(path):,} bytes).")


def _read(args, path):
    """Users, items and ratings of a file, read as the options say."""
    columns = {name: getattr(args, f"{name}_column") for name in _COLUMNS}
    return datasets.read_ratings(path, **columns, sep=args.sep, header=args.header, on_bad_lines=args.on_bad_lines)


def _typed(model, path, users, items, *ratings):
    """Give the ids of a file the type of the model's: a file with ids 1, 2, 3 may be part of one with 1, 2, x."""
    typed = []
    for role, ids, known in (("user", users, model.user_ids_), ("item", items, model.item_ids_)):
        if known.dtype.kind in "iu" and ids.dtype.kind not in "iu":
            strange = next(text for text in ids.tolist() if str(_number(text)) != text or type(_number(text)) is not int)
            raise ValueError(
                f"{path}: {role} id {strange!r} is not a plain whole number, which all {role} ids of the model are"
            )
        if known.dtype.kind == "U" and ids.dtype.kind in "iu":
            ids = ids.astype(str)
        typed.append(ids)
    return *typed, *ratings


def _known_user(model, text):
    """The user id that `text` stands for, typed as in the model."""
    known = model.user_ids_
    user = text
    if known.dtype.kind in "iu":
        try:
            user = int(text)
        except ValueError as error:
            raise ValueError(f"--user {text!r} is not a whole number, which all user ids of the model are") from error
    ids = known.tolist()
    if user in set(ids):
        return user
    near = [min(ids, key=lambda x: abs(x - user))] if user != text else difflib.get_close_matches(text, ids, n=1)
    hint = f"; the nearest id is {near[0]}" if near else ""
    raise ValueError(f"--user {text}: the model has not seen this user in training{hint}")


def _write_csv(file, rows):
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["user", "item", "prediction"])
    writer.writerows(rows)


def _count(n, noun):
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _say(text):
    print(text, flush=True)
