"""Serve a model over HTTP, and take up a new one while requests run.

    pip install "funksvd[serve]"
    MODEL=model.npz uvicorn --factory app:make_app

`funksvd train` or `model.save` replaces model.npz; then `POST /reload` takes it up. A request that
has begun ends with the model that it began with. A file that is no whole model is refused, and the
old model goes on serving. Ids are integers here.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel

from funksvd import FunkSVD, load

NEWCOMER = -1  # the id of a user who is folded in for one request
Seen = Annotated[list[int] | None, Query()]


class Served(NamedTuple):
    """A model, and the digest of its file, by which answers name it."""

    model: FunkSVD
    digest: str


class Rated(BaseModel):
    """The ratings of one user: item id -> stars."""

    ratings: dict[int, float]
    n: int = 10


class Asked(BaseModel):
    """A prediction to explain by the ratings of its user."""

    user: int
    item: int
    ratings: dict[int, float]


def opened(path: Path) -> Served:
    """Open the model file that stands at a path now, whatever replaces it later.

    It is read once as a whole, which finds damage, and then mapped, so that processes share it.

    Raises
    ------
    ValueError
        If it is no whole model.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        own = Path(folder, path.name)
        os.link(path, own)
        load(own)
        digest = hashlib.sha256(own.read_bytes()).hexdigest()[:16]
        model = load(own, mmap=True)
    model.set_params(n_jobs=1)  # requests run beside each other
    return Served(model, digest)


class Shelf:
    """The model that is served now. Readers take `served` once and keep it for a whole request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.served = opened(path)
        self.lock = threading.Lock()

    def reload(self) -> Served:
        """Take up the model that stands in the file now; an error leaves the old one."""
        with self.lock:  # of two reloads at once the later file wins
            self.served = opened(self.path)
            return self.served


def listed(served: Served, items: Any, scores: Any) -> dict[str, Any]:
    """Return recommendations as JSON that names the model."""
    return {"model": served.digest, "items": items.tolist(), "scores": scores.tolist()}


def pairs_of(user: int, items: Any) -> tuple[list[int], list[int]]:
    """Return one user's pairs with some items."""
    return [user] * len(items), list(items)


def make_app(path: str | None = None) -> FastAPI:
    """Return the service of a model file, by default that of the environment variable MODEL."""
    shelf = Shelf(Path(path or os.environ["MODEL"]))
    app = FastAPI(title="funksvd")

    @app.get("/recommend/{user}")
    def recommend(user: int, n: int = 10, seen: Seen = None) -> dict[str, Any]:
        """Recommend n items to a user, without the seen ones."""
        served = shelf.served
        exclude = pairs_of(user, seen) if seen else None
        try:
            items, scores = served.model.recommend(user, n=n, exclude=exclude)
        except ValueError as error:
            raise HTTPException(404, str(error)) from error
        return listed(served, items, scores)

    @app.post("/newcomer")
    def newcomer(rated: Rated) -> dict[str, Any]:
        """Recommend to somebody whom the model does not know, from a few ratings."""
        served = shelf.served
        known = set(served.model.item_ids_.tolist())
        ratings = {item: stars for item, stars in rated.ratings.items() if item in known}
        if not ratings:
            raise HTTPException(400, "the model knows none of these items")
        pairs = pairs_of(NEWCOMER, ratings)
        visitor = served.model.fold_in(pairs, list(ratings.values()), extend=False)
        items, scores = visitor.recommend(NEWCOMER, n=rated.n, exclude=pairs)
        return listed(served, items, scores)

    @app.post("/explain")
    def explain(asked: Asked) -> dict[str, Any]:
        """Tell which of a user's ratings pull a prediction up or down."""
        served = shelf.served
        pairs = pairs_of(asked.user, asked.ratings)
        stars = list(asked.ratings.values())
        try:
            why = served.model.explain(asked.user, asked.item, pairs, stars)
        except ValueError as error:
            raise HTTPException(404, str(error)) from error
        pulls = dict(zip(why.items.tolist(), why.contributions.tolist(), strict=True))
        return {"model": served.digest, "prediction": why.prediction, "pulls": pulls}

    @app.post("/reload")
    def reload() -> dict[str, Any]:
        """Take up the file's model."""
        try:
            return {"model": shelf.reload().digest}
        except (OSError, ValueError) as error:
            detail = f"{error}; model {shelf.served.digest} goes on serving"
            raise HTTPException(409, detail) from error

    return app
