"""Ratings to try models on: made up, with a known best error, or public; and readers of files."""

from funksvd.datasets.dataset import Dataset
from funksvd.datasets.made import Planted, make_ratings
from funksvd.datasets.movielens import load_movielens
from funksvd.datasets.netflix import load_netflix
from funksvd.ratings.columns import resolve_columns
from funksvd.ratings.reading import read_pairs, read_ratings, read_titles

__all__ = [
    "Dataset",
    "Planted",
    "load_movielens",
    "load_netflix",
    "make_ratings",
    "read_pairs",
    "read_ratings",
    "read_titles",
    "resolve_columns",
]
