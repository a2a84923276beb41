"""Evaluation of models: errors, ranked lists, base lines, and what is refused."""

import math
from collections import Counter

import naive
import numpy as np
import pytest
from conftest import random_ratings
from served_models import items_seen

import funksvd
from funksvd import FunkSVD, Ratings, metrics
from funksvd.serving import ranked

K = 5
THRESHOLD = 3.5


def split_model(prefix="", **params):
    """Return (model, train, test) of random ratings; some test ids are unknown to the model."""
    users, items, values = random_ratings(2000, 60, 100)
    values = np.clip(np.round(values), 1, 5)
    if prefix:
        users = [f"{prefix}{user}" for user in users]
        items = [f"{prefix}{item}" for item in items]
    in_train = np.arange(2000) < 1500
    if not prefix:
        in_train &= (users > 1) & (items > 1)
    columns = [np.asarray(column) for column in (users, items, values)]
    train = Ratings.from_arrays(*(column[in_train] for column in columns))
    test = Ratings.from_arrays(*(column[~in_train] for column in columns))
    model = FunkSVD(**{"n_factors": 4, "n_epochs": 5, "random_state": 0} | params)
    return model.fit(train), train, test


def liked_by_user(test, seen, threshold=THRESHOLD):
    """Return {user id: set of the ids of the unseen items that the user rated highly}."""
    liked: dict = {}
    users = test.user_ids[test.users].tolist()
    items = test.item_ids[test.items].tolist()
    for user, item, value in zip(users, items, test.values.tolist(), strict=True):
        if value >= threshold and item not in seen.get(user, ()):
            liked.setdefault(user, set()).add(item)
    return liked


def slow_lists(model, train, users):
    """Return the K best unseen items of each user, from all predictions sorted."""
    seen = items_seen(train)
    known = model.user_ids_.tolist()
    by_bias = model.global_mean_ + model.item_biases_
    rows = model.predict_all()
    scores = np.array([rows[known.index(user)] if user in known else by_bias for user in users])
    of_users = [seen.get(user, set()) for user in users]
    return naive.recommend(scores, model.item_ids_.tolist(), K, of_users)


def slow_evaluate(lists, liked, train, n_items):
    """Return the metrics of lists by their definitions."""
    users_of_item = Counter()
    for items in items_seen(train).values():
        users_of_item.update(items)
    n_users = len(items_seen(train))
    recommended = [item for row in lists for item in row]
    information = [-math.log2(max(users_of_item[item], 1) / n_users) for item in recommended]
    result = metrics.ranking_metrics(np.array(lists), list(liked.values()), K)
    result["n_users"] = result.pop("n")
    result["coverage"] = len(set(recommended)) / n_items
    result["novelty"] = sum(information) / len(information)
    return result


def ranking_of(result):
    """Return the part of a result that is about lists."""
    return {
        name: value
        for name, value in result.items()
        if name not in ("rmse", "mae", "n", "unknown", "baselines")
    }


@pytest.mark.parametrize("prefix", ["", "x"])
def test_lists_are_measured_as_by_hand(prefix):
    model, train, test = split_model(prefix)
    liked = dict(sorted(liked_by_user(test, items_seen(train)).items()))
    result = model.evaluate(test, exclude=train, k=K, threshold=THRESHOLD)
    lists = slow_lists(model, train, liked)
    expected = slow_evaluate(lists, liked, train, train.n_items)
    assert ranking_of(result) == pytest.approx(expected, rel=1e-12)
    assert {name: result[name] for name in ("rmse", "mae", "n", "unknown")} == model.evaluate(test)


@pytest.mark.filterwarnings("ignore")  # numba's
def test_lists_are_measured_as_ranx_does():
    ranx = pytest.importorskip("ranx")
    model, train, test = split_model()
    liked = liked_by_user(test, items_seen(train))
    ids, scores = model.recommend(list(liked), K, train, unknown="mean")
    run = {}
    for user, items, row in zip(liked, ids.tolist(), scores.tolist(), strict=True):
        run[str(user)] = dict(zip(map(str, items), row, strict=True))
    qrels = {str(user): {str(item): 1 for item in items} for user, items in liked.items()}
    names = [f"{name}@{K}" for name in metrics.RANKING_METRICS]
    theirs = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), names)
    result = model.evaluate(test, exclude=train, k=K, threshold=THRESHOLD)
    ours = {f"{name}@{K}": result[name] for name in metrics.RANKING_METRICS}
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_no_threshold_makes_all_held_out_items_relevant():
    model, train, test = split_model()
    everything = model.evaluate(test, exclude=train, k=K)
    assert everything == model.evaluate(test, exclude=train, k=K, threshold=1)
    assert everything["n_users"] == len(liked_by_user(test, items_seen(train), 0))


def test_batches_change_nothing(monkeypatch):
    model, train, test = split_model()
    options = {"exclude": train, "k": K, "threshold": THRESHOLD, "baselines": True}
    whole = model.evaluate(test, **options)
    monkeypatch.setattr(ranked, "USERS_OF_A_BATCH", 7)
    monkeypatch.setattr(ranked, "PAIRS_OF_A_BATCH", 11)
    assert model.evaluate(test, **options) == whole


def test_seen_items_are_not_relevant():
    model, train, test = split_model()
    users, items, values = (
        np.append(test.user_ids[test.users], train.user_ids[train.users]),
        np.append(test.item_ids[test.items], train.item_ids[train.items]),
        np.append(test.values, train.values),
    )
    both = Ratings.from_arrays(users, items, values)
    options = {"exclude": train, "k": K, "threshold": THRESHOLD}
    assert ranking_of(model.evaluate(both, **options)) == ranking_of(
        model.evaluate(test, **options)
    )


def test_popularity_is_the_most_taken_unseen_items():
    model, train, test = split_model()
    result = model.evaluate(test, exclude=train, k=K, threshold=THRESHOLD, baselines=True)
    seen = items_seen(train)
    liked = dict(sorted(liked_by_user(test, seen).items()))
    counts = Counter(item for items in seen.values() for item in items)
    ranking = sorted(train.item_ids.tolist(), key=lambda item: (-counts[item], item))
    model_users = set(train.user_ids.tolist())
    lists = []
    for user in liked:
        known = seen[user] if user in model_users else set()
        lists.append([item for item in ranking if item not in known][:K])
    expected = slow_evaluate(lists, liked, train, train.n_items)
    assert result["baselines"]["popularity"] == pytest.approx(expected, rel=1e-12)


def test_biases_only_is_a_model_without_factors():
    model, train, test = split_model(rating_scale=(1, 5))
    options = {"exclude": train, "k": K, "threshold": THRESHOLD}
    result = model.evaluate(test, baselines=True, **options)
    biases = FunkSVD(n_factors=0, rating_scale=(1, 5), random_state=0).fit(train)
    assert result["baselines"]["biases_only"] == biases.evaluate(test, **options)


def test_pairs_to_exclude_need_no_ratings():
    model, train, test = split_model()
    pairs = (train.user_ids[train.users], train.item_ids[train.items])
    options = {"k": K, "threshold": THRESHOLD, "baselines": True}
    result = model.evaluate(test, exclude=pairs, **options)
    expected = model.evaluate(test, exclude=train, **options)
    assert list(result["baselines"]) == ["popularity"]
    del expected["baselines"]["biases_only"]
    assert result == expected
    assert model.evaluate(test, exclude=np.column_stack(pairs), **options) == expected


def test_a_model_of_exposure_has_lists_and_no_errors():
    model, train, test = split_model(solver="ials")
    result = model.evaluate(test, exclude=train, k=K, baselines=True)
    assert "rmse" not in result
    assert 0 < result["ndcg"] < 1
    assert "rmse" in result["baselines"]["biases_only"]
    assert set(model.evaluate(test)) == {"n", "unknown"}
    with pytest.raises(ValueError, match=r"it has no R\^2"):
        model.score(test)


def test_options_of_recommend_shape_the_lists():
    model, train, test = split_model()
    candidates = train.item_ids[:10]
    few = model.evaluate(test, exclude=train, k=K, candidates=candidates)
    assert few["coverage"] <= 10 / train.n_items
    with pytest.raises(TypeError, match="candidate"):
        model.evaluate(test, exclude=train, k=K, candidate=candidates)


def test_lists_that_are_too_short_count_as_misses():
    model, train, test = split_model()
    result = model.evaluate(test, exclude=train, k=200)
    known = set(train.item_ids.tolist())
    liked = liked_by_user(test, items_seen(train), 0).values()
    hits = [len(items & known) for items in liked]
    assert sum(hits) < sum(map(len, liked))  # some items are unknown to the model
    shares = [n / len(items) for n, items in zip(hits, liked, strict=True)]
    assert result["recall"] == pytest.approx(np.mean(shares), rel=1e-12)
    assert result["precision"] == pytest.approx(np.mean(hits) / 200, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 5}, "k= needs exclude="),
        ({"threshold": 4}, "threshold= needs k="),
        ({"baselines": True}, "baselines= needs k="),
        ({"risk": 1.0}, "risk= needs k="),
        ({"k": 0, "exclude": ([2], [2])}, "k must be an int >= 1, got 0"),
        ({"k": 5, "exclude": ([2], [2]), "threshold": 6}, "from 1 to 5, got 6"),
        ({"k": 5, "exclude": ([2], [2]), "threshold": "4"}, "from 1 to 5, got '4'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    model, _, test = split_model()
    with pytest.raises(ValueError, match=message):
        model.evaluate(test, **arguments)


def test_a_test_without_relevant_ratings_is_refused():
    model, train, test = split_model(rating_scale=(1, 5))
    low = test._take(test.values < 4)
    with pytest.raises(ValueError, match="no rating to evaluate on is at or above threshold=4"):
        model.evaluate(low, exclude=train, k=K, threshold=4)
    with pytest.raises(ValueError, match=r"exclude= holds all .* relevant pairs"):
        model.evaluate(train, exclude=train, k=K)


def test_training_ratings_are_noticed(tmp_path):
    model, train, test = split_model()
    model.evaluate(test)  # a warning would be an error
    model.score(train)
    shuffled = train._take(np.random.default_rng(0).permutation(len(train)))
    with pytest.warns(UserWarning, match="was trained on these ratings"):
        model.evaluate(train)
    with pytest.warns(UserWarning, match="was trained on these ratings"):
        model.evaluate(shuffled)
    for name in ("model.npz", "model.safetensors"):
        model.save(tmp_path / name)
        with pytest.warns(UserWarning, match="was trained on these ratings"):
            funksvd.load(tmp_path / name).evaluate(train)


def test_ratings_held_out_by_fit_belong_to_those_it_was_given():
    users, items, values = random_ratings(2000, 60, 100)
    model = FunkSVD(n_factors=2, n_epochs=2, random_state=0)
    model.fit((users, items), values, validation_split=0.2)
    with pytest.warns(UserWarning, match="was trained on these ratings"):
        model.evaluate((users, items), values)
