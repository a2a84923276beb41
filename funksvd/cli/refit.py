"""A second fit, on all ratings, of commands that have found the number of epochs on a part."""

from __future__ import annotations

import dataclasses
from typing import Any

from funksvd.engines.choose import engine_for
from funksvd.model import FunkSVD
from funksvd.ratings.triples import Ratings


def epochs_of(parameters: dict[str, Any], best: int) -> dict[str, int]:
    """Return the parameter, with its value, that ends a fit after so many epochs.

    It is `n_epochs`, or `n_factors` where an epoch learns one feature after the other.
    """
    hyper = FunkSVD(**parameters)._hyper()
    engine = engine_for(hyper)
    longer = dataclasses.replace(hyper, n_epochs=hyper.n_epochs + 1)
    depends = engine.planned_epochs(longer) != engine.planned_epochs(hyper)
    return {"n_epochs" if depends else "n_factors": max(1, best)}


def refitted(parameters: dict[str, Any], ratings: Ratings, best: int) -> FunkSVD:
    """Return a model that is trained on all ratings for the number of epochs found best."""
    return FunkSVD(**parameters | epochs_of(parameters, best)).fit(ratings, verbose=0)
