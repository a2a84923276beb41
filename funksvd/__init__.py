"""Funk's SVD of sparse rating matrices: the training loop of Keras at the speed of C."""

import importlib
from types import ModuleType

from funksvd.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from funksvd.engines.device import DeviceError
from funksvd.machine.kernels import show_config
from funksvd.model import FunkSVD, from_surprise, load
from funksvd.ratings import Ratings
from funksvd.version import __version__

__all__ = [
    "CSVLogger",
    "Callback",
    "DeviceError",
    "EarlyStopping",
    "FunkSVD",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "Ratings",
    "ReduceLROnPlateau",
    "__version__",
    "from_surprise",
    "load",
    "show_config",
]

# Public modules that are imported at their first use, which keeps `import funksvd` short.
LAZY_MODULES = ("datasets", "metrics", "model_selection", "plots", "tuning")


def __getattr__(name: str) -> ModuleType:
    if name in LAZY_MODULES:
        return importlib.import_module(f"funksvd.{name}")
    raise AttributeError(f"module 'funksvd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *LAZY_MODULES})
