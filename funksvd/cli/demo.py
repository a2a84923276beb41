"""``funksvd demo``: train on made-up ratings whose best possible error is known."""

from __future__ import annotations

import os
import time

import numpy as np

from funksvd.callbacks.stopping import EarlyStopping
from funksvd.cli.files import check_output, save
from funksvd.cli.shown import count, say
from funksvd.datasets import make_ratings
from funksvd.model import FunkSVD
from funksvd.ratings.triples import Ratings


def run(args):
    check_output(args.output)
    start = time.perf_counter()
    made = make_ratings()
    n_train = len(made.ratings) * 9 // 10  # they are in random order
    train = Ratings.from_arrays(made.users[:n_train], made.items[:n_train], made.ratings[:n_train])
    test = Ratings.from_arrays(made.users[n_train:], made.items[n_train:], made.ratings[n_train:])
    error = (made.ratings - made.truth)[n_train:]
    floor = float(np.sqrt(np.mean(np.square(error), dtype=np.float64)))
    say(
        args,
        f"Made {len(made.ratings):,} ratings by {count(train.n_users, 'user')} of {count(train.n_items, 'item')} "
        f"from a planted model plus noise, in {time.perf_counter() - start:.1f} s.",
    )
    say(
        args,
        f"Training on {n_train:,} of them, a tenth of which is held out to end training (val_rmse below); "
        f"the other {len(test):,} are the test.",
    )

    common = {"n_jobs": args.n_jobs, "random_state": 0}
    model = FunkSVD(**common)
    stopping = EarlyStopping("val_loss", patience=3)
    model.fit(train, validation_split=0.1, callbacks=[stopping], verbose=2)
    if model.interrupted_:
        say(
            args,
            f"Stopped by Ctrl-C after {count(model.n_epochs_, 'epoch')}; saving what was learned.",
        )
        save(args, model)
        return 130
    # Factors that start at zero stay zero, so this one learns biases only.
    biases = FunkSVD(n_factors=1, init_std=0.0, **common)
    biases.fit(
        train, validation_split=0.1, callbacks=[EarlyStopping("val_loss", patience=3)], verbose=0
    )
    say(args, f"\nRMSE on the {len(test):,} test ratings, which training never saw:")
    say(
        args,
        f"  {biases.evaluate(test)['rmse']:.4f}  biases only: mean + user's bias + item's bias",
    )
    say(
        args,
        f"  {model.evaluate(test)['rmse']:.4f}  this model: biases and {model.user_factors_.shape[1]} factors, "
        f"of epoch {stopping.best_epoch + 1}",
    )
    say(args, f"  {floor:.4f}  the noise floor: the planted model itself; nothing can do better")

    user = made.users[0].item()
    items, scores = model.recommend(user, n=10, exclude=train)
    say(
        args,
        f"\nThe ten items with the highest predicted ratings for user {user}, of those not rated in training:",
    )
    for item, score in zip(items.tolist(), scores.tolist(), strict=True):
        say(args, f"  item {item:>5}  {score:.2f}")
    say(args, "")
    save(args, model)
    draw(args, model, os.path.splitext(args.output)[0] + ".png", floor)
    say(
        args,
        f"Everything took {time.perf_counter() - start:.1f} s. Next: funksvd info {args.output}",
    )
    return 0


def draw(args, model, path, floor):
    from funksvd.plots import learning_curve

    try:
        learning_curve(model.history_, path, floor=floor)
    except ImportError as error:
        say(args, f"No learning curve was drawn: {error}")
    else:
        say(args, f"Drew the RMSE of each epoch in {path}.")
