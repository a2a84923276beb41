"""First steps: train on a file, measure the error, recommend, add a new user, save.

    python first_steps.py ratings.csv titles.csv

ratings.csv has the columns user, item and rating, titles.csv the columns item_id and title.
"""

# %% Read the ratings. The columns are found by their names, ids may be numbers or text, and `split`
# holds a tenth of the ratings back, the same tenth for any order of the lines.
import sys
import time

from funksvd import FunkSVD, Ratings, load
from funksvd.datasets import read_titles

ratings = Ratings.read(sys.argv[1])
titles = read_titles(sys.argv[2])
train, test = ratings.split(0.1, 0)
print(f"{len(ratings):,} ratings by {ratings.n_users:,} users of {ratings.n_items:,} items")

# %% Train two models. `solver="sgd"`, the default, takes gradient steps; `solver="gibbs"` samples.
# Its defaults take longer, but it is more accurate, and it knows how sure it is. The RMSE is
# measured on the ratings that were held back.
models = {}
for solver in ("sgd", "gibbs"):
    start = time.perf_counter()
    model = FunkSVD(solver=solver, rating_scale=(1, 5), random_state=0).fit(train)
    seconds = time.perf_counter() - start
    rmse = model.evaluate(test)["rmse"]
    print(f"{solver:6} RMSE {rmse:.4f} after {seconds:.2f} s")
    models[solver] = model

# %% Recommend. `exclude` leaves out the items that the user has rated.
model = models["gibbs"]
user = train.user_ids[0]
items, scores = model.recommend(user, n=5, exclude=ratings)
for item, score in zip(items.tolist(), scores.tolist(), strict=True):
    print(f"{score:.2f}  {titles.get(str(item), item)}")

# %% Ask how sure a prediction is: a mean, a standard deviation, and an interval that holds 80 % of
# such ratings.
pair = ([user], [items[0]])
mean, std = model.predict(pair, return_std=True)
low, high = model.predict_interval(pair, 0.8)
print(f"mean {mean[0]:.2f}, standard deviation {std[0]:.2f}, from {low[0]:.2f} to {high[0]:.2f}")

# %% Add a user who was not there in training, from two ratings. Nothing is trained, and `model`
# stays as it is.
newcomer = int(ratings.user_ids.max()) + 1
rated = ([newcomer, newcomer], list(items[:2]))
larger = model.fold_in(rated, [5.0, 1.0])
for item in larger.recommend(newcomer, n=3, exclude=rated)[0].tolist():
    print(titles.get(str(item), item))

# %% Save and load. The file holds arrays and their version, no pickle.
model.save("model.npz")
print(load("model.npz").evaluate(test)["rmse"] == model.evaluate(test)["rmse"])
