"""Pictures show the measured numbers; their look is for people to judge."""

import sys
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import pytest

from funksvd import FunkSVD, Ratings, plots
from funksvd.datasets import make_ratings

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def split():
    data = make_ratings(120, 80, 3000, rank=3)
    ratings = Ratings.from_arrays(data.users, data.items, np.clip(np.round(data.ratings), 1, 5))
    return ratings.split(0.2, 0)


@pytest.fixture(scope="module")
def model(split):
    return FunkSVD(n_factors=5, n_epochs=6, learning_rate=0.05, random_state=0).fit(
        split[0], validation_data=split[1]
    )


def lines(figure):
    """Return {label: points} of the lines of a figure."""
    return {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}


def test_learning_curve(model, tmp_path):
    figure = plots.learning_curve(model, tmp_path / "curve.svg", floor=0.5)
    drawn = lines(figure)
    assert drawn["training (during the epoch)"].tolist() == [
        [k + 1, y] for k, y in enumerate(model.history_["rmse"])
    ]
    best = int(np.argmin(model.history_["val_rmse"]))
    label = f"best: {model.history_['val_rmse'][best]:.4f} in epoch {best + 1}"
    assert drawn[label].tolist() == [[best + 1, model.history_["val_rmse"][best]]]
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")
    assert set(lines(plots.learning_curve({"rmse": [1.0]}))) == {"training (during the epoch)"}
    with pytest.raises(ValueError, match="history must hold the rmse of at least one epoch"):
        plots.learning_curve({})


def test_predicted_against_actual_by_value(model, split):
    figure = plots.predicted_against_actual(model, split[1])
    predicted = model.predict(split[1])
    actual = split[1].values
    medians = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linewidth() == 2]
    assert medians == pytest.approx(
        [np.median(predicted[actual == value]) for value in (1, 2, 3, 4, 5)]
    )
    rmse = model.evaluate(split[1])["rmse"]
    assert figure.axes[0].get_title() == f"RMSE {rmse:.4f} on {len(actual):,} ratings"


def test_predicted_against_actual_of_many_values(model):
    data = make_ratings(120, 80, 3000, rank=3)
    figure = plots.predicted_against_actual(
        model, Ratings.from_arrays(data.users, data.items, data.ratings)
    )
    assert figure.axes[0].collections[0].get_array().sum() == 3000


@pytest.mark.parametrize("by", ["item", "user"])
def test_error_by_popularity(model, split, by):
    train, test = split
    figure = plots.error_by_popularity(model, test, train, by=by)

    def ids_of(ratings):
        ids = {"user": ratings.user_ids, "item": ratings.item_ids}[by]
        codes = {"user": ratings.users, "item": ratings.items}[by]
        return ids[codes].tolist()

    counts = Counter(ids_of(train))
    groups = {}
    errors = (model.predict(test) - test.values) ** 2
    for row_id, error in zip(ids_of(test), errors.tolist(), strict=True):
        groups.setdefault(counts[row_id].bit_length(), []).append(error)
    expected = [np.mean(groups[bits]) ** 0.5 for bits in sorted(groups)]
    assert lines(figure)["RMSE"][:, 1] == pytest.approx(expected, rel=1e-5)
    shares = [bar.get_height() for bar in figure.axes[1].patches]
    assert shares == pytest.approx(
        [100 * len(groups[bits]) / len(errors) for bits in sorted(groups)]
    )
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert names[-1] == f"{2 ** (max(groups) - 1)}-{2 ** max(groups) - 1}"
    with pytest.raises(ValueError, match="by must be 'item' or 'user', got 'genre'"):
        plots.error_by_popularity(model, test, train, by="genre")


def test_factor_map_is_pca_of_the_most_rated(model, split):
    decomposition = pytest.importorskip("sklearn.decomposition")
    titles = {item: f"The ${item}$ film" for item in model.item_ids_.tolist()}
    figure = plots.factor_map(model, titles, ratings=split[0], n_items=30, n_labels=5)
    points = figure.axes[0].collections[0].get_offsets()
    chosen = np.argsort(-np.bincount(split[0].items), kind="stable")[:30]
    expected = decomposition.PCA(2).fit_transform(model.item_factors_[chosen])
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-4)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == 5
    assert texts[0] == titles[model.item_ids_[chosen[0]]].replace("$", r"\$")


def test_factor_map_titles_do_not_cover_each_other(model):
    figure = plots.factor_map(
        model, {str(item): "a title, a film" for item in model.item_ids_}, n_items=80
    )
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) > 5
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_factor_map_of_two_factors_and_of_one(split):
    model = FunkSVD(n_factors=2, n_epochs=2, random_state=0).fit(split[0])
    points = plots.factor_map(model, n_items=9999).axes[0].collections[0].get_offsets()
    order = np.argsort(-np.linalg.norm(model.item_factors_.astype(float), axis=1), kind="stable")
    assert np.array_equal(points, model.item_factors_[order].astype(float))
    with pytest.raises(ValueError, match="2 factors or more, this one has 1"):
        plots.factor_map(FunkSVD(n_factors=1, n_epochs=1).fit(split[0]))


def test_factor_spectrum(model):
    figure = plots.factor_spectrum(model)
    product = model.user_factors_ @ model.item_factors_.T
    expected = np.linalg.svd(product, compute_uv=False)[:5] / np.sqrt(product.size)
    assert [bar.get_height() for bar in figure.axes[0].patches] == pytest.approx(expected, rel=1e-4)


def test_html_of_a_fitted_model(model):
    html = model._repr_html_()
    assert "6 epochs" in html
    assert f"val_rmse {model.history_['val_rmse'][-1]:.4f}" in html
    tree = ET.fromstring(html)  # well formed
    cells = [cell.text for cell in tree.iter("td")]
    shown = [f"{len(model.user_ids_):,}", "n_factors", "learning_rate"]
    assert [cell for cell in cells if cell in shown] == shown
    curves = list(tree.iter("{http://www.w3.org/2000/svg}polyline"))
    assert [len(curve.get("points").split()) for curve in curves] == [6, 6]
    heights = [float(point.partition(",")[2]) for point in curves[0].get("points").split()]
    highest = max(("rmse", "val_rmse"), key=lambda name: model.history_[name][-1])
    assert np.corrcoef(heights, model.history_[highest])[0, 1] == pytest.approx(-1, abs=1e-3)


def test_html_escapes_and_needs_no_fit(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "not fitted" in FunkSVD()._repr_html_()
    model = FunkSVD(n_factors=1, n_epochs=1).fit((["<b>", "&x"], [1, 2]), [1.0, 2.0])
    html = model._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>&" not in html
    ET.fromstring(html)


@pytest.mark.parametrize(
    "draw",
    [
        lambda model, ratings: plots.learning_curve(model),
        lambda model, ratings: plots.predicted_against_actual(model, ratings),
        lambda model, ratings: plots.error_by_popularity(model, ratings, ratings),
        lambda model, ratings: plots.factor_map(model),
        lambda model, ratings: plots.factor_spectrum(model),
    ],
)
def test_without_matplotlib(monkeypatch, model, split, draw):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "funksvd\[plots\]"'):
        draw(model, split[1])
