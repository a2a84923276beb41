"""The record of public ratings that the loaders return."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from funksvd.ratings.triples import Ratings


class Dataset(NamedTuple):
    """Public ratings.

    Attributes
    ----------
    ratings : Ratings
        In the order of the files.
    titles : dict
        Item id (int) -> title.
    times : ndarray of shape (n_ratings,), datetime64, or None
        When each rating was given; None unless the loader was told to return times.
    """

    ratings: Ratings
    titles: dict[int, str]
    times: np.ndarray | None
