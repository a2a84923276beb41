"""The service among the examples, over HTTP, while its model is replaced."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import planted_ratings

from funksvd import FunkSVD, load

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

APP = Path(__file__).parent / "examples" / "service" / "app.py"
N_REQUESTS = 1000
N_CLIENTS = 8
N_RELOADS = 20
MODELS = ("a.npz", "b.npz", "c.npz")
RATED = {"ratings": {"1": 5.0, "2": 1.0}, "n": 5}


@pytest.fixture(scope="module")
def service() -> ModuleType:
    """Return the module of the service."""
    spec = importlib.util.spec_from_file_location("service_app", APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    importlib.sys.modules["service_app"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three models of equal size, one of which is also model.npz."""
    folder = tmp_path_factory.mktemp("models")
    users, items, values = planted_ratings()
    for seed, name in enumerate(MODELS):
        model = FunkSVD(n_factors=8, n_epochs=5, random_state=seed).fit((users, items), values)
        model.save(folder / name)
    shutil.copy(folder / MODELS[0], folder / "model.npz")
    return folder


@pytest.fixture
def client(service: ModuleType, folder: Path) -> Iterator[Any]:
    """Return a client of the service, which runs in a thread and on a free port."""
    app = service.make_app(str(folder / "model.npz"))
    config = uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    limits = httpx.Limits(max_connections=2 * N_CLIENTS)
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, limits=limits, timeout=60, trust_env=False) as found:
        yield found
    server.should_exit = True
    thread.join()


def replace_model(folder: Path, source: str) -> None:
    """Replace model.npz as a whole, as `save` does."""
    shutil.copy(folder / source, folder / "next")
    os.replace(folder / "next", folder / "model.npz")


def expected_of(service: ModuleType, folder: Path) -> dict[str, dict[str, Any]]:
    """Return, by the digest of each model, the answers that it gives itself."""
    expected = {}
    for name in MODELS:
        digest = service.opened(folder / name).digest
        model = load(folder / name)
        answers: dict[str, Any] = {}
        for user in range(20):
            items, scores = model.recommend(user, n=5, exclude=([user, user], [3, 4]))
            answers[f"recommend {user}"] = (items.tolist(), scores.tolist())
        pairs = ([-1, -1], [1, 2])
        visitor = model.fold_in(pairs, [5.0, 1.0])
        items, scores = visitor.recommend(-1, n=5, exclude=pairs)
        answers["newcomer"] = (items.tolist(), scores.tolist())
        expected[digest] = answers
    return expected


def ask(client: Any, number: int) -> tuple[str, Any]:
    """Send one request; return the question and the response."""
    if number % 3 == 0:
        return "newcomer", client.post("/newcomer", json=RATED)
    user = number % 20
    question = {"n": 5, "seen": [3, 4]}
    return f"recommend {user}", client.get(f"/recommend/{user}", params=question)


def reload_often(client: Any, folder: Path, answered: list[int]) -> None:
    """Replace the model so often, spread over the requests, and once by a damaged file."""
    whole = (folder / MODELS[0]).read_bytes()
    for turn in range(N_RELOADS):
        while len(answered) < turn * N_REQUESTS // N_RELOADS:
            time.sleep(0.001)
        if turn == N_RELOADS // 2:
            (folder / "damaged.npz").write_bytes(whole[: len(whole) // 2])
            replace_model(folder, "damaged.npz")
            assert client.post("/reload").status_code == 409
        replace_model(folder, MODELS[(turn + 1) % len(MODELS)])
        assert client.post("/reload").status_code == 200


def test_no_request_fails_while_models_are_replaced(
    client: Any, service: ModuleType, folder: Path
) -> None:
    expected = expected_of(service, folder)
    answered: list[int] = []
    errors: list[str] = []

    def request(number: int) -> str:
        question, response = ask(client, number)
        answered.append(number)
        if response.status_code != 200:
            errors.append(response.text)
            return ""
        answer = response.json()
        items, scores = expected[answer["model"]][question]
        if answer["items"] != items or not np.allclose(answer["scores"], scores, rtol=1e-5):
            errors.append(f"{question} is not answered by model {answer['model']} alone")
        return str(answer["model"])

    numbers = list(range(N_REQUESTS))
    random.Random(0).shuffle(numbers)
    with ThreadPoolExecutor(N_CLIENTS + 1) as pool:
        reloads = pool.submit(reload_often, client, folder, answered)
        seen = Counter(pool.map(request, numbers))
    reloads.result()
    assert errors == []
    assert sum(seen.values()) == N_REQUESTS
    assert len(seen) == len(MODELS)


def test_a_damaged_model_leaves_the_old_one_serving(client: Any, folder: Path) -> None:
    before = client.get("/recommend/1").json()
    whole = bytearray((folder / MODELS[1]).read_bytes())
    whole[len(whole) // 2] ^= 255  # the zip's checksums see it
    (folder / "damaged.npz").write_bytes(whole)
    replace_model(folder, "damaged.npz")
    refused = client.post("/reload")
    assert refused.status_code == 409
    assert f"model {before['model']} goes on serving" in refused.json()["detail"]
    assert client.get("/recommend/1").json() == before
    replace_model(folder, MODELS[0])


def test_strangers_are_told(client: Any) -> None:
    assert client.get("/recommend/12345").status_code == 404
    assert client.post("/newcomer", json={"ratings": {"12345": 5.0}}).status_code == 400


def test_pulls_of_an_explanation(client: Any, folder: Path) -> None:
    replace_model(folder, MODELS[0])
    client.post("/reload")
    asked = {"user": 1, "item": 2, "ratings": {"3": 4.0, "4": 2.0}}
    answer = client.post("/explain", json=asked).json()
    why = load(folder / MODELS[0]).explain(1, 2, ([1, 1], [3, 4]), [4.0, 2.0])
    assert answer["prediction"] == pytest.approx(why.prediction)
    assert answer["pulls"] == pytest.approx(
        {str(i): c for i, c in zip(why.items, why.contributions, strict=True)}
    )
