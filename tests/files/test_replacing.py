"""Files are written whole or not at all."""

import errno
import os
import time

import numpy as np
import pytest
from saved_models import trained_model

from funksvd import load
from funksvd.files import model_file
from funksvd.machine.replacing import replacing


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


# ---- temporary files ----


def left_in(folder):
    """Return the names of the temporary files in a folder."""
    return [name for name in os.listdir(folder) if name.startswith(".funksvd-")]


def test_a_save_within_a_save_harms_neither(tmp_path):
    """A signal handler or a callback may save while a file is written."""
    with replacing(tmp_path / "outer") as outer:
        outer.write(b"A" * 10)
        with replacing(tmp_path / "inner") as inner:
            inner.write(b"B" * 20)
        outer.write(b"A" * 10)
    assert (tmp_path / "outer").read_bytes() == b"A" * 20
    assert (tmp_path / "inner").read_bytes() == b"B" * 20
    assert sorted(os.listdir(tmp_path)) == ["inner", "outer"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has links for few users")
def test_a_link_with_the_name_of_the_temporary_file_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    planted = tmp_path / ".funksvd-planted.tmp"
    planted.symlink_to(victim)
    monkeypatch.setattr("funksvd.machine.replacing.secrets.token_hex", lambda _: "planted")
    with pytest.raises(FileExistsError), replacing(tmp_path / "m.npz") as file:
        file.write(b"overwritten")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "m.npz").exists()
    assert planted.is_symlink()  # another's file is not removed either


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_that_is_written_is_open_to_no_more_users_than_the_old_one(tmp_path, mode):
    path = tmp_path / "m.npz"
    path.write_text("old")
    path.chmod(mode)
    with replacing(path) as file:
        assert os.fstat(file.fileno()).st_mode & 0o777 & ~mode == 0
        file.write(b"new")
    assert path.stat().st_mode & 0o777 == mode


def test_the_bytes_are_on_the_disk_before_the_file_takes_the_name(tmp_path, monkeypatch):
    steps = []
    sync = os.fsync
    rename = os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append("fsync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("rename"), rename(*names)))
    with replacing(tmp_path / "m.npz") as file:
        file.write(b"new")
    assert steps[:2] == ["fsync", "rename"]
    assert steps[2:] == (["fsync"] if os.name != "nt" else [])  # of the folder


@pytest.mark.skipif(os.name == "nt", reason="Windows has no locks of this kind")
def test_files_that_a_kill_has_left_are_removed(tmp_path):
    old = tmp_path / ".funksvd-0123456789abcdef.tmp"
    new = tmp_path / ".funksvd-new.tmp"
    other = tmp_path / "other.tmp"
    for path in (old, new, other):
        path.write_text("half of a model")
    long_ago = time.time() - 3600
    for path in (old, other):
        os.utime(path, (long_ago, long_ago))
    with replacing(tmp_path / "a") as writing:
        os.utime(writing.name, (long_ago, long_ago))  # slow, but still at work
        with replacing(tmp_path / "b") as file:
            file.write(b"b")
        writing.write(b"a")
    assert sorted(os.listdir(tmp_path)) == [".funksvd-new.tmp", "a", "b", "other.tmp"]


def test_an_error_leaves_no_temporary_file(tmp_path):
    def write_half():
        with replacing(tmp_path / "m.npz") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert left_in(tmp_path) == []
