"""Models side by side: errors, lists and seconds, as means over several random splits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from funksvd.checks import checked_n
from funksvd.model import FunkSVD
from funksvd.ratings.inputs import as_ratings
from funksvd.ratings.triples import Ratings
from funksvd.serving.evaluating import Lists, checked_threshold

__all__ = ["Comparison", "Interval", "compare"]

# Share of the intervals; Student's t distribution makes them of few splits.
LEVEL = 0.95
BIASES_ONLY = "biases_only"
BASELINES = ("popularity", BIASES_ONLY)

# {name of the model: {name of the metric: value}} of one split.
Results = dict[str, dict[str, float]]
Models = FunkSVD | Sequence[FunkSVD] | Mapping[str, FunkSVD]


class Interval(NamedTuple):
    """A mean over splits, and half of the length of its 95 % confidence interval.

    `half` is NaN for a single split.
    """

    mean: float
    half: float

    def __str__(self) -> str:
        half = "" if np.isnan(self.half) else f" ± {self.half:.4f}"
        return f"{self.mean:.4f}{half}"


class Comparison(NamedTuple):
    """The result of `compare`; `print` shows it as a table.

    Attributes
    ----------
    rows : {name of the model: {name of the metric: Interval}}
        The metrics are those of `FunkSVD.evaluate`, and "seconds" of fit. Popularity has neither
        errors nor seconds.
    k : int
        Length of the lists.
    n_splits : int
    """

    rows: dict[str, dict[str, Interval]]
    k: int
    n_splits: int

    def __str__(self) -> str:
        names = ["", "RMSE", f"NDCG@{self.k}", "fit, s"]
        table = [names]
        for name, row in self.rows.items():
            rmse = str(row["rmse"]) if "rmse" in row else ""
            seconds = f"{row['seconds'].mean:.2f}" if "seconds" in row else ""
            table.append([name.replace("_", " "), rmse, str(row["ndcg"]), seconds])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for first, *others in table:
            cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
        return "\n".join(lines)


def compare(
    models: Models,
    ratings: Any,
    test: Any = None,
    *,
    k: int = 10,
    threshold: float | None = None,
    test_size: float = 0.1,
    n_splits: int = 3,
    random_state: int = 0,
    progress: bool = False,
) -> Comparison:
    """Fit models on several random splits and measure each beside popularity and biases alone.

    The models stay as they are: copies with their parameters are fitted. Split number s has the
    seed random_state + s, and so have its models.

    Parameters
    ----------
    models : FunkSVD, a list of them, or {name: FunkSVD}
    ratings : Ratings, or another form that `fit` takes
    test : the same, or None
        Ratings to measure on. If they are given, all models are trained on all of `ratings`, and
        the seeds of the models alone differ.
    k, threshold : int, float or None
        Length of the lists, and rating from which on an item is relevant; see `FunkSVD.evaluate`.
    test_size : float in (0, 1)
        Share of the ratings that a split holds out.
    n_splits : int
    random_state : int
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        If an argument or a model's parameter is not allowed, before any training.
    """
    from tqdm import tqdm

    named = named_models(models)
    ratings = as_ratings(ratings)
    given = None if test is None else as_ratings(test)
    k = checked_n(k, "k")
    if threshold is not None:
        threshold = checked_threshold(threshold, ratings if given is None else given, None)
    first = checked_n(random_state, "random_state", 0)
    seeds = range(first, first + checked_n(n_splits, "n_splits"))
    results: list[Results] = []
    total = len(seeds) * len(named)
    with tqdm(total=total, desc="fits", unit="fit", leave=False, disable=not progress) as bar:
        for seed in seeds:
            train, held_out = parts(ratings, given, test_size, seed)
            lists = Lists(k, train, {})
            measured: Results = {}
            for name, model in named.items():
                measured |= results_of(name, model, seed, held_out, lists, threshold)
                bar.update()
            results.append(measured)
    return Comparison(intervals(results), k, len(seeds))


def parts(
    ratings: Ratings, given: Ratings | None, test_size: float, seed: int
) -> tuple[Ratings, Ratings]:
    """Return (train, test): the ratings and those given to measure on, or else a random split."""
    return ratings.split(test_size, seed) if given is None else (ratings, given)


def named_models(models: Models) -> dict[str, FunkSVD]:
    """Return models by name, biases alone before them; ValueError if parameters are not allowed.

    A model without a name has that of its `repr`.
    """
    if isinstance(models, FunkSVD):
        models = [models]
    if not isinstance(models, Mapping):
        models = {repr(model): model for model in models}
    for name, model in models.items():
        if not isinstance(model, FunkSVD):
            raise TypeError(f"models must be FunkSVD, got {type(model).__name__} as {name!r}")
        model._check_params()
        if name in BASELINES:
            raise ValueError(f"{name!r} is the name of a base line; give the model another one")
    if not models:
        raise ValueError("models must hold a model to compare with the base lines, got none")
    scale = next(iter(models.values())).rating_scale
    return {BIASES_ONLY: FunkSVD(n_factors=0, rating_scale=scale)} | dict(models)


def results_of(
    name: str,
    model: FunkSVD,
    seed: int,
    held_out: Ratings,
    lists: Lists,
    threshold: float | None,
) -> Results:
    """Fit a copy of a model; return its metrics by its name, and with biases alone popularity's."""
    copy = FunkSVD(**model.get_params() | {"random_state": seed})
    start = time.perf_counter()
    copy.fit(lists.known, verbose=0)
    seconds = time.perf_counter() - start
    if copy.interrupted_:
        raise KeyboardInterrupt
    measured = copy._measured(held_out, lists, threshold, name == BIASES_ONLY)
    baselines: Results = measured.pop("baselines", {})
    return baselines | {name: measured | {"seconds": seconds}}


def intervals(results: Sequence[Results]) -> dict[str, dict[str, Interval]]:
    """Return the mean and the interval, over splits, of each metric of each model."""
    rows = {}
    for name, metrics in results[0].items():
        rows[name] = {
            metric: interval([measured[name][metric] for measured in results]) for metric in metrics
        }
    return rows


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of some values and its interval by Student's t distribution."""
    from scipy.special import stdtrit

    n = len(values)
    mean = float(np.mean(values))
    if n == 1:
        return Interval(mean, float("nan"))
    quantile = stdtrit(n - 1, (1 + LEVEL) / 2)
    return Interval(mean, float(quantile * np.std(values, ddof=1) / np.sqrt(n)))
