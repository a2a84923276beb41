"""Finding the columns of users, items and ratings by name or position."""

from __future__ import annotations

import difflib
import re
from numbers import Integral

_USERS = ("user", "customer", "client", "member", "reviewer", "visitor", "account", "person")
_ITEMS = (
    *("item", "product", "article", "movie", "film", "show", "video", "anime", "book", "game"),
    *("track", "song", "artist", "album", "business"),
)
KNOWN_NAMES = {
    "user": {"uid"} | {noun + end for noun in _USERS for end in ("", "id")},
    "item": {"iid", "isbn", "asin"} | {noun + end for noun in _ITEMS for end in ("", "id")},
    "rating": {"rating", "ratings", "score", "scores", "star", "stars", "value", "overall"}
    | {noun + "rating" for noun in ("user", *_ITEMS)},
}


def resolve_columns(names, user, item, rating, where):
    """Return the positions of the user, the item and the rating column.

    Parameters
    ----------
    names : sequence or int
        The column names, or the number of columns where they have no names.
    user, item, rating : str, int or None
        Column name, position counted from 0, or None: guess from well-known names (case, "_", "-" and blanks
        are ignored), or 0, 1, 2 where columns have no names.
    where : str
        What the columns belong to, for messages.

    Raises
    ------
    ValueError
        A column that is not there, cannot be guessed without doubt, or is chosen twice.
    TypeError
        A column that is neither str nor int.
    """
    return resolve(names, {"user": user, "item": item, "rating": rating}, where)


def resolve(names, columns, where):
    positions = {}
    for default, (role, column) in enumerate(columns.items()):
        if column is None:
            position = _guess(names, role, where) if _named(names) else default
        elif isinstance(column, str):
            position = _find(names, role, column, where)
        elif isinstance(column, Integral):
            position = int(column)
        else:
            raise TypeError(f"{role} must be a column name or a position, got {column!r}")

        n_columns = len(names) if _named(names) else names
        if not 0 <= position < n_columns:
            raise ValueError(
                f"{where}: {role}={position} is out of range: {n_columns} columns, from 0"
            )
        for other, taken in positions.items():
            if taken == position:
                raise ValueError(
                    f"{where}: {other} and {role} are both column {position}; pass {other}= or {role}="
                )
        positions[role] = position
    return tuple(positions.values())


def _named(names):
    return not isinstance(names, int)


def _guess(names, role, where):
    known = [position for position, name in enumerate(names) if squash(name) in KNOWN_NAMES[role]]
    if len(known) != 1:
        found = "several look like it" if known else "no name is known"
        raise ValueError(
            f"{where}: cannot tell which column is the {role} ({found}) of {in_words(names)}; "
            f"pass {role}=, a column name or a position from 0"
        )
    return known[0]


def _find(names, role, column, where):
    if not _named(names):
        raise ValueError(
            f"{where}: {role}={column!r} names a column, but there is no header; "
            f"pass a position from 0 or header=True"
        )
    found = [position for position, name in enumerate(names) if name == column]
    if len(found) > 1:
        raise ValueError(
            f"{where}: {role}={column!r} names {len(found)} columns; pass a position of {found}"
        )
    if not found:
        squashed = {squash(name): name for name in names}
        close = difflib.get_close_matches(squash(column), squashed, n=1)
        hint = f"; did you mean {squashed[close[0]]!r}?" if close else ""
        raise ValueError(
            f"{where}: {role}={column!r} is not among the columns {in_words(names)}{hint}"
        )
    return found[0]


def squash(name):
    return re.sub(r"[\s_-]", "", str(name)).casefold()


def in_words(names):
    return ", ".join(map(repr, names))


def shorten(text, limit=80):
    text = text.rstrip("\r\n")
    return repr(text if len(text) <= limit else text[:limit] + "...")
