"""The code of README and of the pages of docs runs as written, and prints what the pages show.

After a change of the results ``FUNKSVD_WRITE_OUTPUTS=1 pytest tests/test_docs.py`` writes what the
blocks print now into the pages.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import warnings
from pathlib import Path
from typing import Any

import documented
import numpy as np
import pytest
from scipy.sparse import csr_array

import funksvd
from funksvd import Callback, EarlyStopping, FunkSVD, ModelCheckpoint, Ratings, datasets

PAGES = documented.pages()
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
MODULES = ("tuning", "callbacks", "datasets", "metrics", "model_selection", "plots")
MOVIELENS = Path(os.environ.get("FUNKSVD_DATA", "")) / "ml-100k"


def name_of(page: Path) -> str:
    """Return the path of a page from the root of the project."""
    return page.relative_to(documented.ROOT).as_posix()


def write_table(path: str, header: str, *columns: list[Any]) -> None:
    """Write columns as a CSV file."""
    lines = [header]
    for row in zip(*columns, strict=True):
        lines.append(",".join(map(str, row)))
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def local_movielens(name: str) -> datasets.Dataset:
    """Stand for `load_movielens`: return MovieLens 100k from a local folder."""
    assert name == "ml-100k"
    if not (MOVIELENS / "u.data").exists():
        pytest.skip("needs MovieLens 100k in the folder $FUNKSVD_DATA/ml-100k")
    titles = {int(i): title for i, title in datasets.read_titles(MOVIELENS / "titles.csv").items()}
    return datasets.Dataset(Ratings.read(MOVIELENS / "u.data"), titles, None)


@pytest.fixture
def names(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names that pages take as given; the folder has the files that they read.

    These are ratings.csv, its parts train.csv and test.csv, more-ratings.csv, new-users.csv,
    pairs.csv and titles.csv.
    """
    monkeypatch.setattr(datasets, "load_movielens", local_movielens)
    made = datasets.make_ratings(300, 250, 6000, rank=2)
    users = made.users.astype(np.int64)
    items = made.items.astype(np.int64)
    ratings = made.ratings.clip(1, 5).round(1)
    columns = (users.tolist(), items.tolist(), ratings.tolist())
    write_table("ratings.csv", "user,item,rating", *columns)
    write_table("more-ratings.csv", "user,item,rating", *(column[:500] for column in columns))
    write_table("train.csv", "user,item,rating", *(column[500:] for column in columns))
    write_table("test.csv", "user,item,rating", *(column[:500] for column in columns))
    write_table("new-users.csv", "user,item,rating", [1000, 1000, 1001], [1, 2, 3], [4, 5, 1])
    write_table("pairs.csv", "user,item", *(column[:100] for column in columns[:2]))
    write_table("titles.csv", "item_id,title", list(range(250)), [f"Film {i}" for i in range(250)])
    return {
        "np": np,
        "funksvd": funksvd,
        "FunkSVD": FunkSVD,
        "Ratings": Ratings,
        "Callback": Callback,
        "EarlyStopping": EarlyStopping,
        "ModelCheckpoint": ModelCheckpoint,
        "users": users,
        "items": items,
        "ratings": ratings,
        "weights": np.ones(len(users)),
        "n_users": 300,
        "n_items": 250,
        "user_items": csr_array((ratings, (users, items)), shape=(300, 250)),
        "u": 196,
        "user": 196,
        "i": 242,
        "df": table_of(users, items, ratings),
    }


def table_of(users: np.ndarray, items: np.ndarray, ratings: np.ndarray) -> Any:
    """Return ratings as a pandas table with ids of text, as Surprise has them."""
    if importlib.util.find_spec("pandas") is None:
        return None
    import pandas

    columns = {"user": users.astype(str), "item": items.astype(str), "rating": ratings}
    return pandas.DataFrame(columns)


def missing_module(block: documented.Block) -> str | None:
    """Return a module that a block imports and that is not installed, or None."""
    if block.language != "python" or block.not_run:
        return None
    for name in sorted(documented.modules_of(block.code)):
        if importlib.util.find_spec(name) is None:
            return name
    return None


def run_page(page: Path, scope: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Run the blocks of a page; return the texts that they print, and the modules that it lacks."""
    printed = []
    missing = []
    for block in documented.blocks_of(page.read_text(encoding="utf-8")):
        module = missing_module(block)
        if module is not None:
            missing.append(module)
            printed.append(block.expected or "")
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # unknown ids
            printed.append(documented.run_block(block, scope, f"{name_of(page)}: {block.heading}"))
    return printed, missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_runs_and_prints_what_the_page_shows(
    page: Path, names: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = documented.blocks_of(text)
    if any('device="cuda' in block.code for block in blocks if block.language == "python"):
        request.getfixturevalue("shim")
    printed, missing = run_page(page, names)
    if os.environ.get("FUNKSVD_WRITE_OUTPUTS"):
        page.write_text(documented.with_outputs(text, printed), encoding="utf-8")
        return
    for block, output in zip(blocks, printed, strict=True):
        if block.expected is not None:
            assert documented.agrees(output, block.expected), f"{block.code}\nprinted\n{output}"
    if missing:
        n_run = len(blocks) - len(missing)
        pytest.skip(f"ran {n_run} of {len(blocks)} blocks; needs {', '.join(sorted(set(missing)))}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target, _ in LINK.findall(text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_scripts_that_commands_start_are_there(page: Path) -> None:
    for script in documented.scripts_of(page.read_text(encoding="utf-8")):
        assert script.exists()


def test_the_reference_has_every_public_name() -> None:
    reference = documented.ROOT / "docs" / "reference"
    text = "\n".join(page.read_text(encoding="utf-8") for page in reference.glob("*.md"))
    for name in MODULES:
        assert f"automodule:: funksvd.{name}" in text
    documented_whole = set()
    for name in MODULES:
        documented_whole |= set(getattr(importlib.import_module(f"funksvd.{name}"), "__all__", ()))
    for name in set(funksvd.__all__) - documented_whole - {"__version__"}:
        assert re.search(rf"auto\w+:: {name}\b", text), name


def test_a_wrong_output_is_seen() -> None:
    """The comparison would see the faults that it is for."""
    assert documented.agrees("rmse 0.8801\n", "rmse 0.8800\n")
    assert documented.agrees("a 1.5 s, 3 users", "a ... s, 3 users")
    assert not documented.agrees("rmse 0.8901", "rmse 0.8800")
    assert not documented.agrees("4 users", "3 users")
    assert not documented.agrees("rmse 0.8800 and more", "rmse 0.8800")


def test_blocks_are_found_with_their_outputs() -> None:
    page = "# Title\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n```sql\nselect\n```\n"
    (block,) = documented.blocks_of(page)
    assert (block.heading, block.expected) == ("Title", "1\n")
    assert documented.run_block(block, {}, "page") == "1\n"
    assert documented.with_outputs(page, ["2\n"]) == page.replace("\n1\n", "\n2\n")
