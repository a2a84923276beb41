"""FunkSVD inside scikit-learn: its checks, searches, pipelines and splitters; and Optuna."""

import warnings

import numpy as np
import pytest

from funksvd import Callback, FunkSVD, Ratings
from funksvd.machine.threads import cpu_count, free_cores
from funksvd.model_selection import (
    ColdUserSplit,
    LeaveLastOut,
    TimeSplit,
    UserHoldout,
)

pytest.importorskip("sklearn", "1.6")
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_array

# The library warns of unknown ids; these tests hold out what they like.
pytestmark = pytest.mark.filterwarnings("ignore:.*unknown to the model", "ignore:.*SCIPY_ARRAY_API")

# The checks feed matrices of real numbers, (n, 1) to (n, 30). Here X holds the ids of users and
# items, and so these checks cannot run.
TWO_COLUMNS = "X is (n, 2): user and item"
NOT_IDS = dict.fromkeys(
    (
        "check_all_zero_sample_weights_error",
        "check_complex_data",
        "check_dict_unchanged",
        "check_dont_overwrite_parameters",
        "check_dtype_object",
        "check_estimators_dtypes",
        "check_estimators_empty_data_messages",
        "check_estimators_nan_inf",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_fit2d_1feature",
        "check_fit2d_1sample",
        "check_fit2d_predict1d",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_n_features_in_after_fitting",
        "check_pipeline_consistency",
        "check_positive_only_tag_during_fit",
        "check_regressor_data_not_an_array",
        "check_regressors_int",
        "check_regressors_no_decision_function",
        "check_regressors_train",
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weights_list",
        "check_supervised_y_2d",
    ),
    TWO_COLUMNS,
)


def checks(estimator, failing):
    """Return the decorator that runs scikit-learn's checks; `failing` maps names to reasons."""
    with warnings.catch_warnings():
        # FunkSVD does not inherit from BaseEstimator, since it works without scikit-learn.
        warnings.simplefilter("ignore")
        return parametrize_with_checks(
            [estimator], expected_failed_checks=lambda estimator: failing
        )


@checks(FunkSVD(n_factors=2, n_epochs=2, random_state=0), NOT_IDS)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


class OfNumbers(FunkSVD):
    """Makes ids of the first two columns of real numbers, so that nearly all checks can run."""

    def _ids(self, X):
        X = check_array(X, dtype="numeric")
        return np.floor(4 * np.column_stack([X, X])[:, :2].astype(float)).astype(int)

    def fit(self, X, y=None, **options):
        return super().fit(self._ids(X), y, **options)

    def predict(self, X, **options):
        return super().predict(self._ids(X), **options)

    def score(self, X, y=None, **options):
        return super().score(self._ids(X), y, **options)

    def partial_fit(self, X, y=None, **options):
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y)
        return super().partial_fit(self._ids(X), y, **options)


OF_NUMBERS = {
    "check_dont_overwrite_parameters": "stop_training and current_learning_rate are Keras' names",
    "check_estimators_partial_fit_n_features": "the subclass takes any number of columns",
    "check_fit2d_1sample": "the message says 2 ratings, not 1 sample",
    "check_n_features_in_after_fitting": "the subclass takes any number of columns",
    "check_regressor_data_not_an_array": "the targets are hundreds: learning_rate is for ratings",
    "check_regressors_train": "wants R^2 above 0.5 from ten real columns",
    "check_supervised_y_2d": "a column as y is refused, not flattened",
}


@checks(OfNumbers(n_factors=2, n_epochs=2, random_state=0), OF_NUMBERS)
def test_checks_of_scikit_learn_on_ids_of_numbers(estimator, check):
    check(estimator)


def some(n=3000, seed=0):
    """Return (X, y): ratings that depend on the user and on the item, and noise."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.integers(0, 60, n), rng.integers(0, 40, n)])
    level = rng.normal(0, 0.7, 60)[X[:, 0]] + rng.normal(0, 0.7, 40)[X[:, 1]]
    return X, 3.5 + level + rng.normal(0, 0.5, n)


def test_clone_has_the_parameters_and_nothing_learned():
    X, y = some()
    model = FunkSVD(3, 2, random_state=0, l2=0.5).fit(X, y)
    other = clone(model)
    assert other.get_params() == model.get_params()
    with pytest.raises(ValueError, match="not fitted"):
        other.predict(X)


def test_grid_search_picks_the_same_with_any_n_jobs():
    X, y = some()
    grid = {"n_factors": [2, 4], "l2": [0.02, 5.0]}
    results = [
        GridSearchCV(
            FunkSVD(n_epochs=5, random_state=0),
            grid,
            cv=3,
            n_jobs=n_jobs,
            scoring="neg_root_mean_squared_error",
        ).fit(X, y)
        for n_jobs in (1, 2)
    ]
    assert results[0].best_params_ == results[1].best_params_
    np.testing.assert_array_equal(*(r.cv_results_["mean_test_score"] for r in results))
    assert results[0].best_params_["l2"] == 0.02
    assert results[0].predict(X[:5]).shape == (5,)


def test_cross_validate_with_splitters_of_ratings():
    X, y = some()

    def scores_of(cv):
        model = FunkSVD(2, 5, random_state=0)
        return cross_validate(model, X, y, cv=cv, error_score="raise")["test_score"]

    assert len(scores_of(UserHoldout(0.2, n_splits=2))) == 2
    assert len(scores_of(LeaveLastOut())) == 1
    assert len(scores_of(TimeSplit())) == 1
    cold = scores_of(ColdUserSplit(3))
    assert len(cold) == 3
    warm = scores_of(UserHoldout())
    assert warm.mean() > cold.mean() + 0.1  # users never seen are harder


def test_pipeline_with_set_output():
    pd = pytest.importorskip("pandas")
    X, y = some()
    frame = pd.DataFrame({"user": X[:, 0].astype(str), "item": X[:, 1]})
    pipeline = Pipeline(
        [
            ("codes", OrdinalEncoder()),
            ("model", FunkSVD(2, 5, random_state=0)),
        ]
    )
    plain = pipeline.fit(frame, y).predict(frame)
    pipeline = clone(pipeline).set_output(transform="pandas").fit(frame, y)
    np.testing.assert_array_equal(pipeline.predict(frame), plain)
    search = GridSearchCV(pipeline, {"model__l2": [0.02, 5.0]}, cv=2).fit(frame, y)
    assert search.best_params_ == {"model__l2": 0.02}


def cores_used(_):
    return free_cores()


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_threads_are_not_oversubscribed(backend, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    from joblib import Parallel, delayed

    assert free_cores() == cpu_count()
    assert Parallel(1)(delayed(cores_used)(x) for x in range(2)) == [cpu_count()] * 2
    with Parallel(2, backend=backend) as workers:
        share = workers(delayed(cores_used)(x) for x in range(4))
    assert all(2 * n <= max(2, cpu_count()) for n in share)


def test_user_holdout():
    X, y = some()
    for size in (0.3, 2):
        (train, test), (_, other) = UserHoldout(size, n_splits=2).split(X, y)
        assert sorted([*train, *test]) == list(range(3000))
        counts = np.bincount(X[:, 0], minlength=60)
        held = np.bincount(X[test, 0], minlength=60)
        want = np.rint(counts * size) if size < 1 else np.full(60, 2)
        np.testing.assert_array_equal(held, want)
        assert set(test) != set(other)
    ratings = Ratings.from_arrays(X[:, 0], X[:, 1], y)
    of_ratings = next(UserHoldout().split(ratings))[1]
    of_array = next(UserHoldout().split(X, y))[1]
    np.testing.assert_array_equal(of_ratings.values, y[of_array])
    lonely = np.array([[1, 1], [1, 2], [2, 1]])
    train, _ = next(UserHoldout(5).split(lonely))
    assert 2 in train  # the only rating of user 2 stays


def test_user_holdout_does_not_depend_on_row_order():
    X = np.array([(u, i) for u in range(9) for i in range(20)])
    order = np.random.default_rng(0).permutation(len(X))

    def pairs_held(X, **options):
        _, test = next(UserHoldout(**options).split(X))
        return {tuple(pair) for pair in X[test].tolist()}

    assert pairs_held(X[order]) == pairs_held(X)
    assert pairs_held(X, random_state=1) != pairs_held(X)


def test_leave_last_out():
    X = np.array([[1, 1], [2, 1], [1, 2], [1, 3], [2, 2], [3, 1]])
    times = [5, 1, 9, 7, 3, 2]
    train, test = next(LeaveLastOut().split(X, groups=times))
    assert test.tolist() == [2, 4]  # user 3 has one rating only
    assert train.tolist() == [0, 1, 3, 5]
    assert next(LeaveLastOut(2).split(X, groups=times))[1].tolist() == [
        2,
        3,
    ]
    assert next(LeaveLastOut().split(X))[1].tolist() == [
        3,
        4,
    ]  # rows in order of time


def test_time_split():
    rng = np.random.default_rng(0)
    X = np.zeros((100, 2), int)
    times = np.array(["2020-01-01"], "M8[D]") + rng.integers(0, 50, 100)
    splits = list(TimeSplit(0.2, n_splits=3).split(X, groups=times))
    for train, test in splits:
        assert times[train].max() < times[test].min()
        assert 10 <= len(test) <= 30
    assert len(splits[0][0]) < len(splits[1][0]) < len(splits[2][0])
    assert len(splits[2][0]) + len(splits[2][1]) == 100
    assert next(TimeSplit(0.25).split(X))[1].tolist() == list(range(75, 100))
    with pytest.raises(ValueError, match="too many ratings of one moment"):
        next(TimeSplit().split(X, groups=np.zeros(100)))


def test_cold_user_split():
    X, _ = some()
    seen = []
    for train, test in ColdUserSplit(4).split(X):
        assert not set(X[train, 0]) & set(X[test, 0])
        seen += sorted(set(X[test, 0]))
    assert sorted(seen) == list(range(60))


def test_splitters_refuse_bad_parameters():
    X, _ = some()
    for cv, said in [
        (
            UserHoldout(0.0),
            r"test_size must be a float in \(0, 1\) or an int >= 1, got 0.0",
        ),
        (
            UserHoldout(0.2, n_splits=0),
            "n_splits must be an int >= 1, got 0",
        ),
        (LeaveLastOut(0), "n_last must be an int >= 1, got 0"),
        (
            TimeSplit(0.5, 2),
            r"test_size must be in \(0, 1 / n_splits\), got 0.5 for 2 splits",
        ),
        (ColdUserSplit(1), "n_splits must be an int >= 2, got 1"),
        (
            ColdUserSplit(61),
            "n_splits must be at most the number of users, 60, got 61",
        ),
    ]:
        with pytest.raises(ValueError, match=said):
            next(cv.split(X))
    with pytest.raises(
        ValueError,
        match=r"groups must hold one time a rating, \(3000,\), got shape \(2,\)",
    ):
        next(LeaveLastOut().split(X, groups=[1, 2]))


@pytest.mark.filterwarnings("ignore")  # Optuna's own
def test_optuna_prunes_through_a_callback():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    X, y = some()

    class Pruning(Callback):
        def __init__(self, trial):
            super().__init__()
            self.trial = trial

        def on_epoch_end(self, epoch, logs=None):
            self.trial.report(logs["val_rmse"], epoch)
            if self.trial.should_prune():
                raise optuna.TrialPruned

    def objective(trial):
        model = FunkSVD(
            2,
            10,
            l2=trial.suggest_categorical("l2", [0.02, 0.05, 20.0]),
            random_state=0,
        )
        model.fit(X, y, validation_split=0.2, callbacks=Pruning(trial))
        return model.history_["val_rmse"][-1]

    study = optuna.create_study(
        sampler=optuna.samplers.GridSampler({"l2": [0.02, 0.05, 20.0]}, seed=1),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=1),
    )
    study.optimize(objective, n_trials=3)
    states = {trial.params["l2"]: trial.state.name for trial in study.trials}
    assert study.best_params["l2"] < 1
    assert "PRUNED" in states.values()
