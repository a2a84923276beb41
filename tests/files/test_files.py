"""Model files: every id type comes back, maps, safetensors, pickles, damaged and hostile files, Surprise's models."""

import datetime
import io
import json
import os
import pickle
import struct
import uuid
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import funksvd
from funksvd import FunkSVD, load

FORMATS = ["npz", "safetensors"]
IDS = {
    "int": lambda n: [k * 7 - 20 for k in range(n)],
    "sparse int": lambda n: [k * 10**15 for k in range(n)],
    "str": lambda n: [f"né {k}" for k in range(n)],
    "bytes": lambda n: [b"%d\xff" % k for k in range(n)],
    "bytes that end with zeros": lambda n: [b"x" + bytes(k) for k in range(n)],
    "UUID": lambda n: [uuid.UUID(int=k << 100) for k in range(n)],
    "datetime": lambda n: [datetime.datetime(2020, 1, 1 + k, 12, 30, 0, k) for k in range(n)],
    "date": lambda n: [datetime.date(2020, 2, 1 + k) for k in range(n)],
}


def trained(users="int", items="str", **parameters):
    rng = np.random.default_rng(0)
    user_ids, item_ids = IDS[users](12), IDS[items](9)
    pairs = [(u, i) for u in range(12) for i in range(9) if rng.random() < 0.7]
    X = [user_ids[u] for u, _ in pairs], [item_ids[i] for _, i in pairs]
    settings = {"n_factors": 5, "n_epochs": 3, "random_state": 0, "n_jobs": 1} | parameters
    return FunkSVD(**settings).fit(
        X, rng.integers(1, 6, len(pairs)).astype(float), validation_split=0.1
    ), X


def assert_same(a, b, X):
    assert type(a) is type(b)
    for one, other in ((a.user_ids_, b.user_ids_), (a.item_ids_, b.item_ids_)):
        assert one.tolist() == other.tolist()
    for name in ("user_factors_", "item_factors_", "user_biases_", "item_biases_"):
        assert getattr(a, name).dtype == getattr(b, name).dtype
        assert np.array_equal(getattr(a, name), getattr(b, name))
    assert a.global_mean_ == b.global_mean_
    assert np.array_equal(a.predict(X), b.predict(X))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("map_arrays", [False, True])
@pytest.mark.parametrize("kind", IDS)
def test_every_id_type_comes_back(tmp_path, suffix, map_arrays, kind):
    for users, items in ((kind, "int"), ("str", kind)):
        model, X = trained(users, items)
        path = tmp_path / f"model.{suffix}"
        model.save(path)
        again = load(path, mmap=map_arrays)
        assert_same(model, again, X)
        again.save(tmp_path / f"again.{suffix}")
        assert path.read_bytes() == (tmp_path / f"again.{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", FORMATS)
def test_parameters_and_history_come_back(tmp_path, suffix):
    model, _ = trained(dtype="float64", rating_scale=(1, 5), l2=0.125)
    model.save(tmp_path / f"m.{suffix}")
    again = load(tmp_path / f"m.{suffix}")
    runtime = {"n_jobs", "verbose", "device"}
    kept = {name: value for name, value in model.get_params().items() if name not in runtime}
    found = again.get_params()
    assert {
        name: tuple(found[name]) if name == "rating_scale" else found[name] for name in kept
    } == kept
    assert again.history_ == {
        name: values for name, values in model.history_.items() if name != "seconds"
    }
    assert again.n_epochs_ == 3


def test_numpy_reads_the_file_and_the_file_is_what_numpy_writes(tmp_path):
    model, X = trained()
    model.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        arrays = dict(file)
    assert np.array_equal(arrays["user_factors"], model.user_factors_)
    assert arrays["item_ids"].tolist() == model.item_ids_.tolist()
    np.savez(tmp_path / "numpy.npz", **arrays)  # as versions before 0.2 did
    assert_same(model, load(tmp_path / "numpy.npz"), X)
    assert_same(model, load(tmp_path / "numpy.npz", mmap=True), X)


def test_arrays_of_a_file_are_aligned(tmp_path):
    trained("str", "UUID")[0].save(tmp_path / "m.npz")
    content = (tmp_path / "m.npz").read_bytes()
    places = [k for k in range(len(content)) if content.startswith(b"\x93NUMPY", k)]
    assert len(places) == 8
    assert all(place % 64 == 0 for place in places)


def test_a_map_is_read_only_and_no_copy(tmp_path):
    model, _ = trained()
    for suffix in FORMATS:
        path = tmp_path / f"m.{suffix}"
        model.save(path)
        again = load(path, mmap=True)
        with pytest.raises(ValueError, match="read-only"):
            again.user_factors_[0, 0] = 1
        load(path).user_factors_[0, 0] = 1
        load(path).user_biases_[0] = 1
        # What is changed in the file is changed in the map.
        content = path.read_bytes()
        place = content.index(model.item_factors_.tobytes())
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(np.float32(9).tobytes())
        assert again.item_factors_[0, 0] == 9


def test_safetensors_reads_the_file(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    from safetensors import safe_open

    model, X = trained("str", "bytes")
    model.save(tmp_path / "m.safetensors")
    arrays = safetensors.load_file(tmp_path / "m.safetensors")
    assert np.array_equal(arrays["user_factors"], model.user_factors_)
    assert np.array_equal(arrays["item_biases"], model.item_biases_)
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        metadata = file.metadata()
    safetensors.save_file(arrays, tmp_path / "theirs.safetensors", metadata=metadata)
    assert_same(model, load(tmp_path / "theirs.safetensors"), X)


@pytest.mark.parametrize("module", ["pickle", "joblib", "cloudpickle", "copy"])
@pytest.mark.parametrize("map_arrays", [None, False, True])
def test_pickle_and_joblib(tmp_path, module, map_arrays):
    library = pytest.importorskip(module)
    model, X = trained("UUID", "str")
    if map_arrays is not None:
        model.save(tmp_path / "m.npz")
        model = load(tmp_path / "m.npz", mmap=map_arrays)
    if module == "copy":
        again = library.deepcopy(model)
    elif module == "joblib":
        library.dump(model, tmp_path / "m.joblib")
        again = library.load(tmp_path / "m.joblib")
    else:
        again = library.loads(library.dumps(model))
    assert_same(model, again, X)
    assert again.history_ == model.history_


def test_pickle_in_the_middle_of_fit():
    kept = []

    class Keep(funksvd.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept.append((pickle.dumps(self.model), self.model.get_weights()))

    X = np.array([(1, 2), (1, 3), (2, 2), (2, 4)])
    FunkSVD(n_factors=2, n_epochs=2, random_state=0).fit(X, [1.0, 2, 3, 4], callbacks=[Keep()])
    for content, weights in kept:
        assert len(content) < 10_000
        assert np.array_equal(
            pickle.loads(content).get_weights().user_factors, weights.user_factors
        )


def test_unfitted_models_pickle_and_do_not_save(tmp_path):
    assert pickle.loads(pickle.dumps(FunkSVD(n_factors=3))).n_factors == 3
    with pytest.raises(ValueError, match="not fitted"):
        FunkSVD().save(tmp_path / "m.npz")
    assert os.listdir(tmp_path) == []


def test_ids_that_cannot_be_saved(tmp_path):
    model = FunkSVD(n_factors=1, n_epochs=1).fit(
        ([(1, 2), (1, 3), (1, 2)], [1, 2, 2]), [1.0, 2.0, 3.0]
    )
    with pytest.raises(
        TypeError,
        match="user ids of type tuple cannot be saved; use int, str, bytes or one of UUID",
    ):
        model.save(tmp_path / "m.npz")
    model = FunkSVD(n_factors=1, n_epochs=1).fit((["a\0", "a", "a"], [1, 2, 1]), [1.0, 2.0, 3.0])
    assert len(model.user_ids_) == 2
    with pytest.raises(TypeError, match="end with NUL"):
        model.save(tmp_path / "m.npz")
    assert os.listdir(tmp_path) == []


# Damaged and hostile files


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for suffix in FORMATS:
        trained("int", "UUID")[0].save(folder / f"m.{suffix}")
        found[suffix] = (folder / f"m.{suffix}").read_bytes()
    return found


def loads_or_says_why(path, content):
    """A file gives a model that answers, or one ValueError that names the file."""
    path.write_bytes(content)
    for map_arrays in (False, True):
        try:
            model = load(path, mmap=map_arrays)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            users, items = model.user_ids_.tolist(), model.item_ids_.tolist()
            model.predict((users[:1] * len(items), items))
            assert len(model.recommend(users[0], n=3)) == 2
            del model


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.filterwarnings(
    "ignore:overflow", "ignore:invalid value"
)  # of bytes that are huge numbers now
def test_damaged_bytes(contents, tmp_path, suffix, data):
    content = bytearray(contents[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["byte", "cut", "insert", "drop", "copy"])):
            case "byte":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[at + 1 :]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
            case "drop":
                del content[at : at + data.draw(st.integers(1, 40))]
                content = content or bytearray(b"x")
            case "copy":
                content[at : at + 30] = content[:30]
    loads_or_says_why(tmp_path / "m", bytes(content))


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"PK\x03\x04", b"\x20\0\0\0\0\0\0\0{", b"\x93NUMPY"]),
)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_bytes(tmp_path, content, start):
    (tmp_path / "m.npz").write_bytes(start + content)
    with pytest.raises(ValueError, match=r"m\.npz is not a whole funksvd model"):
        load(tmp_path / "m.npz")


def npy(array):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=True)
    return out.getvalue()


def rewritten(content, compress=zipfile.ZIP_STORED, **changes):
    """The npz with other members: bytes, an array, or None for one that is missing."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", compress) as new:
        for name in old.namelist():
            change = changes.get(name.removesuffix(".npy"), old.read(name))
            if change is not None:
                new.writestr(name, change if isinstance(change, bytes) else npy(change))
    return out.getvalue()


def with_meta(content, **changes):
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        meta = json.loads(np.load(io.BytesIO(file.read("meta.npy"))).tobytes())
    for name, change in changes.items():
        meta[name] = (
            meta[name] | change if isinstance(change, dict) and name == "params" else change
        )
    return rewritten(content, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8))


class Bomb:
    def __reduce__(self):
        return os._exit, (3,)


def header_with(shape, descr="<f4"):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode()


HOSTILE = {
    "a pickle in an array": lambda c: rewritten(c, user_factors=np.array([Bomb()], object)),
    "a pickle": lambda c: pickle.dumps(Bomb()),
    "a pickle as a member": lambda c: rewritten(c, user_factors=pickle.dumps(Bomb())),
    "code as a header": lambda c: rewritten(
        c, user_factors=header_with("(__import__('os')._exit(3),)")
    ),
    "a huge shape": lambda c: rewritten(c, user_factors=header_with("(99999999999, 99999999)")),
    "a negative shape": lambda c: rewritten(c, user_factors=header_with("(-1, 5)")),
    "no bytes an item": lambda c: rewritten(c, user_ids=header_with("(999999999999,)", "<U0")),
    "compressed (a zip bomb)": lambda c: rewritten(
        c, zipfile.ZIP_DEFLATED, user_factors=np.zeros(10**6, np.float32)
    ),
    "a member is missing": lambda c: rewritten(c, item_biases=None),
    "no JSON": lambda c: rewritten(c, meta=np.frombuffer(b"{", np.uint8)),
    "deep JSON": lambda c: rewritten(c, meta=np.frombuffer(b"[" * 100_000, np.uint8)),
    "JSON of another kind": lambda c: rewritten(c, meta=np.frombuffer(b"[1]", np.uint8)),
    "a format before the first": lambda c: with_meta(c, format=0),
    "a format that is no number": lambda c: with_meta(c, format=True),
    "a mean that is none": lambda c: rewritten(c, global_mean=np.array(np.nan)),
    "ids beyond int64": lambda c: rewritten(
        c, user_ids=np.arange(2**63, 2**63 + 12, dtype=np.uint64)
    ),
    "unknown parameter": lambda c: with_meta(c, params={"evil": 1}),
    "parameter of another type": lambda c: with_meta(c, params={"n_factors": "5"}),
    "parameter that is no number": lambda c: with_meta(c, params={"l2": float("nan")}),
    "fewer factors than it says": lambda c: with_meta(c, params={"n_factors": 6}),
    "other dtype": lambda c: with_meta(c, params={"dtype": "float64"}),
    "newer format": lambda c: with_meta(c, format=99),
    "unknown id kind": lambda c: with_meta(c, id_kinds=["int", "os.system"]),
    "id kind of another array": lambda c: with_meta(c, id_kinds=["str", "UUID"]),
    "id kinds of three": lambda c: with_meta(c, id_kinds=["int", "UUID", "int"]),
    "ids that are no UUID": lambda c: rewritten(c, item_ids=np.array(["x"] * 9)),
    "equal ids": lambda c: rewritten(c, user_ids=np.zeros(12, np.int64)),
    "ids out of order": lambda c: rewritten(c, user_ids=np.arange(12)[::-1].copy()),
    "ids in two dimensions": lambda c: rewritten(c, user_ids=np.arange(12).reshape(3, 4)),
    "ids of 8 bits": lambda c: rewritten(c, user_ids=np.array([-128, 127], np.int8)),
    "no ids": lambda c: rewritten(
        c,
        user_ids=np.zeros(0, np.int64),
        user_biases=np.zeros(0, np.float32),
        user_factors=np.zeros((0, 5), np.float32),
    ),
    "history of another kind": lambda c: with_meta(c, history={"rmse": "low"}),
    "history that is a list": lambda c: with_meta(c, history=[1]),
    "epochs of another kind": lambda c: with_meta(c, n_epochs="3"),
    "nothing": lambda c: b"",
}


def test_rewritten_file_without_changes_loads(contents, tmp_path):
    (tmp_path / "m.npz").write_bytes(with_meta(contents["npz"]))
    load(tmp_path / "m.npz")


def changed_header(content, change):
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]


def setting(name, key, value):
    return lambda content: changed_header(content, lambda header: header[name].update({key: value}))


HOSTILE_TENSORS = {
    "no header": lambda c: c[:7],
    "longer header than file": lambda c: struct.pack("<Q", 2**63) + c[8:],
    "no JSON": lambda c: struct.pack("<Q", 4) + b"{{{{" + c,
    "no metadata": lambda c: changed_header(c, lambda h: h.pop("__metadata__")),
    "unknown dtype": setting("user_factors", "dtype", "BF16"),
    "outside": setting("user_factors", "data_offsets", [2**60, 2**60 + 240]),
    "before": setting("user_factors", "data_offsets", [-240, 0]),
    "huge": setting("user_factors", "shape", [2**40, 2**40]),
    "negative": setting("user_factors", "shape", [-12, -5]),
    "fractions": setting("user_factors", "shape", [12.0, 5]),
    "longer ids than text": lambda c: changed_header(
        c,
        lambda h: h["item_ids.utf8"].update(
            {"shape": [9 * 36 - 1], "data_offsets": [0, 9 * 36 - 1]}
        ),
    ),
    "many in one place": lambda c: changed_header(
        c,
        lambda h: h.update(
            {f"x{k}": {"dtype": "U8", "shape": [999], "data_offsets": [0, 999]} for k in range(9)}
        ),
    ),
}


@pytest.mark.parametrize("map_arrays", [False, True])
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        pytest.param(kind, change, id=f"{kind}, {name}")
        for kind, changes in (("npz", HOSTILE), ("safetensors", HOSTILE_TENSORS))
        for name, change in changes.items()
    ],
)
def test_hostile_files_are_refused(contents, tmp_path, kind, change, map_arrays):
    path = tmp_path / f"m.{kind}"
    path.write_bytes(change(contents[kind]))
    with pytest.raises(ValueError, match=rf"m\.{kind} is not a whole funksvd model: .") as error:
        load(path, mmap=map_arrays)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["user_factors", "item_biases"])
def test_arrays_that_are_not_finite_are_refused(contents, tmp_path, name):
    path = tmp_path / "m.npz"
    path.write_bytes(contents["npz"])
    with np.load(path) as file:
        array = file[name]
    array.flat[-1] = np.nan
    path.write_bytes(rewritten(contents["npz"], **{name: array}))
    with pytest.raises(ValueError, match=f"its {name} hold NaN or infinity"):
        load(path)


# Surprise


def stand_in(svdpp=False):
    """What a fitted SVD of Surprise has, with raw ids out of order, and its own way to predict."""
    rng = np.random.default_rng(1)
    raw_users, raw_items = [9, 2, 7, 4], ["b", "d", "a"]
    trainset = SimpleNamespace(
        n_users=4,
        n_items=3,
        global_mean=3.25,
        rating_scale=(1, 5),
        to_raw_uid=raw_users.__getitem__,
        to_raw_iid=raw_items.__getitem__,
        ur={u: [(i, 4.0) for i in range(u % 3 + 1)] for u in range(4)},
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
    if svdpp:
        algo.yj = rng.normal(size=(3, 2))
    expected = {}
    for u, user in enumerate(raw_users):
        for i, item in enumerate(raw_items):
            p = algo.pu[u]
            if svdpp:
                p = p + sum(algo.yj[j] for j, _ in trainset.ur[u]) / len(trainset.ur[u]) ** 0.5
            expected[user, item] = min(5, max(1, 3.25 + algo.bu[u] + algo.bi[i] + algo.qi[i] @ p))
    return algo, expected


@pytest.mark.parametrize("svdpp", [False, True])
def test_from_surprise_stand_in(svdpp, tmp_path):
    algo, expected = stand_in(svdpp)
    model = funksvd.from_surprise(algo)
    users, items = zip(*expected, strict=True)
    assert model.predict((list(users), list(items))) == pytest.approx(
        list(expected.values()), rel=1e-12
    )
    assert model.user_ids_.tolist() == [2, 4, 7, 9]
    assert model.n_epochs == 7
    model.save(tmp_path / "m.npz")
    assert np.array_equal(load(tmp_path / "m.npz").item_factors_, model.item_factors_)


@pytest.mark.filterwarnings("ignore")  # of Surprise's own
@pytest.mark.parametrize("name", ["SVD", "SVD unbiased", "SVDpp", "NMF", "BaselineOnly"])
def test_from_surprise(name):
    surprise = pytest.importorskip("surprise")
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(2)
    frame = pandas.DataFrame(
        {
            "u": [f"u{x}" for x in rng.integers(0, 20, 300)],
            "i": rng.integers(0, 15, 300),
            "r": rng.integers(1, 6, 300),
        }
    ).drop_duplicates(["u", "i"])
    trainset = surprise.Dataset.load_from_df(
        frame, surprise.Reader(rating_scale=(1, 5))
    ).build_full_trainset()
    makers = {
        "SVD": lambda: surprise.SVD(n_factors=6, n_epochs=8),
        "SVD unbiased": lambda: surprise.SVD(n_factors=6, biased=False),
        "SVDpp": lambda: surprise.SVDpp(n_factors=4, n_epochs=4),
        "NMF": lambda: surprise.NMF(n_factors=4, n_epochs=5),
        "BaselineOnly": lambda: surprise.BaselineOnly(verbose=False),
    }
    algo = makers[name]().fit(trainset)
    model = funksvd.from_surprise(algo)
    users, items = frame["u"].tolist(), frame["i"].tolist()
    expected = [algo.predict(u, i).est for u, i in zip(users, items, strict=True)]
    assert model.predict((users, items)) == pytest.approx(expected, abs=1e-9)


def test_from_surprise_of_something_else():
    with pytest.raises(
        TypeError,
        match="algo must be a fitted SVD, SVDpp, NMF or BaselineOnly of Surprise, got dict",
    ):
        funksvd.from_surprise({})
