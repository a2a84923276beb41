"""Models side by side: each figure is that of `evaluate`, with an interval over the splits."""

import numpy as np
import pytest
from conftest import planted_ratings

import funksvd
from funksvd import FunkSVD, Ratings

SMALL = {"n_factors": 3, "n_epochs": 4}


@pytest.fixture(scope="module")
def ratings():
    """Return planted ratings."""
    users, items, values = planted_ratings()
    return Ratings.from_arrays(users, items, values)


@pytest.fixture(scope="module")
def comparison(ratings):
    """Return a model beside the base lines on three splits."""
    return funksvd.compare({"mine": FunkSVD(**SMALL)}, ratings, k=5, threshold=4.0)


def test_figures_are_those_of_evaluate(ratings, comparison):
    assert list(comparison.rows) == ["popularity", "biases_only", "mine"]
    measured = []
    for seed in (0, 1, 2):
        train, test = ratings.split(0.1, seed)
        model = FunkSVD(random_state=seed, **SMALL).fit(train)
        result = model.evaluate(test, exclude=train, k=5, threshold=4.0, baselines=True)
        measured.append(result)
    for metric in ("rmse", "ndcg", "recall", "coverage"):
        values = [result[metric] for result in measured]
        assert comparison.rows["mine"][metric].mean == pytest.approx(np.mean(values), rel=1e-12)
    popular = [result["baselines"]["popularity"]["ndcg"] for result in measured]
    assert comparison.rows["popularity"]["ndcg"].mean == pytest.approx(np.mean(popular), rel=1e-12)
    assert "rmse" not in comparison.rows["popularity"]


def test_intervals_are_those_of_scipy(comparison):
    stats = pytest.importorskip("scipy.stats")
    from funksvd.comparing import interval

    values = [0.91, 0.93, 0.9, 0.95]
    found = interval(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found.mean - found.half == pytest.approx(low)
    assert found.mean + found.half == pytest.approx(high)
    assert np.isnan(interval([0.9]).half)


def test_it_prints_one_line_a_model(comparison):
    head, *lines = str(comparison).splitlines()
    assert head.split() == ["RMSE", "NDCG@5", "fit,", "s"]
    assert [line.split()[0] for line in lines] == ["popularity", "biases", "mine"]
    rmse = comparison.rows["mine"]["rmse"]
    assert f"{rmse.mean:.4f} ± {rmse.half:.4f}" in lines[2]
    assert max(map(len, lines)) < 80


def test_models_stay_as_they_are_and_need_no_names(ratings):
    model = FunkSVD(**SMALL)
    result = funksvd.compare(model, ratings, k=5, n_splits=1)
    assert list(result.rows) == ["popularity", "biases_only", repr(model)]
    assert not hasattr(model, "history_")
    assert "±" not in str(result)


def test_a_given_test_part_stays_the_same(ratings):
    train, test = ratings.split(0.2, random_state=5)
    result = funksvd.compare([FunkSVD(**SMALL)], train, test, k=5, n_splits=2)
    assert result.rows["popularity"]["ndcg"].half == 0
    values = [
        FunkSVD(random_state=seed, **SMALL).fit(train).evaluate(test)["rmse"] for seed in (0, 1)
    ]
    assert result.rows[repr(FunkSVD(**SMALL))]["rmse"].mean == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    ("models", "options", "error", "message"),
    [
        ([], {}, ValueError, "must hold a model"),
        ({"popularity": FunkSVD()}, {}, ValueError, "name of a base line"),
        (["sgd"], {}, TypeError, "models must be FunkSVD, got str"),
        ([FunkSVD(n_factors=-1)], {}, ValueError, "n_factors must be"),
        ([FunkSVD()], {"n_splits": 0}, ValueError, "n_splits must be an int >= 1"),
        ([FunkSVD()], {"threshold": 99}, ValueError, "threshold must be within the scale"),
        ([FunkSVD()], {"k": 0}, ValueError, "k must be an int >= 1"),
    ],
)
def test_bad_input_is_named_before_any_work(ratings, models, options, error, message):
    with pytest.raises(error, match=message):
        funksvd.compare(models, ratings, **options)
