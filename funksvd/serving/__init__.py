"""Answers of a trained model: predictions, the best items, similar rows and explanations.

The modules below are imported when they are first asked for, so that `import funksvd` stays quick.
"""

import importlib
from types import ModuleType

LATE = ("dense", "explain", "ranked", "recommending")


def __getattr__(name: str) -> ModuleType:
    if name in LATE:
        return importlib.import_module(f"funksvd.serving.{name}")
    raise AttributeError(f"module 'funksvd.serving' has no attribute {name!r}")
