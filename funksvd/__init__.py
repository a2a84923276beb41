"""Funk's SVD of sparse rating matrices: the training loop of Keras at the speed of C."""

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
