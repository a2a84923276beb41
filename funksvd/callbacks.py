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

import inspect

from funksvd.hooks import Callback, CallbackList, LambdaCallback
from funksvd.monitors import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from funksvd.progress import CSVLogger, EpochLines, ProgressBar, say
from funksvd.schedules import checked_rate

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


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)`` gets the epoch, counted from 0, and the current rate, and returns
        the rate to use from this epoch on. ``schedule(epoch)`` does, too.
    verbose : {0, 1}, default 0
        1 writes a line for each epoch.

    Raises
    ------
    TypeError
        If `schedule` is not callable or does not return a number.
    ValueError
        If the number is not finite and above 0.
    """

    def __init__(self, schedule, verbose=0):
        if not callable(schedule):
            raise TypeError(f"schedule={schedule!r}; it must be a function of epoch and learning rate")
        self.schedule = schedule
        self.verbose = verbose
        try:
            inspect.signature(schedule).bind(0, 0.1)
        except TypeError:  # as Keras, whose older versions gave the epoch alone
            self.schedule = lambda epoch, current: schedule(epoch)
        except ValueError:  # a function that does not tell
            pass

    def on_epoch_begin(self, epoch, logs=None):
        current = self.model.current_learning_rate
        rate = self.schedule(epoch, current)
        self.model.current_learning_rate = checked_rate(rate, f"schedule({epoch}, {current})")
        if self.verbose:
            say(f"Epoch {epoch + 1}: learning rate {self.model.current_learning_rate:g}\n")
