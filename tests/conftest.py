"""Fixtures and made-up ratings that many tests share."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_host import host_cupy

Triples = tuple[np.ndarray, np.ndarray, np.ndarray]

# A job in the background of a script starts with SIGINT ignored, and Python then leaves it so.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run every test in an empty folder; return the folder.

    A Python that a test starts there imports the installed package, never the source tree.
    """
    folder = tmp_path_factory.mktemp("cwd")
    monkeypatch.chdir(folder)
    return folder


def on_shim(monkeypatch: pytest.MonkeyPatch, **machine: Any) -> Any:
    """Put the stand-in for CuPy in place, so that device="cuda" runs on the CPU; return it.

    `machine` describes the machine that it plays: see `HostCupy`.
    """
    if not host_cupy.available():
        pytest.skip("needs a C++ compiler and POSIX contexts to run CUDA kernels on the CPU")
    stand_in = host_cupy.HostCupy(**machine)
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    return stand_in


def has_gpu() -> bool:
    """Return whether CuPy and a GPU are here."""
    from funksvd.engines.device import DeviceError, open_device

    try:
        open_device("cuda")
    except DeviceError:
        return False
    return True


@pytest.fixture(params=["shim", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the stand-in for CuPy, and once more CuPy itself, where there is a GPU."""
    if request.param == "shim":
        return on_shim(monkeypatch)
    if not has_gpu():
        pytest.skip("needs CuPy and a GPU")
    return pytest.importorskip("cupy")


@pytest.fixture
def shim(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the stand-in for CuPy."""
    return on_shim(monkeypatch)


def random_ratings(n: int = 3000, n_users: int = 80, n_items: int = 50, seed: int = 0) -> Triples:
    """Return (users, items, values): int ids and ratings without structure, pairs may repeat."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, n_users, n)
    items = rng.integers(0, n_items, n)
    return users, items, rng.normal(3.5, 1, n)


def planted_ratings(
    n: int = 3000,
    n_users: int = 80,
    n_items: int = 50,
    seed: int = 0,
    rank: int = 2,
    noise: float = 0.3,
) -> Triples:
    """Return (users, items, values): ratings of a planted model with user biases, plus noise."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, n_users, n)
    items = rng.integers(0, n_items, n)
    p = rng.normal(0, 1, (n_users, rank))
    q = rng.normal(0, 0.5, (n_items, rank))
    truth = 3.5 + rng.normal(0, 0.4, n_users)[users] + (p[users] * q[items]).sum(1)
    return users, items, truth + rng.normal(0, noise, n)
