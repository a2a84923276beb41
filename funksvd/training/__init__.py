"""Training: the epoch loops, checkpoints and fold-in.

The modules below are imported when they are first asked for, so that `import funksvd` stays quick.
"""

import importlib
from types import ModuleType

LATE = ("checkpoints", "fold_in", "joining", "loop")


def __getattr__(name: str) -> ModuleType:
    if name in LATE:
        return importlib.import_module(f"funksvd.training.{name}")
    raise AttributeError(f"module 'funksvd.training' has no attribute {name!r}")
