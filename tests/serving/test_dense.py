"""Predictions for all items, and the vectors of a model in nearest-neighbour indexes."""

import naive
import numpy as np
import pytest
from served_models import random_weights, trained_model

from funksvd.serving.dense import predict_all


def test_predictions_for_all_items_are_the_formula():
    weights = random_weights(20, 30, 7, "float64")
    users = [3, -1, 19]
    rows = predict_all(weights, np.array(users, np.int32), 2)
    expected = [[naive.predict(weights, user, item) for item in range(30)] for user in users]
    np.testing.assert_allclose(rows, expected, rtol=1e-12)


def test_vectors_give_the_predictions_as_one_product():
    model, _ = trained_model()
    product = model.query_vectors([6, 9]) @ model.item_vectors().T
    np.testing.assert_allclose(product, model.predict_all([6, 9]), rtol=1e-5)
    assert model.query_vectors(6).shape == (1, 8)


def test_vectors_in_faiss():
    faiss = pytest.importorskip("faiss")
    model, _ = trained_model()
    index = faiss.IndexFlatIP(8)
    index.add(model.item_vectors())
    _, found = index.search(model.query_vectors(), 5)
    assert model.item_ids_[found].tolist() == model.recommend(n=5)[0].tolist()


def test_vectors_in_usearch():
    usearch = pytest.importorskip("usearch.index")
    model, _ = trained_model()
    index = usearch.Index(ndim=8, metric="ip", dtype="f32")
    index.add(np.arange(len(model.item_ids_)), model.item_vectors())
    found = index.search(model.query_vectors([6, 9]), 5, exact=True).keys
    assert model.item_ids_[found.astype(int)].tolist() == model.recommend([6, 9], 5)[0].tolist()
