"""Serve a model: answer new users at once by day, learn their ratings by night.

    python serving.py ratings.csv

The model is mapped from its file, so that all processes that serve it share its memory. Without a
file, ratings are made up.
"""

import copy
import sys

import numpy as np

from funksvd import FunkSVD, Ratings, load
from funksvd.datasets import make_ratings

if len(sys.argv) > 1:
    ratings = Ratings.read(sys.argv[1])
else:
    ratings = Ratings.from_arrays(*make_ratings(500, 300, 20_000)[:3])


def shown(items, scores):
    """Return recommendations as {item: score}."""
    return dict(zip(items.tolist(), scores.round(2).tolist(), strict=True))


# In the morning: the model of last night.
FunkSVD(n_factors=32, random_state=0).fit(ratings).save("model.npz")
served = load("model.npz", mmap=True)
new_user = int(served.user_ids_[-1]) + 1
arrived = []

# By day: somebody new rates a few items. Nothing is trained, and the served model stays as it is.
for number, stars in enumerate((5.0, 4.0, 1.0)):
    arrived.append((new_user, int(served.item_ids_[number]), stars))
    users, items, values = (np.array(column) for column in zip(*arrived, strict=True))
    visitor = served.fold_in((users, items), values)
    best = visitor.recommend(new_user, n=3, exclude=(users, items))
    print(f"after {number + 1} ratings:", shown(*best))

# By night: training goes on with the ratings of the day, on a copy that replaces the old model.
night = copy.copy(served).partial_fit((users, items), values)
night.save("model.npz")
served = load("model.npz", mmap=True)
print("the next morning:", shown(*served.recommend(new_user, n=3)))
