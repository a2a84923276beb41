"""The epochs of one `fit`: an engine, callbacks, history, and the way back from Ctrl-C."""

from __future__ import annotations

import math
import time
import warnings
from functools import cached_property

import numpy as np

from funksvd.callbacks.callback import CallbackList
from funksvd.callbacks.progress import EpochLines, ProgressBar
from funksvd.engines.choose import engine_for
from funksvd.schedules import planned_rate
from funksvd.training.fold_in import SIDES, extended, rows_of, solve
from funksvd.weights import Weights


def update(
    params,
    tables,
    ratings,
    hyper,
    engine_class,
    *,
    first_epoch,
    n_epochs,
    learning_rate,
    seed,
    n_jobs,
):
    """(params, tables) after SGD on new ratings; the arrays given are not written to.

    New rows start from their ridge solution: new items given the known users, then new users given all items. SGD then
    moves the rows of `ratings` and no other, so the time grows with the ratings but for one copy of the model.
    """
    for side in (1, 0):
        fresh = tables[side].encode(ratings.tables[side].ids, SIDES[side]) < 0
        if fresh.any():
            codes, biases, factors, *_ = solve(params, tables, ratings, side, hyper, n_jobs)
            new = fresh[codes]
            ids = ratings.tables[side].ids[codes[new]]
            params, tables = extended(params, tables, side, ids, biases[new], factors[new])
    rows = [
        table.encode(theirs.ids, name)
        for table, theirs, name in zip(tables, ratings.tables, SIDES, strict=True)
    ]
    start = [part[rows[side]] for side in (0, 1) for part in rows_of(params, side)]
    engine = engine_class(ratings, None, hyper, seed=seed, n_jobs=n_jobs)
    engine.load(Weights(params.global_mean, start[0], start[2], start[1], start[3]))
    losses = [engine.epoch(first_epoch + e, learning_rate) for e in range(n_epochs)]
    if not np.isfinite(losses).all():
        raise FloatingPointError(
            f"training diverged: the losses are {losses}; lower learning_rate ({learning_rate})"
        )
    moved = engine.weights()
    for side in (0, 1):
        params, tables = extended(
            params, tables, side, ratings.tables[side].ids, *rows_of(moved, side)
        )
    return params, tables


class Training:
    """Trains a model, from the start or from a checkpoint.

    Parameters
    ----------
    model : FunkSVD
        Whose `history_`, `n_epochs_`, `stop_training` and `current_learning_rate` are kept up to date.
    ratings, held_out : Ratings, Ratings or None
    hyper : namespace of the parameters
    seed, n_jobs : int
    callbacks, verbose : as in `fit`
    checkpoint : Checkpoint or None

    Raises
    ------
    ValueError
        If the checkpoint is of another training; it says what differs.
    """

    def __init__(
        self, model, ratings, held_out, hyper, seed, n_jobs, callbacks, verbose, checkpoint
    ):
        self.model, self.ratings, self.held_out, self.hyper, self.seed = (
            model,
            ratings,
            held_out,
            hyper,
            seed,
        )
        # Featurewise an epoch is one feature, and the learning-rate schedule is for the passes within it.
        self.featurewise = hyper.training == "featurewise"
        self.n_epochs = hyper.n_factors if self.featurewise else hyper.n_epochs
        listed = (
            []
            if callbacks is None
            else list(callbacks)
            if isinstance(callbacks, (list, tuple))
            else [callbacks]
        )
        listed += {0: [], 1: [ProgressBar()], 2: [EpochLines()]}[int(verbose)]
        self.hooks = CallbackList(
            listed, model, self.n_epochs, 0 if checkpoint is None else checkpoint.n_epochs
        )
        self.checkpoint = checkpoint
        if checkpoint is not None:
            checkpoint.check(self)
        self.engine = engine_for(hyper)(ratings, held_out, hyper, seed=seed, n_jobs=n_jobs)

    @cached_property
    def fingerprints(self):
        """Of the ratings, for a checkpoint: with shuffle=False (mini-batches) their order counts."""
        return [
            self.ratings.fingerprint(not self.hyper.shuffle),
            self.held_out and self.held_out.fingerprint(False),
        ]

    def run(self):
        """All epochs, or those after the checkpoint. An error or Ctrl-C leaves the last whole epoch."""
        model, engine, hooks = self.model, self.engine, self.hooks
        states = [] if self.checkpoint is None else self.checkpoint.restore(self)
        done = model.n_epochs_
        logs, before, epoch = {}, None, done
        planned = planned_rate(self.hyper, 0 if self.featurewise else max(0, done - 1))
        if not done:
            model.current_learning_rate = planned
        try:
            hooks.on_train_begin({})
            for callback, state in states:
                callback.set_state(state)
            for epoch in range(done, self.n_epochs):
                if model.stop_training:
                    return
                before = None
                before = engine.snapshot()
                if epoch and not self.featurewise:
                    last, planned = planned, planned_rate(self.hyper, epoch)
                    changed = (
                        1.0
                        if model.current_learning_rate == last
                        else model.current_learning_rate / last
                    )
                    model.current_learning_rate = planned * changed
                logs = self._epoch(epoch, hooks)
        except BaseException as error:
            if before is not None and model.n_epochs_ == epoch:  # in the middle of an epoch
                engine.restore(before)
                for values in model.history_.values():
                    del values[epoch:]
            if not model.n_epochs_ or not isinstance(error, KeyboardInterrupt):
                raise
            model.interrupted_ = True
            warnings.warn(
                f"interrupted in epoch {epoch + 1}: the model is that after epoch {model.n_epochs_}",
                stacklevel=3,
            )
        finally:
            hooks.on_train_end(logs)

    def _epoch(self, epoch, hooks):
        model, begun = self.model, time.perf_counter()
        hooks.on_epoch_begin(epoch, {})
        loss = self.engine.epoch(epoch, model.current_learning_rate)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"training diverged in epoch {epoch + 1}: the loss is {loss}; lower learning_rate"
                f" (it was {model.current_learning_rate:.3g} there)"
            )
        logs = {"loss": loss, "rmse": loss**0.5}
        if self.hyper.solver != "gibbs":  # which makes no steps
            logs["learning_rate"] = model.current_learning_rate
        if self.held_out is not None:
            logs["val_loss"] = self.engine.validate()
            logs["val_rmse"] = logs["val_loss"] ** 0.5
        logs["seconds"] = time.perf_counter() - begun
        for name, value in logs.items():
            model.history_.setdefault(name, []).append(value)
        model.n_epochs_ = epoch + 1
        hooks.on_epoch_end(epoch, logs)
        return logs
