"""Funk's SVD of sparse rating matrices: the training loop of Keras at the speed of C."""

import importlib

from funksvd.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from funksvd.engine import show_config
from funksvd.model import FunkSVD, from_surprise, load
from funksvd.ratings import Ratings

__version__ = "0.1.0"
__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "FunkSVD",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "Ratings",
    "ReduceLROnPlateau",
    "from_surprise",
    "load",
    "show_config",
]

_MODULES = ("datasets", "metrics", "model_selection", "plots", "tuning")  # imported at the first use


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"funksvd.{name}")
    raise AttributeError(f"module 'funksvd' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_MODULES})
