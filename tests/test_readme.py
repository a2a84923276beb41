"""The code that README shows runs as written.

Where README shows two columns side by side, the column of funksvd runs.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

import funksvd
from funksvd import Callback, EarlyStopping, FunkSVD, ModelCheckpoint, Ratings, datasets

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PEERS = ("Surprise", "LightFM", "implicit", "Keras")


def code_blocks() -> dict[str, list[str]]:
    """Return the blocks of Python below each heading of README."""
    found = {}
    for section in re.split(r"^## ", README, flags=re.M)[1:]:
        heading, _, body = section.partition("\n")
        code = re.findall(r"```python\n(.*?)```", body, flags=re.S)
        if code:
            found[heading] = code
    return found


def own_column(code: str) -> str:
    """Return the column below "# funksvd" of a block of two columns, and any other block whole."""
    lines = code.splitlines()
    start = lines[0].find("# funksvd")
    if start < 0:
        return code
    own = []
    for line in lines[1:]:
        if line[start - 1 : start] == " ":  # else the line of the left column reaches over
            own.append(line[start:])
    return "\n".join(own)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names that README takes as given; the folder has its file of ratings."""
    monkeypatch.chdir(tmp_path)
    made = datasets.make_ratings(300, 250, 6000, rank=2)
    users = made.users.astype(np.int64)
    items = made.items.astype(np.int64)
    ratings = made.ratings.round(1)
    lines = ["user,item,rating"]
    for row in zip(users.tolist(), items.tolist(), ratings.tolist(), strict=True):
        lines.append("{},{},{}".format(*row))
    Path("ratings.csv").write_text("\n".join(lines) + "\n")
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
    }


def names_of_section(heading: str, names: dict[str, Any]) -> dict[str, Any]:
    """Return what a section takes as given beside `names`."""
    if "Surprise" in heading:
        pandas = pytest.importorskip("pandas")
        columns = {
            "user": names["users"].astype(str),
            "item": names["items"].astype(str),
            "rating": names["ratings"],
        }
        return {"df": pandas.DataFrame(columns)}
    if "implicit" in heading:
        return {"ratings": Ratings.from_arrays(np.array([1000, 1000]), np.array([1, 2]), [4, 5])}
    return {}


def test_every_peer_has_a_section() -> None:
    assert {f"Coming from {peer}" for peer in PEERS} <= code_blocks().keys()


@pytest.mark.parametrize("heading", [name for name in code_blocks() if "GPU" not in name])
def test_code_runs_as_written(heading: str, names: dict[str, Any]) -> None:
    scope = names | names_of_section(heading, names)
    for code in code_blocks()[heading]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*unknown to the model")
            exec(compile(own_column(code), f"README: {heading}", "exec"), scope)
    assert isinstance(scope["model"], FunkSVD)
    assert np.isfinite(scope["model"].user_factors_).all()
