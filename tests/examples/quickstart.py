"""Train on a file of ratings, evaluate, predict, save and load.

    python quickstart.py ratings.csv

The file has the columns user, item and rating, under these or other usual names. Without a file,
one is made up.
"""

import sys

import numpy as np

from funksvd import EarlyStopping, FunkSVD, Ratings, load
from funksvd.datasets import make_ratings

if len(sys.argv) > 1:
    path = sys.argv[1]
else:
    path = "ratings.csv"
    made = make_ratings(500, 300, 20_000)
    table = np.column_stack([made.users, made.items, made.ratings.round(1)])
    header = "user,item,rating"
    np.savetxt(path, table, fmt=["%d", "%d", "%.1f"], delimiter=",", header=header, comments="")

ratings = Ratings.read(path)
train, test = ratings.split(0.1, random_state=0)
print(f"{len(ratings):,} ratings by {ratings.n_users:,} users of {ratings.n_items:,} items")

model = FunkSVD(n_factors=32, random_state=0)
model.fit(train, validation_split=0.1, callbacks=EarlyStopping("val_loss", patience=3))
print("stopped after", model.n_epochs_, "epochs; on ratings never seen:", model.evaluate(test))

user = ratings.user_ids[0]
item = ratings.item_ids[0]
print(f"user {user} would rate item {item}", model.predict(([user], [item]))[0])

model.save("model.npz")
print("after saving and loading:", load("model.npz").predict(([user], [item]))[0])
