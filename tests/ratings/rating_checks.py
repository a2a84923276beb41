"""Three ratings as text, and checks of what was read, for tests of reading."""

import re

import numpy as np


def assert_ratings(found, users, items, ratings):
    """Check values and dtypes: int64 or object for ids, float64 for ratings."""
    for values, expected in zip(found[:2], (users, items), strict=True):
        assert values.dtype == (np.int64 if isinstance(expected[0], int) else object)
        assert values.tolist() == expected
    assert found[2].dtype == np.float64
    assert found[2].tolist() == ratings
    assert all(values.flags.writeable for values in found)


def whole(message):
    """Return a pattern that matches `message` and nothing else."""
    return f"^{re.escape(message)}$"


# The fields of three lines, and the users, items and ratings that they hold.
LINES = [("1", "7", "4", "x"), ("20", "8", "2.5", "y"), ("-3", "7", "1e0", "z")]
THREE = ([1, 20, -3], [7, 8, 7], [4.0, 2.5, 1.0])


def joined(sep, eol="\n", header=None):
    """Return the text of `LINES`, with a line of column names if `header` names them."""
    lines = [header, *LINES] if header else LINES
    return "".join(sep.join(fields) + eol for fields in lines)
