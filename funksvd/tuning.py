"""Search over a small grid of parameters by cross-validation, with early stopping of each fit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from funksvd.callbacks.stopping import EarlyStopping
from funksvd.checks import check_choice, checked_n, refuse_old_names
from funksvd.engines.choose import engine_for
from funksvd.metrics import RANKING_METRICS
from funksvd.model import FunkSVD
from funksvd.ratings.triples import Ratings
from funksvd.serving.evaluating import checked_threshold

__all__ = ["GRID", "Setting", "tune"]

Grid = dict[str, Sequence[Any]]

# Arguments of an earlier version -> those of scikit-learn, which are theirs now.
NEW_NAMES = {"n_folds": "n_splits"}

GRID: Grid = {
    "n_factors": [32, 100],
    "l2": [0.04, 0.08, 0.12],
    "learning_rate": [0.01, 0.02],
}
# Of an engine that takes no steps, and so has neither a learning rate nor penalties.
GRID_WITHOUT_STEPS: Grid = {"n_factors": [16, 32]}


class Setting(NamedTuple):
    """One setting of a grid and its results.

    Attributes
    ----------
    parameters : dict
    rmse : float
        Mean, over the folds, of the validation RMSE of the best epoch.
    score, sd : float
        Mean and standard deviation, over the folds, of the metric that the search ranks by.
    n_epochs : int
        Median, over the folds, of the number of epochs up to the best one.
    seconds : float
        Time of all folds together.
    """

    parameters: dict[str, Any]
    rmse: float
    score: float
    sd: float
    n_epochs: int
    seconds: float


class Measure(NamedTuple):
    """What a search ranks by: "rmse", or a metric of lists of k items; see `FunkSVD.evaluate`."""

    metric: str
    k: int
    threshold: float | None


class Outcome(NamedTuple):
    """The result of one fit: RMSE, score and number of the best epoch, and the time."""

    rmse: float
    score: float
    n_epochs: int
    seconds: float


def default_grid(parameters: Mapping[str, Any]) -> Grid:
    """Return the grid for models with these parameters.

    The learning rates of `GRID` suit plain SGD alone.
    """
    model = FunkSVD().set_params(**parameters)
    model._check_params()
    hyper = model._hyper()
    if not engine_for(hyper).makes_steps:
        return dict(GRID_WITHOUT_STEPS)
    grid = dict(GRID)
    is_plain_sgd = hyper.solver == "sgd" and hyper.batch_size == 1
    if not is_plain_sgd or callable(hyper.learning_rate_schedule):
        del grid["learning_rate"]
    return grid


def tune(
    ratings: Ratings,
    grid: Mapping[str, Sequence[Any]] | None = None,
    *,
    n_splits: int = 3,
    patience: int = 3,
    random_state: int = 0,
    metric: str = "rmse",
    k: int = 10,
    threshold: float | None = None,
    progress: bool = False,
    **parameters: Any,
) -> list[Setting]:
    """Try every setting of a grid by cross-validation; return the settings, the best first.

    Early stopping finds the number of epochs. The folds that are held out choose both the epochs
    and the winner: measure the winner on ratings that the search has not seen.

    Parameters
    ----------
    ratings : Ratings
    grid : {parameter: values}, optional
        By default a few settings of `n_factors`, `l2` and `learning_rate` that suit the solver.
    n_splits : int
        Each rating is held out once. The folds do not depend on the order of the ratings.
    patience : int
        Epochs without improvement after which a fit ends.
    random_state : int
        Seed of the folds and of the models.
    metric : {"rmse", "ndcg", "precision", "recall", "map", "mrr", "hit_rate"}
        What the search ranks by; the RMSE decides in any case when a fit ends.
    k, threshold : as in `FunkSVD.evaluate`, for all metrics but "rmse"
    progress : bool, whether to show a progress bar
    **parameters : those of every model

    Raises
    ------
    ValueError
        If a value is not allowed, before any training, or if there are too few ratings.
    """
    from tqdm import tqdm

    refuse_old_names("tune", parameters.keys() & NEW_NAMES, NEW_NAMES)
    check_choice(metric, "metric", ("rmse", *RANKING_METRICS))
    measure = Measure(metric, checked_n(k, "k"), threshold)
    settings = settings_of(grid if grid is not None else default_grid(parameters))
    models = [model_of(parameters | setting, random_state) for setting in settings]
    if threshold is not None:
        checked_threshold(threshold, ratings, models[0].rating_scale)
    outcomes: list[list[Outcome]] = [[] for _ in models]
    total = len(models) * n_splits
    with tqdm(
        total=total, desc="fits", unit="fit", delay=1, leave=False, disable=not progress
    ) as bar:
        for train, held_out in ratings.folds(n_splits, random_state):
            for model, its_outcomes in zip(models, outcomes, strict=True):
                its_outcomes.append(fit(model, train, held_out, patience, measure))
                bar.update()
    found = [summary(*pair) for pair in zip(settings, outcomes, strict=True)]
    return sorted(found, key=lambda setting: setting.score, reverse=metric != "rmse")


def settings_of(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the parameters of every setting of a grid; ValueError if values are not a list."""
    if any(isinstance(values, str) or not len(values) for values in grid.values()):
        raise ValueError(f"each parameter of the grid needs a list of values, got {grid!r}")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def model_of(parameters: Mapping[str, Any], random_state: int) -> FunkSVD:
    """Return a model with some parameters and a seed; ValueError if they are not allowed."""
    model = FunkSVD().set_params(random_state=random_state, **parameters)
    model._check_params()
    return model


def fit(
    model: FunkSVD, train: Ratings, held_out: Ratings, patience: int, measure: Measure
) -> Outcome:
    """Fit a model on one fold; return its outcome, with an infinitely bad score if it diverged.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, which `FunkSVD.fit` itself takes for the end of training.
    """
    start = time.perf_counter()
    stopping = EarlyStopping("val_loss", patience=patience)
    rmse = np.inf
    score = np.inf if measure.metric == "rmse" else -np.inf
    n_epochs = 0
    try:
        model.fit(train, validation_data=held_out, callbacks=[stopping], verbose=0)
        rmse = model.history_["val_rmse"][stopping.best_epoch]
        n_epochs = stopping.best_epoch + 1
        score = rmse
        if measure.metric != "rmse":
            score = score_of_lists(model, train, held_out, measure)
    except FloatingPointError:  # training diverged
        pass
    if getattr(model, "interrupted_", False):
        raise KeyboardInterrupt
    return Outcome(rmse, score, n_epochs, time.perf_counter() - start)


def score_of_lists(model: FunkSVD, train: Ratings, held_out: Ratings, measure: Measure) -> float:
    """Return a metric of the lists of a model that was fitted on one fold."""
    result = model.evaluate(held_out, k=measure.k, exclude=train, threshold=measure.threshold)
    return float(result[measure.metric])


def summary(parameters: dict[str, Any], outcomes: Sequence[Outcome]) -> Setting:
    """Return a setting with the outcomes of its folds."""
    scores: NDArray[np.float64] = np.array([outcome.score for outcome in outcomes])
    return Setting(
        parameters,
        rmse=float(np.mean([outcome.rmse for outcome in outcomes])),
        score=float(scores.mean()),
        sd=float(scores.std()) if np.isfinite(scores).all() else np.inf,
        n_epochs=int(np.median([outcome.n_epochs for outcome in outcomes])),
        seconds=sum(outcome.seconds for outcome in outcomes),
    )
