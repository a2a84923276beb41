"""Small forms of questions: one pair, lists of tuples, and what `exclude` may be."""

import warnings

import numpy as np
import pytest
from scipy.sparse import coo_array
from served_models import trained_model

import funksvd
from funksvd import FunkSVD, UnknownIdWarning


@pytest.mark.parametrize("kind", [int, str])
def test_a_single_pair_gives_a_float(kind):
    users = [kind(user) for user in (1, 1, 2, 3)]
    items = [kind(item) for item in (7, 8, 7, 8)]
    model = FunkSVD(n_factors=2, n_epochs=3, random_state=0).fit((users, items), [1, 2, 3, 4])
    predicted = model.predict(kind(1), kind(8))
    assert type(predicted) is float
    assert predicted == model.predict(([kind(1)], [kind(8)]))[0]
    assert model.predict(np.array(users)[0], np.array(items)[0]) == model.predict(
        users[0], items[0]
    )
    with pytest.warns(UnknownIdWarning, match="unknown to the model"):
        model.predict(kind(1), kind(99))


def test_a_single_pair_has_a_standard_deviation():
    model, _ = trained_model(solver="gibbs", n_epochs=20)
    mean, std = model.predict(0, 7, return_std=True)
    means, stds = model.predict(([0], [7]), return_std=True)
    assert (mean, std) == (means[0], stds[0])


def test_lists_of_tuples_keep_the_types_of_their_ids():
    triples = [(1, "a", 5.0), (1, "b", 3.0), (2, "a", 4.0), (3, "b", 1.0)]
    users, items, values = (list(column) for column in zip(*triples, strict=True))
    options = {"n_factors": 2, "n_epochs": 3, "random_state": 0}
    expected = FunkSVD(**options).fit((users, items), values)
    for X in (triples, (users, items, values)):
        model = FunkSVD(**options).fit(X)
        np.testing.assert_array_equal(model.predict_all(), expected.predict_all())
        assert model.user_ids_.tolist() == [1, 2, 3]
        assert model.item_ids_.tolist() == ["a", "b"]
    pairs = [(1, "b"), (3, "a")]
    np.testing.assert_array_equal(model.predict(pairs), expected.predict(([1, 3], ["b", "a"])))


def test_exclude_takes_every_form_of_ratings():
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("narwhals")
    model, ratings = trained_model()
    users = ratings.user_ids[ratings.users]
    items = ratings.item_ids[ratings.items]
    triples = list(zip(users.tolist(), items.tolist(), ratings.values.tolist(), strict=True))
    forms = [
        (users, items),
        np.column_stack([users, items]),
        triples,
        [(user, item) for user, item, _ in triples],
        pandas.DataFrame({"user": users, "item": items, "rating": ratings.values}),
        pandas.DataFrame({"user": users, "item": items}),
        coo_array((ratings.values, (users, items))),
    ]
    expected, _ = model.recommend(n=5, exclude=ratings)
    for exclude in forms:
        np.testing.assert_array_equal(model.recommend(n=5, exclude=exclude)[0], expected)


def test_errors_name_exclude():
    model, _ = trained_model()
    with pytest.raises(TypeError, match=r"exclude= must be ratings, or pairs .* got int"):
        model.recommend(0, exclude=5)
    with pytest.raises(ValueError, match=r"exclude=: X must be \(n, 2\)"):
        model.recommend(0, exclude=[7, 14, 21])


def test_unknown_ids_have_a_warning_of_their_own():
    model, _ = trained_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownIdWarning)
        model.predict(([0], [10**6]))
    with pytest.warns(UnknownIdWarning, match="left out"):
        model.fold_in(([10**6, 10**6], [7, 10**6]), [3, 4])
    assert issubclass(UnknownIdWarning, UserWarning)


@pytest.mark.parametrize("ending", [".pkl", ".joblib", ".H5", ".pt"])
def test_names_of_other_formats_are_refused(tmp_path, ending):
    model, _ = trained_model()
    with pytest.raises(ValueError, match="a model is saved as npz or as safetensors"):
        model.save(tmp_path / f"model{ending}")
    assert not list(tmp_path.iterdir())
    model.save(tmp_path / "model.bin")
    funksvd.load(tmp_path / "model.bin")
