"""Planted ratings whose floor is known, and public ratings."""

import numpy as np
import pytest

from funksvd.datasets import make_ratings


@pytest.fixture(scope="module")
def planted():
    return make_ratings(1500, 900, 120_000, rank=6, noise=0.7, random_state=3)


def test_planted_shapes_and_types(planted):
    assert {len(values) for values in planted[:4]} == {120_000}
    assert [values.dtype for values in planted[:4]] == [np.int32, np.int32, np.float32, np.float32]
    for ids, n_ids in ((planted.users, 1500), (planted.items, 900)):
        assert ids.min() >= 0
        assert n_ids * 0.9 < ids.max() < n_ids


def test_planted_pairs_are_unique(planted):
    assert len(set(zip(planted.users.tolist(), planted.items.tolist(), strict=True))) == 120_000


def test_planted_noise_is_the_measured_floor(planted):
    error = planted.ratings.astype(np.float64) - planted.truth
    assert planted.noise == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-6)
    assert planted.noise == pytest.approx(0.7, rel=0.01)
    # It is noise: centred, and of the same size wherever one looks.
    assert abs(error.mean()) < 0.01
    assert abs(np.corrcoef(error, planted.truth)[0, 1]) < 0.01
    busy = planted.items == np.bincount(planted.items).argmax()
    assert error[busy].std() == pytest.approx(0.7, rel=0.1)


def test_planted_signal_sizes():
    planted = make_ratings()
    assert planted.ratings.mean() == pytest.approx(3.6, abs=0.1)
    assert planted.ratings.std() == pytest.approx(1.1, abs=0.05)
    assert planted.truth.std() == pytest.approx(np.sqrt(0.35**2 + 0.5**2 + 0.5**2), rel=0.1)
    assert planted.noise == pytest.approx(0.8, rel=0.01)


def test_planted_truth_is_biases_and_a_matrix_of_the_given_rank():
    """Without noise, a dense part of the matrix shows its rank."""
    users, items, ratings, truth, noise = make_ratings(60, 4000, 120_000, rank=3, noise=0, random_state=1)
    assert noise == 0
    assert np.array_equal(ratings, truth)
    dense = np.full((60, 4000), np.nan)
    dense[users, items] = truth
    dense = dense[np.argsort(np.bincount(users, minlength=60))[-8:]]  # the busiest users,
    dense = dense[:, np.isfinite(dense).all(axis=0)]  # and the items that they all rated
    assert dense.shape[1] > 50
    # Less the mean of each item its bias is gone; the user biases add one rank.
    strength = np.linalg.svd(dense - dense.mean(axis=0), compute_uv=False)
    assert strength[3] > 1
    assert strength[4] < 1e-3


def test_planted_low_rank_part_is_beyond_biases(planted):
    """The best biases, fitted to the truth itself, stay clearly above the floor."""
    users, items, residual = planted.users, planted.items, planted.truth - planted.truth.mean()
    for _ in range(20):  # alternating means solve the least squares of the two biases
        for codes in (users, items):
            counts = np.maximum(np.bincount(codes), 1)
            residual = residual - (np.bincount(codes, residual) / counts)[codes]
    assert residual.std() == pytest.approx(0.5, rel=0.15)
    assert np.hypot(residual.std(), planted.noise) > 1.15 * planted.noise


def test_planted_counts_are_heavy_tailed(planted):
    for codes, n in ((planted.users, 1500), (planted.items, 900)):
        counts = np.sort(np.bincount(codes, minlength=n))[::-1]
        assert counts.mean() > 1.2 * np.median(counts)
        assert 0.2 < counts[: n // 10].sum() / counts.sum() < 0.6  # MovieLens 100K: 0.32, 0.43
        assert counts[0] > 4 * counts.mean()


def test_planted_ratings_come_in_random_order(planted):
    half = len(planted.users) // 2
    assert abs(planted.users[:half].mean() - planted.users[half:].mean()) < 20
    assert (np.diff(planted.users) < 0).mean() == pytest.approx(0.5, abs=0.02)


def test_one_seed_one_result_other_seeds_others():
    first, again, other = (make_ratings(50, 40, 500, random_state=seed) for seed in (5, 5, 6))
    for name in ("users", "items", "ratings", "truth"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))
    assert first.noise == again.noise
    by_generator = make_ratings(50, 40, 500, random_state=np.random.default_rng(5))
    assert np.array_equal(first.ratings, by_generator.ratings)


@pytest.mark.parametrize("change", [{"rank": 2}, {"noise": 0.1}, {"n_users": 51}, {"n_items": 41}])
def test_every_parameter_matters(change):
    base = {"n_users": 50, "n_items": 40, "n_ratings": 500, "rank": 8, "noise": 0.8}
    assert not np.array_equal(make_ratings(**base).ratings, make_ratings(**base | change).ratings)


@pytest.mark.parametrize("shape", [(1, 2, 1), (2, 1, 1), (2, 2, 2), (1, 50, 25), (50, 1, 25), (30, 40, 600)])
def test_half_of_all_pairs_is_possible(shape):
    users, items = make_ratings(*shape)[:2]
    assert len(set(zip(users.tolist(), items.tolist(), strict=True))) == shape[2]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"n_ratings": 101}, r"at most half of n_users \* n_items, 10 \* 20 / 2 = 100, got 101"),
    ({"n_users": 0}, "n_users must be an integer of at least 1, got 0"),
    ({"n_items": 2.0}, r"n_items must be an integer of at least 1, got 2\.0"),
    ({"n_ratings": -1}, "n_ratings must be an integer of at least 1, got -1"),
    ({"rank": 0}, "rank must be an integer of at least 1, got 0"),
    ({"noise": -0.1}, r"noise must be a finite number of at least 0, got -0\.1"),
    ({"noise": float("nan")}, "noise must be a finite number"),
    ({"noise": float("inf")}, "noise must be a finite number"),
])
def test_planted_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_ratings(**{"n_users": 10, "n_items": 20, "n_ratings": 50} | arguments)
