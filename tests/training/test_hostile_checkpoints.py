"""A checkpoint is input from outside: it is checked before anything of it is taken over."""

import copy

import numpy as np
import pytest
from changed_checkpoints import content_of, write
from conftest import random_ratings

from funksvd import CSVLogger, EarlyStopping, FunkSVD, ModelCheckpoint, ReduceLROnPlateau

USERS, ITEMS, VALUES = random_ratings()
N_EPOCHS = {"gibbs": 8, "sgd": 3, "adam": 3}
WAYS = [
    {},
    {"solver": "adam"},
    {"solver": "gibbs"},
    {"solver": "adam", "batch_size": 500},
    {"n_factors": 6, "training": "featurewise"},
]


def fit(params, path, resume=None, more=0):
    """Train with callbacks that have a state, and write checkpoints."""
    params = {"n_factors": 4, "random_state": 0} | params
    n_epochs = N_EPOCHS[params.get("solver", "sgd")]
    model = FunkSVD(n_epochs=n_epochs + more, **params)
    callbacks = [EarlyStopping(patience=9), ReduceLROnPlateau(), ModelCheckpoint(path)]
    return model.fit(
        (USERS, ITEMS), VALUES, validation_split=0.2, callbacks=callbacks, resume=resume
    )


@pytest.fixture(scope="module", params=WAYS, ids=str)
def trained(request, tmp_path_factory):
    """Return (parameters, JSON, arrays) of the checkpoint of a way to train."""
    path = tmp_path_factory.mktemp("checkpoints") / "m.npz"
    fit(request.param, path)
    return request.param, *content_of(path)


def assert_refused(params, meta, arrays, folder):
    """Check that a fit refuses a checkpoint by a ValueError that names the file."""
    write(folder / "bad.npz", meta, arrays)
    with pytest.raises(ValueError, match=r"bad\.npz") as error:
        fit(params, folder / "own.npz", folder / "bad.npz")
    assert len(str(error.value)) < 1000


def test_an_unchanged_checkpoint_is_resumed(trained, tmp_path):
    params, meta, arrays = trained
    write(tmp_path / "same.npz", meta, arrays)
    fit(params, tmp_path / "own.npz", tmp_path / "same.npz")


# Fields that may be any value of a type, with or without a warning.
ALLOWED = {"stopped": int, "schedule": int, "kernels": str, "numpy": str}
VALUES_OF_OTHER_TYPES = (None, "x", -1.5, 10**30, [], {}, [["EarlyStopping", 3]], [[1, {}]])


def test_each_field_of_the_record_is_checked(trained, tmp_path):
    params, meta, arrays = trained
    for record in ({}, [1], "x", 3):
        assert_refused(params, meta | {"training": record}, arrays, tmp_path)
    for name in meta["training"]:
        changed = copy.deepcopy(meta)
        del changed["training"][name]
        assert_refused(params, changed, arrays, tmp_path)
    for name in set(meta["training"]) - {"seed", "learning_rate"}:
        for value in VALUES_OF_OTHER_TYPES:
            if name in ALLOWED and isinstance(value, ALLOWED[name]):
                continue
            changed = copy.deepcopy(meta)
            changed["training"][name] = value
            assert_refused(params, changed, arrays, tmp_path)


@pytest.mark.parametrize("name", ["n_epochs", "history"])
@pytest.mark.parametrize("value", [None, -1, 10**30, {}, {"loss": [1.0]}, {"loss": "x"}], ids=str)
def test_epochs_and_history_are_checked(trained, tmp_path, name, value):
    params, meta, arrays = trained
    assert_refused(params, meta | {name: value}, arrays, tmp_path)


def test_each_array_of_the_state_is_checked(trained, tmp_path):
    params, meta, arrays = trained
    for name in [name for name in arrays if name.startswith("state.")]:
        array = arrays[name]
        others = [array[..., None], array.astype("S3"), array.ravel()[:0]]
        if array.dtype.kind == "f":
            others.append(np.full_like(array, np.nan))
        for other in others:
            if other.shape != array.shape or other.dtype != array.dtype or array.size:
                assert_refused(params, meta, arrays | {name: other}, tmp_path)
        missing = {key: value for key, value in arrays.items() if key != name}
        assert_refused(params, meta, missing, tmp_path)


@pytest.mark.parametrize(
    ("terms", "waiting"), [(0, -10_000_000), (10_000_000, 0), (0, -5), (13, 4), (2, 1)]
)
def test_counts_of_the_low_rank_mean_cannot_move_a_write(tmp_path, terms, waiting):
    """The next sweep writes to column (terms + waiting) * width of a table."""
    params = {"solver": "gibbs"}
    fit(params, tmp_path / "m.npz")
    meta, arrays = content_of(tmp_path / "m.npz")
    arrays["state.terms"] = np.array(terms)
    arrays["state.waiting"] = np.array(waiting)
    n_columns = (min(max(terms, 0), 12) + min(max(waiting, 0), 4)) * 8
    for side in (0, 1):
        n_rows = len(arrays[f"state.totals_{side}"])
        arrays[f"state.low_rank_{side}"] = np.zeros((n_rows, n_columns), np.float32)
    assert_refused(params, meta, arrays, tmp_path)


@pytest.mark.parametrize("name", ["sweep", "kept"])
def test_counts_of_samples_are_those_of_the_epochs(tmp_path, name):
    params = {"solver": "gibbs"}
    fit(params, tmp_path / "m.npz")
    meta, arrays = content_of(tmp_path / "m.npz")
    arrays[f"state.{name}"] = np.array(10**9)
    assert_refused(params, meta, arrays, tmp_path)


@pytest.mark.parametrize("n_epochs", [8, 13, 16, 17, 21, 40])
def test_counts_after_some_samples_are_those_of_a_training(tmp_path, n_epochs):
    users, items, values = random_ratings(300, 20, 10)
    X = (users, items)
    model = FunkSVD(2, n_epochs, solver="gibbs", random_state=0)
    model.fit(X, values, callbacks=ModelCheckpoint(tmp_path / "{epoch}.npz"))
    for epoch in range(1, n_epochs + 1):
        path = tmp_path / f"{epoch}.npz"
        model.fit(X, values, callbacks=ModelCheckpoint(tmp_path / "own.npz"), resume=path)


def test_a_state_sets_no_other_attribute(trained, tmp_path):
    """A path in a file would let the file choose which other file is overwritten."""
    params, meta, arrays = trained
    victim = tmp_path / "precious.txt"
    victim.write_text("precious")
    for entry in meta["training"]["callbacks"]:
        changed = copy.deepcopy(meta)
        for name, state in changed["training"]["callbacks"]:
            if name == entry[0]:
                state["path"] = str(victim)
        assert_refused(params, changed, arrays, tmp_path)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("callback", "name", "value"),
    [
        ("EarlyStopping", "wait", "x"),
        ("EarlyStopping", "wait", -1),
        ("EarlyStopping", "best", [1]),
        ("EarlyStopping", "best_epoch", 1.5),
        ("EarlyStopping", "best_weights", 3),
        ("EarlyStopping", "best_weights", {"array": "nowhere"}),
        ("EarlyStopping", "best_weights", {"array": ["user_factors"]}),
        ("EarlyStopping", "best_weights", {"params": {}}),
        ("EarlyStopping", "best_weights", {"params": {"evil": 1}}),
        ("ReduceLROnPlateau", "cooldown_counter", None),
        ("ModelCheckpoint", "best", "x"),
    ],
    ids=str,
)
def test_the_values_of_a_state_are_checked(trained, tmp_path, callback, name, value):
    params, meta, arrays = trained
    changed = copy.deepcopy(meta)
    for named, state in changed["training"]["callbacks"]:
        if named == callback:
            state[name] = value
    assert_refused(params, changed, arrays, tmp_path)


def test_best_weights_are_those_of_the_model(trained, tmp_path):
    params, meta, arrays = trained
    for name in [name for name in arrays if "best_weights" in name]:
        short = arrays[name][:-1]
        assert_refused(params, meta, arrays | {name: short}, tmp_path)


@pytest.mark.parametrize("size", [-1, "0", None, 1.5])
def test_the_size_of_a_log_is_checked(tmp_path, size):
    path = tmp_path / "m.npz"

    def fit_with_log(resume=None):
        callbacks = [CSVLogger(tmp_path / "log.csv", append=True), ModelCheckpoint(path)]
        model = FunkSVD(4, 3, random_state=0)
        model.fit((USERS, ITEMS), VALUES, callbacks=callbacks, resume=resume)

    fit_with_log()
    log = (tmp_path / "log.csv").read_text()
    meta, arrays = content_of(path)
    meta["training"]["callbacks"][0][1]["bytes"] = size
    write(tmp_path / "bad.npz", meta, arrays)
    with pytest.raises(ValueError, match="CSVLogger"):
        fit_with_log(tmp_path / "bad.npz")
    assert (tmp_path / "log.csv").read_text() == log


def test_another_numpy_gives_a_warning(tmp_path):
    """The order of the blocks is drawn by NumPy, which may draw others in a later version."""
    fit({}, tmp_path / "m.npz")
    meta, arrays = content_of(tmp_path / "m.npz")
    assert meta["training"]["numpy"] == np.__version__
    meta["training"]["numpy"] = "1.2.3"
    write(tmp_path / "old.npz", meta, arrays)
    with pytest.warns(UserWarning, match=r"was written with NumPy 1\.2\.3, this is"):
        fit({}, tmp_path / "own.npz", tmp_path / "old.npz")


def test_a_refused_checkpoint_leaves_the_model_as_it_was(tmp_path):
    model = fit({}, tmp_path / "m.npz")
    factors = model.user_factors_.copy()
    meta, arrays = content_of(tmp_path / "m.npz")
    arrays["state.factors"] = arrays["state.factors"][1:]
    write(tmp_path / "bad.npz", meta, arrays)
    with pytest.raises(ValueError, match="is not a whole checkpoint"):
        model.fit(
            (USERS, ITEMS),
            VALUES,
            validation_split=0.2,
            callbacks=[EarlyStopping(patience=9), ReduceLROnPlateau(), ModelCheckpoint("own.npz")],
            resume=tmp_path / "bad.npz",
        )
    np.testing.assert_array_equal(model.user_factors_, factors)
