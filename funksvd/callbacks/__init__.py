"""Hooks into the epoch loop of `FunkSVD.fit`, with the names and the meaning of Keras 3.

For each callback, in the order given, `fit` calls::

    set_model(model)
    set_params(params)
    on_train_begin(logs)
    on_epoch_begin(epoch, logs)     # epoch counts from 0
    on_epoch_end(epoch, logs)
    after_epoch(epoch, logs)        # once on_epoch_end of all callbacks has returned
    on_train_end(logs)              # also after an exception or Ctrl-C

At the end of an epoch `logs` holds `loss` (the mean squared error of training), `rmse`,
`learning_rate` (of solvers that have one), `seconds` and, with validation data, `val_loss` and
`val_rmse`. All callbacks receive the same dict, so a callback may add a key that later ones
monitor. Setting `model.stop_training = True` ends training after the current epoch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from funksvd.callbacks.callback import Callback, CallbackList, LambdaCallback

if TYPE_CHECKING:
    from funksvd.callbacks.progress import CSVLogger, EpochLines, ProgressBar
    from funksvd.callbacks.rates import LearningRateScheduler, ReduceLROnPlateau
    from funksvd.callbacks.saving import ModelCheckpoint
    from funksvd.callbacks.stopping import EarlyStopping

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "EpochLines",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgressBar",
    "ReduceLROnPlateau",
]

# Modules imported when one of their names is first asked for: `import funksvd` stays quick.
LATE = {
    "CSVLogger": "progress",
    "EpochLines": "progress",
    "ProgressBar": "progress",
    "LearningRateScheduler": "rates",
    "ReduceLROnPlateau": "rates",
    "ModelCheckpoint": "saving",
    "EarlyStopping": "stopping",
}


def __getattr__(name: str) -> Any:
    if name in LATE:
        return getattr(importlib.import_module(f"funksvd.callbacks.{LATE[name]}"), name)
    raise AttributeError(f"module 'funksvd.callbacks' has no attribute {name!r}")
