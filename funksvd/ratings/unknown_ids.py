"""The warning about ids that a model does not know."""

from __future__ import annotations


class UnknownIdWarning(UserWarning):
    """Some of the ids that a model was asked about, or given ratings of, are unknown to it.

    ``warnings.simplefilter("ignore", funksvd.UnknownIdWarning)`` silences it, and
    ``simplefilter("error", ...)`` makes it an error.
    """
