"""Damaged and hostile model files: each gives a model or one ValueError, and executes nothing."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from conftest import random_ratings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saved_models import FORMATS, trained_model

from funksvd import FunkSVD, load


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Return {format: bytes of a model file}."""
    folder = tmp_path_factory.mktemp("files")
    model, _ = trained_model("int", "UUID")
    found = {}
    for suffix in FORMATS:
        path = folder / f"m.{suffix}"
        model.save(path)
        found[suffix] = path.read_bytes()
    return found


def load_or_say_why(path, content):
    """Check that a file gives a model that answers, or one ValueError that names the file."""
    path.write_bytes(content)
    for map_arrays in (False, True):
        try:
            model = load(path, mmap=map_arrays)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            user = model.user_ids_.tolist()[0]
            items = model.item_ids_.tolist()
            model.predict(([user] * len(items), items))
            assert len(model.recommend(user, n=3)) == 2
            del model  # closes the map before the next file is written


# ---- random damage ----


@given(data=st.data())
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")  # bytes may be huge numbers
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
    load_or_say_why(tmp_path / "m", bytes(content))


@given(
    content=st.binary(max_size=200),
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x20\0\0\0\0\0\0\0{", b"\x93NUMPY"]),
)
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_random_bytes(tmp_path, content, start):
    (tmp_path / "m.npz").write_bytes(start + content)
    with pytest.raises(ValueError, match=r"m\.npz is not a whole funksvd model"):
        load(tmp_path / "m.npz")


# ---- hostile npz ----


def npy(array):
    """Return an array in the npy format."""
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=True)
    return out.getvalue()


def npy_header(shape, descr="<f4"):
    """Return the header of an array in the npy format; shape and dtype are texts."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode()


def changed_npz(compression=zipfile.ZIP_STORED, **changes):
    """Return a function that changes members of an npz: to bytes, to an array, or None to drop."""

    def change_npz(content):
        out = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(content)) as old,
            zipfile.ZipFile(out, "w", compression) as new,
        ):
            for name in old.namelist():
                change = changes.get(name.removesuffix(".npy"), old.read(name))
                if change is not None:
                    new.writestr(name, change if isinstance(change, bytes) else npy(change))
        return out.getvalue()

    return change_npz


def changed_meta(**changes):
    """Return a function that changes entries of the JSON in an npz, or single parameters."""

    def change_meta(content):
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            meta = json.loads(np.load(io.BytesIO(file.read("meta.npy"))).tobytes())
        params = meta["params"] | changes.get("params", {})
        meta = meta | changes | {"params": params}
        return changed_npz(meta=as_meta(json.dumps(meta).encode()))(content)

    return change_meta


def as_meta(text):
    """Return bytes as the array "meta" of an npz."""
    return np.frombuffer(text, np.uint8)


class Bomb:
    """An object whose pickle ends the process."""

    def __reduce__(self):
        return os._exit, (3,)


HOSTILE_NPZ = {
    "a pickle in an array": changed_npz(user_factors=np.array([Bomb()], object)),
    "a pickle": lambda content: pickle.dumps(Bomb()),
    "a pickle as a member": changed_npz(user_factors=pickle.dumps(Bomb())),
    "code as a header": changed_npz(user_factors=npy_header("(__import__('os')._exit(3),)")),
    "a huge shape": changed_npz(user_factors=npy_header("(99999999999, 99999999)")),
    "a negative shape": changed_npz(user_factors=npy_header("(-1, 5)")),
    "no bytes an item": changed_npz(user_ids=npy_header("(999999999999,)", "<U0")),
    "compressed (a zip bomb)": changed_npz(
        zipfile.ZIP_DEFLATED,
        user_factors=np.zeros(10**6, np.float32),
    ),
    "a member is missing": changed_npz(item_biases=None),
    "no JSON": changed_npz(meta=as_meta(b"{")),
    "deep JSON": changed_npz(meta=as_meta(b"[" * 100_000)),
    "JSON of another kind": changed_npz(meta=as_meta(b"[1]")),
    "a format before the first": changed_meta(format=0),
    "a format that is no number": changed_meta(format=True),
    "a mean that is not a number": changed_npz(global_mean=np.array(np.nan)),
    "ids beyond int64": changed_npz(user_ids=np.arange(2**63, 2**63 + 12, dtype=np.uint64)),
    "unknown parameter": changed_meta(params={"evil": 1}),
    "parameter of another type": changed_meta(params={"n_factors": "5"}),
    "parameter that is not a number": changed_meta(params={"l2": float("nan")}),
    "fewer factors than it says": changed_meta(params={"n_factors": 6}),
    "other dtype": changed_meta(params={"dtype": "float64"}),
    "newer format": changed_meta(format=99),
    "unknown id kind": changed_meta(id_kinds=["int", "os.system"]),
    "id kind of another array": changed_meta(id_kinds=["str", "UUID"]),
    "three id kinds": changed_meta(id_kinds=["int", "UUID", "int"]),
    "ids that are not UUIDs": changed_npz(item_ids=np.array(["x"] * 9)),
    "equal ids": changed_npz(user_ids=np.zeros(12, np.int64)),
    "ids out of order": changed_npz(user_ids=np.arange(12)[::-1].copy()),
    "ids in two dimensions": changed_npz(user_ids=np.arange(12).reshape(3, 4)),
    "ids of 8 bits": changed_npz(user_ids=np.array([-128, 127], np.int8)),
    "no ids": changed_npz(
        user_ids=np.zeros(0, np.int64),
        user_biases=np.zeros(0, np.float32),
        user_factors=np.zeros((0, 5), np.float32),
    ),
    "history of another kind": changed_meta(history={"rmse": "low"}),
    "history that is a list": changed_meta(history=[1]),
    "epochs of another kind": changed_meta(n_epochs="3"),
    "nothing": lambda content: b"",
}


def test_a_file_rewritten_without_changes_loads(contents, tmp_path):
    (tmp_path / "m.npz").write_bytes(changed_meta()(contents["npz"]))
    load(tmp_path / "m.npz")


@pytest.mark.parametrize("name", ["user_factors", "item_biases"])
def test_arrays_that_are_not_finite_are_refused(contents, tmp_path, name):
    path = tmp_path / "m.npz"
    path.write_bytes(contents["npz"])
    with np.load(path) as file:
        array = file[name]
    array.flat[-1] = np.nan
    path.write_bytes(changed_npz(**{name: array})(contents["npz"]))
    with pytest.raises(ValueError, match=f"its {name} hold NaN or infinity"):
        load(path)


# ---- hostile safetensors ----


def changed_header(change):
    """Return a function that calls `change` on the header of a safetensors file, a dict."""

    def change_header(content):
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        change(header)
        encoded = json.dumps(header).encode()
        return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]

    return change_header


def changed_tensor(name, **changes):
    """Return a function that changes what the header says of an array."""
    return changed_header(lambda header: header[name].update(changes))


def add_overlapping(header):
    """Add nine arrays that lie in one place."""
    for number in range(9):
        header[f"x{number}"] = {"dtype": "U8", "shape": [999], "data_offsets": [0, 999]}


TEXT_OF_IDS = 9 * 36  # bytes of nine UUIDs

HOSTILE_SAFETENSORS = {
    "no header": lambda content: content[:7],
    "longer header than file": lambda content: struct.pack("<Q", 2**63) + content[8:],
    "no JSON": lambda content: struct.pack("<Q", 4) + b"{{{{" + content,
    "no metadata": changed_header(lambda header: header.pop("__metadata__")),
    "unknown dtype": changed_tensor("user_factors", dtype="BF16"),
    "outside": changed_tensor("user_factors", data_offsets=[2**60, 2**60 + 240]),
    "before": changed_tensor("user_factors", data_offsets=[-240, 0]),
    "huge": changed_tensor("user_factors", shape=[2**40, 2**40]),
    "negative": changed_tensor("user_factors", shape=[-12, -5]),
    "fractions": changed_tensor("user_factors", shape=[12.0, 5]),
    "longer ids than text": changed_tensor(
        "item_ids.utf8",
        shape=[TEXT_OF_IDS - 1],
        data_offsets=[0, TEXT_OF_IDS - 1],
    ),
    "many in one place": changed_header(add_overlapping),
}

HOSTILE = [
    *(("npz", name) for name in HOSTILE_NPZ),
    *(("safetensors", name) for name in HOSTILE_SAFETENSORS),
]


@pytest.mark.parametrize("map_arrays", [False, True])
@pytest.mark.parametrize(("suffix", "name"), HOSTILE)
def test_hostile_files_are_refused(contents, tmp_path, suffix, name, map_arrays):
    change = (HOSTILE_NPZ if suffix == "npz" else HOSTILE_SAFETENSORS)[name]
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(change(contents[suffix]))
    with pytest.raises(ValueError, match=rf"m\.{suffix} is not a whole funksvd model: .") as error:
        load(path, mmap=map_arrays)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("harm", ["cut", "foreign", "newer", "shape"])
def test_damaged_model_files_are_refused(tmp_path, harm):
    users, items, ratings = random_ratings()
    path = tmp_path / "m.npz"
    FunkSVD(4, 3, random_state=0).fit((users, items), ratings).save(path)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    elif harm == "foreign":
        path.write_text("not a model")
    else:
        with np.load(path) as file:
            arrays = dict(file)
        if harm == "newer":
            arrays["meta"] = np.frombuffer(
                arrays["meta"].tobytes().replace(b'"format": 1', b'"format": 9'),
                np.uint8,
            )
        else:
            arrays["user_biases"] = arrays["user_biases"][1:]
        np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"is not a (whole )?funksvd model"):
        load(path)
