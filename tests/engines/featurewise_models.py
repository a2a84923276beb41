"""Ratings and models that tests of feature after feature share."""

from conftest import planted_ratings

from funksvd import FunkSVD


def some(n=3000, n_users=80, n_items=50, seed=0):
    """Return ((users, items), values) of a planted model."""
    users, items, values = planted_ratings(n, n_users, n_items, seed)
    return (users, items), values


def featurewise(k=3, n_epochs=10, **params):
    return FunkSVD(
        k,
        n_epochs,
        training="featurewise",
        **({"random_state": 0} | params),
    )
