"""Funk's SVD of sparse rating matrices: the training loop of Keras at the speed of C."""

import importlib
from typing import TYPE_CHECKING, Any

from funksvd.callbacks.callback import Callback, LambdaCallback
from funksvd.engines.device import DeviceError
from funksvd.machine.kernels import show_config
from funksvd.model import FunkSVD, from_surprise, load
from funksvd.ratings import Ratings
from funksvd.ratings.unknown_ids import UnknownIdWarning
from funksvd.version import __version__

if TYPE_CHECKING:
    from funksvd.callbacks import (
        CSVLogger,
        EarlyStopping,
        LearningRateScheduler,
        ModelCheckpoint,
        ReduceLROnPlateau,
    )
    from funksvd.comparing import compare

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
    "UnknownIdWarning",
    "__version__",
    "compare",
    "from_surprise",
    "load",
    "show_config",
]

# Public modules and callbacks that are imported at their first use: `import funksvd` stays quick.
LATE_MODULES = ("datasets", "metrics", "model_selection", "plots", "tuning")
LATE_CALLBACKS = (
    "CSVLogger",
    "EarlyStopping",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
)


def __getattr__(name: str) -> Any:
    if name in LATE_MODULES:
        return importlib.import_module(f"funksvd.{name}")
    if name in LATE_CALLBACKS:
        return getattr(importlib.import_module("funksvd.callbacks"), name)
    if name == "compare":
        return importlib.import_module("funksvd.comparing").compare
    raise AttributeError(f"module 'funksvd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *LATE_MODULES, *LATE_CALLBACKS, "compare"})
