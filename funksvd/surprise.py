"""Models of Surprise as models of this package."""

from __future__ import annotations

import numpy as np

from funksvd.machine.memory import aligned
from funksvd.ratings.ids import table_and_keys
from funksvd.weights import Fitted, Weights


def from_surprise(algo, make):
    """`funksvd.from_surprise`; `make` is the class of the model."""
    trainset = getattr(algo, "trainset", None)
    if trainset is None or not any(hasattr(algo, name) for name in ("pu", "bu")):
        raise TypeError(
            f"algo must be a fitted SVD, SVDpp, NMF or BaselineOnly of Surprise, got {type(algo).__name__}"
        )
    n_users, n_items = trainset.n_users, trainset.n_items
    biased = bool(getattr(algo, "biased", True))
    user_factors = np.array(getattr(algo, "pu", np.zeros((n_users, 1))), np.float64)
    item_factors = np.array(getattr(algo, "qi", np.zeros((n_items, 1))), np.float64)
    if hasattr(algo, "yj"):  # SVD++: what a user has rated adds to his factors, and is known by now
        for user, rated in trainset.ur.items():
            user_factors[user] += algo.yj[[item for item, _ in rated]].sum(axis=0) / np.sqrt(
                len(rated)
            )
    biases = [
        np.array(getattr(algo, name), np.float64) if biased else np.zeros(n)
        for name, n in (("bu", n_users), ("bi", n_items))
    ]
    sides = []
    for name, n, to_raw, factors, bias in (
        ("user", n_users, trainset.to_raw_uid, user_factors, biases[0]),
        ("item", n_items, trainset.to_raw_iid, item_factors, biases[1]),
    ):
        raw = [to_raw(inner) for inner in range(n)]
        table = table_and_keys(raw, name)[0]
        place = table.encode(raw, name)
        sides.append((table, np.empty_like(bias), aligned(n, factors.shape[1], np.float64)))
        sides[-1][1][place], sides[-1][2][place] = bias, factors
    (users, user_biases, p), (items, item_biases, q) = sides
    mean = float(trainset.global_mean) if biased else 0.0
    scale = tuple(map(float, trainset.rating_scale))
    model = make(
        n_factors=p.shape[1],
        biased=biased,
        rating_scale=scale,
        dtype="float64",
        n_epochs=max(1, int(getattr(algo, "n_epochs", 1))),
    )
    fitted = Fitted(Weights(mean, user_biases, item_biases, p, q), (users, items))
    n_ratings = sum(map(len, trainset.ur.values()))
    return model._take_over(fitted, {}, model.n_epochs, n_ratings)
