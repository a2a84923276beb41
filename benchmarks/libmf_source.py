"""LIBMF built from its source: the strongest CPU peer, twice as fast as the package on PyPI.

The source is that of github.com/cjlin1/libmf; the user names the folder of a copy. It is compiled
with the flags that its own Makefile names for AVX and OpenMP, and called through ctypes.
"""

import ctypes
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np

FLAGS = [
    "-O3",
    "-pthread",
    "-std=c++11",
    "-march=native",
    "-mavx",
    "-fopenmp",
    "-DUSEAVX",
    "-DUSEOMP",
    "-fPIC",
    "-shared",
]
NODE = np.dtype([("user", np.int32), ("item", np.int32), ("rating", np.float32)])
SQUARED_LOSS = 0


class Problem(ctypes.Structure):
    """`mf_problem` of mf.h: the ratings."""

    _fields_ = (
        ("m", ctypes.c_int),
        ("n", ctypes.c_int),
        ("nnz", ctypes.c_longlong),
        ("R", ctypes.c_void_p),
    )


class Parameter(ctypes.Structure):
    """`mf_parameter` of mf.h."""

    _fields_ = (
        ("fun", ctypes.c_int),
        ("k", ctypes.c_int),
        ("nr_threads", ctypes.c_int),
        ("nr_bins", ctypes.c_int),
        ("nr_iters", ctypes.c_int),
        ("lambda_p1", ctypes.c_float),
        ("lambda_p2", ctypes.c_float),
        ("lambda_q1", ctypes.c_float),
        ("lambda_q2", ctypes.c_float),
        ("eta", ctypes.c_float),
        ("alpha", ctypes.c_float),
        ("c", ctypes.c_float),
        ("do_nmf", ctypes.c_bool),
        ("quiet", ctypes.c_bool),
        ("copy_data", ctypes.c_bool),
    )


class Model(ctypes.Structure):
    """`mf_model` of mf.h."""

    _fields_ = (
        ("fun", ctypes.c_int),
        ("m", ctypes.c_int),
        ("n", ctypes.c_int),
        ("k", ctypes.c_int),
        ("b", ctypes.c_float),
        ("P", ctypes.POINTER(ctypes.c_float)),
        ("Q", ctypes.POINTER(ctypes.c_float)),
    )


class Factors(NamedTuple):
    """What LIBMF learned: the mean, (n_users, k) and (n_items, k); unrated rows are NaN."""

    mean: float
    users: np.ndarray
    items: np.ndarray


def build(source, folder):
    """Compile LIBMF and return the path of its library.

    Parameters
    ----------
    source : path of the folder that holds mf.cpp and mf.h
    folder : path of the folder to write the library to
    """
    code = Path(source) / "mf.cpp"
    if not code.exists():
        raise SystemExit(
            f"{code} is not there; give the folder of LIBMF's source, as"
            " `git clone https://github.com/cjlin1/libmf` makes it"
        )
    path = Path(folder) / "libmf.so"
    subprocess.run(["g++", *FLAGS, str(code), "-o", str(path)], check=True)
    return str(path)


def load(path):
    """Return the library of LIBMF at a path."""
    library = ctypes.CDLL(path)
    library.mf_train.argtypes = [ctypes.POINTER(Problem), Parameter]
    library.mf_train.restype = ctypes.POINTER(Model)
    library.mf_destroy_model.argtypes = [ctypes.POINTER(ctypes.POINTER(Model))]
    library.mf_get_default_param.restype = Parameter
    return library


def nodes(users, items, ratings):
    """Return the ratings as LIBMF's own array of (user, item, rating)."""
    table = np.empty(len(users), NODE)
    table["user"] = users
    table["item"] = items
    table["rating"] = ratings
    return table


def train(library, table, epochs, factors, threads, l2):
    """Return the model that LIBMF trains; give it to `take`.

    P and Q are penalised as in FunkSVD: `l2` with every rating, no L1. The ratings are not copied.
    """
    parameter = library.mf_get_default_param()
    parameter.fun = SQUARED_LOSS
    parameter.k = factors
    parameter.nr_threads = threads
    parameter.nr_bins = 26
    parameter.nr_iters = epochs
    parameter.lambda_p1 = 0.0
    parameter.lambda_q1 = 0.0
    parameter.lambda_p2 = l2
    parameter.lambda_q2 = l2
    parameter.eta = 0.1
    parameter.quiet = True
    parameter.copy_data = False
    problem = Problem(
        int(table["user"].max()) + 1, int(table["item"].max()) + 1, len(table), table.ctypes.data
    )
    return library.mf_train(ctypes.byref(problem), parameter)


def take(library, model):
    """Return the `Factors` of a model and free it."""
    found = model.contents
    users = np.ctypeslib.as_array(found.P, (found.m, found.k)).copy()
    items = np.ctypeslib.as_array(found.Q, (found.n, found.k)).copy()
    factors = Factors(found.b, users, items)
    library.mf_destroy_model(ctypes.byref(model))
    return factors
