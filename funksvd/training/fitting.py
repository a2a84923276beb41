"""The half of FunkSVD that learns: `fit`, `partial_fit` and `fold_in`."""

from __future__ import annotations

import copy
import os
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import ArrayLike

import funksvd.training as stations
from funksvd.callbacks.callback import Callback
from funksvd.checks import check_choice, checked_n, is_number
from funksvd.engines.choose import engine_for
from funksvd.hyper import Hyper
from funksvd.ratings.content import content_of
from funksvd.ratings.inputs import as_ratings, holds_ratings
from funksvd.ratings.pairs import as_pairs
from funksvd.ratings.triples import Ratings
from funksvd.ratings.unknown_ids import UnknownIdWarning
from funksvd.schedules import planned_rate
from funksvd.weights import Fitted, Trained, Weights, check_fit, copied, is_finite

if TYPE_CHECKING:
    from funksvd.training.loop import Training


class Fitting:
    """Trains the model that inherits it; `FunkSVD` adds the parameters.

    `_fitted` is all that the model has learned. It is replaced whole, and so a reader that takes it
    once sees one model. `_training` is there during `fit` alone: callbacks, which run in the thread
    of `fit`, see the state of the moment, and other threads see the model of before.
    """

    _fitted: Fitted | None = None
    _training: Training | None = None
    history_: dict[str, list[float]]
    n_epochs_: int
    n_ratings_: int
    setup_seconds_: float
    stop_training: bool
    interrupted_: bool
    verbose: int

    def _check_params(self) -> None:
        raise NotImplementedError

    def _hyper(self) -> Hyper:
        raise NotImplementedError

    def _seed(self) -> int:
        raise NotImplementedError

    def _threads(self) -> int:
        raise NotImplementedError

    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        times: Any = None,
        validation_split: float = 0.0,
        validation_split_order: str = "random",
        validation_data: Any = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        verbose: int | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on ratings.

        Parameters
        ----------
        X : Ratings, (users, items), (n, 2) array, table, or SciPy sparse matrix
        y : (n,) array of ratings, if X does not hold them; solver="ials" needs no ratings
        sample_weight : (n,) array, how much each rating counts, at least 0
        times : (n,) numbers of seconds since 1970, or dates; a table may have a column of them
        validation_split : float in [0, 1), share of the ratings held out
        validation_split_order : "random" (by the seed) or "tail" (the last ratings, as Keras)
        validation_data : (X, y), (X, y, sample_weight), (X, y, sample_weight, times) or Ratings
        callbacks, verbose : Callback or list of Callback; overrides the parameter
        resume : file of a `ModelCheckpoint`
            Go on from there with the same ratings, parameters and callbacks, and end with the same
            bytes as if training had never stopped. `n_epochs` may be larger; `n_jobs` and
            `verbose` may differ.

        Raises
        ------
        ValueError, TypeError : before any work; the message says how to mend the argument
        FloatingPointError : if training diverges
        """
        started = time.perf_counter()
        self._check_params()
        verbose = self.verbose if verbose is None else verbose
        check_fit_arguments(validation_split, validation_split_order, validation_data, verbose)
        ratings = self._to_learn(X, y, sample_weight, times)
        checkpoint = None if resume is None else stations.checkpoints.read(resume, type(self))
        seed = self._seed() if checkpoint is None else checkpoint.seed
        content = content_of(ratings, self._threads())
        split = (validation_split, validation_split_order)
        ratings, held_out = parts_of(ratings, *split, self._validation(validation_data), seed)
        training = stations.loop.Training(
            self,
            ratings,
            held_out,
            self._hyper(),
            seed=seed,
            n_jobs=self._threads(),
            callbacks=callbacks,
            verbose=verbose,
            checkpoint=checkpoint,
            content=content,
        )
        self._run(training, started)
        return self

    def _to_learn(self, *given: Any) -> Ratings:
        """Return the ratings to train on; warn if there is nothing to learn from them."""
        ratings = self._given(*given)
        if engine_for(self._hyper()).learns_ratings:
            warn_of_constant(ratings)
        return ratings

    def _given(self, X: Any, y: ArrayLike | None = None, *more: Any) -> Ratings:
        """Return the ratings that the engine learns from, or pairs as ratings of 1.

        `more` are sample weights and times.
        """
        if not engine_for(self._hyper()).learns_ratings:
            return as_pairs(X, y, *more)
        return as_ratings(X, y, *more)

    def _validation(self, data: Any) -> Ratings | None:
        """Return the ratings of the argument `validation_data`."""
        if data is None:
            return None
        return self._given(*data) if isinstance(data, tuple) else self._given(data)

    def _run(self, training: Training, started: float) -> None:
        """Train, and take over what was learned however training ends."""
        n_ratings = len(training.ratings)
        seconds = time.perf_counter() - started
        # No call stands between these lines and `try`: a signal cannot part them.
        self.history_ = {}
        self.stop_training = False
        self.interrupted_ = False
        self.n_epochs_ = 0
        self.n_ratings_ = n_ratings
        self.setup_seconds_ = seconds
        self._training = training
        try:
            training.run()
        finally:
            try:
                training.whole(self._adopt, training)
            finally:
                if self._training is not None:  # a signal came before `_adopt` had begun
                    self._fitted = None
                    self._training = None

    def _adopt(self, training: Training) -> None:
        """Take over the weights after the last whole epoch, if there is one.

        Raises
        ------
        FloatingPointError
            If the last steps left weights that are not finite. The model is then not fitted.
        """
        fitted = None
        try:
            training.settle()
            if self.n_epochs_:
                found = training.fitted()
                if not is_finite(found.weights):
                    finding = "its last steps left weights that are not finite"
                    raise training.diverged(self.n_epochs_ - 1, finding)
                fitted = found
        finally:
            self._fitted = fitted
            self._training = None

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        n_epochs: int = 5,
        learning_rate: float | None = None,
    ) -> Self:
        """Go on with SGD on new ratings of known and new ids; an unfitted model is fitted.

        New rows start from their ridge solution (`fold_in`). Only rows with new ratings move, so
        that the time grows with these ratings; the mean stays. The model changes in place, but none
        of its arrays does: `copy.copy(model).partial_fit(X, y)` leaves a served model as it is.

        Parameters
        ----------
        X, y, sample_weight : ratings as in `fit`
        n_epochs : int, passes over them
        learning_rate : float or None, which is the rate of the last epoch of `fit`
        """
        fitted = self._fitted
        if fitted is None:
            return self.fit(X, y, sample_weight=sample_weight)
        self._check_params()
        hyper = self._hyper()
        if not engine_for(hyper).makes_steps or fitted.weights.noise is not None:
            raise ValueError(
                "partial_fit goes on with SGD; with solver='gibbs' or 'ials' use fold_in for new"
                " rows, or fit again"
            )
        # New ratings move all features, however these were trained.
        hyper = replace(hyper, training="joint")
        ratings = as_ratings(X, y, sample_weight)
        n_epochs = checked_n(n_epochs, "n_epochs")
        past = stations.fold_in.past_of(fitted)
        if learning_rate is None:
            learning_rate = past.learning_rates[-1] if past.learning_rates else None
        if learning_rate is None:
            learning_rate = planned_rate(hyper, 0)
        self._fitted = stations.loop.update(
            fitted,
            ratings,
            hyper,
            past,
            first_epoch=fitted.trained.n_epochs,
            n_epochs=n_epochs,
            learning_rate=learning_rate,
            seed=self._seed(),
            n_jobs=self._threads(),
        )
        return self

    def fold_in(
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        side: str = "users",
        extend: bool = True,
    ) -> Self:
        """Return a model that also knows the users (or items) of new ratings, without training.

        A new row is the ridge solution given the other side, with the penalties and bounds of this
        model; for "gibbs" it is the posterior mean, with its own standard deviations; for "ials" it
        is the row that training would solve. With exposure=True it is both, and from pairs without
        ratings that of the exposure alone: the ratings are then predicted as for an unknown id. A
        user that the model knows gets a new row from these ratings alone: give all ratings of such
        a user.

        Parameters
        ----------
        X, y, sample_weight : ratings as in `fit`
            Ratings of items that the model does not know are left out, with a warning.
        side : {"users", "items"}, which to solve
        extend : bool
            True returns a copy of the model with the new rows. False returns a model of the new
            rows alone, which shares the other side's arrays; it takes less than a millisecond for
            one user.
        """
        fitted = self._fitted_now()
        check_choice(side, "side", ("users", "items"))
        # A model that knows exposure takes pairs alone, too.
        unrated = fitted.weights.user_exposure is not None and y is None and not holds_ratings(X)
        ratings = (as_pairs if unrated else self._given)(X, y, sample_weight)
        number = ("users", "items").index(side)
        past = stations.fold_in.past_of(fitted)
        solve = stations.fold_in.solve
        how = (self._hyper(), past, self._threads())
        rows = solve(fitted, ratings, number, *how, rated=not unrated)
        if rows.left_out:
            other = ("items", "users")[number]
            warnings.warn(
                f"{rows.left_out} of {len(ratings)} ratings are of {other} unknown to the model;"
                " they are left out",
                UnknownIdWarning,
                stacklevel=2,
            )
        join = stations.joining.extended if extend else stations.joining.only
        model = copy.copy(self)
        model._training = None
        model._fitted = join(fitted, number, ratings.tables[number].ids[rows.codes], rows)
        model._show(fitted.trained)
        return model

    def _show(self, trained: Trained) -> None:
        """Set the public attributes that say how the model was trained."""
        self.history_ = trained.history
        self.n_epochs_ = trained.n_epochs
        self.n_ratings_ = trained.n_ratings

    def get_weights(self) -> Weights:
        """Return a copy of the learned arrays; during `fit`, of those of the moment."""
        weights = self._fitted_now().weights
        return weights if self._in_training() is not None else copied(weights)

    def set_weights(self, weights: Weights) -> None:
        """Take over what `get_weights` returned.

        Raises
        ------
        TypeError, ValueError
            If these are no weights of this model.
        """
        fitted = self._fitted_now()
        check_fit(weights, fitted.weights)
        training = self._in_training()
        if training is not None:
            training.whole(training.engine.load, weights)
        else:
            self._fitted = fitted._replace(weights=copied(weights))

    def _current(self) -> Fitted | None:
        """Return what the model has learned, or None; in `fit`'s thread the state of the moment."""
        training = self._in_training()
        return self._fitted if training is None else training.fitted()

    def _in_training(self) -> Training | None:
        """Return the training that runs, if this is its thread; other threads see none."""
        training = self._training
        if training is not None and training.thread != threading.get_ident():
            return None
        return training

    def _fitted_now(self) -> Fitted:
        """Return what the model has learned; in `fit`'s thread a copy of the state of the moment.

        Raises
        ------
        ValueError
            If the model is not fitted; scikit-learn's own NotFittedError, if it is imported.
        """
        fitted = self._current()
        if fitted is None:
            raise not_fitted()
        return fitted


def not_fitted() -> Exception:
    """Return the error of a model that is not fitted."""
    error = getattr(sys.modules.get("sklearn.exceptions"), "NotFittedError", ValueError)
    return error("this FunkSVD is not fitted yet; call fit first")


def check_fit_arguments(
    validation_split: float, order: str, validation_data: Any, verbose: int
) -> None:
    """Raise ValueError if an argument of `fit` is not allowed, alone or beside another."""
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose must be 0, 1 or 2, got {verbose!r}")
    if not is_number(validation_split) or not 0 <= validation_split < 1:
        raise ValueError(f"validation_split must be in [0, 1), got {validation_split!r}")
    if validation_split and validation_data is not None:
        raise ValueError("give validation_split or validation_data, not both")
    check_choice(order, "validation_split_order", ("random", "tail"))


def parts_of(
    ratings: Ratings, validation_split: float, order: str, held_out: Ratings | None, seed: int
) -> tuple[Ratings, Ratings | None]:
    """Return the ratings to train on, and those to validate on or None."""
    if len(ratings) < 2:
        raise ValueError(f"at least 2 ratings are needed, got {len(ratings)}")
    if validation_split and order == "tail":
        ratings, held_out = ratings.split_tail(validation_split)
    elif validation_split:
        ratings, held_out = ratings.split(validation_split, seed)
    check_weighted(ratings, "training")
    check_weighted(held_out, "validation")
    return ratings, held_out


def warn_of_constant(ratings: Ratings) -> None:
    """Warn if all ratings are equal: there is nothing to learn from their values."""
    values = ratings.values
    if len(values) > 1 and values[0] == values[-1] and (values == values[0]).all():
        warnings.warn(
            f"all {len(values)} ratings are {values[0]:g}, so that a model of ratings learns"
            " nothing but this number; to learn which items users take, use solver='ials'",
            stacklevel=4,
        )


def check_weighted(ratings: Ratings | None, name: str) -> None:
    """Raise ValueError if all ratings of a part weigh 0."""
    if ratings is not None and ratings.weights is not None and not ratings.weights.any():
        raise ValueError(
            f"all {name} ratings weigh 0; hold out others, or give some of them a weight"
        )
