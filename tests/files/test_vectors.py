"""Vectors with their ids as Parquet."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import planted_ratings

from funksvd import FunkSVD

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def model_of(ids: list[Any]) -> FunkSVD:
    """Return a model whose items have the given ids."""
    users, items, values = planted_ratings(n_items=len(ids))
    return FunkSVD(n_factors=4, n_epochs=2, random_state=0).fit(
        (users, [ids[item] for item in items]), values
    )


@pytest.mark.parametrize("side", ["items", "users"])
def test_a_file_holds_every_id_with_its_vector(own_folder: Path, side: str) -> None:
    model = model_of(list(range(50)))
    model.export_vectors("vectors.parquet", side)
    table = parquet.read_table("vectors.parquet")
    vectors = model.item_vectors() if side == "items" else model.query_vectors()
    ids = model.item_ids_ if side == "items" else model.user_ids_
    assert table["id"].to_pylist() == ids.tolist()
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 6)
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors)


def test_inner_products_of_the_files_are_predictions(own_folder: Path) -> None:
    model = model_of([f"item {number}" for number in range(50)])
    for side in ("items", "users"):
        model.export_vectors(f"{side}.parquet", side)
    users = parquet.read_table("users.parquet")
    items = parquet.read_table("items.parquet")
    products = np.array(users["vector"].to_pylist()) @ np.array(items["vector"].to_pylist()).T
    np.testing.assert_allclose(products, model.predict_all(), rtol=1e-4)
    assert items["id"].to_pylist() == model.item_ids_.tolist()


def test_ids_that_parquet_lacks_become_text(own_folder: Path) -> None:
    ids = [uuid.UUID(int=number) for number in range(30)]
    model = model_of(ids)
    model.export_vectors("vectors.parquet")
    found = parquet.read_table("vectors.parquet")["id"].to_pylist()
    assert found == [str(own) for own in model.item_ids_]


def test_bad_arguments_are_refused_before_anything_is_written(own_folder: Path) -> None:
    model = model_of(list(range(20)))
    with pytest.raises(ValueError, match="side must be"):
        model.export_vectors("vectors.parquet", "item")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        model.export_vectors("missing/vectors.parquet")
    with pytest.raises(TypeError, match="cannot be saved"):
        model_of([(number, 0) for number in range(20)]).export_vectors("vectors.parquet")
    assert list(own_folder.iterdir()) == []
