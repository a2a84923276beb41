"""Train the model of "Collaborative filtering in Keras" (2016), line by line.

    python article.py ratings.csv

The model, the steps and the callbacks are those of the article's listing. Without a file, ratings
are made up.
"""

import sys

from funksvd import EarlyStopping, FunkSVD, ModelCheckpoint, Ratings, load
from funksvd.datasets import make_ratings

if len(sys.argv) > 1:
    ratings = Ratings.read(sys.argv[1])
    users = ratings.user_ids[ratings.users]
    movies = ratings.item_ids[ratings.items]
    stars = ratings.values
else:
    made = make_ratings(500, 300, 20_000)
    users = made.users
    movies = made.items
    stars = made.ratings

factors = 20
model = FunkSVD(
    factors,
    n_epochs=30,
    solver="adamax",
    batch_size=min(1_000_000, len(stars) // 90),  # the article has 90 batches of a million
    learning_rate_schedule="constant",
    biased=False,  # two embeddings and their inner product, no more
    center=False,
    l2=0,
    l2_bias=0,
    random_state=0,
)
callbacks = [
    EarlyStopping("val_loss", patience=2, restore_best_weights=False),
    ModelCheckpoint("movie_weights.npz", save_best_only=True),
]
model.fit(
    (users, movies), stars, validation_split=0.1, validation_split_order="tail", callbacks=callbacks
)

best = min(model.history_["val_loss"])
print(f"{model.n_epochs_} epochs, val_loss {best:.4f} at the best of them, kept as")
print(load("movie_weights.npz"))
