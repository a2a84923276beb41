"""FunkSVD on what users bring: tables, matrices, odd ids, real ratings."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from funksvd import FunkSVD, LambdaCallback, Ratings, datasets, load
from funksvd.files import model_file

DATA = Path(os.environ.get("FUNKSVD_DATA", "nowhere"))
DATE = lambda x: date(2000, 1, 1) + timedelta(int(x))  # noqa: E731
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="real ratings are not there: FUNKSVD_DATA names their folder"
)


def some(n=2000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 60, n), rng.integers(0, 40, n), rng.normal(3.5, 1, n)


def same(a, b):
    return (a.user_factors_ == b.user_factors_).all() and (a.item_biases_ == b.item_biases_).all()


def test_every_form_of_input_gives_the_same_model():
    users, items, values = some()
    # A sparse matrix adds up repeats: leave the first of each pair.
    first = np.unique(users * 1000 + items, return_index=True)[1]
    users, items, values = users[first], items[first], values[first]
    want = FunkSVD(4, 3, random_state=0).fit((users, items), values)
    forms = [
        ((np.column_stack([users, items]), values)),
        (sparse.coo_matrix((values, (users, items))), None),
    ]
    columns = {"user": users, "item": items, "rating": values}
    for library in ("pandas", "polars"):
        forms.append((pytest.importorskip(library).DataFrame(columns), None))
    forms.append((pytest.importorskip("pyarrow").table(columns), None))
    forms.append((Ratings.from_arrays(users.astype(np.uint8), items.astype(float), values), None))
    for X, y in forms:
        assert same(FunkSVD(4, 3, random_state=0).fit(X, y), want)


def test_predict_is_the_formula():
    users, items, values = some()
    for k in (1, 7, 20, 32):
        m = FunkSVD(k, 3, random_state=0, dtype="float64").fit((users, items), values)
        u, i = np.searchsorted(m.user_ids_, users), np.searchsorted(m.item_ids_, items)
        want = m.global_mean_ + m.user_biases_[u] + m.item_biases_[i]
        want = want + np.einsum("tk,tk->t", m.user_factors_[u], m.item_factors_[i])
        np.testing.assert_allclose(m.predict((users, items)), want, rtol=1e-12)


def test_huge_penalty_gives_the_mean():
    users, items, values = some()
    model = FunkSVD(
        4, 60, l2=50, l2_bias=50, learning_rate=0.002, learning_rate_decay=0, random_state=0
    )
    model.fit((users, items), values)
    np.testing.assert_allclose(model.predict((users, items)), values.mean(), atol=0.05)


@pytest.mark.parametrize(
    "make",
    [str, lambda x: uuid.UUID(int=int(x)), lambda x: int(x) * 10**15, lambda x: -int(x), DATE],
)
def test_ids_of_many_types(make, tmp_path):
    users, items, values = some()
    ids = np.array([make(u) for u in users])
    model = FunkSVD(4, 3, random_state=0).fit((ids, items), values)
    assert np.isfinite(model.predict((ids, items), unknown="raise")).all()
    found, scores = model.recommend(ids[0], n=5, exclude=Ratings.from_arrays(ids, items, values))
    assert not set(found.tolist()) & set(items[ids == ids[0]].tolist())
    assert (np.diff(scores) <= 0).all()
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert [type(x) for x in again.user_ids_] == [type(x) for x in model.user_ids_]
    assert (again.predict((ids, items)) == model.predict((ids, items))).all()


def test_recommend_agrees_with_predict():
    users, items, values = some()
    model = FunkSVD(4, 5, random_state=0).fit((users, items), values)
    found, scores = model.recommend(3, n=100)
    assert sorted(found) == sorted(model.item_ids_)
    np.testing.assert_array_equal(scores, model.predict((np.full(len(found), 3), found)))


def test_validation_loss_is_the_prediction_error():
    users, items, values = some()
    train, held_out = Ratings.from_arrays(users, items, values).split(0.2, 3)
    assert len(held_out) == 400
    model = FunkSVD(4, 5, random_state=0).fit(train, validation_data=held_out)
    assert model.evaluate(held_out)["rmse"] == pytest.approx(
        model.history_["val_rmse"][-1], rel=1e-5
    )


def test_planted_ratings_are_found():
    made = datasets.make_ratings(600, 400, 60_000, rank=4, noise=0.5, random_state=1)
    model = FunkSVD(8, 60, random_state=0).fit(
        (made.users, made.items), made.ratings, validation_split=0.1
    )
    best = min(model.history_["val_rmse"])
    biases = FunkSVD(1, 60, init_std=0, random_state=0).fit(
        (made.users, made.items), made.ratings, validation_split=0.1
    )
    assert made.noise < best < 0.5 * (made.noise + min(biases.history_["val_rmse"]))


def test_sklearn_can_clone_and_search():
    base = pytest.importorskip("sklearn.base")
    model = FunkSVD(n_factors=3, l2=0.5)
    assert base.clone(model).get_params() == model.get_params()
    with pytest.raises(ValueError, match="unknown parameter 'lrate'"):
        model.set_params(lrate=1)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_returns_within_a_second():
    code = (
        "import warnings, numpy as np; warnings.simplefilter('always')\n"
        "from funksvd import FunkSVD\n"
        "rng = np.random.default_rng(0); n = 3_000_000\n"
        "u, i, y = rng.integers(0, 50_000, n), rng.integers(0, 9_000, n), rng.normal(3, 1, n)\n"
        "from funksvd import LambdaCallback\n"
        "m = FunkSVD(64, 100_000, random_state=0)\n"
        "m.fit((u, i), y, callbacks=[LambdaCallback(on_epoch_end=lambda e, logs: print(e, flush=True))])\n"
        "print('usable', m.interrupted_, m.n_epochs_, m.predict((u[:1], i[:1])).shape)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(3):
        process.stdout.readline()
    begun = time.perf_counter()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.perf_counter() - begun < 30  # a hang, not a speed
    assert "usable True" in out, err
    assert "interrupted in epoch" in err


@needs_data
def test_defaults_on_the_official_folds():
    ratings = np.loadtxt(DATA / "ml-100k" / "u.data", dtype=np.int64)
    errors = []
    for fold in range(5):
        test = np.zeros(len(ratings), bool)
        test[20_000 * fold : 20_000 * (fold + 1)] = True
        model = FunkSVD(random_state=0).fit(ratings[~test, :2], ratings[~test, 2])
        errors.append(model.evaluate(ratings[test, :2], ratings[test, 2])["rmse"])
    assert np.mean(errors) <= 0.918


@needs_data
def test_defaults_on_goodbooks():
    train, test = Ratings.read(DATA / "goodbooks" / "ratings.csv.gz").split(0.1, 0)
    assert FunkSVD(random_state=0).fit(train).evaluate(test)["rmse"] <= 0.823


def test_ids_of_mixed_types_stay_apart():
    users, items = [1, "1", 2, "b", 2, 1], ["x"] * 6
    model = FunkSVD(2, 3, random_state=0).fit((users, items), [1.0, 2, 3, 4, 5, 3])
    assert {(type(x), x) for x in model.user_ids_} == {(int, 1), (str, "1"), (int, 2), (str, "b")}


def test_unknown_ids_in_validation_count_as_predict_does():
    users, items, values = some()
    known = (users < 50) & (items < 35)
    for part in (slice(None), ~known):  # some, and nothing but unknown ids
        model = FunkSVD(4, 5, random_state=0).fit(
            (users[known], items[known]),
            values[known],
            validation_data=((users[part], items[part]), values[part]),
        )
        want = model.evaluate((users[part], items[part]), values[part])
        assert want["unknown"] > 0
        assert model.history_["val_rmse"][-1] == pytest.approx(want["rmse"], rel=1e-5)


def test_integer_ids_spread_wide_and_dense():
    rng = np.random.default_rng(0)
    for span in (1 << 23, 1 << 26, 1 << 40):
        users, items = (
            rng.choice(rng.integers(0, span, 50), 3000) - span // 2,
            rng.integers(0, 40, 3000),
        )
        ratings = Ratings.from_arrays(users, items, np.ones(3000) + rng.random(3000))
        assert (ratings.user_ids[ratings.users] == users).all()
        model = FunkSVD(3, 2, random_state=0).fit(ratings)
        assert np.isfinite(model.predict((users, items), unknown="raise")).all()
    with pytest.raises(ValueError, match="must fit 64 bits"):
        Ratings.from_arrays([2**70, 1], [1, 2], [1.0, 2.0])


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    users, items, values = some()
    model = FunkSVD(4, 3, random_state=0).fit((users, items), values)
    path = tmp_path / "m.npz"
    model.save(path)
    before = path.read_bytes()

    def full(file, text, arrays):
        file.write(b"half of a model")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_file, "write_npz", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.npz"]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, monkeypatch):
    def full(file, text, arrays):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_file, "write_npz", full)
    users, items, values = some()
    with pytest.raises(OSError, match="No space left") as error:
        FunkSVD(2, 1).fit((users, items), values).save(tmp_path / "m.npz")
    assert error.value.filename == tmp_path / "m.npz"


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_new_file_may_be_read_by_those_who_could_read_the_old(tmp_path):
    users, items, values = some()
    path, model = tmp_path / "m.npz", FunkSVD(2, 1).fit((users, items), values)
    model.save(path)
    path.chmod(0o600)
    model.save(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_part_without_weight_is_refused():
    users, items, values = some()
    weights = np.zeros(len(values))
    weights[0] = 1
    with pytest.raises(ValueError, match="all validation ratings weigh 0"):
        FunkSVD(2, 1, random_state=0).fit(
            (users, items), values, sample_weight=weights, validation_split=0.1
        )
    for bad in (-1.0, np.nan):
        weights[3] = bad
        with pytest.raises(ValueError, match=r"finite and at least 0, got .* at index 3"):
            FunkSVD(2, 1).fit((users, items), values, sample_weight=weights)


def test_ids_that_a_file_cannot_keep_are_refused(tmp_path):
    model = FunkSVD(2, 2, random_state=0).fit(
        ([(1, 2), (3, 4), (1, 2)], [1, 2, 3]), [1.0, 2.0, 3.0]
    )
    with pytest.raises(TypeError, match="user ids of type tuple cannot be saved"):
        model.save(tmp_path / "m.npz")
    assert os.listdir(tmp_path) == []


FEATUREWISE = {"training": "featurewise"}
# A value of each parameter, and what else must be set for it to count.
CHANGES = [
    ("n_factors", 5, {}),
    ("n_epochs", 4, {}),
    ("learning_rate", 0.03, {}),
    ("learning_rate_schedule", "cosine", {}),
    ("learning_rate_decay", 0.1, {}),
    ("l2", 0.2, {}),
    ("l2_bias", 0.2, {}),
    ("biased", False, {}),
    ("center", False, {}),
    ("init_std", 0.2, {}),
    ("rating_scale", (3, 4), {}),
    ("dtype", "float64", {}),
    ("random_state", 1, {}),
    ("solver", "adagrad", {}),
    ("momentum", 0.5, {}),
    ("beta_1", 0.5, {"solver": "adam"}),
    ("beta_1", 0.5, {"solver": "adamax"}),
    ("beta_2", 0.9, {"solver": "adam"}),
    ("beta_2", 0.9, {"solver": "adamax"}),
    *(
        ("epsilon", 0.01, {"solver": solver})
        for solver in ("adagrad_row", "adagrad", "adam", "adamax")
    ),
    ("initial_accumulator_value", 1, {"solver": "adagrad"}),
    ("initial_accumulator_value", 1, {"solver": "adagrad_row"}),
    *(
        (name, value, {})
        for name in ("l2", "l1", "l2_bias", "l1_bias")
        for value in ((0.0, 0.15), (0.15, 0.0))
    ),
    ("l1", 0.1, {}),
    ("l1_bias", 0.1, {}),
    ("reg_scale", "row", {}),
    ("non_negative", True, {}),
    ("average", "factors", {"solver": "gibbs"}),
    ("batch_size", 500, {}),
    ("batch_size", 500, {"batch_size": 300}),
    ("shuffle", False, {"batch_size": 300}),
    *(
        (name, value, {"batch_size": 300, "learning_rate": 0.1, "solver": solver})
        for solver in ("sgd", "adagrad", "adam", "adamax")
        for name, value in (
            ("n_factors", 5),
            ("n_epochs", 4),
            ("learning_rate", 0.2),
            ("l2", 0.2),
            ("l2", (0.0, 0.15)),
            ("l1", 0.1),
            ("l1", (0.15, 0.0)),
            ("l2_bias", 0.2),
            ("l1_bias", 0.1),
            ("reg_scale", "row"),
            ("non_negative", True),
            ("biased", False),
            ("center", False),
            ("init_std", 0.2),
            ("dtype", "float64"),
            ("random_state", 1),
        )
    ),
    ("momentum", 0.5, {"batch_size": 300}),
    ("beta_1", 0.5, {"batch_size": 300, "solver": "adam"}),
    ("beta_1", 0.5, {"batch_size": 300, "solver": "adamax"}),
    ("beta_2", 0.9, {"batch_size": 300, "solver": "adam"}),
    ("beta_2", 0.9, {"batch_size": 300, "solver": "adamax"}),
    *(
        ("epsilon", 0.01, {"batch_size": 300, "solver": solver})
        for solver in ("adagrad", "adam", "adamax")
    ),
    ("initial_accumulator_value", 1, {"batch_size": 300, "solver": "adagrad"}),
    ("training", "featurewise", {}),
    ("min_improvement", 0.02, FEATUREWISE | {"n_epochs": 20}),
    *(
        (name, value, FEATUREWISE)
        for name, value in (
            ("n_factors", 5),
            ("n_epochs", 4),
            ("learning_rate", 0.03),
            ("learning_rate_schedule", "cosine"),
            ("learning_rate_decay", 0.1),
            ("l2", 0.2),
            ("l2", (0.0, 0.15)),
            ("l1", 0.1),
            ("l1", (0.15, 0.0)),
            ("l2_bias", 0.2),
            ("l1_bias", 0.1),
            ("reg_scale", "row"),
            ("non_negative", True),
            ("biased", False),
            ("center", False),
            ("init_std", 0.2),
            ("rating_scale", (3, 4)),
            ("dtype", "float64"),
            ("random_state", 1),
        )
    ),
]
CHANGES_NOTHING = {"n_jobs", "verbose"}
OF_A_GPU = {"device", "schedule", "max_device_bytes"}  # in test_gpu.py


@pytest.mark.parametrize(("name", "value", "others"), CHANGES)
def test_every_parameter_changes_the_result(name, value, others):
    users, items, values = some()
    params = {"n_factors": 4, "n_epochs": 3, "random_state": 0} | others
    base = FunkSVD(**params).fit((users, items), values)
    other = FunkSVD(**params | {name: value}).fit((users, items), values)
    assert not np.array_equal(base.predict((users, items)), other.predict((users, items)))


def test_no_parameter_is_without_such_a_test():
    assert {name for name, _, _ in CHANGES} | CHANGES_NOTHING | OF_A_GPU == set(
        FunkSVD().get_params()
    )


def test_every_parameter_is_documented_once():
    text = FunkSVD.__doc__.partition("Parameters")[2]
    named = [
        name
        for line in text.splitlines()
        if re.match(r" {4}\w", line)
        for name in line.partition(" :")[0].strip().split(", ")
    ]
    assert sorted(named) == sorted(FunkSVD().get_params())
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    table = readme.partition("## Parameters")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(FunkSVD().get_params())


def test_a_failed_refit_leaves_no_model_of_other_ids():
    users, items, values = some()
    model = FunkSVD(4, 3, random_state=0).fit((users, items), values)
    with pytest.raises(FloatingPointError):
        model.set_params(learning_rate=1e6).fit((users + 7, items), values)
    with pytest.raises(ValueError, match="not fitted"):
        model.predict((users, items))


def test_malformed_input_is_named():
    users, items, values = some()
    for X, y, said in [
        ((users, items), values[:-1], "equal lengths, got 2000, 2000, 1999"),
        ((users[:0], items[:0]), values[:0], "at least 1 rating is needed, got none"),
        ((users[:1], items[:1]), values[:1], "at least 2 ratings are needed, got 1"),
        (np.zeros((5, 3)), np.ones(5), r"X must be \(n, 2\)"),
        (
            (users, items),
            np.where(values > 4, np.inf, values),
            r"\d+ of 2000 ratings are NaN or infinite, the first at",
        ),
        ((users + 0.5, items), values, "user ids are floats that are not whole numbers"),
        (([None, "a"], [1, 2]), [1, 2], "user ids hold missing values"),
        (([2**63, -1], [1, 2]), [1, 2], "user ids are .* ints that do not fit 64 bits"),
        (([1e19, 5.0], [1, 2]), [1, 2], "user ids are floats of 2.*53 or more"),
        (([2**53 + 1, 2**53, 0.0], [1, 2, 3]), [1, 2, 3], "user ids are floats of 2.*53 or more"),
        ((users, np.ma.array(items, mask=items == 3)), values, r"\d+ item ids are masked"),
        ((users, items), np.ma.array(values, mask=values > 4), r"\d+ ratings are masked"),
        ((users, items), None, "y is missing"),
    ]:
        with pytest.raises(ValueError, match=said):
            FunkSVD().fit(X, y)
    for ratings in (["good", "bad"], [1j, 2], np.array([1, 2], "M8[s]")):
        with pytest.raises(TypeError, match="ratings must be numbers"):
            FunkSVD().fit((users[:2], items[:2]), ratings)
    with pytest.raises(TypeError, match="from_sparse takes a SciPy sparse matrix, got ndarray"):
        Ratings.from_sparse(np.eye(3))
    with pytest.raises(ValueError, match=r"validation_split must be in \[0, 1\), got '0.1'"):
        FunkSVD().fit((users, items), values, validation_split="0.1")
    for name in ("l2", "learning_rate", "init_std", "momentum"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            FunkSVD(**{name: 10**400}).fit((users, items), values)
    with pytest.raises(TypeError, match="unexpected keyword argument 'lrate'"):
        FunkSVD(lrate=1)
    with pytest.raises(ValueError, match="not both"):
        FunkSVD().fit(
            (users, items), values, validation_split=0.1, validation_data=((users, items), values)
        )


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint64])
@pytest.mark.parametrize(
    "others", [{}, {"batch_size": np.uint8(3), "solver": "adamax"}, {"solver": "gibbs"}]
)
def test_whole_numbers_of_numpy_are_those_of_python(kind, others):
    users, items, values = some()
    ours, theirs = (
        FunkSVD(n(4), n(3), n_jobs=n(2), random_state=n(5), verbose=n(0), **others).fit(
            (users, items), values
        )
        for n in (int, kind)
    )
    assert same(ours, theirs)


def test_a_model_of_mixed_ids_answers_for_each_of_them():
    ids = [1, "1", b"1", (1, 1)]
    model = FunkSVD(2, 2, random_state=0).fit((ids, ["a", "b", "c", "d"]), [1, 2, 3, 4])
    together = model.predict((ids, ["a"] * 4))
    assert len(set(together.tolist())) == 4
    assert [model.predict(([x], ["a"]))[0] for x in ids] == together.tolist()
    assert len(model.recommend("1")[0]) == 4


def test_any_damage_to_a_file_is_one_error(tmp_path):
    """Bytes flipped, cut out or added anywhere: the model comes back equal, or ValueError; nothing else."""
    users, items, values = some()
    model = FunkSVD(4, 3, random_state=0).fit((users.astype(str), items), values)
    path = tmp_path / "m.npz"
    model.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        harmed, at = bytearray(whole), int(rng.integers(len(whole)))
        kind = rng.integers(3)
        if kind == 0:
            harmed[at] ^= int(rng.integers(1, 256))
        elif kind == 1:
            del harmed[at : at + int(rng.integers(1, 50))]
        else:
            harmed[at:at] = rng.bytes(5)
        path.write_bytes(harmed)
        try:
            again = load(path)
        except ValueError as error:
            refused += str(path) in str(error)
        else:
            assert (again.item_factors_ == model.item_factors_).all()
    assert refused > 300


def test_a_failing_callback_leaves_the_last_whole_epoch():
    users, items, values = some()
    whole = FunkSVD(4, 2, random_state=0).fit((users, items), values)

    def fail(epoch, logs):
        if epoch == 1:
            raise RuntimeError("mine")

    model = FunkSVD(4, 9, random_state=0)
    with pytest.raises(RuntimeError, match="mine"):
        model.fit((users, items), values, callbacks=LambdaCallback(on_epoch_end=fail))
    assert model.n_epochs_ == 2
    assert (model.item_factors_ == whole.item_factors_).all()


def test_times_as_ids():
    users, items, values = some()
    days = np.datetime64("2000-01-01") + users
    model = FunkSVD(2, 2, random_state=0).fit((days.astype("M8[ns]"), items), values)
    assert np.isfinite(model.predict((days.astype("M8[ns]"), items), unknown="raise")).all()
    with pytest.raises(ValueError, match="finer than a microsecond"):
        Ratings.from_arrays(users.astype("M8[ns]") + np.timedelta64(1, "ns"), items, values)


def test_splits_of_neighbouring_seeds_differ_and_ignore_row_order():
    users, items, values = some()
    ratings, order = (
        Ratings.from_arrays(users, items, values),
        np.random.default_rng(1).permutation(len(users)),
    )
    shuffled = Ratings.from_arrays(users[order], items[order], values[order])

    def held_out(ratings, seed):
        part = ratings.split(0.1, seed)[1]
        return set(zip(part.users.tolist(), part.items.tolist(), part.values.tolist(), strict=True))

    assert held_out(ratings, 0) == held_out(shuffled, 0)
    assert len(held_out(ratings, 0) & held_out(ratings, 1)) < 50  # 20 by chance


# (ratings, share, ratings to train on) as keras.src.trainers.data_adapters.array_slicing (Keras 3.15) splits them.
KERAS_SPLITS = [
    (10, 0.1, 9),
    (10, 0.3, 7),
    (100, 0.29, 71),
    (100, 0.7, 30),
    (101, 0.1, 90),
    (7, 0.5, 3),
    (1000, 0.001, 999),
    (1000, 0.9, 99),
    (3, 0.34, 1),
    (99, 0.01, 98),
]


@pytest.mark.parametrize(("n", "share", "trained"), KERAS_SPLITS)
def test_the_tail_is_that_of_keras(n, share, trained):
    users, items, values = some(n)
    ratings = Ratings.from_arrays(users, items, values, 1.0 + np.arange(n) % 3)
    if trained < 2:
        with pytest.raises(
            ValueError, match=r"fraction must leave ratings on both sides, got 0\.34 of 3"
        ):
            ratings.split_tail(share)
        return
    train, held_out = ratings.split_tail(share)
    assert (len(train), len(held_out)) == (trained, n - trained)
    assert (np.append(train.values, held_out.values) == values).all()
    assert (np.append(train.weights, held_out.weights) == ratings.weights).all()
    one = FunkSVD(2, 2, random_state=0).fit(
        ratings, validation_split=share, validation_split_order="tail"
    )
    other = FunkSVD(2, 2, random_state=0).fit(train, validation_data=held_out)
    assert one.history_["val_loss"] == other.history_["val_loss"]


def test_the_order_of_the_split_is_checked():
    users, items, values = some()
    with pytest.raises(
        ValueError, match="validation_split_order must be 'random' or 'tail', got 'head'"
    ):
        FunkSVD().fit((users, items), values, validation_split=0.1, validation_split_order="head")
