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

from funksvd.callbacks.callback import Callback, CallbackList, LambdaCallback
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
