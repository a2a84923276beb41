"""One suite for all engines: they keep the contract of `funksvd/engines/contract.py`.

The two CUDA engines run on the CPU, through tests/cuda_host.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any, NamedTuple

import naive
import numpy as np
import pytest
from conftest import on_shim, planted_ratings

from funksvd import FunkSVD, Ratings
from funksvd.engines.choose import engine_for
from funksvd.engines.contract import Engine
from funksvd.hyper import Hyper, resolve
from funksvd.weights import Weights

# The engine's name, and parameters that choose it. Solvers that keep states are the harder ones.
ENGINES: dict[str, dict[str, Any]] = {
    "SgdEngine": {"solver": "adam"},
    "FeatureEngine": {"training": "featurewise"},
    "MiniBatchEngine": {"solver": "adam", "batch_size": 200},
    "GibbsEngine": {"solver": "gibbs"},
    "BiasSampler": {"solver": "gibbs", "n_factors": 0},
    "ExposureEngine": {"solver": "ials"},
    "CudaEngine": {"solver": "adam", "device": "cuda"},
    "CudaMiniBatchEngine": {"solver": "adam", "batch_size": 200, "device": "cuda"},
}
FIELDS = ("user_biases", "item_biases", "user_factors", "item_factors")
STRANGER = 10**6  # an id that no training rating has
RATE = 0.01


class Maker(NamedTuple):
    """Makes engines of one class."""

    hyper: Hyper

    @property
    def engine_class(self) -> type[Engine]:
        """The class that these hyper-parameters choose."""
        return engine_for(self.hyper)

    def __call__(
        self, ratings: Ratings, held_out: Ratings | None = None, *, seed: int = 1, n_jobs: int = 1
    ) -> Engine:
        """Return a new engine."""
        return self.engine_class(ratings, held_out, self.hyper, seed=seed, n_jobs=n_jobs)

    def changed(self, **changes: Any) -> Maker:
        """Return the maker of engines with other hyper-parameters."""
        return Maker(replace(self.hyper, **changes))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """Makers of each engine, with 5 factors and 8 epochs (of which 2 are the sampler's burn-in)."""
    params = ENGINES[request.param]
    if "device" in params:
        on_shim(monkeypatch)
    maker = Maker(resolve(FunkSVD(**{"n_factors": 5, "n_epochs": 8} | params).get_params()))
    assert maker.engine_class.__name__ == request.param
    return maker


def some_ratings(n: int = 3000, seed: int = 0, weights: np.ndarray | None = None) -> Ratings:
    """Return ratings by 80 users of 50 items."""
    return Ratings.from_arrays(*planted_ratings(n, seed=seed), weights)


def trained(engine: Engine, n_epochs: int = 3, rate: float = RATE) -> Engine:
    """Make the first epochs; return the engine."""
    for epoch in range(n_epochs):
        engine.epoch(epoch, rate)
    return engine


def assert_same_weights(ours: Weights, theirs: Weights) -> None:
    """Assert that two sets of weights have the same bytes."""
    assert ours.global_mean == theirs.global_mean
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


def assert_same_state(ours: Engine, theirs: Engine) -> None:
    """Assert that two engines are in the same state, to the last bit."""
    state = theirs.snapshot()
    mine = ours.snapshot()
    assert mine.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(mine[name], array, err_msg=name)
    assert_same_weights(ours.weights(), theirs.weights())


def differ(ours: Weights, theirs: Weights) -> bool:
    """Return whether two sets of weights differ."""
    return any((getattr(ours, name) != getattr(theirs, name)).any() for name in FIELDS)


def shape_of(function: Any) -> list[tuple[str, Any, Any]]:
    """Return name, kind and default of each parameter of a function."""
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters]


def public_functions(cls: type) -> dict[str, Any]:
    """Return the public methods of a class by name."""
    functions = inspect.getmembers(cls, inspect.isroutine)
    return {name: function for name, function in functions if not name.startswith("_")}


# --------------------------------------------------------------------------------------- the facts


def test_signatures_are_those_of_the_contract(engine: Maker) -> None:
    promised = public_functions(Engine)
    kept = public_functions(engine.engine_class)
    assert Engine in engine.engine_class.__mro__
    assert kept.keys() == promised.keys()
    for name, function in promised.items():
        assert shape_of(kept[name]) == shape_of(function), name
    assert shape_of(engine.engine_class.__init__) == shape_of(Engine.__init__)


def test_a_learning_rate_counts_where_the_engine_makes_steps(engine: Maker) -> None:
    small = trained(engine(some_ratings()), rate=RATE)
    large = trained(engine(some_ratings()), rate=2 * RATE)
    assert differ(small.weights(), large.weights()) == engine.engine_class.makes_steps


def test_planned_epochs_follow_from_the_hyper_parameters(engine: Maker) -> None:
    planned = engine.engine_class.planned_epochs(engine.hyper)
    longer = engine.engine_class.planned_epochs(replace(engine.hyper, n_epochs=16))
    assert planned > 0
    assert longer in (planned, 2 * planned)
    weights = trained(engine(some_ratings()), planned).weights()
    assert all(np.isfinite(getattr(weights, name)).all() for name in FIELDS)


@pytest.mark.parametrize("n_epochs", [9, 60])
def test_a_fit_with_an_equal_plan_is_the_beginning_of_a_longer_one(
    engine: Maker, n_epochs: int
) -> None:
    longer = engine.changed(n_epochs=n_epochs)
    plan = engine.engine_class.plan
    if plan(engine.hyper) != plan(longer.hyper):
        assert engine.engine_class.__name__ in ("FeatureEngine", "GibbsEngine", "BiasSampler")
        return
    assert_same_state(trained(engine(some_ratings())), trained(longer(some_ratings())))


def test_a_cosine_is_planned_for_its_number_of_epochs(engine: Maker) -> None:
    plan = engine.engine_class.plan
    if not engine.engine_class.epoch_has_rate or not engine.engine_class.makes_steps:
        return
    cosine = replace(engine.hyper, learning_rate_schedule="cosine")
    assert plan(cosine) != plan(replace(cosine, n_epochs=9))


# --------------------------------------------------------------------------------------- training


def test_losses_are_mean_squared_errors_that_fall(engine: Maker) -> None:
    ratings = some_ratings()
    fresh = engine(ratings)
    losses = [fresh.epoch(epoch, RATE) for epoch in range(4)]
    variance = float(np.var(ratings.values))
    assert all(isinstance(loss, float) for loss in losses)
    assert 0 < losses[-1] < losses[0] < 1.5 * variance


def test_the_seed_alone_names_the_result(engine: Maker) -> None:
    ratings = some_ratings()
    first = trained(engine(ratings))
    assert_same_state(trained(engine(some_ratings())), first)
    assert differ(trained(engine(ratings, seed=2)).weights(), first.weights())


def test_the_order_of_the_ratings_changes_no_bit(engine: Maker) -> None:
    users, items, values = planted_ratings()
    order = np.random.default_rng(1).permutation(len(users))
    given = Ratings.from_arrays(users, items, values)
    shuffled = Ratings.from_arrays(users[order], items[order], values[order])
    assert_same_state(trained(engine(shuffled)), trained(engine(given)))


def test_threads_change_no_bit(engine: Maker) -> None:
    """So many ratings that the engines of the CPU do use threads."""
    on_card = engine.hyper.device != "cpu"
    if engine.hyper.batch_size > 1 and not on_card:
        engine = engine.changed(batch_size=120_000)
    ratings = some_ratings(3000 if on_card else 240_000)
    held_out = some_ratings(500, seed=1)
    one = trained(engine(ratings, held_out), 2)
    three = trained(engine(ratings, held_out, n_jobs=3), 2)
    assert_same_state(three, one)
    assert three.validate() == one.validate()


def test_sample_weights_count(engine: Maker) -> None:
    n = 3000
    uneven = np.random.default_rng(2).integers(0, 4, n) / 2 + 0.25
    plain = trained(engine(some_ratings(n)))
    ones = trained(engine(some_ratings(n, weights=np.ones(n))))
    weighted = trained(engine(some_ratings(n, weights=uneven)))
    for name in FIELDS:
        theirs = getattr(plain.weights(), name)
        np.testing.assert_allclose(getattr(ones.weights(), name), theirs, rtol=0, atol=1e-4)
    ours = weighted.weights()
    theirs = plain.weights()
    differences = [getattr(ours, name) - getattr(theirs, name) for name in FIELDS]
    assert max(np.abs(difference).max(initial=0) for difference in differences) > 1e-3


# --------------------------------------------------------------------------------------- its state


def test_a_restored_engine_goes_on_exactly(engine: Maker) -> None:
    ratings = some_ratings()
    whole = trained(engine(ratings), 5)
    half = trained(engine(ratings), 3)
    state = half.snapshot()
    then = {name: array.copy() for name, array in state.items()}
    half.epoch(3, RATE)
    half.restore(state)
    for epoch in (3, 4):
        half.epoch(epoch, RATE)
    assert_same_state(half, whole)
    for name, array in state.items():
        np.testing.assert_array_equal(array, then[name], err_msg=f"{name} of the snapshot moved")


def test_another_engine_can_take_the_state_over(engine: Maker) -> None:
    """As a checkpoint does: it makes room first, then reads the arrays by their sizes."""
    ratings = some_ratings()
    held_out = some_ratings(500, seed=1)
    whole = trained(engine(ratings, held_out), 7)
    begun = trained(engine(ratings, held_out), 6)
    state = begun.snapshot()
    resumed = engine(ratings, held_out)
    resumed.make_room(state)
    room = resumed.snapshot()
    assert room.keys() == state.keys()
    for name, array in state.items():
        assert (room[name].shape, room[name].dtype) == (array.shape, array.dtype), name
    resumed.restore(state)
    resumed.epoch(6, RATE)
    assert_same_state(resumed, whole)
    assert resumed.validate() == whole.validate()


def test_weights_and_load_are_inverse(engine: Maker) -> None:
    ratings = some_ratings()
    weights = trained(engine(ratings)).weights()
    other = engine(ratings, seed=2)
    other.load(weights)
    assert_same_weights(other.weights(), weights)


def test_weights_are_copies(engine: Maker) -> None:
    owner = trained(engine(some_ratings()))
    before = owner.weights()
    changed = owner.weights()
    for name in FIELDS:
        getattr(changed, name)[...] = 0
    assert_same_weights(owner.weights(), before)


def test_weights_are_in_the_order_of_the_codes(engine: Maker) -> None:
    ratings = some_ratings()
    weights = trained(engine(ratings)).weights()
    k = engine.hyper.n_factors
    rank = weights.user_factors.shape[1]
    assert rank == k or rank % k == 0  # a sampled mean may have a higher rank
    assert len(weights.user_factors) == len(weights.user_biases) == ratings.n_users
    assert len(weights.item_factors) == len(weights.item_biases) == ratings.n_items


# --------------------------------------------------------------------------------------- validation


def targets(engine: Maker, held_out: Ratings) -> np.ndarray:
    """Return the values that an engine approximates: the ratings, or 1 for each pair."""
    if engine.engine_class.learns_ratings:
        return np.asarray(held_out.values, np.float64)
    return np.ones(len(held_out))


def expected_loss(engine: Maker, weights: Weights, ratings: Ratings, held_out: Ratings) -> float:
    """Return the weighted mean squared error of the slow, obvious prediction."""
    users, items = held_out.codes_in(ratings.tables)
    pairs = zip(users.tolist(), items.tolist(), strict=True)
    predicted = [naive.predict(weights, user, item) for user, item in pairs]
    errors = targets(engine, held_out) - np.array(predicted, np.float64)
    return float(np.average(errors**2, weights=held_out.weights))


@pytest.mark.parametrize("weighted", [False, True])
def test_unknown_ids_are_validated_as_they_are_predicted(engine: Maker, weighted: bool) -> None:
    ratings = some_ratings()
    users, items, values = planted_ratings(600, seed=1)
    users[:100] = STRANGER
    items[50:150] = STRANGER
    weights = np.random.default_rng(3).integers(1, 5, 600) / 2 if weighted else None
    held_out = Ratings.from_arrays(users, items, values, weights)
    validated = trained(engine(ratings, held_out), 1)
    want = expected_loss(engine, validated.weights(), ratings, held_out)
    assert validated.validate() == pytest.approx(want, rel=1e-5)


def test_a_held_out_set_of_strangers_alone(engine: Maker) -> None:
    """They are predicted as the mean, also beside a block grid of several bands."""
    users, items, values = planted_ratings(300, seed=1)
    held_out = Ratings.from_arrays(users + STRANGER, items + STRANGER, values)
    ratings = some_ratings(20_000 if engine.hyper.device == "cpu" else 3000)
    validated = trained(engine(ratings, held_out), 1)
    mean = validated.weights().global_mean
    errors = targets(engine, held_out) - mean
    assert validated.validate() == pytest.approx(np.mean(errors**2), rel=1e-5)


@pytest.mark.parametrize("n", [40, 300])
def test_a_square_matrix_and_its_transpose_give_transposed_models(engine: Maker, n: int) -> None:
    """All rows and columns have equally many ratings, so that the content decides."""
    if not engine.engine_class.makes_steps:
        return  # one side is drawn or solved after the other
    users = np.repeat(np.arange(n), 10)
    items = (users + np.tile(np.arange(10), n)) % n
    values = np.random.default_rng(0).normal(3, 1, len(users))
    ours = trained(engine(Ratings.from_arrays(users, items, values)), 2).weights()
    theirs = trained(engine(Ratings.from_arrays(items, users, values)), 2).weights()
    np.testing.assert_array_equal(ours.user_factors, theirs.item_factors)
    np.testing.assert_array_equal(ours.item_biases, theirs.user_biases)
