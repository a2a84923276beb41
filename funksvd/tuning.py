"""Search over a small grid of parameters by cross-validation, each setting stopped early; `funksvd tune`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from funksvd.callbacks.stopping import EarlyStopping
from funksvd.model import FunkSVD
from funksvd.ratings.triples import Ratings

__all__ = ["GRID", "Setting", "tune"]

GRID: dict[str, Sequence[Any]] = {
    "n_factors": [32, 100],
    "l2": [0.04, 0.08, 0.12],
    "learning_rate": [0.01, 0.02],
}


def default_grid(parameters: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """The grid for a model with these parameters: learning rates for plain SGD only, for solver="gibbs" neither."""
    hyper = FunkSVD().set_params(**parameters)
    if hyper.solver == "gibbs":
        return {"n_factors": [16, 32]}
    plain = (
        hyper.solver == "sgd"
        and hyper.batch_size == 1
        and not callable(hyper.learning_rate_schedule)
    )
    return {name: values for name, values in GRID.items() if plain or name != "learning_rate"}


class Setting(NamedTuple):
    """One setting of a grid and how it did.

    Attributes
    ----------
    parameters : dict
    rmse, sd : float
        Mean and standard deviation over the folds of the RMSE of the best epoch on the part held out.
    n_epochs : int
        Median over the folds of the best epoch's number.
    seconds : float
        Of all folds.
    """

    parameters: dict[str, Any]
    rmse: float
    sd: float
    n_epochs: int
    seconds: float


def tune(
    ratings: Ratings,
    grid: Mapping[str, Sequence[Any]] | None = None,
    *,
    n_folds: int = 3,
    patience: int = 3,
    random_state: int = 0,
    progress: bool = False,
    **parameters: Any,
) -> list[Setting]:
    """Try every setting of a grid by cross-validation; the best comes first.

    The number of epochs is found by early stopping, so it needs no place in the grid. It is chosen with the part held
    out in view: measure the winner on ratings that the search has not seen.

    Parameters
    ----------
    ratings : Ratings
    grid : {parameter: values}, by default a few settings of `n_factors`, `l2` and `learning_rate` that suit the solver
    n_folds : int
        Each rating is held out once; folds are the same for any order of the ratings.
    patience : int
        Epochs without improvement after which a fit ends.
    random_state : int
        Seed of the folds and of the models.
    progress : bool
        Show a progress bar.
    **parameters
        Of every model.

    Raises
    ------
    ValueError
        A parameter that there is not, a value that is not allowed (before any training), or too few ratings.
    """
    from tqdm import tqdm

    tried = default_grid(parameters) if grid is None else dict(grid)
    if any(isinstance(values, str) or not len(values) for values in tried.values()):
        raise ValueError(f"each parameter of the grid needs a list of values, got {tried!r}")
    chosen = [
        dict(zip(tried, values, strict=True)) for values in itertools.product(*tried.values())
    ]
    models = [
        FunkSVD().set_params(random_state=random_state, **parameters | setting)
        for setting in chosen
    ]
    for model in models:
        model._check_params()
    errors, best_epochs = np.zeros((2, len(models), n_folds))
    seconds = np.zeros(len(models))
    with tqdm(
        total=errors.size, desc="fits", unit="fit", delay=1, leave=False, disable=not progress
    ) as bar:
        for fold, (train, held_out) in enumerate(ratings.folds(n_folds, random_state)):
            for k, model in enumerate(models):
                start = time.perf_counter()
                stopping = EarlyStopping("val_loss", patience=patience)
                try:
                    model.fit(train, validation_data=held_out, callbacks=[stopping], verbose=0)
                    errors[k, fold] = model.history_["val_rmse"][stopping.best_epoch]
                    best_epochs[k, fold] = stopping.best_epoch + 1
                except FloatingPointError:  # it diverged
                    errors[k, fold] = np.inf
                if getattr(model, "interrupted_", False):
                    raise KeyboardInterrupt
                seconds[k] += time.perf_counter() - start
                bar.update()
    found = [
        Setting(
            setting,
            float(e.mean()),
            float(e.std()) if np.isfinite(e).all() else np.inf,
            int(np.median(n)),
            float(s),
        )
        for setting, e, n, s in zip(chosen, errors, best_epochs, seconds, strict=True)
    ]
    return sorted(found, key=lambda setting: setting.rmse)
