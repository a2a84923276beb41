"""What holds for all engines, where one feature is trained after the other."""

import numpy as np
import pytest
from featurewise_models import featurewise, some

from funksvd import Callback, LambdaCallback, Ratings
from funksvd.engines.featurewise import FeatureEngine
from funksvd.hyper import resolve


def arrays(model):
    return [
        model.user_factors_,
        model.item_factors_,
        model.user_biases_,
        model.item_biases_,
    ]


def same(a, b):
    return all((x == y).all() for x, y in zip(arrays(a), arrays(b), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_and_the_order_of_rows_change_no_bit(dtype):
    (users, items), y = some(250_000, 3000, 900)
    order = np.random.default_rng(1).permutation(len(y))
    one = featurewise(2, 4, n_jobs=1, dtype=dtype).fit((users, items), y)
    other = featurewise(2, 4, n_jobs=4, dtype=dtype).fit((users[order], items[order]), y[order])
    assert same(one, other)


def test_users_and_items_can_change_places():
    (users, items), y = some()
    one = featurewise().fit((users, items), y)
    other = featurewise().fit((items, users), y)
    assert (one.user_factors_ == other.item_factors_).all()
    assert (one.item_factors_ == other.user_factors_).all()
    assert (one.user_biases_ == other.item_biases_).all()
    assert (one.item_biases_ == other.user_biases_).all()


def test_features_that_are_not_trained_yet_are_zero():
    X, y = some()

    def stop(epoch, logs):
        assert not model.get_weights().user_factors[:, epoch + 1 :].any()
        assert model.get_weights().user_factors[:, : epoch + 1].all()
        model.stop_training = epoch == 1

    model = featurewise(5)
    model.fit(
        X,
        y,
        validation_split=0.1,
        callbacks=LambdaCallback(on_epoch_end=stop),
    )
    two = featurewise(2).fit(X, y, validation_split=0.1)
    assert (model.user_factors_[:, :2] == two.user_factors_).all()
    np.testing.assert_allclose(model.predict(X), two.predict(X), rtol=1e-6)
    np.testing.assert_allclose(model.history_["val_loss"], two.history_["val_loss"], rtol=1e-6)


def test_validation_loss_is_the_prediction_error():
    X, y = some()
    train, held_out = Ratings.from_arrays(*X, y).split(0.2, 3)
    model = featurewise().fit(train, validation_data=held_out)
    assert model.evaluate(held_out)["rmse"] == pytest.approx(
        model.history_["val_rmse"][-1], rel=1e-5
    )


def test_weights_that_a_callback_sets_count():
    """A model's own weights change nothing; the next features add to any others."""
    X, y = some()

    class Set(Callback):
        def on_epoch_end(self, epoch, logs=None):
            weights = self.model.get_weights()
            if self.change and epoch == 0:
                weights.user_factors[:, 0] = 0
            self.model.set_weights(weights)

    plain = featurewise(2).fit(X, y)
    Set.change = False
    assert same(featurewise(2).fit(X, y, callbacks=Set()), plain)
    Set.change = True
    changed = featurewise(2).fit(X, y, callbacks=Set())
    first, second = plain.history_["loss"]
    changed_first, changed_second = changed.history_["loss"]
    assert first == changed_first
    assert second < changed_second - 0.05  # the feature that was set to 0 is found again


def test_ctrl_c_leaves_the_last_whole_feature():
    X, y = some()

    class CtrlC(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.warns(
        UserWarning,
        match="interrupted in epoch 3: the model is that after epoch 2",
    ):
        model = featurewise(5).fit(X, y, callbacks=CtrlC())
    assert (model.user_factors_[:, :2] == featurewise(2).fit(X, y).user_factors_).all()
    assert not model.user_factors_[:, 2:].any()


def test_penalties_and_bounds():
    X, y = some()
    sparse = featurewise(4, l1=0.02).fit(X, y)
    assert 0 < (sparse.user_factors_ == 0).mean() < 1
    positive = featurewise(4, non_negative=True).fit(X, y)
    assert positive.user_factors_.min() == 0 == positive.item_factors_.min()
    assert positive.user_biases_.min() < 0
    none = featurewise(4, 60, l2=99, l2_bias=99, learning_rate=1e-3).fit(X, y)
    np.testing.assert_allclose(none.predict(X), y.mean(), atol=0.05)
    rows = featurewise(4, 30, reg_scale="row", l2=(99, 0)).fit(X, y)
    free = featurewise(4, 30, reg_scale="row", l2=0).fit(X, y)
    assert np.abs(rows.user_factors_).max() < np.abs(free.user_factors_).max()


def test_predictions_in_training_are_clipped():
    """The error of a rating beyond the scale is its distance from a prediction on the scale."""
    X, y = some()
    y = np.clip(y, 1, 5)
    y[:50] = 9
    model = featurewise(2, 3, rating_scale=(1, 5), learning_rate=1e-9, init_std=1e-6).fit(X, y)
    mean = np.clip(y.mean(), 1, 5)
    assert model.history_["loss"][0] == pytest.approx(np.mean((y - mean) ** 2), rel=1e-4)
    low = featurewise(1, 3, rating_scale=(4, 5), learning_rate=1e-9, init_std=1e-6).fit(X, y)
    assert low.history_["loss"][0] == pytest.approx(np.mean((y - 4) ** 2), rel=1e-4)


def test_divergence_names_the_cure():
    with pytest.raises(
        FloatingPointError,
        match=r"diverged in epoch \d: .*lower learning_rate",
    ):
        featurewise(l2=0, l2_bias=0, learning_rate=50.0).fit(*some())


def test_partial_fit_goes_on_with_all_features():
    X, y = some()
    model = featurewise(4).fit(X, y)
    with pytest.warns(UserWarning, match="trained on these ratings"):
        before = model.evaluate(X, y)["rmse"]
    factors = model.user_factors_
    model.partial_fit(X, y, n_epochs=5)
    with pytest.warns(UserWarning, match="trained on these ratings"):
        assert model.evaluate(X, y)["rmse"] < before
    assert (factors != model.user_factors_).any(axis=0).all()


def test_what_was_restored_goes_on_as_before():
    X, y = some()
    ratings = Ratings.from_arrays(*X, y)
    engine = FeatureEngine(ratings, None, resolve(featurewise().get_params()), seed=0)
    engine.epoch(0, 0.02)
    before = engine.snapshot()
    losses = [engine.epoch(f, 0.02) for f in (1, 2)]
    after = engine.snapshot()
    engine.restore(before)
    assert [engine.epoch(f, 0.02) for f in (1, 2)] == losses
    assert all((engine.snapshot()[name] == array).all() for name, array in after.items())
