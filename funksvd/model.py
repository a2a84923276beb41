"""FunkSVD: parameters, the one epoch loop, and answers."""

from __future__ import annotations

import copy
import inspect
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from funksvd.callbacks.callback import Callback
from funksvd.checks import checked_n, chosen, number
from funksvd.engines.choose import engine_for
from funksvd.machine.threads import free_cores
from funksvd.metrics import mae, rmse
from funksvd.parameters import check, resolved
from funksvd.posterior import checked, interval, noise_weights, variance
from funksvd.ratings.inputs import as_ratings, pairs_of
from funksvd.ratings.tables import as_ids, long_table
from funksvd.ratings.triples import Ratings
from funksvd.schedules import planned_rate
from funksvd.serving.asked import asked, ids_of, known_codes
from funksvd.serving.dense import item_vectors, predict_all, query_vectors
from funksvd.serving.explain import Explanation, explain
from funksvd.serving.top import recommend, similar
from funksvd.training import fold_in
from funksvd.training.loop import Training, update
from funksvd.weights import predict


class FunkSVD:
    """Matrix factorisation of ratings: r = mean + b_u + b_i + p_u . q_i (Funk 2006; Koren et al. 2009, eq. 5).

    Parameters
    ----------
    n_factors : int or None
        Latent factors k of a user and an item; None is 100, with solver="gibbs" 32.
    n_epochs : int or None
        Passes over the ratings, at most; with training="featurewise", for each feature. None is 40, with solver="gibbs"
        120.
    solver : "sgd", "adagrad_row", "adagrad", "adam", "adamax" or "gibbs"
        Rule of a step. "adagrad_row" has one accumulator for a row of factors and is for batch_size=1. "gibbs" makes no
        steps: it samples the posterior (`gibbs.py` states the model). An epoch is a sweep, and nothing
        needs tuning; 16 factors and 60 epochs take a fifth of the time. Predictions have a standard deviation. What
        means nothing to it is refused.
    training : "joint" or "featurewise"
        All factors at once, or Funk's own order: one feature after the other, which takes solver="sgd".
    batch_size : int
        1: a step for each rating, the fast way. More: mini-batches exactly as Keras makes them; one batch where there
        are fewer ratings.
    shuffle : bool
        Mini-batches in another order each epoch, or in the order of the ratings.
    learning_rate : float or None
        Step of the first epoch; None is the solver's own.
    learning_rate_schedule : "constant", "exponential", "inverse_time", "cosine" or callable
        Step of epoch e (from 0) as a share of the first: 1; (1 - decay)^e; 1 / (1 + decay e);
        (1 + cos(pi e / n_epochs)) / 2. A function of e returns the step itself. A callback that changes the step does
        so for the epochs to come, too: these go on in the same proportions.
    learning_rate_decay : float in [0, 1)
        Of the exponential and the inverse-time schedule.
    momentum : float in [0, 1)
        Of "sgd".
    beta_1, beta_2 : float in [0, 1)
        Decay of the means of gradients and of their squares (or largest sizes) in "adam" and "adamax".
    epsilon : float
        Kept from zero with it: what the adaptive solvers divide by.
    initial_accumulator_value : float
        First sum of squares of "adagrad" and "adagrad_row".
    l2, l1, l2_bias, l1_bias : float, or pair (users, items)
        Penalties of factors and of biases; L1 makes exact zeros.
    reg_scale : "rating" or "row"
        Apply penalties with every rating, or to every row once an epoch; of mini-batches with every
        batch, as Keras' embeddings_regularizer.
    non_negative : bool
        Keep the factors at 0 or above.
    min_improvement : float
        Featurewise: the next feature's turn comes when a pass improves the training RMSE by less.
    biased : bool
        Learn biases of users and items beside the mean.
    center : bool
        Start from the mean of the ratings; False starts from 0.
    init_std : float
        Standard deviation of the first factors.
    average : "low_rank" or "factors"
        What solver="gibbs" keeps of its samples: their mean prediction as a model of 2 to 12 n_factors, more of
        more samples (`gibbs.terms_of`), or the means of their n_factors factors.
    rating_scale : (low, high) or None
        Predictions are clipped to it; featurewise, those made in training, too.
    n_jobs : int
        Threads, -1 for all cores. The result is the same to the last bit for any number.
    device : "cpu", "cuda" or "cuda:N"
        Where to train (see `gpu.CudaEngine`); a GPU that is not there raises `gpu.DeviceError`, and nothing else changes.
    schedule : "strata" or "hogwild"
        On a GPU: repeatable, or all blocks at once with collisions.
    max_device_bytes : int or None
        Memory of the GPU to use at most; ratings that do not fit are streamed.
    dtype : "float32" or "float64"; on a GPU "float32" or "float16"
        Of the factors; "float16" stores them so, with stochastic rounding, and gives a float32 model.
    random_state : int or None
        Seed; None draws one.
    verbose : 0, 1 (progress bar), 2 (a line an epoch)
    """

    def __init__(
        self,
        n_factors=None,
        n_epochs=None,
        *,
        solver="sgd",
        training="joint",
        batch_size=1,
        shuffle=True,
        learning_rate=None,
        learning_rate_schedule="exponential",
        learning_rate_decay=0.03,
        momentum=0.0,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        initial_accumulator_value=0.1,
        l2=0.08,
        l1=0.0,
        l2_bias=0.02,
        l1_bias=0.0,
        reg_scale="rating",
        non_negative=False,
        min_improvement=1e-4,
        biased=True,
        center=True,
        init_std=0.05,
        average="low_rank",
        rating_scale=None,
        n_jobs=-1,
        device="cpu",
        schedule="strata",
        max_device_bytes=None,
        dtype="float32",
        random_state=None,
        verbose=0,
    ):
        self.n_factors, self.n_epochs, self.solver, self.training = (
            n_factors,
            n_epochs,
            solver,
            training,
        )
        self.batch_size, self.shuffle = batch_size, shuffle
        self.learning_rate, self.learning_rate_schedule = learning_rate, learning_rate_schedule
        self.learning_rate_decay, self.momentum = learning_rate_decay, momentum
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.initial_accumulator_value = initial_accumulator_value
        self.l2, self.l1, self.l2_bias, self.l1_bias = l2, l1, l2_bias, l1_bias
        self.reg_scale, self.non_negative, self.min_improvement = (
            reg_scale,
            non_negative,
            min_improvement,
        )
        self.biased, self.center, self.init_std = biased, center, init_std
        self.average, self.rating_scale = average, rating_scale
        self.n_jobs, self.device, self.dtype = n_jobs, device, dtype
        self.schedule, self.max_device_bytes = schedule, max_device_bytes
        self.random_state, self.verbose = random_state, verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> FunkSVD:
        for name, value in params.items():
            if name not in self.get_params():
                raise ValueError(
                    f"unknown parameter {name!r}; there are {', '.join(self.get_params())}"
                )
            setattr(self, name, value)
        return self

    _estimator_type = "regressor"  # scikit-learn before 1.6
    n_features_in_ = property(
        lambda self: 2 if self._weights() is not None else None, doc="2: user and item"
    )

    def __sklearn_tags__(self):
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True),
            regressor_tags=RegressorTags(),
            input_tags=InputTags(categorical=True, string=True),
            non_deterministic=self.random_state is None,
        )

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_params")

    def __repr__(self):
        defaults = inspect.signature(type(self)).parameters
        changed = {
            k: v for k, v in self.get_params().items() if repr(v) != repr(defaults[k].default)
        }
        return f"FunkSVD({', '.join(f'{k}={v!r}' for k, v in changed.items())})"

    def _repr_html_(self):
        from funksvd.plots import model_html

        return model_html(self)

    def _check_params(self):
        check(self)

    def _seed(self):
        if self.random_state is None:
            return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(1))
        return int(self.random_state)

    def _threads(self):
        return free_cores() if self.n_jobs == -1 else int(self.n_jobs)

    def fit(
        self,
        X: Any,
        y: npt.ArrayLike | None = None,
        *,
        sample_weight: npt.ArrayLike | None = None,
        validation_split: float = 0.0,
        validation_split_order: str = "random",
        validation_data: Any = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        verbose: int | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> FunkSVD:
        """Train.

        Parameters
        ----------
        X : Ratings, (users, items), (n, 2) array, table, or SciPy sparse matrix
        y : (n,) ratings, where X does not hold them
        sample_weight : (n,) how much each rating counts, at least 0
        validation_split : fraction held out
        validation_split_order : "random" (chosen by the seed) or "tail": the last ratings, as Keras does
        validation_data : (X, y), (X, y, sample_weight) or Ratings
        callbacks : list of Callback
        verbose : overrides the parameter
        resume : file of a `ModelCheckpoint`
            Go on from there, with the same ratings, parameters and callbacks as then, and end with the same bytes as
            if training had never stopped. `n_epochs` may be larger, `n_jobs` and `verbose` others.

        Raises
        ------
        ValueError, TypeError
            Before any work, naming what is wrong and how to mend it.
        """
        started = time.perf_counter()
        self._check_params()
        if not number(validation_split) or not 0 <= validation_split < 1:
            raise ValueError(f"validation_split must be in [0, 1), got {validation_split!r}")
        if validation_split and validation_data is not None:
            raise ValueError("give validation_split or validation_data, not both")
        if verbose not in (None, 0, 1, 2):
            raise ValueError(f"verbose must be 0, 1 or 2, got {verbose!r}")
        chosen(validation_split_order, "validation_split_order", ("random", "tail"))
        ratings = as_ratings(X, y, sample_weight)
        if len(ratings) < 2:
            raise ValueError(f"at least 2 ratings are needed, got {len(ratings)}")
        checkpoint = None
        if resume is not None:
            from funksvd.training import checkpoints

            checkpoint = checkpoints.read(resume, type(self))
        seed = self._seed() if checkpoint is None else checkpoint.seed
        held_out = None
        if validation_data is not None:
            held_out = (
                as_ratings(*validation_data)
                if isinstance(validation_data, tuple)
                else as_ratings(validation_data)
            )
        elif validation_split and validation_split_order == "tail":
            ratings, held_out = ratings.split_tail(validation_split)
        elif validation_split:
            ratings, held_out = ratings.split(validation_split, seed)
        for part, name in ((ratings, "training"), (held_out, "validation")):
            if part is not None and part.weights is not None and not part.weights.any():
                raise ValueError(
                    f"all {name} ratings weigh 0; hold out others, or give some of them a weight"
                )
        hyper = resolved(self.get_params())
        training = Training(
            self,
            ratings,
            held_out,
            hyper,
            seed,
            self._threads(),
            callbacks,
            self.verbose if verbose is None else verbose,
            checkpoint,
        )
        self.__dict__.pop("_params", None)  # of an earlier fit, whose ids are no longer these
        self._tables = ratings.tables
        self.history_: dict[str, list[float]] = {}
        self.stop_training, self.interrupted_, self.n_epochs_, self.n_ratings_ = (
            False,
            False,
            0,
            len(ratings),
        )
        self.setup_seconds_ = time.perf_counter() - started
        self._training: Any = training
        try:
            training.run()
        finally:
            if self.n_epochs_:
                self._adopt(training.engine.weights())
            self._training = None
        return self

    def get_weights(self):
        """A copy of the parameters; during `fit` those of the moment."""
        training = getattr(self, "_training", None)
        return self._params if training is None else training.engine.weights()

    def set_weights(self, weights):
        """Take over what `get_weights` returned."""
        if getattr(self, "_training", None) is not None:
            self._training.engine.load(weights)
        else:
            self._adopt(weights)

    def _adopt(self, params):
        self._params = params
        self.global_mean_ = params.global_mean
        self.user_biases_, self.item_biases_ = params.user_biases, params.item_biases
        self.user_factors_, self.item_factors_ = params.user_factors, params.item_factors
        self.user_ids_, self.item_ids_ = (table.ids for table in self._tables)
        for name in ("user_noise_weights_", "item_noise_weights_"):
            self.__dict__.pop(name, None)  # of another model
        if params.noise is not None:
            self.user_noise_weights_, self.item_noise_weights_ = noise_weights(params)

    def predict(self, X: Any, unknown: str = "mean", return_std: bool = False) -> Any:
        """Ratings for (users, items), an (n, 2) array or a `Ratings`.

        `unknown` ids: "mean" uses the mean and the known bias and warns once, "nan" gives NaN, "raise" raises.
        `return_std` (solver="gibbs"): also the standard deviations of the ratings, the noise of the user and the item
        and what the model does not know together; an unknown id has those of one without ratings.
        """
        chosen(unknown, "unknown", ("mean", "nan", "raise"))
        sure = checked(self._weights()) if return_std else None
        out, strange = self._predict(X)
        if strange.any():
            said = f"{strange.mean():.1%} of the pairs have a user or item unknown to the model"
            if unknown == "raise":
                raise ValueError(f"{said}; unknown='mean' or 'nan' accepts them")
            if unknown == "nan":
                out[strange] = np.nan
            else:
                warnings.warn(f"{said}; they get the mean and the known bias", stacklevel=2)
        return out if sure is None else (out, np.sqrt(variance(sure, *self._codes(X))))

    def predict_interval(
        self, X: Any, coverage: float = 0.8, unknown: str = "mean"
    ) -> tuple[npt.NDArray[Any], ...]:
        """(low, high) between which a share `coverage` of such ratings lies (solver="gibbs"), cut to `rating_scale`."""
        unclipped = copy.copy(self)
        unclipped.rating_scale = None
        predicted = unclipped.predict(X, unknown, return_std=True)
        return interval(self._params, predicted, coverage, self.rating_scale)

    def _codes(self, X):
        """int32 codes (users, items) of pairs, -1 where an id is unknown."""
        if isinstance(X, Ratings):
            return X.codes_in(self._tables)
        sides = zip(self._tables, pairs_of(X), ("user", "item"), strict=True)
        return tuple(
            table.encode(as_ids(raw, name), name, self._threads()) for table, raw, name in sides
        )

    def predict_table(self, table: Any, name: str = "prediction", unknown: str = "mean") -> Any:
        """The table (pandas, polars, pyarrow, a DuckDB relation) with the predictions for its rows as a column more."""
        from funksvd.ratings.tables import add_column

        return add_column(table, name, self.predict(table, unknown=unknown))

    def _predict(self, X):
        """(predictions, which pairs have an unknown id)."""
        params = self._weights()
        users, items = self._codes(X)
        if len(users) != len(items):
            raise ValueError(
                f"users and items must have equal lengths, got {len(users)} and {len(items)}"
            )
        out = predict(params, users, items, self._threads())
        strange = np.zeros(len(out), bool)
        if (
            min(users.min(initial=0), items.min(initial=0)) < 0
        ):  # the minima alone cost a tenth of the mask
            np.less(np.minimum(users, items), 0, out=strange)
        return self._clipped(out), strange

    def _clipped(self, ratings):
        return ratings if self.rating_scale is None else np.clip(ratings, *self.rating_scale)

    def _weights(self):
        if getattr(self, "_training", None) is None and not hasattr(self, "_params"):
            error = getattr(sys.modules.get("sklearn.exceptions"), "NotFittedError", ValueError)
            raise error("this FunkSVD is not fitted yet; call fit first")
        return self.get_weights()

    def evaluate(
        self, X: Any, y: npt.ArrayLike | None = None, sample_weight: npt.ArrayLike | None = None
    ) -> dict[str, float]:
        """{"rmse", "mae", "n", "unknown": share of pairs with an unknown id} on ratings; the errors are weighted."""
        ratings = as_ratings(X, y, sample_weight)
        predicted, strange = self._predict(ratings)
        errors = {
            name: error(ratings.values, predicted, ratings.weights)
            for name, error in (("rmse", rmse), ("mae", mae))
        }
        return errors | {"n": len(predicted), "unknown": float(strange.mean())}

    def score(
        self, X: Any, y: npt.ArrayLike | None = None, sample_weight: npt.ArrayLike | None = None
    ) -> float:
        """R^2, as scikit-learn's regressors."""
        ratings = as_ratings(X, y, sample_weight)
        mean = np.average(ratings.values, weights=ratings.weights)
        variance = np.average((ratings.values - mean) ** 2, weights=ratings.weights)
        return 1 - self.evaluate(ratings)["rmse"] ** 2 / float(variance)

    def recommend(
        self,
        users: Any = None,
        n: int = 10,
        exclude: Any = None,
        *,
        candidates: Any = None,
        unknown: str = "raise",
        table: str | None = None,
        risk: float = 0.0,
    ) -> Any:
        """The n best items, best first (equal predictions in the order of the ids).

        Parameters
        ----------
        users : one id, a list or array of m ids, or None for all
        n : int
        exclude : Ratings, or (user ids, item ids)
            Pairs not to recommend: what the users know already.
        candidates : ids of the items to choose from; None for all
        unknown : "raise", "mean" or "nan"
            For users that the model does not know: ValueError; items by the mean and their bias; nothing.
        table : "pandas", "polars", "pyarrow" or None
            Answer with a table of the columns user, item, rank and score.
        risk : float
            Items are ranked by the prediction + risk x its standard deviation (solver="gibbs"), which is the score:
            below 0 the safe choices, above 0 those that might surprise.

        Returns
        -------
        ids, scores : (n,) each for one id, else (m, n)
            The scores are those of `predict`. Where fewer than n items are left, one user's arrays are shorter, and of
            several users' a row ends with None and NaN.
        """
        params = self._weights()
        raw, one = asked(users, self._tables[0], "users")
        codes, scores = recommend(
            params, self._tables, raw, n, exclude, candidates, unknown, self._threads(), risk
        )
        return self._listed(raw, one, codes, scores, table)

    def recommend_batches(
        self, n: int = 10, exclude: Any = None, *, batch_size: int = 10_000, **options: Any
    ) -> Iterator[Any]:
        """(user ids, item ids, scores) of all users, `batch_size` users at a time; options as those of `recommend`."""
        for start in range(0, len(self._weights().user_biases), checked_n(batch_size)):
            users = self._tables[0].ids[start : start + batch_size]
            yield users, *self.recommend(users, n, exclude, **options)

    def _listed(self, raw, one, codes, scores, table=None, side=1):
        """Codes and scores as ids and scores, or as a table."""
        filled = (codes >= 0).sum(1).max(initial=0)
        codes, scores = codes[:, :filled], self._clipped(scores[:, :filled])
        ids = ids_of(self._tables[side], codes)
        if table is not None:
            return long_table(raw, ids, scores, table)
        return (ids[0], scores[0]) if one else (ids, scores)

    def similar_items(self, items: Any = None, n: int = 10, measure: str = "cosine") -> Any:
        """The n most similar items for one id, a list or array of ids, or None for all; an item is not its own answer.

        `measure` is "cosine" or "dot", of the factors. Returns (ids, similarities), (n,) each for one id, else (m, n).
        """
        return self._similar(items, n, measure, 1)

    def similar_users(self, users: Any = None, n: int = 10, measure: str = "cosine") -> Any:
        """As `similar_items`."""
        return self._similar(users, n, measure, 0)

    def _similar(self, ids, n, measure, side):
        params, name = self._weights(), ("user", "item")[side]
        raw, one = asked(ids, self._tables[side], f"{name}s")
        codes = known_codes(raw, self._tables[side], name)
        biases, factors = getattr(params, f"{name}_biases"), getattr(params, f"{name}_factors")
        best, scores = similar(biases, factors, codes, checked_n(n), measure, self._threads())
        best = ids_of(self._tables[side], best)
        return (best[0], scores[0]) if one else (best, scores)

    def predict_all(self, users: Any = None, unknown: str = "raise") -> npt.NDArray[Any]:
        """(m, n_items) predictions of every item, in the order of `item_ids_`, for user ids (None: all users).

        A user unknown to the model raises, or with unknown="mean" gets the mean and the items' biases.
        """
        chosen(unknown, "unknown", ("raise", "mean"))
        params = self._weights()
        raw, one = asked(users, self._tables[0], "users")
        codes = known_codes(raw, self._tables[0], "user", unknown)
        rows = self._clipped(predict_all(params, codes, self._threads()))
        return rows[0] if one else rows

    def explain(self, user: Any, item: Any, X: Any, y: npt.ArrayLike | None = None) -> Explanation:
        """Which of a user's ratings pull the prediction for an item up or down, and how far.

        `X`, `y` are ratings, the user's among them, in any form that `fit` takes: the model holds none. Fields of the
        answer: prediction, baseline, items, ratings, contributions, rest; prediction (before any clipping to
        rating_scale) = baseline + contributions.sum() + rest.
        """
        return explain(
            self._weights(),
            self._tables,
            user,
            item,
            as_ratings(X, y),
            lambda counts: fold_in.penalties(self, counts),
        )

    def item_vectors(self) -> npt.NDArray[Any]:
        """(n_items, n_factors + 2): with `query_vectors` the model as a plain inner product, for a vector index.

        item_vectors() @ query_vectors(user)[0] are the predictions for the user: biases and mean are dimensions of
        their own.
        """
        return item_vectors(self._weights())

    def query_vectors(self, users: Any = None) -> npt.NDArray[Any]:
        """(m, n_factors + 2) vectors of users (None: all), for an index of `item_vectors`."""
        params = self._weights()
        raw, _ = asked(users, self._tables[0], "users")
        return query_vectors(params, known_codes(raw, self._tables[0], "user"))

    def fold_in(
        self,
        X: Any,
        y: npt.ArrayLike | None = None,
        *,
        sample_weight: npt.ArrayLike | None = None,
        side: str = "users",
        extend: bool = True,
    ) -> FunkSVD:
        """A model that also knows the users (or items) of new ratings, without training: this one is left as it is.

        A new row is the ridge solution given the other side, with the L2 and L1 penalties of this model, and with
        non_negative=True the one whose factors are not below 0; with solver="gibbs" its posterior mean, and standard
        deviations of the new row are its own too. A user that the model knows already gets a new row too, from these
        ratings alone: give all ratings of such a user.

        Parameters
        ----------
        X, y, sample_weight : ratings as in `fit`; those of items that the model does not know are left out, with a warning
        side : "users" or "items", which to solve
        extend : bool
            True: a copy of the model with the new rows. False: a model of the new rows alone, which shares the other
            side's arrays: its `user_ids_`, `user_biases_` and `user_factors_` are the solution, and it recommends and
            predicts. Takes less than a millisecond for one user.
        """
        params = self._weights()
        chosen(side, "side", ("users", "items"))
        ratings, which = as_ratings(X, y, sample_weight), ("users", "items").index(side)
        codes, *rows, left_out = fold_in.solve(
            params, self._tables, ratings, which, self, self._threads()
        )
        if left_out:
            warnings.warn(
                f"{left_out} of {len(ratings)} ratings are of {('items', 'users')[which]} unknown to the model; "
                "they are left out",
                stacklevel=2,
            )
        ids = ratings.tables[which].ids[codes]
        together = fold_in.extended if extend else fold_in.only
        return self._successor(*together(params, self._tables, which, ids, *rows))

    def _successor(self, params, tables):
        """A copy of this model with other parameters."""
        other = copy.copy(self)
        other.tables = tables
        other._adopt(params)
        return other

    def partial_fit(
        self,
        X: Any,
        y: npt.ArrayLike | None = None,
        *,
        sample_weight: npt.ArrayLike | None = None,
        n_epochs: int = 5,
        learning_rate: float | None = None,
    ) -> FunkSVD:
        """Go on with SGD on new ratings, known ids and new ones; a model that is not fitted yet is fitted.

        New rows start from their ridge solution (`fold_in`). Only rows with new ratings move, so the time grows with
        these, not with all ratings ever seen; the mean stays. The model changes in place but none of its arrays does:
        `newer = copy.copy(model).partial_fit(X, y)` leaves a served model as it is.

        Parameters
        ----------
        X, y, sample_weight : ratings as in `fit`
        n_epochs : passes over them
        learning_rate : float or None, the rate that the last epoch of `fit` ended with
        """
        if not hasattr(self, "_params"):
            return self.fit(X, y, sample_weight=sample_weight)
        self._check_params()
        if self.solver == "gibbs" or self._params.noise is not None:
            raise ValueError(
                "partial_fit goes on with SGD; with solver='gibbs' use fold_in for new rows, or fit again"
            )
        ratings, n_epochs = as_ratings(X, y, sample_weight), checked_n(n_epochs, "n_epochs")
        seed = self._seed()
        hyper = resolved(self.get_params(), history_=self.history_, n_ratings_=self.n_ratings_)
        hyper.training = "joint"  # new ratings move all features, however these were trained
        if learning_rate is None:
            learning_rate = (
                self.history_["learning_rate"][-1] if self.history_ else planned_rate(hyper, 0)
            )
        params, tables = update(
            self._params,
            self._tables,
            ratings,
            hyper,
            engine_for(hyper),
            first_epoch=self.n_epochs_,
            n_epochs=n_epochs,
            learning_rate=learning_rate,
            seed=seed,
            n_jobs=self._threads(),
        )
        self._tables = tables
        self._adopt(params)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as npz, or as safetensors where the name ends so; to a temporary name first.

        An error leaves the old file whole. Ids may be int, str, bytes, UUID, datetime or date. A learning-rate schedule
        that is a function is not kept.
        """
        from funksvd.files import model_file

        model_file.save(self, path)

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """In a callback: `save`, and with the model all that ``fit(resume=path)`` needs; what `ModelCheckpoint` does."""
        if getattr(self, "_training", None) is None:
            raise ValueError("there is a checkpoint during fit only; save writes the model")
        from funksvd.training import checkpoints

        checkpoints.save(path, self, self._training)

    def __getstate__(self):
        state = self.__dict__.copy()
        if state.get("_training") is not None:  # in the middle of fit
            state["_params"] = self.get_weights()
        state["_training"] = None
        return state


def load(path: str | os.PathLike[str], mmap: bool = False) -> FunkSVD:
    """A saved model, npz or safetensors. ValueError where the file is not one, damaged or of a newer version.

    Nothing in a file is executed. With `mmap` the arrays are mapped into memory instead of read: loading takes no time,
    processes share them, and they are read-only; damage is then not noticed.
    """
    from funksvd.files import model_file

    return model_file.load(path, FunkSVD, mmap)


def from_surprise(algo: Any) -> FunkSVD:
    """The model of a fitted SVD, SVDpp, NMF or BaselineOnly of Surprise, with its raw ids; it predicts the same."""
    from funksvd.surprise import from_surprise as of_surprise

    return of_surprise(algo, FunkSVD)
