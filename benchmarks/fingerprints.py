"""Print the sha256 of the arrays of models trained by every solver and way of training.

Run it before and after a change that must not alter results, on one machine, and compare the
outputs::

    python benchmarks/fingerprints.py > before.txt

The ratings are made up from a fixed seed. The bits depend on the build of the kernels
(``funksvd info`` prints it), so figures of two machines need not agree. ``--cuda-shim`` adds the
CUDA engines, run on the CPU by tests/cuda_host.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np

from funksvd import FunkSVD, Ratings
from funksvd.datasets import make_ratings

SOLVERS = ("sgd", "adagrad_row", "adagrad", "adam", "adamax")
BATCH_SOLVERS = ("sgd", "adagrad", "adam", "adamax")
PENALTIES = {"l1": 0.001, "l2": (0.05, 0.1), "l1_bias": 0.001}


def settings():
    """Yield the parameters of each training: solvers, options, dtypes and lengths of a row."""
    for solver in SOLVERS:
        yield {"solver": solver}
        yield {"solver": solver, "dtype": "float64", "n_factors": 9}
        yield {"solver": solver, **PENALTIES}
    for n_factors in (1, 8, 16, 24, 30, 64, 100, 128):
        yield {"n_factors": n_factors}
    yield {"momentum": 0.8}
    yield {"momentum": 0.8, "non_negative": True}
    yield {"reg_scale": "row", **PENALTIES}
    yield {"biased": False, "center": False}
    yield {"learning_rate_schedule": "cosine", "init_std": 0.1}
    for solver in BATCH_SOLVERS:
        yield {"solver": solver, "batch_size": 500}
        yield {"solver": solver, "batch_size": 500, "shuffle": False, **PENALTIES}
        yield {"solver": solver, "batch_size": 500, "reg_scale": "row", "dtype": "float64"}
    yield {"training": "featurewise", "rating_scale": (1, 5)}
    yield {"training": "featurewise", "dtype": "float64", **PENALTIES}
    for n_factors in (4, 16, 20, 32, 40):
        yield {"solver": "gibbs", "n_factors": n_factors, "n_epochs": 30}
    yield {"solver": "gibbs", "average": "factors"}
    yield {"solver": "gibbs", "sets": False}
    yield {"solver": "gibbs", "biased": False}


def cuda_settings():
    """Yield the parameters of the trainings on a GPU."""
    for solver in SOLVERS:
        yield {"solver": solver, "device": "cuda"}
    yield {"device": "cuda", "dtype": "float16"}
    yield {"device": "cuda", "reg_scale": "row", **PENALTIES}
    for solver in BATCH_SOLVERS:
        yield {"solver": solver, "device": "cuda", "batch_size": 500}


def digest(model, users, items):
    """Return the first half of the sha256 of a model's arrays, losses and predictions."""
    found = hashlib.sha256()
    arrays = [model.user_biases_, model.item_biases_, model.user_factors_, model.item_factors_]
    answers = model.predict((users, items), return_std=model.solver == "gibbs")
    arrays += answers if isinstance(answers, tuple) else [answers]
    losses = [model.history_[name] for name in ("loss", "val_loss")]
    for array in (*arrays, np.array(losses), np.array(model.global_mean_)):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:32]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cuda-shim", action="store_true", help="add the CUDA engines")
    arguments = parser.parse_args()
    made = make_ratings(n_ratings=60_000, n_users=1_500, n_items=700)
    weights = np.random.default_rng(0).uniform(0.5, 2, len(made.ratings))
    ratings = {
        "": Ratings.from_arrays(made.users, made.items, made.ratings),
        " weighted": Ratings.from_arrays(made.users, made.items, made.ratings, weights),
    }
    chosen = list(settings())
    if arguments.cuda_shim:
        sys.path.append(str(Path(__file__).parents[1] / "tests"))
        from cuda_host.host_cupy import HostCupy

        sys.modules["cupy"] = HostCupy()
        chosen = list(cuda_settings())
    for parameters in chosen:
        for kind, data in ratings.items():
            options = {"n_factors": 20, "n_epochs": 3, "random_state": 7, "n_jobs": 2} | parameters
            model = FunkSVD(**options).fit(data, validation_split=0.1, verbose=0)
            words = " ".join(f"{name}={value}" for name, value in parameters.items())
            print(f"{digest(model, made.users, made.items)}  {words or 'sgd'}{kind}", flush=True)


if __name__ == "__main__":
    main()
