"""A model fitted on ratings without structure, for tests of what `fit` refuses."""

from conftest import random_ratings


def fit_random(model):
    """Fit a model on random ratings."""
    users, items, values = random_ratings()
    return model.fit((users, items), values)
