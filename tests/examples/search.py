"""Search hyper-parameters with scikit-learn, and with `funksvd.tuning`, which finds epochs, too.

    python search.py ratings.csv

Without a file, ratings are made up.
"""

import sys

import numpy as np
from sklearn.model_selection import GridSearchCV

from funksvd import FunkSVD, Ratings
from funksvd.datasets import make_ratings, read_ratings
from funksvd.tuning import tune

if len(sys.argv) > 1:
    users, items, values = read_ratings(sys.argv[1])
else:
    users, items, values = make_ratings(300, 200, 12_000)[:3]
grid = {"n_factors": [8, 32], "l2": [0.04, 0.12]}

# scikit-learn cuts X by rows, so X is one array of pairs.
search = GridSearchCV(
    FunkSVD(n_epochs=20, random_state=0), grid, scoring="neg_root_mean_squared_error", cv=3
)
search.fit(np.column_stack([users, items]), values)
print("scikit-learn:", search.best_params_, "RMSE", -search.best_score_)

best = tune(Ratings.from_arrays(users, items, values), grid, n_splits=3)[0]
print("funksvd.tuning:", best.parameters, "RMSE", best.rmse, "at epoch", best.n_epochs)
