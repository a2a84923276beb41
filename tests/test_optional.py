"""Optional dependencies.

`import funksvd` loads NumPy and little else. A call whose dependency is missing names the extra
that installs it.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from funksvd import FunkSVD, Ratings, datasets, plots

ALLOWED = {"funksvd", "numpy"}  # beside the standard library
# Modules of the standard library that take long to import.
SLOW = {
    "csv",
    "difflib",
    "argparse",
    "multiprocessing",
    "asyncio",
    "unittest",
    "sqlite3",
    "decimal",
    "email",
    "http",
}


def test_import_loads_nothing_heavy():
    code = """
import sys
before = set(sys.modules)
import funksvd
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = set()
    for name in done.stdout.split():
        # Cython registers its own modules, and the memory views under their bare name, too.
        if name != "_memoryviews" and not name.lstrip("_").startswith("cython_"):
            packages.add(name.partition(".")[0])
    assert packages - ALLOWED - set(sys.stdlib_module_names) == set()
    assert packages & SLOW == set()


class Table:
    """An object with named columns."""

    columns = ("user", "item", "rating")


def model():
    pairs = ([1, 1, 2], [1, 2, 2])
    return FunkSVD(n_factors=2, n_epochs=1, random_state=0).fit(pairs, [1.0, 2.0, 3.0])


def read_parquet(folder):
    path = Path(folder, "r.parquet")
    path.write_bytes(b"PAR1....PAR1")
    return datasets.read_ratings(path)


def read_duckdb(folder):
    duckdb = pytest.importorskip("duckdb")
    return Ratings.from_frame(duckdb.sql('select 1 as "user", 2 as item, 3.0 as rating'))


# Name -> the package that is missing, the extra that installs it, and the call that needs it.
CALLS = {
    "narwhals, from_frame": ("narwhals", "frames", lambda folder: Ratings.from_frame(Table())),
    "narwhals, fit": ("narwhals", "frames", lambda folder: FunkSVD().fit(Table())),
    "narwhals, predict": ("narwhals", "frames", lambda folder: model().predict(Table())),
    "narwhals, predict_table": (
        "narwhals",
        "frames",
        lambda folder: model().predict_table(Table()),
    ),
    "pyarrow, parquet": ("pyarrow", "frames", read_parquet),
    "pyarrow, duckdb": ("pyarrow", "frames", read_duckdb),
    "pooch": ("pooch", "datasets", lambda folder: datasets.load_movielens("ml-100k", cache=folder)),
    "matplotlib": (
        "matplotlib",
        "plots",
        lambda folder: plots.learning_curve(model(), Path(folder, "x.png")),
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_missing_dependency_names_the_extra(call, tmp_path, monkeypatch):
    package, extra, run = CALLS[call]
    if call == "pyarrow, duckdb":
        pytest.importorskip("narwhals")
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'pip install "funksvd\[{extra}\]"'):
        run(tmp_path)


def test_every_extra_that_a_message_names_is_there():
    """Read the extras from pyproject.toml, or from an installed package's metadata."""
    from importlib import metadata

    named = set()
    for path in Path(plots.__file__).parent.rglob("*.py"):
        named |= set(re.findall(r"funksvd\[(\w+)\]", path.read_text()))
    project = Path(__file__).parent.parent / "pyproject.toml"
    if project.exists():
        import tomllib

        extras = set(tomllib.loads(project.read_text())["project"]["optional-dependencies"])
    else:
        extras = set(metadata.metadata("funksvd").get_all("Provides-Extra"))
    assert named >= {"frames", "plots", "datasets"}
    assert named <= extras


OPTIONAL = (
    "pandas",
    "polars",
    "pyarrow",
    "narwhals",
    "matplotlib",
    "pooch",
    "sklearn",
    "duckdb",
    "safetensors",
    "joblib",
)


def test_without_any_optional_dependency_the_core_works(tmp_path):
    code = """
import sys
for name in OPTIONAL:
    sys.modules[name] = None
import funksvd, numpy as np
from funksvd import datasets
made = datasets.make_ratings(60, 40, 900)
np.savetxt("r.csv", np.column_stack(made[:3]), fmt=["%d", "%d", "%.3f"], delimiter=",")
ratings = funksvd.Ratings.read("r.csv")
model = funksvd.FunkSVD(n_factors=4, n_epochs=2, random_state=0)
model.fit(ratings, validation_split=0.1)
for name in ("m.npz", "m.safetensors"):
    model.save(name)
    again = funksvd.load(name, mmap=True)
    assert np.array_equal(again.predict(([1], [2])), model.predict(([1], [2])))
assert "<svg" in model._repr_html_()
print("done")
""".replace("OPTIONAL", repr(OPTIONAL))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "done\n", done.stderr
    assert np.loadtxt(tmp_path / "r.csv", delimiter=",").shape == (900, 3)


def test_modules_come_at_their_first_use():
    code = """
import sys, funksvd
assert "funksvd.tuning" not in sys.modules
assert "tuning" in dir(funksvd)
assert callable(funksvd.tuning.tune)
assert not hasattr(funksvd, "tunin")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
