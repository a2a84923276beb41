"""Recommend movies to a user, and find the movies that are most like the best of them.

    python movies.py                           downloads MovieLens (latest-small, 1 MB) once
    python movies.py ratings.csv titles.csv    reads your own files

titles.csv has the columns item_id and title.
"""

import sys

from funksvd import FunkSVD, Ratings
from funksvd.datasets import load_movielens, read_titles

if len(sys.argv) > 2:
    ratings = Ratings.read(sys.argv[1])
    titles = read_titles(sys.argv[2])
else:
    ratings, titles, _ = load_movielens("latest-small")


def title(item):
    """Return the title of an item, or its id if it has none."""
    return titles.get(item, titles.get(str(item), item))


model = FunkSVD(n_factors=64, rating_scale=(0.5, 5), random_state=0).fit(ratings)

user = ratings.user_ids[0]
items, scores = model.recommend(user, n=5, exclude=ratings)
print(f"user {user} has not rated, and would like:")
for item, score in zip(items.tolist(), scores.tolist(), strict=True):
    print(f"  {score:.2f}  {title(item)}")

favourite = items[0]
similar, similarities = model.similar_items(favourite, n=5)
print(f"most like {title(favourite)}:")
for item, similarity in zip(similar.tolist(), similarities.tolist(), strict=True):
    print(f"  {similarity:.2f}  {title(item)}")
