"""FunkSVD: parameters, the one epoch loop, answers, and the model file."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import secrets
import time
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from funksvd import engine as engines
from funksvd.callbacks import Callback, CallbackList, EpochLines, ProgressBar
from funksvd.ratings import IdTable, Ratings, cpu_count

FORMAT = 1  # of the model file
RUNTIME = ("n_jobs", "verbose", "device")  # parameters that change no bit of the model, and are not saved

# What NumPy, zipfile, zlib and json raise on bytes that are no whole model.
UNREADABLE = (ValueError, LookupError, TypeError, EOFError, AttributeError, ArithmeticError, RuntimeError, MemoryError,
              zipfile.BadZipFile, zlib.error)  # fmt: skip

# Id types that a file keeps beside int, str and bytes: how each becomes text and comes back.
ID_TEXT: dict[str, tuple[Callable[..., str], Callable[[str], Any]]] = {
    "UUID": (str, uuid.UUID),
    "datetime": (datetime.isoformat, datetime.fromisoformat),
    "date": (date.isoformat, date.fromisoformat),
}


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
        validation_split : fraction held out, chosen by the seed
        validation_data : (X, y) or Ratings
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
        ratings = as_ratings(X, y)
        seed = secrets.randbits(63) if self.random_state is None else int(self.random_state)
        held_out = None
        if validation_data is not None:
            held_out = as_ratings(*validation_data) if isinstance(validation_data, tuple) else as_ratings(validation_data)
        elif validation_split:
            ratings, held_out = ratings.split(validation_split, seed)
        n_jobs, dtype = self._threads(), np.dtype(self.dtype)
        grid = ratings.grid(-(-self.n_factors // 8) * 8 * dtype.itemsize, dtype, seed, n_jobs)
        check = None
        if held_out is not None:
            known, strange = held_out.like(ratings)
            check = known.grid(0, dtype, seed, n_jobs, like=grid), strange
        engine = engines.CpuEngine(grid, self.n_factors, dtype=dtype, biased=self.biased, init_std=self.init_std,
                                   seed=seed, n_jobs=n_jobs)  # fmt: skip
        self.__dict__.pop("_params", None)  # of an earlier fit, whose ids are no longer these
        self._tables = ratings._tables
        self._engine: engines.CpuEngine | None = engine
        self.history_: dict[str, list[float]] = {}
        self.stop_training, self.interrupted_, self.n_epochs_ = False, False, 0
        self.setup_seconds_ = time.perf_counter() - started
        try:
            self._train(engine, check, callbacks, self.verbose if verbose is None else verbose)
        finally:
            if self.n_epochs_:
                self._adopt(engine.params())
            self._engine = None
        return self

    def _train(self, engine, check, callbacks, verbose):
        listed = [] if callbacks is None else list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        progress = {0: [], 1: [ProgressBar], 2: [EpochLines]}[int(verbose)]
        hooks = CallbackList([*listed, *(make() for make in progress)], self)
        logs, before, epoch = {}, None, 0
        try:
            hooks.on_train_begin({})
            for epoch in range(self.n_epochs):
                before = None
                before = engine.snapshot()
                logs = self._epoch(engine, check, epoch, hooks)
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

    def _epoch(self, engine, check, epoch, hooks):
        begun = time.perf_counter()
        self.current_learning_rate = self.learning_rate * (1 - self.learning_rate_decay) ** epoch
        hooks.on_epoch_begin(epoch, {})
        loss = engine.epoch(epoch, self.current_learning_rate, self.l2, self.l2_bias)
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"training diverged in epoch {epoch + 1}: the loss is {loss}; lower learning_rate ({self.learning_rate})"
            )
        logs = {"loss": loss, "rmse": loss**0.5, "learning_rate": self.current_learning_rate}
        if check is not None:
            logs["val_loss"] = engine.evaluate(*check)
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

    def evaluate(self, X: Any, y: npt.ArrayLike | None = None) -> dict[str, float]:
        """{"rmse", "mae", "n", "unknown": share of pairs with an unknown id} on ratings."""
        ratings = as_ratings(X, y)
        predicted, strange = self._predict(ratings)
        error = ratings.values - predicted.astype(np.float64)
        return {"rmse": float(np.sqrt(np.mean(error**2))), "mae": float(np.mean(np.abs(error))), "n": len(error),
                "unknown": float(strange.mean())}  # fmt: skip

    def score(self, X: Any, y: npt.ArrayLike | None = None) -> float:
        """R^2, as scikit-learn's regressors."""
        ratings = as_ratings(X, y)
        return 1 - self.evaluate(ratings)["rmse"] ** 2 / float(np.var(ratings.values))

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
        params = self._weights()
        ids = []
        for table, name in zip(self._tables, ("user", "item"), strict=True):
            if table.ids.dtype.kind == "O" and table.kind not in ID_TEXT:
                raise TypeError(
                    f"{name} ids of type {table.kind} cannot be saved; use int, str, bytes or one of {', '.join(ID_TEXT)}"
                )
            ids.append(np.array([ID_TEXT[table.kind][0](x) for x in table.ids]) if table.kind in ID_TEXT else table.ids)
        kept = {k: v for k, v in self.get_params().items() if k not in RUNTIME}
        kept["dtype"] = str(np.dtype(self.dtype))
        history = {k: v for k, v in self.history_.items() if k != "seconds"}
        kinds = [table.kind for table in self._tables]
        meta = {"format": FORMAT, "params": kept, "id_kinds": kinds, "history": history, "n_epochs": self.n_epochs_}
        with replacing(path) as file:
            np.savez(file, meta=np.frombuffer(json.dumps(meta, sort_keys=True, default=float).encode(), np.uint8),
                     global_mean=np.float64(params.global_mean), user_ids=ids[0], item_ids=ids[1],
                     user_biases=params.user_biases, item_biases=params.item_biases,
                     user_factors=params.user_factors, item_factors=params.item_factors)  # fmt: skip


@contextlib.contextmanager
def replacing(path, mode="wb", **options):
    """A file that takes the place of `path` when all of it is written; after an error the old one is still there."""
    target = os.path.realpath(path)
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        with open(temporary, mode, **options) as file:
            yield file
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def load(path: str | os.PathLike[str]) -> FunkSVD:
    """A saved model. ValueError where the file is not one, damaged or of a newer version."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop("meta").tobytes())
        version = meta["format"]
        if version > FORMAT:
            raise ValueError(f"it has format {version}, this funksvd reads up to {FORMAT}; upgrade funksvd")
        model = FunkSVD(**meta["params"])
        users, items = (
            table_of(arrays.pop(name), kind)
            for name, kind in zip(("user_ids", "item_ids"), meta["id_kinds"], strict=True)
        )
        params = engines.Params(float(arrays.pop("global_mean")), **arrays)
        k = model.n_factors
        model._check_params()
        for name, table in (("user", users), ("item", items)):
            if table.ids.ndim != 1 or len(np.unique(table.ids)) != len(table):
                raise ValueError(f"its {name} ids are not a list of distinct ids")
            if getattr(params, f"{name}_factors").dtype != model.dtype:
                raise ValueError(f"its {name} factors are not {model.dtype}")
            shapes = getattr(params, f"{name}_biases").shape, getattr(params, f"{name}_factors").shape
            if shapes != ((len(table),), (len(table), k)):
                raise ValueError(f"its {name} arrays have shapes {shapes}, expected {len(table)} rows of {k}")
            factors = engines.aligned(len(table), k, model.dtype)
            factors[:] = getattr(params, f"{name}_factors")
            setattr(params, f"{name}_factors", factors)
    except OSError as error:
        if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
            raise
        raise ValueError(f"{path} is not a funksvd model: {error}") from error
    except UNREADABLE as error:
        raise ValueError(f"{path} is not a whole funksvd model: {error}") from error
    model._tables, model.history_, model.n_epochs_ = (users, items), meta["history"], meta["n_epochs"]
    model.interrupted_ = False
    model._adopt(params)
    return model


def table_of(ids, kind):
    """The id table of a file's array."""
    if kind in ID_TEXT:
        values = [ID_TEXT[kind][1](x) for x in ids.tolist()]
        ids = np.empty(len(values), object)
        ids[:] = values
    return IdTable(ids)


def pairs_of(X):
    """(users, items) of a pair of arrays or an (n, 2) array."""
    if isinstance(X, tuple) and len(X) == 2:
        return X
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] != 2:
        raise ValueError(f"X must be (n, 2) or a tuple (users, items), got shape {X.shape}")
    return X[:, 0], X[:, 1]


def as_ratings(X, y=None):
    """Ratings of whatever `fit` takes."""
    if isinstance(X, Ratings):
        return X
    if hasattr(X, "tocoo"):
        return Ratings.from_sparse(X)
    if y is None:
        if hasattr(X, "columns") or hasattr(X, "column_names"):
            return Ratings.from_frame(X)
        raise ValueError("y is missing: pass the ratings, or a table, sparse matrix or Ratings that holds them")
    return Ratings.from_arrays(*pairs_of(X), y)
