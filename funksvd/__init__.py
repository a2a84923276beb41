"""Funk's SVD of sparse rating matrices: the training loop of Keras at the speed of C."""

from funksvd.callbacks import Callback, EarlyStopping, LambdaCallback, LearningRateScheduler, ModelCheckpoint
from funksvd.engine import show_config
from funksvd.model import FunkSVD, from_surprise, load
from funksvd.ratings import Ratings

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "EarlyStopping",
    "FunkSVD",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "Ratings",
    "from_surprise",
    "load",
    "show_config",
]
