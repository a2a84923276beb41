"""FunkSVD: parameters, the one epoch loop, and answers."""

from __future__ import annotations

import inspect
import os
import secrets
import time
import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from funksvd import engine as engines
from funksvd import files
from funksvd.callbacks import Callback, CallbackList, EpochLines, ProgressBar
from funksvd.ratings import Ratings, cpu_count


class FunkSVD:
    """Matrix factorisation of ratings by SGD: r = mean + b_u + b_i + p_u . q_i (Funk 2006; Koren et al. 2009, eq. 5).

    Parameters
    ----------
    n_factors : int
        Latent factors k of a user and an item.
    n_epochs : int
        Passes over the ratings, at most.
    learning_rate : float
        Step of the first epoch.
    learning_rate_decay : float in [0, 1)
        Each epoch's step is (1 - decay) times the one before.
    l2, l2_bias : float
        Penalty of factors and of biases, applied with every rating.
    biased : bool
        Learn biases of users and items beside the mean.
    init_std : float
        Standard deviation of the first factors.
    rating_scale : (low, high) or None
        Predictions are clipped to it.
    n_jobs : int
        Threads, -1 for all cores. The result is the same to the last bit for any number.
    dtype : "float32" or "float64"
    random_state : int or None
        Seed; None draws one.
    verbose : 0, 1 (progress bar), 2 (a line an epoch)
    """

    def __init__(self, n_factors=100, n_epochs=40, *, solver="sgd", learning_rate=0.02, learning_rate_decay=0.03,
                 l2=0.08, l2_bias=0.02, biased=True, init_std=0.05, rating_scale=None, n_jobs=-1, device="cpu",
                 dtype="float32", random_state=None, verbose=0):  # fmt: skip
        self.n_factors, self.n_epochs, self.solver = n_factors, n_epochs, solver
        self.learning_rate, self.learning_rate_decay = learning_rate, learning_rate_decay
        self.l2, self.l2_bias, self.biased, self.init_std = l2, l2_bias, biased, init_std
        self.rating_scale, self.n_jobs, self.device, self.dtype = rating_scale, n_jobs, device, dtype
        self.random_state, self.verbose = random_state, verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> FunkSVD:
        for name, value in params.items():
            if name not in self.get_params():
                raise ValueError(f"unknown parameter {name!r}; there are {', '.join(self.get_params())}")
            setattr(self, name, value)
        return self

    def __repr__(self):
        return f"FunkSVD({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"

    def _check_params(self):
        def need(name, ok, allowed):
            if not ok:
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

        def whole(value):
            return isinstance(value, (int, np.integer)) and not isinstance(value, bool)

        def number(value):
            return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and np.isfinite(value)

        for name in ("n_factors", "n_epochs"):
            need(name, whole(getattr(self, name)) and getattr(self, name) >= 1, "an int >= 1")
        for name in ("learning_rate", "learning_rate_decay", "l2", "l2_bias", "init_std"):
            need(name, number(getattr(self, name)) and getattr(self, name) >= 0, "a finite number >= 0")
        need("learning_rate", self.learning_rate > 0, "above 0")
        need("learning_rate_decay", self.learning_rate_decay < 1, "in [0, 1)")
        need("solver", self.solver == "sgd", "'sgd'")
        need("device", self.device == "cpu", "'cpu'")
        need("dtype", self.dtype in ("float32", "float64", np.float32, np.float64), "'float32' or 'float64'")
        need("n_jobs", whole(self.n_jobs) and (self.n_jobs == -1 or self.n_jobs >= 1), "-1 or an int >= 1")
        need("biased", isinstance(self.biased, (bool, np.bool_)), "True or False")
        need("verbose", self.verbose in (0, 1, 2), "0, 1 or 2")
        need("random_state", self.random_state is None or (whole(self.random_state) and self.random_state >= 0),
             "None or an int >= 0")  # fmt: skip
        scale = self.rating_scale
        pair = isinstance(scale, (tuple, list)) and len(scale) == 2 and all(map(number, scale)) and scale[0] < scale[1]
        need("rating_scale", scale is None or pair, "None or (low, high)")

    def _threads(self):
        return cpu_count() if self.n_jobs == -1 else self.n_jobs

    def fit(
        self,
        X: Any,
        y: npt.ArrayLike | None = None,
        *,
        sample_weight: npt.ArrayLike | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        verbose: int | None = None,
    ) -> FunkSVD:
        """Train.

        Parameters
        ----------
        X : Ratings, (users, items), (n, 2) array, table, or SciPy sparse matrix
        y : (n,) ratings, where X does not hold them
        sample_weight : (n,) how much each rating counts, at least 0
        validation_split : fraction held out, chosen by the seed
        validation_data : (X, y), (X, y, sample_weight) or Ratings
        callbacks : list of Callback
        verbose : overrides the parameter

        Raises
        ------
        ValueError, TypeError
            Before any work, naming what is wrong and how to mend it.
        """
        started = time.perf_counter()
        self._check_params()
        if not 0 <= validation_split < 1:
            raise ValueError(f"validation_split must be in [0, 1), got {validation_split}")
        if validation_split and validation_data is not None:
            raise ValueError("give validation_split or validation_data, not both")
        if verbose not in (None, 0, 1, 2):
            raise ValueError(f"verbose must be 0, 1 or 2, got {verbose!r}")
        ratings = as_ratings(X, y, sample_weight)
        seed = secrets.randbits(63) if self.random_state is None else int(self.random_state)
        held_out = None
        if validation_data is not None:
            held_out = as_ratings(*validation_data) if isinstance(validation_data, tuple) else as_ratings(validation_data)
        elif validation_split:
            ratings, held_out = ratings.split(validation_split, seed)
        hyper = SimpleNamespace(**self.get_params())
        engine = engines.engine_for(hyper)(ratings, held_out, hyper, seed=seed, n_jobs=self._threads())
        self.__dict__.pop("_params", None)  # of an earlier fit, whose ids are no longer these
        self._tables = ratings._tables
        self._engine: Any = engine
        self.history_: dict[str, list[float]] = {}
        self.stop_training, self.interrupted_, self.n_epochs_ = False, False, 0
        self.setup_seconds_ = time.perf_counter() - started
        try:
            self._train(engine, held_out is not None, callbacks, self.verbose if verbose is None else verbose)
        finally:
            if self.n_epochs_:
                self._adopt(engine.params())
            self._engine = None
        return self

    def _train(self, engine, validates, callbacks, verbose):
        listed = [] if callbacks is None else list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        progress = {0: [], 1: [ProgressBar], 2: [EpochLines]}[int(verbose)]
        hooks = CallbackList([*listed, *(make() for make in progress)], self)
        logs, before, epoch = {}, None, 0
        try:
            hooks.on_train_begin({})
            for epoch in range(self.n_epochs):
                before = None
                before = engine.snapshot()
                logs = self._epoch(engine, validates, epoch, hooks)
                if self.stop_training:
                    return
        except BaseException as error:
            if before is not None and self.n_epochs_ == epoch:  # in the middle of an epoch
                engine.restore(before)
                for values in self.history_.values():
                    del values[epoch:]
            if not self.n_epochs_ or not isinstance(error, KeyboardInterrupt):
                raise
            self.interrupted_ = True
            warnings.warn(f"interrupted in epoch {epoch + 1}: the model is that after epoch {self.n_epochs_}", stacklevel=3)
        finally:
            hooks.on_train_end(logs)

    def _epoch(self, engine, validates, epoch, hooks):
        begun = time.perf_counter()
        self.current_learning_rate = self.learning_rate * (1 - self.learning_rate_decay) ** epoch
        hooks.on_epoch_begin(epoch, {})
        loss = engine.epoch(epoch, self.current_learning_rate)
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"training diverged in epoch {epoch + 1}: the loss is {loss}; lower learning_rate ({self.learning_rate})"
            )
        logs = {"loss": loss, "rmse": loss**0.5, "learning_rate": self.current_learning_rate}
        if validates:
            logs["val_loss"] = engine.validate()
            logs["val_rmse"] = logs["val_loss"] ** 0.5
        logs["seconds"] = time.perf_counter() - begun
        for name, value in logs.items():
            self.history_.setdefault(name, []).append(value)
        self.n_epochs_ = epoch + 1
        hooks.on_epoch_end(epoch, logs)
        return logs

    def get_weights(self):
        """A copy of the parameters; during `fit` those of the moment."""
        return self._engine.params() if getattr(self, "_engine", None) is not None else self._params

    def set_weights(self, weights):
        """Take over what `get_weights` returned."""
        if getattr(self, "_engine", None) is not None:
            self._engine.load(weights)
        else:
            self._adopt(weights)

    def _adopt(self, params):
        self._params = params
        self.global_mean_ = params.global_mean
        self.user_biases_, self.item_biases_ = params.user_biases, params.item_biases
        self.user_factors_, self.item_factors_ = params.user_factors, params.item_factors
        self.user_ids_, self.item_ids_ = (table.ids for table in self._tables)

    def predict(self, X: Any, unknown: str = "mean") -> npt.NDArray[Any]:
        """Ratings for (users, items), an (n, 2) array or a `Ratings`.

        `unknown` ids: "mean" uses the mean and the known bias and warns once, "nan" gives NaN, "raise" raises.
        """
        if unknown not in ("mean", "nan", "raise"):
            raise ValueError(f"unknown must be 'mean', 'nan' or 'raise', got {unknown!r}")
        out, strange = self._predict(X)
        if strange.any():
            said = f"{strange.mean():.1%} of the pairs have a user or item unknown to the model"
            if unknown == "raise":
                raise ValueError(f"{said}; unknown='mean' or 'nan' accepts them")
            if unknown == "nan":
                out[strange] = np.nan
            else:
                warnings.warn(f"{said}; they get the mean and the known bias", stacklevel=2)
        return out

    def _predict(self, X):
        """(predictions, which pairs have an unknown id)."""
        params, n_jobs = self._weights(), self._threads()
        if isinstance(X, Ratings):
            users, items = X.codes_in(self._tables)
        else:
            sides = zip(self._tables, pairs_of(X), ("user", "item"), strict=True)
            users, items = (table.encode(raw, name, n_jobs) for table, raw, name in sides)
        if len(users) != len(items):
            raise ValueError(f"users and items must have equal lengths, got {len(users)} and {len(items)}")
        out = engines.predict(params, users, items, n_jobs)
        strange = np.zeros(len(out), bool)
        if min(users.min(initial=0), items.min(initial=0)) < 0:  # the minima alone cost a tenth of the mask
            np.less(np.minimum(users, items), 0, out=strange)
        return self._clipped(out), strange

    def _clipped(self, ratings):
        return ratings if self.rating_scale is None else np.clip(ratings, *self.rating_scale)

    def _weights(self):
        if getattr(self, "_engine", None) is None and not hasattr(self, "_params"):
            raise ValueError("this FunkSVD is not fitted yet; call fit first")
        return self.get_weights()

    def evaluate(
        self, X: Any, y: npt.ArrayLike | None = None, sample_weight: npt.ArrayLike | None = None
    ) -> dict[str, float]:
        """{"rmse", "mae", "n", "unknown": share of pairs with an unknown id} on ratings; the errors are weighted."""
        ratings = as_ratings(X, y, sample_weight)
        predicted, strange = self._predict(ratings)
        error = ratings.values - predicted.astype(np.float64)
        squares, absolute = (float(np.average(e, weights=ratings.weights)) for e in (error**2, np.abs(error)))
        return {"rmse": squares**0.5, "mae": absolute, "n": len(error), "unknown": float(strange.mean())}

    def score(self, X: Any, y: npt.ArrayLike | None = None, sample_weight: npt.ArrayLike | None = None) -> float:
        """R^2, as scikit-learn's regressors."""
        ratings = as_ratings(X, y, sample_weight)
        mean = np.average(ratings.values, weights=ratings.weights)
        variance = np.average((ratings.values - mean) ** 2, weights=ratings.weights)
        return 1 - self.evaluate(ratings)["rmse"] ** 2 / float(variance)

    def recommend(
        self, user: Any, n: int = 10, exclude: Ratings | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(item ids, scores) of the n best items for one user id, best first, without the user's items in `exclude`."""
        params = self._weights()
        if n < 1:
            raise ValueError(f"n must be >= 1, got {n}")
        code = int(self._tables[0].encode([user], "user")[0])
        if code < 0:
            raise ValueError(f"user {user!r} is unknown to the model")
        items = np.arange(len(self._tables[1]), dtype=np.int32)
        scores = engines.predict(params, np.full(len(items), code, np.int32), items)
        if exclude is not None:
            users, codes = exclude.codes_in(self._tables)
            scores[codes[(users == code) & (codes >= 0)]] = -np.inf
        best = np.lexsort((items, -scores))[:n]
        best = best[scores[best] > -np.inf]
        return self._tables[1].ids[best], self._clipped(scores[best])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as npz without pickle, to a temporary name first: an error leaves the old file whole."""
        files.save(self, path)


def load(path: str | os.PathLike[str]) -> FunkSVD:
    """A saved model. ValueError where the file is not one, damaged or of a newer version."""
    return files.load(path, FunkSVD)


def pairs_of(X):
    """(users, items) of a pair of arrays or an (n, 2) array."""
    if isinstance(X, tuple) and len(X) == 2:
        return X
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] != 2:
        raise ValueError(f"X must be (n, 2) or a tuple (users, items), got shape {X.shape}")
    return X[:, 0], X[:, 1]


def as_ratings(X, y=None, weights=None):
    """Ratings of whatever `fit` takes."""
    if isinstance(X, Ratings):
        if weights is not None:
            raise ValueError("these Ratings have their own weights; give them to Ratings.from_arrays(..., weights)")
        return X
    if hasattr(X, "tocoo"):
        return Ratings.from_sparse(X, weights)
    if y is None:
        if hasattr(X, "columns") or hasattr(X, "column_names"):
            return Ratings.from_frame(X, weights=weights)
        raise ValueError("y is missing: pass the ratings, or a table, sparse matrix or Ratings that holds them")
    return Ratings.from_arrays(*pairs_of(X), y, weights)
