"""Hooks into the epoch loop of ``FunkSVD.fit``, in the words of Keras 3.

``fit`` calls, for each callback in the order given::

    set_model(model)
    on_train_begin(logs)
    on_epoch_begin(epoch, logs)     # epoch counts from 0
    on_epoch_end(epoch, logs)
    after_epoch(epoch, logs)        # when all callbacks' on_epoch_end are done
    on_train_end(logs)              # also after an exception or Ctrl-C

At the end of an epoch ``logs`` holds ``loss`` (mean squared error of training), ``rmse``, ``learning_rate``,
``seconds`` and, with validation data, ``val_loss`` and ``val_rmse``. All callbacks get the same dict: one may
add a key that those after it monitor. ``model.stop_training = True`` ends training after the current epoch.
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
