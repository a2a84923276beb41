"""A file that is replaced while it is read gives the arrays of one file."""

import os
import shutil

import numpy as np
import pytest
from conftest import random_ratings

from funksvd import FunkSVD, Ratings, load
from funksvd.files import npz, safetensors
from funksvd.ratings import reading


@pytest.mark.parametrize("module", [npz, safetensors], ids=["npz", "safetensors"])
@pytest.mark.parametrize("map_arrays", [False, True])
def test_a_model_that_is_replaced_while_it_is_read(tmp_path, monkeypatch, module, map_arrays):
    users, items, values = random_ratings()
    suffix = module.__name__.rpartition(".")[2]
    paths = [tmp_path / f"{name}.{suffix}" for name in ("old", "new", "m")]
    old, new, path = paths
    FunkSVD(4, 1, random_state=0).fit((users, items), values).save(old)
    FunkSVD(4, 5, random_state=0).fit((users, items), values).save(new)
    shutil.copy(old, path)
    as_array = module.as_array
    arrays = []

    def replaced_meanwhile(*arguments):
        arrays.append(arguments)
        if len(arrays) == 3:
            shutil.copy(new, tmp_path / "copy")
            os.replace(tmp_path / "copy", path)
        return as_array(*arguments)

    monkeypatch.setattr(module, "as_array", replaced_meanwhile)
    found = load(path, mmap=map_arrays)
    expected = load(old)
    for name in ("user_biases_", "item_biases_", "user_factors_", "item_factors_"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_ratings_that_are_replaced_while_they_are_read_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "r.csv"
    path.write_text("1,1,5\n2,2,3\n")
    read_text = reading.read_text

    def replaced_meanwhile(*arguments):
        found = read_text(*arguments)
        (tmp_path / "new.csv").write_text("3,3,1\n")
        os.replace(tmp_path / "new.csv", path)
        return found

    monkeypatch.setattr(reading, "read_text", replaced_meanwhile)
    with pytest.raises(ValueError, match=r"r\.csv was changed or replaced while it was read"):
        Ratings.read(path)
