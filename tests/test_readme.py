"""The code that README shows runs as written; of code side by side, the column of funksvd."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

import funksvd
from funksvd import Callback, EarlyStopping, FunkSVD, ModelCheckpoint, Ratings, datasets

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks():
    """{heading: its blocks of Python}"""
    found = {}
    for section in re.split(r"^## ", README, flags=re.M)[1:]:
        heading, _, body = section.partition("\n")
        code = re.findall(r"```python\n(.*?)```", body, flags=re.S)
        if code:
            found[heading] = code
    return found


def own_column(code):
    """What stands below "# funksvd" where a block has two columns."""
    lines = code.splitlines()
    start = lines[0].find("# funksvd")
    if start < 0:
        return code
    return "\n".join(
        line[start:] for line in lines[1:] if line[start - 1 : start] == " "
    )  # else the left one is long


@pytest.fixture
def names(tmp_path, monkeypatch):
    """The names that README takes as given, in a folder with its file of ratings."""
    monkeypatch.chdir(tmp_path)
    made = datasets.make_ratings(300, 250, 6000, rank=2)
    users, items, ratings = (
        made.users.astype(np.int64),
        made.items.astype(np.int64),
        made.ratings.round(1),
    )
    rows = zip(users.tolist(), items.tolist(), ratings.tolist(), strict=True)
    Path("ratings.csv").write_text(
        "user,item,rating\n" + "".join("{},{},{}\n".format(*row) for row in rows)
    )
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


def given(heading, names):
    """What a section takes as given beside `names`."""
    if "Surprise" in heading:
        pandas = pytest.importorskip("pandas")
        ids = (names["users"].astype(str), names["items"].astype(str))
        return {
            "df": pandas.DataFrame({"user": ids[0], "item": ids[1], "rating": names["ratings"]})
        }
    if "implicit" in heading:
        return {"ratings": Ratings.from_arrays(np.array([1000, 1000]), np.array([1, 2]), [4, 5])}
    return {}


def test_every_peer_has_a_section():
    assert {f"Coming from {peer}" for peer in ("Surprise", "LightFM", "implicit", "Keras")} <= set(
        blocks()
    )


@pytest.mark.parametrize(
    "heading", [heading for heading in blocks() if "GPU" not in heading]
)  # which needs one
def test_code_runs_as_written(heading, names):
    scope = names | given(heading, names)
    for code in blocks()[heading]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*unknown to the model")
            exec(compile(own_column(code), f"README: {heading}", "exec"), scope)
    assert isinstance(scope["model"], FunkSVD)
    assert np.isfinite(scope["model"].user_factors_).all()
