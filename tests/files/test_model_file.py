"""Model files and pickles: every type of id comes back, and other libraries read the files."""

import os
import pickle

import numpy as np
import pytest
from conftest import random_ratings
from saved_models import FORMATS, ID_TYPES, assert_same, trained_model

import funksvd
from funksvd import FunkSVD, load


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("map_arrays", [False, True])
@pytest.mark.parametrize("kind", ID_TYPES)
def test_every_id_type_comes_back(tmp_path, suffix, map_arrays, kind):
    path = tmp_path / f"model.{suffix}"
    path_again = tmp_path / f"again.{suffix}"
    for users, items in ((kind, "int"), ("str", kind)):
        model, X = trained_model(users, items)
        model.save(path)
        again = load(path, mmap=map_arrays)
        assert_same(model, again, X)
        again.save(path_again)
        assert path.read_bytes() == path_again.read_bytes()


@pytest.mark.parametrize("suffix", FORMATS)
def test_parameters_and_history_come_back(tmp_path, suffix):
    model, _ = trained_model(dtype="float64", rating_scale=(1, 5), l2=0.125)
    model.save(tmp_path / f"m.{suffix}")
    again = load(tmp_path / f"m.{suffix}")
    expected = model.get_params()
    found = again.get_params()
    found["rating_scale"] = tuple(found["rating_scale"])
    for name in ("n_jobs", "verbose", "device"):  # of the machine; a file does not keep them
        del expected[name]
        del found[name]
    assert found == expected
    history = {name: values for name, values in model.history_.items() if name != "seconds"}
    assert again.history_ == history
    assert again.n_epochs_ == 3


def test_numpy_reads_the_file_and_writes_one_that_is_read(tmp_path):
    model, X = trained_model()
    model.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        arrays = dict(file)
    assert np.array_equal(arrays["user_factors"], model.user_factors_)
    assert arrays["item_ids"].tolist() == model.item_ids_.tolist()
    np.savez(tmp_path / "numpy.npz", **arrays)  # its arrays are not aligned
    assert_same(model, load(tmp_path / "numpy.npz"), X)
    assert_same(model, load(tmp_path / "numpy.npz", mmap=True), X)


def test_arrays_of_a_file_are_aligned(tmp_path):
    model, _ = trained_model("str", "UUID")
    model.save(tmp_path / "m.npz")
    content = (tmp_path / "m.npz").read_bytes()
    places = [at for at in range(len(content)) if content.startswith(b"\x93NUMPY", at)]
    assert len(places) == 8
    assert all(place % 64 == 0 for place in places)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_map_is_read_only_and_no_copy(tmp_path, suffix):
    model, _ = trained_model()
    path = tmp_path / f"m.{suffix}"
    model.save(path)
    mapped = load(path, mmap=True)
    with pytest.raises(ValueError, match="read-only"):
        mapped.user_factors_[0, 0] = 1
    load(path).user_factors_[0, 0] = 1
    load(path).user_biases_[0] = 1
    # A change of the file is a change of the map.
    place = path.read_bytes().index(model.item_factors_.tobytes())
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(np.float32(9).tobytes())
    assert mapped.item_factors_[0, 0] == 9


def test_safetensors_reads_the_file_and_writes_one_that_is_read(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    from safetensors import safe_open

    model, X = trained_model("str", "bytes")
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
def test_models_pickle_trained_or_loaded(tmp_path, module, map_arrays):
    library = pytest.importorskip(module)
    model, X = trained_model("UUID", "str")
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


def test_models_pickle_in_the_middle_of_fit():
    kept = []

    class Keep(funksvd.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept.append((pickle.dumps(self.model), self.model.get_weights()))

    X = np.array([(1, 2), (1, 3), (2, 2), (2, 4)])
    model = FunkSVD(n_factors=2, n_epochs=2, random_state=0)
    model.fit(X, [1.0, 2, 3, 4], callbacks=[Keep()])
    assert len(kept) == 2
    for content, weights in kept:
        assert len(content) < 10_000
        again = pickle.loads(content).get_weights()
        assert np.array_equal(again.user_factors, weights.user_factors)


def test_unfitted_models_pickle_and_do_not_save(tmp_path):
    assert pickle.loads(pickle.dumps(FunkSVD(n_factors=3))).n_factors == 3
    with pytest.raises(ValueError, match="not fitted"):
        FunkSVD().save(tmp_path / "m.npz")
    assert os.listdir(tmp_path) == []


def test_ids_that_a_file_cannot_keep_are_refused(tmp_path):
    users = [(1, 2), (1, 3), (1, 2)]
    model = FunkSVD(n_factors=1, n_epochs=1).fit((users, [1, 2, 2]), [1.0, 2.0, 3.0])
    message = "user ids of type tuple cannot be saved; use int, str, bytes or one of UUID"
    with pytest.raises(TypeError, match=message):
        model.save(tmp_path / "m.npz")
    users = ["a\0", "a", "a"]
    model = FunkSVD(n_factors=1, n_epochs=1).fit((users, [1, 2, 1]), [1.0, 2.0, 3.0])
    assert len(model.user_ids_) == 2
    with pytest.raises(TypeError, match="end with NUL"):
        model.save(tmp_path / "m.npz")
    assert os.listdir(tmp_path) == []


def test_save_and_load_predict_the_same(tmp_path):
    users, items, ratings = random_ratings()
    model = FunkSVD(5, 3, random_state=0).fit((users.astype(str), items), ratings)
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    pairs = (users.astype(str), items)
    assert (again.predict(pairs) == model.predict(pairs)).all()
    with pytest.raises(TypeError, match="user ids are int"):
        again.predict((users, items))
