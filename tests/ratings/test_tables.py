"""Tables of pandas, polars, pyarrow and DuckDB: the same model from each, ids as they are, answers in the same kind."""

import sys
import uuid
from datetime import UTC, datetime

import numpy as np
import pytest

from funksvd import FunkSVD, Ratings
from funksvd.ratings.ids import Encoded, table_and_keys
from funksvd.ratings.tables import add_column

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
pytest.importorskip("narwhals")

RNG = np.random.default_rng(0)
COLUMNS = {
    "user": [f"u{x}" for x in RNG.integers(0, 30, 400)],
    "item": RNG.integers(0, 20, 400).tolist(),
    "rating": RNG.integers(1, 6, 400).astype(float).tolist(),
    "note": ["x"] * 400,
}


def duckdb_relation(columns):
    duckdb = pytest.importorskip("duckdb")
    return duckdb.from_arrow(pa.table(columns))


def duckdb_enum(columns):
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    connection.register("t", pa.table(columns))
    names = ", ".join(f"'{name}'" for name in sorted(set(columns["user"])))
    connection.execute(f"create type names as enum ({names})")
    return connection.sql(
        'select "user"::names as "user", item, rating::decimal(3, 1) as rating from t'
    )


def pandas_categories(columns):
    return pd.DataFrame(columns).astype({"user": "category", "item": "category"})


def arrow_dictionary(columns):
    table = pa.table(columns)
    return table.set_column(0, "user", table["user"].dictionary_encode())


KINDS = {
    "pandas": pd.DataFrame,
    "pandas, odd index": lambda columns: pd.DataFrame(columns, index=np.arange(400) * 3 % 400 - 7),
    "pandas objects": lambda columns: pd.DataFrame(columns).astype(
        {"user": object, "item": object}
    ),
    "pandas categories": pandas_categories,
    "pandas on Arrow": lambda columns: pd.DataFrame(columns).convert_dtypes(
        dtype_backend="pyarrow"
    ),
    "polars": pl.DataFrame,
    "polars lazy": lambda columns: pl.DataFrame(columns).lazy(),
    "polars categories": lambda columns: pl.DataFrame(columns).with_columns(
        pl.col("user").cast(pl.Categorical)
    ),
    "polars enum": lambda columns: pl.DataFrame(columns).with_columns(
        pl.col("user").cast(pl.Enum(["never", *sorted(set(columns["user"]))]))
    ),
    "pyarrow": pa.table,
    "pyarrow dictionary": arrow_dictionary,
    "pyarrow chunks": lambda columns: pa.concat_tables(
        [
            arrow_dictionary(columns).slice(0, 150),
            pa.table(columns)
            .slice(150)
            .set_column(0, "user", pa.chunked_array([columns["user"][150:]]).dictionary_encode()),
        ]
    ),
    "duckdb": duckdb_relation,
    "duckdb enum": duckdb_enum,
}


def small():
    return FunkSVD(n_factors=3, n_epochs=3, random_state=0, n_jobs=1)


@pytest.fixture(scope="module")
def reference():
    return small().fit((np.array(COLUMNS["user"]), np.array(COLUMNS["item"])), COLUMNS["rating"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_gives_the_same_model(kind, reference):
    frame = KINDS[kind](COLUMNS)
    model = small().fit(frame)
    assert model.user_ids_.tolist() == reference.user_ids_.tolist()
    assert model.item_ids_.tolist() == reference.item_ids_.tolist()
    assert np.array_equal(model.user_factors_, reference.user_factors_)
    assert model.evaluate(frame) == reference.evaluate(Ratings.from_frame(frame))
    pairs = np.array(COLUMNS["user"]), np.array(COLUMNS["item"])
    assert np.array_equal(model.predict(frame), reference.predict(pairs))


def moments(zone):
    return [datetime(2020, 1, 1 + n, tzinfo=zone) for n in range(5)]


@pytest.mark.parametrize(
    ("ids", "column"),
    [
        pytest.param([x.date() for x in moments(None)], pl.Series, id="dates, polars"),
        pytest.param([x.date() for x in moments(None)], pa.array, id="dates, pyarrow"),
        pytest.param(moments(None), pl.Series, id="times, polars"),
        pytest.param(moments(UTC), pd.Series, id="times of a zone, pandas"),
        pytest.param(moments(UTC), pl.Series, id="times of a zone, polars"),
        pytest.param(moments(UTC), pa.array, id="times of a zone, pyarrow"),
    ],
)
def test_dates_and_times_are_equal_ids_in_tables_and_lists(ids, column):
    model = small().fit((ids, [1, 2, 3, 4, 5]), [1, 2, 3, 4, 5])
    assert model.user_ids_.tolist() == ids
    from_table = small().fit((column(ids), [1, 2, 3, 4, 5]), [1, 2, 3, 4, 5])
    assert from_table.user_ids_.tolist() == ids
    known = model.predict((ids, [1, 2, 3, 4, 5]), unknown="raise")
    assert np.array_equal(known, model.predict((column(ids), [1, 2, 3, 4, 5]), unknown="raise"))
    assert np.array_equal(known, from_table.predict((ids, [1, 2, 3, 4, 5]), unknown="raise"))


def listed(native):
    """A table's {name: values}, whatever it is."""
    if type(native).__module__.startswith("polars"):
        return native.lazy().collect().to_dict(as_series=False)
    if hasattr(native, "to_dict"):
        return native.to_dict("list")
    return (
        (native.arrow() if hasattr(native, "arrow") else native).read_all().to_pydict()
        if hasattr(native, "arrow") and hasattr(native.arrow(), "read_all")
        else native.to_pydict()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_output_is_of_the_kind_of_the_input(kind):
    frame = KINDS[kind](COLUMNS)
    if kind == "duckdb enum":
        pytest.skip("an enum's names stay in their own connection")
    values = np.arange(400.0)
    wider = add_column(frame, "prediction", values)
    assert type(wider) is type(frame)
    found = listed(wider)
    assert list(found) == ["user", "item", "rating", "note", "prediction"]
    assert found["prediction"] == values.tolist()
    assert found["user"] == COLUMNS["user"]
    with pytest.raises(ValueError, match="has a column 'note' already"):
        add_column(frame, "note", values)


@pytest.mark.parametrize("kind", ["pandas", "polars lazy", "pyarrow", "duckdb"])
def test_predictions_as_a_column(kind, reference):
    frame = KINDS[kind](COLUMNS)
    wider = reference.predict_table(frame, name="expected")
    assert type(wider) is type(frame)
    assert listed(wider)["expected"] == reference.predict(frame).tolist()


def test_index_of_pandas_is_kept():
    frame = KINDS["pandas, odd index"](COLUMNS)
    assert add_column(frame, "p", np.arange(400.0)).index.equals(frame.index)


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "duckdb"])
def test_pairs_need_no_known_names_and_no_rating(kind, reference):
    pairs = {"a": COLUMNS["user"], "b": COLUMNS["item"]}
    expected = reference.predict((np.array(pairs["a"]), np.array(pairs["b"])))
    assert np.array_equal(reference.predict(KINDS[kind](pairs)), expected)
    model = small().fit(KINDS[kind](pairs), COLUMNS["rating"])  # as scikit-learn passes them
    assert np.array_equal(model.user_factors_, reference.user_factors_)


def test_columns_of_pandas_may_have_numbers_for_names(reference):
    frame = pd.DataFrame({0: COLUMNS["user"], 1: COLUMNS["item"]})
    model = small().fit(frame, pd.Series(COLUMNS["rating"]))
    assert np.array_equal(model.user_factors_, reference.user_factors_)
    assert (
        Ratings.from_frame(
            frame.assign(**{"2": COLUMNS["rating"]}), user=0, item=1, rating=2
        ).n_users
        == 30
    )


def test_columns_can_be_named():
    frame = pd.DataFrame({"who": ["a", "b"], "what": [1, 2], "stars": [4.0, 5.0]})
    ratings = Ratings.from_frame(frame, user="who", item=1)
    assert ratings.user_ids.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match=r"cannot tell which column is the user .*pass user="):
        Ratings.from_frame(frame)


@pytest.mark.parametrize(
    "kind",
    [
        "pandas",
        "pandas categories",
        "polars",
        "polars categories",
        "pyarrow",
        "pyarrow dictionary",
        "duckdb",
    ],
)
@pytest.mark.parametrize("name", ["user", "item", "rating"])
def test_missing_values_are_counted_and_refused(kind, name):
    columns = COLUMNS | {name: [None, *COLUMNS[name][1:-1], None]}
    with pytest.raises(ValueError, match=rf"column '{name}' has 2 missing values"):
        Ratings.from_frame(KINDS[kind](columns))


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "duckdb"])
def test_ratings_that_are_no_numbers(kind):
    with pytest.raises(TypeError, match="column 'rating' must hold numbers"):
        Ratings.from_frame(KINDS[kind](COLUMNS | {"rating": ["good"] * 400}))


SERIES = {
    "pandas": lambda x: pd.Series(x),
    "pandas categories": lambda x: pd.Series(x, dtype="category"),
    "pandas categories without a table": lambda x: pd.Categorical(x),
    "pandas index": lambda x: pd.Index(x),
    "polars": lambda x: pl.Series(x),
    "polars categories": lambda x: pl.Series(x, dtype=pl.Categorical),
    "pyarrow": lambda x: pa.chunked_array([x]),
    "pyarrow array": lambda x: pa.array(x),
    "pyarrow dictionary": lambda x: pa.array(x).dictionary_encode(),
}


@pytest.mark.parametrize("kind", SERIES)
def test_single_columns_are_ids_too(kind, reference):
    users = SERIES[kind](COLUMNS["user"])
    model = small().fit((users, np.array(COLUMNS["item"])), COLUMNS["rating"])
    assert np.array_equal(model.user_factors_, reference.user_factors_)
    expected = reference.predict((np.array(COLUMNS["user"]), np.array(COLUMNS["item"])))
    assert np.array_equal(model.predict((users, np.array(COLUMNS["item"]))), expected)


def test_categories_are_not_looked_at_rating_by_rating(monkeypatch):
    """From a categorical the ids in use are sorted once; no array of one str a rating is made."""
    seen = []
    from funksvd.ratings import ids as module

    original = module.kind_of
    monkeypatch.setattr(module, "kind_of", lambda ids: seen.append(len(ids)) or original(ids))
    Ratings.from_frame(pandas_categories(COLUMNS))
    assert max(seen) <= 30


def test_unused_and_equal_categories():
    ids = np.array(["never", "b", "a", "b"], object)
    table, keys, _ = table_and_keys(Encoded(np.array([1, 2, 3, 3], np.int32), ids), "user")
    assert table.ids.tolist() == ["a", "b"]
    assert keys.tolist() == [1, 0, 1, 1]
    numbers = Encoded(np.array([1, 2, 1], np.int32), np.array([2**40, -(2**40), 7]))
    table, keys, _ = table_and_keys(numbers, "user")
    assert table.ids.tolist() == [-(2**40), 7]
    assert table.encode(numbers, "user").tolist() == [0, 1, 0]


def test_ids_of_other_types_in_a_table():
    users = [uuid.UUID(int=k) for k in (3, 1, 3)]
    ratings = Ratings.from_frame(
        pd.DataFrame({"user": users, "item": [1, 2, 2], "rating": [1.0, 2.0, 3.0]})
    )
    assert ratings.user_ids.tolist() == [users[1], users[0]]
    ratings = Ratings.from_frame(
        pl.DataFrame({"user": [b"b", b"a", b"b"], "item": [1, 2, 2], "rating": [1.0, 2.0, 3.0]})
    )
    assert ratings.user_ids.tolist() == [b"a", b"b"]


def test_without_pyarrow_pandas_and_polars_still_work(monkeypatch, reference):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for kind in ("pandas objects", "polars"):
        assert np.array_equal(
            small().fit(KINDS[kind](COLUMNS)).user_factors_, reference.user_factors_
        )
