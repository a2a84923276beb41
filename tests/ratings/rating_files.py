"""Small files that tests of reading write, as a plugin of pytest."""

import pytest


@pytest.fixture
def write(tmp_path):
    """Return a function that writes text or bytes to a file and returns its path."""

    def write(content, name="ratings.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def write_parquet(tmp_path):
    """Return a function that writes columns to a Parquet file and returns its path."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write_parquet(name="ratings.bin", **columns):
        parquet.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    return write_parquet
