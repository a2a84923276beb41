"""Files are written whole or not at all."""

import errno
import os

import numpy as np
import pytest
from saved_models import trained_model

from funksvd import load
from funksvd.files import model_file


def fill_the_disk(file, text, arrays):
    """Write half of a model and fail as on a full disk."""
    file.write(b"half of a model")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    model, _ = trained_model()
    path = tmp_path / "m.npz"
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(model_file, "write_npz", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.npz"]


def test_the_error_of_a_full_disk_names_the_file(tmp_path, monkeypatch):
    model, _ = trained_model()
    monkeypatch.setattr(model_file, "write_npz", fill_the_disk)
    with pytest.raises(OSError, match="No space left") as error:
        model.save(tmp_path / "m.npz")
    assert error.value.filename == tmp_path / "m.npz"


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_new_file_has_the_permissions_of_the_old_one(tmp_path):
    model, _ = trained_model()
    path = tmp_path / "m.npz"
    model.save(path)
    path.chmod(0o600)
    model.save(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_any_damage_to_a_file_is_one_error(tmp_path):
    """Bytes are flipped, cut out or added anywhere.

    The model comes back equal, or there is a ValueError, and nothing else.
    """
    model, _ = trained_model()
    path = tmp_path / "m.npz"
    model.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        harmed = bytearray(whole)
        at = int(rng.integers(len(whole)))
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
