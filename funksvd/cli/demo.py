"""The command `funksvd demo`: train on made-up ratings whose best possible error is known."""

from __future__ import annotations

import argparse
import os
import time
from typing import NamedTuple

import numpy as np

from funksvd.callbacks.stopping import EarlyStopping
from funksvd.cli.files import check_output, save
from funksvd.cli.options import (
    PARAMETER_HELP,
    Commands,
    add_command,
    default_parameters,
    number_of,
)
from funksvd.cli.shown import count, say, say_interrupted
from funksvd.datasets import make_ratings
from funksvd.model import FunkSVD
from funksvd.ratings.triples import Ratings

LIKED = 4  # ratings from here on say that a user liked the item


class MadeUp(NamedTuple):
    """Made-up ratings: nine tenths to train on, one tenth to test on.

    `floor` is the RMSE of the planted model itself on the test ratings, and `user` a user of it.
    """

    train: Ratings
    test: Ratings
    floor: float
    user: int


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "demo",
        demo,
        summary="train on made-up ratings whose best possible error is known",
        description=(
            "Make a million ratings from a planted model plus noise, in the shape of MovieLens 1M,"
            " train on nine tenths of them and compare the error on the last tenth with the best"
            " possible one. This needs no file and no network and takes a few seconds. It writes a"
            " model and, with matplotlib, a picture of the learning curve beside it."
        ),
        examples=["funksvd demo"],
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="MODEL",
        default="funksvd-demo.npz",
        help="file for the model (default: funksvd-demo.npz)",
    )
    n_jobs = default_parameters()["n_jobs"]
    command.add_argument(
        "--n-jobs",
        type=number_of,
        default=n_jobs,
        metavar="N",
        help=f"{PARAMETER_HELP['n_jobs']} (default: {n_jobs})",
    )


def demo(args: argparse.Namespace) -> int:
    """Train on made-up ratings, print and draw how well, and return the exit code."""
    check_output(args.output)
    start = time.perf_counter()
    data = make_data(args)
    model = FunkSVD(n_jobs=args.n_jobs, random_state=0)
    stopping = EarlyStopping("val_loss", patience=3)
    model.fit(data.train, validation_split=0.1, callbacks=[stopping], verbose=2)
    if model.interrupted_:
        say_interrupted(args, model.n_epochs_)
        save(args, model)
        return 130
    say_errors(args, model, data, stopping.best_epoch)
    say_best_items(args, model, data)
    say(args, "")
    save(args, model)
    draw(args, model, data.floor)
    seconds = time.perf_counter() - start
    say(args, f"The demo took {seconds:.1f} s. Next: funksvd info {args.output}")
    return 0


def make_data(args: argparse.Namespace) -> MadeUp:
    """Make the ratings, split them and say so."""
    start = time.perf_counter()
    made = make_ratings()
    n_ratings = len(made.ratings)
    n_train = n_ratings * 9 // 10  # they are in random order
    train = Ratings.from_arrays(made.users[:n_train], made.items[:n_train], made.ratings[:n_train])
    test = Ratings.from_arrays(made.users[n_train:], made.items[n_train:], made.ratings[n_train:])
    noise = (made.ratings - made.truth)[n_train:]
    floor = float(np.sqrt(np.mean(np.square(noise), dtype=np.float64)))
    users = count(train.n_users, "user")
    items = count(train.n_items, "item")
    seconds = time.perf_counter() - start
    say(
        args,
        f"Made {n_ratings:,} ratings by {users} of {items} from a planted model plus noise,"
        f" in {seconds:.1f} s.\n"
        f"Training on {n_train:,} of them; a tenth of these is held out to decide when to stop"
        f" (val_rmse below).\n"
        f"The other {len(test):,} are the test ratings.\n",
    )
    return MadeUp(train, test, floor, made.users[0].item())


def say_errors(args: argparse.Namespace, model: FunkSVD, data: MadeUp, best_epoch: int) -> None:
    """Print the errors and the lists of the model beside those of base lines and the best ones."""
    measured = model.evaluate(data.test, k=10, exclude=data.train, threshold=LIKED, baselines=True)
    biases = measured["baselines"]["biases_only"]
    popular = measured["baselines"]["popularity"]
    n_factors = model.user_factors_.shape[1]
    say(
        args,
        f"\nRMSE on the {len(data.test):,} test ratings, which were not used in training:\n"
        f"  {biases['rmse']:.4f}  biases only: mean + user's bias + item's bias\n"
        f"  {measured['rmse']:.4f}  this model: biases and {n_factors} factors, of epoch"
        f" {best_epoch + 1}\n"
        f"  {data.floor:.4f}  the noise floor: the planted model itself, which no model can beat",
    )
    say(
        args,
        "\nNDCG@10 of lists of ten unseen items, in which the items that the user rates"
        f" {LIKED} or higher\nin the test are hits:\n"
        f"  {popular['ndcg']:.4f}  popularity: the items that most users have rated\n"
        f"  {measured['ndcg']:.4f}  this model: the items with the highest predicted ratings",
    )


def say_best_items(args: argparse.Namespace, model: FunkSVD, data: MadeUp) -> None:
    """Print ten recommendations for a user."""
    items, scores = model.recommend(data.user, n=10, exclude=data.train)
    say(
        args,
        f"\nTen items with the highest predicted ratings for user {data.user}, without those"
        " rated in training:",
    )
    for item, score in zip(items.tolist(), scores.tolist(), strict=True):
        say(args, f"  item {item:>5}  {score:.2f}")


def draw(args: argparse.Namespace, model: FunkSVD, floor: float) -> None:
    """Draw the learning curve beside the model, or say why not."""
    from funksvd.plots import learning_curve

    path = os.path.splitext(args.output)[0] + ".png"
    try:
        learning_curve(model.history_, path, floor=floor)
    except ImportError as error:
        say(args, f"No learning curve was drawn: {error}")
    else:
        say(args, f"Drew the RMSE of each epoch in {path}.")
