"""Made-up ratings, whose best possible error is known."""

import numpy as np
import pytest

from funksvd.datasets import make_ratings


@pytest.fixture(scope="module")
def planted():
    return make_ratings(1500, 900, 120_000, rank=6, noise=0.7, random_state=3)


def n_distinct(users, items):
    """Return the number of distinct pairs."""
    pairs = zip(users.tolist(), items.tolist(), strict=True)
    return len(set(pairs))


def test_planted_shapes_and_types(planted):
    arrays = planted[:4]
    assert {len(values) for values in arrays} == {120_000}
    assert [values.dtype.name for values in arrays] == ["int32", "int32", "float32", "float32"]
    for ids, n_ids in ((planted.users, 1500), (planted.items, 900)):
        assert ids.min() >= 0
        assert n_ids * 0.9 < ids.max() < n_ids


def test_planted_pairs_are_unique(planted):
    assert n_distinct(planted.users, planted.items) == 120_000


def test_planted_noise_is_the_measured_floor(planted):
    error = planted.ratings.astype(np.float64) - planted.truth
    rmse = np.sqrt(np.mean(error**2))
    assert planted.noise == pytest.approx(rmse, rel=1e-6)
    assert planted.noise == pytest.approx(0.7, rel=0.01)
    # The noise has the mean 0 and the same size for any truth and any item.
    assert abs(error.mean()) < 0.01
    correlation = np.corrcoef(error, planted.truth)[0, 1]
    assert abs(correlation) < 0.01
    busiest = np.bincount(planted.items).argmax()
    busy = planted.items == busiest
    assert error[busy].std() == pytest.approx(0.7, rel=0.1)


def test_planted_signal_sizes():
    planted = make_ratings()
    assert planted.ratings.mean() == pytest.approx(3.6, abs=0.1)
    assert planted.ratings.std() == pytest.approx(1.1, abs=0.05)
    expected = np.sqrt(0.35**2 + 0.5**2 + 0.5**2)
    assert planted.truth.std() == pytest.approx(expected, rel=0.1)
    assert planted.noise == pytest.approx(0.8, rel=0.01)


def test_planted_truth_is_biases_and_a_matrix_of_the_given_rank():
    """Without noise, a dense part of the matrix shows its rank."""
    users, items, ratings, truth, noise = make_ratings(
        60, 4000, 120_000, rank=3, noise=0, random_state=1
    )
    assert noise == 0
    assert np.array_equal(ratings, truth)
    dense = np.full((60, 4000), np.nan)
    dense[users, items] = truth
    busiest_users = np.argsort(np.bincount(users, minlength=60))[-8:]
    dense = dense[busiest_users]
    rated_by_all = np.isfinite(dense).all(axis=0)
    dense = dense[:, rated_by_all]
    assert dense.shape[1] > 50
    # Subtracting each item's mean removes its bias; the user biases add one rank.
    strength = np.linalg.svd(dense - dense.mean(axis=0), compute_uv=False)
    assert strength[3] > 1
    assert strength[4] < 1e-3


def test_planted_low_rank_part_is_beyond_biases(planted):
    """The best biases, fitted to the truth itself, stay clearly above the floor."""
    residual = planted.truth - planted.truth.mean()
    for _ in range(20):  # alternating means solve the least squares of the two biases
        for codes in (planted.users, planted.items):
            counts = np.maximum(np.bincount(codes), 1)
            means = np.bincount(codes, residual) / counts
            residual = residual - means[codes]
    assert residual.std() == pytest.approx(0.5, rel=0.15)
    assert np.hypot(residual.std(), planted.noise) > 1.15 * planted.noise


def test_planted_counts_are_heavy_tailed(planted):
    for codes, n in ((planted.users, 1500), (planted.items, 900)):
        counts = np.sort(np.bincount(codes, minlength=n))[::-1]
        assert counts.mean() > 1.2 * np.median(counts)
        share_of_tenth = counts[: n // 10].sum() / counts.sum()
        assert 0.2 < share_of_tenth < 0.6  # MovieLens 100K: 0.32, 0.43
        assert counts[0] > 4 * counts.mean()


def test_planted_ratings_come_in_random_order(planted):
    half = len(planted.users) // 2
    difference = planted.users[:half].mean() - planted.users[half:].mean()
    assert abs(difference) < 20
    share_falling = (np.diff(planted.users) < 0).mean()
    assert share_falling == pytest.approx(0.5, abs=0.02)


def test_a_seed_gives_one_result_and_another_seed_another():
    first = make_ratings(50, 40, 500, random_state=5)
    again = make_ratings(50, 40, 500, random_state=5)
    other = make_ratings(50, 40, 500, random_state=6)
    for name in ("users", "items", "ratings", "truth"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))
    assert first.noise == again.noise
    by_generator = make_ratings(50, 40, 500, random_state=np.random.default_rng(5))
    assert np.array_equal(first.ratings, by_generator.ratings)


@pytest.mark.parametrize("change", [{"rank": 2}, {"noise": 0.1}, {"n_users": 51}, {"n_items": 41}])
def test_every_parameter_matters(change):
    base = {"n_users": 50, "n_items": 40, "n_ratings": 500, "rank": 8, "noise": 0.8}
    made = make_ratings(**base)
    changed = make_ratings(**base | change)
    assert not np.array_equal(made.ratings, changed.ratings)


@pytest.mark.parametrize(
    "shape", [(1, 2, 1), (2, 1, 1), (2, 2, 2), (1, 50, 25), (50, 1, 25), (30, 40, 600)]
)
def test_half_of_all_pairs_is_possible(shape):
    made = make_ratings(*shape)
    assert n_distinct(made.users, made.items) == shape[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_ratings": 101}, r"at most half of n_users \* n_items, 10 \* 20 / 2 = 100, got 101"),
        ({"n_users": 0}, "n_users must be an integer of at least 1, got 0"),
        ({"n_items": 2.0}, r"n_items must be an integer of at least 1, got 2\.0"),
        ({"n_ratings": -1}, "n_ratings must be an integer of at least 1, got -1"),
        ({"rank": 0}, "rank must be an integer of at least 1, got 0"),
        ({"noise": -0.1}, r"noise must be a finite number of at least 0, got -0\.1"),
        ({"noise": float("nan")}, "noise must be a finite number"),
        ({"noise": float("inf")}, "noise must be a finite number"),
    ],
)
def test_planted_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_ratings(**{"n_users": 10, "n_items": 20, "n_ratings": 50} | arguments)
