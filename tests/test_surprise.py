"""Models of Surprise: the model of funksvd predicts the same."""

from types import SimpleNamespace

import numpy as np
import pytest

import funksvd


def stand_in(has_implicit_factors):
    """Return an object with the attributes of a fitted SVD of Surprise, and its predictions.

    The raw ids are out of order. With `has_implicit_factors` it is an SVD++.
    """
    rng = np.random.default_rng(1)
    raw_users = [9, 2, 7, 4]
    raw_items = ["b", "d", "a"]
    trainset = SimpleNamespace(
        n_users=4,
        n_items=3,
        global_mean=3.25,
        rating_scale=(1, 5),
        to_raw_uid=raw_users.__getitem__,
        to_raw_iid=raw_items.__getitem__,
        ur={user: [(item, 4.0) for item in range(user % 3 + 1)] for user in range(4)},
    )
    algo = SimpleNamespace(
        trainset=trainset,
        biased=True,
        n_epochs=7,
        pu=rng.normal(size=(4, 2)),
        qi=rng.normal(size=(3, 2)),
        bu=rng.normal(size=4),
        bi=rng.normal(size=3),
    )
    if has_implicit_factors:
        algo.yj = rng.normal(size=(3, 2))
    expected = {}
    for u, user in enumerate(raw_users):
        p = algo.pu[u]
        if has_implicit_factors:
            rated = [item for item, _ in trainset.ur[u]]
            p = p + sum(algo.yj[item] for item in rated) / len(rated) ** 0.5
        for i, item in enumerate(raw_items):
            rating = 3.25 + algo.bu[u] + algo.bi[i] + algo.qi[i] @ p
            expected[user, item] = min(5, max(1, rating))
    return algo, expected


@pytest.mark.parametrize("has_implicit_factors", [False, True])
def test_a_stand_in_for_a_model_of_surprise(has_implicit_factors, tmp_path):
    algo, expected = stand_in(has_implicit_factors)
    model = funksvd.from_surprise(algo)
    users, items = zip(*expected, strict=True)
    predicted = model.predict((list(users), list(items)))
    assert predicted == pytest.approx(list(expected.values()), rel=1e-12)
    assert model.user_ids_.tolist() == [2, 4, 7, 9]
    assert model.n_epochs == 7
    model.save(tmp_path / "m.npz")
    again = funksvd.load(tmp_path / "m.npz")
    assert np.array_equal(again.item_factors_, model.item_factors_)


ALGORITHMS = {
    "SVD": lambda surprise: surprise.SVD(n_factors=6, n_epochs=8),
    "SVD unbiased": lambda surprise: surprise.SVD(n_factors=6, biased=False),
    "SVDpp": lambda surprise: surprise.SVDpp(n_factors=4, n_epochs=4),
    "NMF": lambda surprise: surprise.NMF(n_factors=4, n_epochs=5),
    "BaselineOnly": lambda surprise: surprise.BaselineOnly(verbose=False),
}


@pytest.mark.filterwarnings("ignore")  # Surprise warns of its own code
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_model_of_surprise(name):
    surprise = pytest.importorskip("surprise")
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(2)
    columns = {
        "u": [f"u{number}" for number in rng.integers(0, 20, 300)],
        "i": rng.integers(0, 15, 300),
        "r": rng.integers(1, 6, 300),
    }
    frame = pandas.DataFrame(columns).drop_duplicates(["u", "i"])
    reader = surprise.Reader(rating_scale=(1, 5))
    trainset = surprise.Dataset.load_from_df(frame, reader).build_full_trainset()
    algo = ALGORITHMS[name](surprise).fit(trainset)
    model = funksvd.from_surprise(algo)
    users = frame["u"].tolist()
    items = frame["i"].tolist()
    expected = [algo.predict(user, item).est for user, item in zip(users, items, strict=True)]
    assert model.predict((users, items)) == pytest.approx(expected, abs=1e-9)


def test_an_object_that_is_no_model_of_surprise():
    message = "algo must be a fitted SVD, SVDpp, NMF or BaselineOnly of Surprise, got dict"
    with pytest.raises(TypeError, match=message):
        funksvd.from_surprise({})
