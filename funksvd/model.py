"""FunkSVD: its parameters and its files.

The other two thirds of the class stand with their stations: `training.fitting` learns, and
`serving.answers` answers.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from funksvd.engines.device import open_device
from funksvd.hyper import Hyper, Penalty, resolve
from funksvd.machine.threads import free_cores
from funksvd.serving.answers import Answers
from funksvd.training.fitting import Fitting
from funksvd.weights import Fitted


class FunkSVD(Fitting, Answers):
    """Matrix factorisation of ratings: r = mean + b_u + b_i + p_u . q_i.

    The model is that of Funk (2006) and of Koren, Bell and Volinsky (2009, equation 5). The
    constructor and `fit` follow scikit-learn, callbacks and losses follow Keras.

    Parameters
    ----------
    n_factors : int or None
        Number of latent factors of a user and of an item; None is 100, 32 for "gibbs" and 128 for
        "ials". 0 makes a model of the mean and the biases alone.
    n_epochs : int or None
        Largest number of passes over the ratings; for training="featurewise", of passes for each
        feature. None is 40, 120 for "gibbs" and 16 for "ials".
    solver : {"sgd", "adagrad_row", "adagrad", "adam", "adamax", "gibbs", "ials"}
        Rule of a step. "adagrad_row" keeps one accumulator for a row of factors and needs
        batch_size=1. "gibbs" takes no steps: it samples the posterior, an epoch is a sweep, nothing
        needs tuning, and predictions have a standard deviation. "ials" learns which items a user
        takes, from pairs with or without ratings, and not how they are rated: its predictions are
        about 1 for the pairs that it expects and near 0 for the others. Parameters that these two
        do not use must keep their defaults.
    training : {"joint", "featurewise"}
        Train all factors at once, or in Funk's own order, one feature after the other; the latter
        needs solver="sgd".
    batch_size : int
        1 takes a step for each rating and is the fast way. A larger number makes mini-batches
        exactly as Keras does.
    shuffle : bool
        Whether mini-batches are drawn anew in each epoch, or follow the order of the ratings.
    learning_rate : float or None
        Step size of the first epoch; None is the solver's own.
    learning_rate_schedule : {"constant", "exponential", "inverse_time", "cosine"} or callable
        Step size of epoch e (from 0) as a share of the first: 1, (1 - decay)^e,
        1 / (1 + decay e), or (1 + cos(pi e / n_epochs)) / 2. A function of e returns the step size
        itself. If a callback changes the rate, later epochs keep the change in proportion.
    learning_rate_decay : float in [0, 1)
        Decay of the exponential and of the inverse-time schedule.
    momentum : float in [0, 1)
        Momentum of "sgd".
    beta_1, beta_2 : float in [0, 1)
        Decay of the running means of gradients and of their sizes, in "adam" and "adamax".
    epsilon : float
        Small constant added to the adaptive solvers' denominators to avoid division by zero.
    initial_accumulator_value : float
        First value of the sum of squared gradients in "adagrad" and "adagrad_row".
    l2, l1, l2_bias, l1_bias : float, or pair (users, items)
        Penalties of factors and of biases; L1 makes exact zeros.
    reg_scale : {"rating", "row"}
        Apply the penalties with every rating, or to every row once an epoch; in mini-batches "row"
        applies them to every row with every batch, as Keras' embeddings_regularizer does.
    non_negative : bool
        Keep the factors at 0 or above.
    min_improvement : float
        For training="featurewise": move to the next feature once a pass improves the training RMSE
        by less than this.
    biased : bool
        Learn a bias for each user and each item.
    center : bool
        Start from the mean of the ratings instead of 0.
    init_std : float
        Standard deviation of the random first factors.
    average : {"low_rank", "factors"}
        What "gibbs" keeps of its samples: their mean prediction as a model of 2 to 12 times
        n_factors, or the means of their n_factors factors.
    moods : {"keep", "variances", "none"}
        What "gibbs" learns from the times of ratings: users' moods, for ``predict(X, times=)``, 20
        bytes a rating; only how much they vary; or nothing.
    exposure : bool
        Learn beside the ratings which items users take, as solver="ials" does with its defaults, so
        that `recommend` ranks by relevance: how likely a user takes an item, times how likely they
        then like it. The part that predicts ratings stays the same to the last bit.
    unseen_weight : float or None
        For "ials": weight of a pair that is not given beside that of one that is; None follows from
        the ratings.
    exposure_l2 : float or None
        For "ials": penalty of the factors for each unit of the weight of a row's pairs; None
        follows from the ratings.
    sets : bool or None
        Whether "gibbs" learns from the set of items that a user rated, and of users who rated an
        item, whatever the ratings: the prior mean of a row is a sum over its set (Koren 2008).
        None is the solver's own: True for "gibbs".
    rating_scale : (low, high) or None
        Predictions are clipped to it; for training="featurewise" in training, too.
    n_jobs : int
        Number of threads; -1 is all cores. It does not change a bit of the result.
    device : {"cpu", "cuda", "cuda:N"}
        Where to train. A GPU that is not there raises `DeviceError`.
    schedule : {"strata", "hogwild"}
        On a GPU: blocks in a repeatable order, or all at once with collisions.
    max_device_bytes : int or None
        Largest memory of the GPU to use; ratings that do not fit are streamed.
    dtype : {"float32", "float64"}; on a GPU {"float32", "float16"}
        Precision of the factors. "float16" is storage alone, with stochastic rounding; the model is
        float32.
    random_state : int or None
        Seed; None draws one.
    verbose : {0, 1, 2}
        Print nothing, a progress bar, or a line for each epoch.
    """

    _estimator_type = "regressor"  # for scikit-learn before 1.6

    n_factors: int | None
    n_epochs: int | None
    solver: str
    training: str
    batch_size: int
    shuffle: bool
    learning_rate: float | None
    learning_rate_schedule: str | Callable[[int], float]
    learning_rate_decay: float
    momentum: float
    beta_1: float
    beta_2: float
    epsilon: float
    initial_accumulator_value: float
    l2: Penalty
    l1: Penalty
    l2_bias: Penalty
    l1_bias: Penalty
    reg_scale: str
    non_negative: bool
    min_improvement: float
    biased: bool
    center: bool
    init_std: float
    average: str
    moods: str
    exposure: bool
    unseen_weight: float | None
    exposure_l2: float | None
    sets: bool | None
    rating_scale: tuple[float, float] | None
    n_jobs: int
    device: str
    schedule: str
    max_device_bytes: int | None
    dtype: DTypeLike
    random_state: int | None
    verbose: int

    def __init__(
        self,
        n_factors: int | None = None,
        n_epochs: int | None = None,
        *,
        solver: str = "sgd",
        training: str = "joint",
        batch_size: int = 1,
        shuffle: bool = True,
        learning_rate: float | None = None,
        learning_rate_schedule: str | Callable[[int], float] = "exponential",
        learning_rate_decay: float = 0.03,
        momentum: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        initial_accumulator_value: float = 0.1,
        l2: Penalty = 0.08,
        l1: Penalty = 0.0,
        l2_bias: Penalty = 0.02,
        l1_bias: Penalty = 0.0,
        reg_scale: str = "rating",
        non_negative: bool = False,
        min_improvement: float = 1e-4,
        biased: bool = True,
        center: bool = True,
        init_std: float = 0.05,
        average: str = "low_rank",
        moods: str = "keep",
        exposure: bool = False,
        unseen_weight: float | None = None,
        exposure_l2: float | None = None,
        sets: bool | None = None,
        rating_scale: tuple[float, float] | None = None,
        n_jobs: int = -1,
        device: str = "cpu",
        schedule: str = "strata",
        max_device_bytes: int | None = None,
        dtype: DTypeLike = "float32",
        random_state: int | None = None,
        verbose: int = 0,
    ) -> None:
        given = locals()
        for field in fields(Hyper):  # which has the same names
            setattr(self, field.name, given[field.name])

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; `deep` is scikit-learn's and changes nothing."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; ValueError if one is unknown."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"unknown parameter {name!r}; there are {', '.join(known)}")
            setattr(self, name, value)
        return self

    def _check_params(self) -> None:
        from funksvd.parameters import check  # its tables are a twentieth of `import funksvd`

        check(self)
        if self.device != "cpu":
            open_device(self.device)

    def _hyper(self) -> Hyper:
        return resolve(self.get_params())

    def _seed(self) -> int:
        if self.random_state is None:
            drawn = np.random.SeedSequence().generate_state(1, np.uint64)[0]
            return int(drawn >> np.uint64(1))
        return int(self.random_state)

    def _threads(self) -> int:
        return free_cores() if self.n_jobs == -1 else int(self.n_jobs)

    def _take_over(self, fitted: Fitted) -> Self:
        """Become a model that was trained elsewhere."""
        self._fitted = fitted
        self._show(fitted.trained)
        self.interrupted_ = False
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as npz, or as safetensors if the name ends so.

        The file is written under a temporary name first: an error leaves an old file whole. Ids may
        be int, str, bytes, UUID, datetime or date. A learning-rate schedule that is a function is
        not kept. A name that ends as files of other formats do, such as ".pkl", is refused.
        """
        from funksvd.files import model_file  # zipfile is a tenth of the time of `import funksvd`

        model_file.save(self, path)

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """In a callback: write the model and all that ``fit(resume=path)`` needs."""
        if self._training is None:
            raise ValueError("there is a checkpoint during fit only; save writes the model")
        from funksvd.training import checkpoints

        checkpoints.save(path, self, self._training)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._training is not None:  # in the middle of fit
            state["_fitted"] = self._current()
        state.pop("_training", None)
        return state

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if repr(value) != repr(defaults[name].default)
        ]
        return f"FunkSVD({', '.join(changed)})"

    def _repr_html_(self) -> str:
        from funksvd.card import model_html

        return model_html(self)

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted is not None

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True),
            regressor_tags=RegressorTags(),
            input_tags=InputTags(categorical=True, string=True),
            non_deterministic=self.random_state is None,
        )


def load(path: str | os.PathLike[str], mmap: bool = False) -> FunkSVD:
    """Read a saved model, npz or safetensors.

    Nothing in a file is executed. With `mmap` the arrays are mapped into memory instead of read:
    loading takes no time, processes share them, they are read-only, and damage is not noticed.

    Raises
    ------
    ValueError
        If the file is no whole model, or is one of a newer version.
    """
    from funksvd.files import model_file

    model: FunkSVD = model_file.load(path, FunkSVD, mmap)
    return model


def from_surprise(algo: Any) -> FunkSVD:
    """Return the model of a fitted SVD, SVDpp, NMF or BaselineOnly of Surprise, with its raw ids.

    It predicts the same.
    """
    from funksvd.surprise import from_surprise as convert

    model: FunkSVD = convert(algo, FunkSVD)
    return model
