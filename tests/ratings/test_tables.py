"""Tables of pandas, polars, pyarrow and DuckDB.

Each gives the same model, with its ids as they are, and answers come in the same kind of table.
"""

import sys
import uuid
from datetime import UTC, datetime

import numpy as np
import pytest
from conftest import random_ratings

from funksvd import FunkSVD, Ratings
from funksvd.ratings import ids as ids_module
from funksvd.ratings.encoding import table_and_keys
from funksvd.ratings.ids import Encoded
from funksvd.ratings.tables import add_column

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
pytest.importorskip("narwhals")

N = 400
USER_CODES, ITEMS, VALUES = random_ratings(N, n_users=30, n_items=20)
USERS = np.array([f"u{code}" for code in USER_CODES])
COLUMNS = {
    "user": USERS.tolist(),
    "item": ITEMS.tolist(),
    "rating": np.rint(VALUES).tolist(),
    "note": ["x"] * N,
}


# Makers of a table from {name: list}, for each kind of table.


def pandas_with_odd_index(columns):
    return pd.DataFrame(columns, index=np.arange(N) * 3 % N - 7)


def pandas_objects(columns):
    return pd.DataFrame(columns).astype({"user": object, "item": object})


def pandas_categories(columns):
    return pd.DataFrame(columns).astype({"user": "category", "item": "category"})


def pandas_on_arrow(columns):
    return pd.DataFrame(columns).convert_dtypes(dtype_backend="pyarrow")


def polars_lazy(columns):
    return pl.DataFrame(columns).lazy()


def polars_with_users_as(dtype, columns):
    users = pl.col("user").cast(dtype)
    return pl.DataFrame(columns).with_columns(users)


def polars_categories(columns):
    return polars_with_users_as(pl.Categorical, columns)


def polars_enum(columns):
    names = sorted(set(columns["user"]))
    return polars_with_users_as(pl.Enum(["never", *names]), columns)


def arrow_dictionary(columns):
    table = pa.table(columns)
    return table.set_column(0, "user", table["user"].dictionary_encode())


def arrow_chunks(columns):
    """Return a pyarrow table in two chunks whose dictionaries differ."""
    first = {name: values[:150] for name, values in columns.items()}
    second = {name: values[150:] for name, values in columns.items()}
    return pa.concat_tables([arrow_dictionary(first), arrow_dictionary(second)])


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


KINDS = {
    "pandas": pd.DataFrame,
    "pandas, odd index": pandas_with_odd_index,
    "pandas objects": pandas_objects,
    "pandas categories": pandas_categories,
    "pandas on Arrow": pandas_on_arrow,
    "polars": pl.DataFrame,
    "polars lazy": polars_lazy,
    "polars categories": polars_categories,
    "polars enum": polars_enum,
    "pyarrow": pa.table,
    "pyarrow dictionary": arrow_dictionary,
    "pyarrow chunks": arrow_chunks,
    "duckdb": duckdb_relation,
    "duckdb enum": duckdb_enum,
}


def small():
    return FunkSVD(n_factors=3, n_epochs=3, random_state=0, n_jobs=1)


def assert_same_factors(model, other):
    assert np.array_equal(model.user_factors_, other.user_factors_)


@pytest.fixture(scope="module")
def reference():
    """Return a model trained on the arrays of `COLUMNS`."""
    return small().fit((USERS, ITEMS), COLUMNS["rating"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_gives_the_same_model(kind, reference):
    frame = KINDS[kind](COLUMNS)
    model = small().fit(frame)
    assert model.user_ids_.tolist() == reference.user_ids_.tolist()
    assert model.item_ids_.tolist() == reference.item_ids_.tolist()
    assert_same_factors(model, reference)
    with pytest.warns(UserWarning, match="trained on these ratings"):
        assert model.evaluate(frame) == reference.evaluate(Ratings.from_frame(frame))
    assert np.array_equal(model.predict(frame), reference.predict((USERS, ITEMS)))


def moments(zone):
    return [datetime(2020, 1, 1 + n, tzinfo=zone) for n in range(5)]


def dates():
    return [moment.date() for moment in moments(None)]


@pytest.mark.parametrize(
    ("ids", "column"),
    [
        pytest.param(dates(), pl.Series, id="dates, polars"),
        pytest.param(dates(), pa.array, id="dates, pyarrow"),
        pytest.param(moments(None), pl.Series, id="times, polars"),
        pytest.param(moments(UTC), pd.Series, id="times of a zone, pandas"),
        pytest.param(moments(UTC), pl.Series, id="times of a zone, polars"),
        pytest.param(moments(UTC), pa.array, id="times of a zone, pyarrow"),
    ],
)
def test_dates_and_times_are_equal_ids_in_tables_and_lists(ids, column):
    items = [1, 2, 3, 4, 5]
    from_list = small().fit((ids, items), items)
    from_table = small().fit((column(ids), items), items)
    assert from_list.user_ids_.tolist() == ids
    assert from_table.user_ids_.tolist() == ids
    known = from_list.predict((ids, items), unknown="raise")
    for model, users in ((from_list, column(ids)), (from_table, ids)):
        assert np.array_equal(known, model.predict((users, items), unknown="raise"))


def listed(native):
    """Return any table as {name: list}."""
    if type(native).__module__.startswith("polars"):
        return native.lazy().collect().to_dict(as_series=False)
    if hasattr(native, "to_dict"):
        return native.to_dict("list")
    if hasattr(native, "arrow"):
        native = native.arrow()
    if hasattr(native, "read_all"):  # of newer versions of DuckDB
        native = native.read_all()
    return native.to_pydict()


@pytest.mark.parametrize("kind", KINDS)
def test_output_is_of_the_kind_of_the_input(kind):
    frame = KINDS[kind](COLUMNS)
    if kind == "duckdb enum":
        pytest.skip("an enum's names stay in their own connection")
    values = np.arange(float(N))
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
    frame = pandas_with_odd_index(COLUMNS)
    wider = add_column(frame, "p", np.arange(float(N)))
    assert wider.index.equals(frame.index)


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "duckdb"])
def test_pairs_need_no_known_names_and_no_rating(kind, reference):
    pairs = KINDS[kind]({"a": COLUMNS["user"], "b": COLUMNS["item"]})
    expected = reference.predict((USERS, ITEMS))
    assert np.array_equal(reference.predict(pairs), expected)
    model = small().fit(pairs, COLUMNS["rating"])  # as scikit-learn passes them
    assert_same_factors(model, reference)


def test_columns_of_pandas_may_have_numbers_for_names(reference):
    frame = pd.DataFrame({0: COLUMNS["user"], 1: COLUMNS["item"]})
    model = small().fit(frame, pd.Series(COLUMNS["rating"]))
    assert_same_factors(model, reference)
    frame["2"] = COLUMNS["rating"]
    assert Ratings.from_frame(frame, user=0, item=1, rating=2).n_users == 30


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
    values = COLUMNS[name].copy()
    values[0] = None
    values[-1] = None
    frame = KINDS[kind](COLUMNS | {name: values})
    with pytest.raises(ValueError, match=rf"column '{name}' has 2 missing values"):
        Ratings.from_frame(frame)


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "duckdb"])
def test_ratings_that_are_no_numbers(kind):
    frame = KINDS[kind](COLUMNS | {"rating": ["good"] * N})
    with pytest.raises(TypeError, match="column 'rating' must hold numbers"):
        Ratings.from_frame(frame)


# Makers of a single column from a list.
SERIES = {
    "pandas": pd.Series,
    "pandas categories": lambda ids: pd.Series(ids, dtype="category"),
    "pandas categories without a table": pd.Categorical,
    "pandas index": pd.Index,
    "polars": pl.Series,
    "polars categories": lambda ids: pl.Series(ids, dtype=pl.Categorical),
    "pyarrow": lambda ids: pa.chunked_array([ids]),
    "pyarrow array": pa.array,
    "pyarrow dictionary": lambda ids: pa.array(ids).dictionary_encode(),
}


@pytest.mark.parametrize("kind", SERIES)
def test_single_columns_are_ids_too(kind, reference):
    users = SERIES[kind](COLUMNS["user"])
    model = small().fit((users, ITEMS), COLUMNS["rating"])
    assert_same_factors(model, reference)
    expected = reference.predict((USERS, ITEMS))
    assert np.array_equal(model.predict((users, ITEMS)), expected)


def test_categories_are_not_looked_at_rating_by_rating(monkeypatch):
    """The distinct ids of a categorical are sorted once; no str is made for each rating."""
    lengths = []
    original = ids_module.kind_of

    def recording_kind_of(ids):
        lengths.append(len(ids))
        return original(ids)

    monkeypatch.setattr(ids_module, "kind_of", recording_kind_of)
    Ratings.from_frame(pandas_categories(COLUMNS))
    assert max(lengths) <= 30


def test_unused_and_equal_categories():
    texts = Encoded(
        codes=np.array([1, 2, 3, 3], np.int32),
        ids=np.array(["never", "b", "a", "b"], object),
    )
    table, keys, _ = table_and_keys(texts, "user")
    assert table.ids.tolist() == ["a", "b"]
    assert keys.tolist() == [1, 0, 1, 1]
    numbers = Encoded(
        codes=np.array([1, 2, 1], np.int32),
        ids=np.array([2**40, -(2**40), 7]),
    )
    table, keys, _ = table_and_keys(numbers, "user")
    assert table.ids.tolist() == [-(2**40), 7]
    assert table.encode(numbers, "user").tolist() == [0, 1, 0]


def test_ids_of_other_types_in_a_table():
    columns = {"item": [1, 2, 2], "rating": [1.0, 2.0, 3.0]}
    first = uuid.UUID(int=1)
    second = uuid.UUID(int=3)
    ratings = Ratings.from_frame(pd.DataFrame({"user": [second, first, second], **columns}))
    assert ratings.user_ids.tolist() == [first, second]
    ratings = Ratings.from_frame(pl.DataFrame({"user": [b"b", b"a", b"b"], **columns}))
    assert ratings.user_ids.tolist() == [b"a", b"b"]


def test_without_pyarrow_pandas_and_polars_still_work(monkeypatch, reference):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for kind in ("pandas objects", "polars"):
        model = small().fit(KINDS[kind](COLUMNS))
        assert_same_factors(model, reference)
