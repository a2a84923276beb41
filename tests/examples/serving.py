"""A service: the model is mapped from its file, new users are answered at once, new ratings are learned at night.

python serving.py ratings.csv
"""

import copy
import sys

import numpy as np

from funksvd import FunkSVD, Ratings, load
from funksvd.datasets import make_ratings

# In the morning: the model of last night. A mapped file is shared by all processes that serve it.
ratings = (
    Ratings.read(sys.argv[1])
    if len(sys.argv) > 1
    else Ratings.from_arrays(*make_ratings(500, 300, 20_000)[:3])
)
FunkSVD(n_factors=32, random_state=0).fit(ratings).save("model.npz")
served = load("model.npz", mmap=True)
new_user, arrived = int(served.user_ids_[-1]) + 1, []

# By day: somebody new rates a few items. Nothing is trained and the served model stays as it is.
for k, stars in enumerate((5.0, 4.0, 1.0)):
    arrived.append((new_user, int(served.item_ids_[k]), stars))
    users, items, values = (np.array(column) for column in zip(*arrived, strict=True))
    visitor = served.fold_in((users, items), values)
    best, scores = visitor.recommend(new_user, n=3, exclude=(users, items))
    print(
        f"after {k + 1} ratings:", dict(zip(best.tolist(), scores.round(2).tolist(), strict=True))
    )

# At night: training goes on with the ratings of the day, on a copy that takes the place of the old model.
night = copy.copy(served).partial_fit((users, items), values)
night.save("model.npz")
served = load("model.npz", mmap=True)
print(
    "the next morning:",
    dict(zip(*(x.tolist() for x in served.recommend(new_user, n=3)), strict=True)),
)
