"""What tests compare of a data set."""


def triples(dataset):
    """Return (user ids, item ids, values) of a data set's ratings, as lists."""
    ratings = dataset.ratings
    users = ratings.user_ids[ratings.users]
    items = ratings.item_ids[ratings.items]
    return users.tolist(), items.tolist(), ratings.values.tolist()
