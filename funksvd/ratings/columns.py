"""The columns of a table of ratings: how those of users, items and ratings are found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, NamedTuple

import numpy as np

from funksvd.ratings.ids import Encoded

# A column as a caller names it: by name, by position from 0, or None to let the names tell.
Column = str | int | None
# The names of all columns, or their number where they have no names.
Names = Sequence[Any] | int

USER_NOUNS = ("user", "customer", "client", "member", "reviewer", "visitor", "account", "person")
ITEM_NOUNS = (
    *("item", "product", "article", "movie", "film", "show", "video", "anime", "book", "game"),
    *("track", "song", "artist", "album", "business"),
)
RATING_NAMES = ("rating", "ratings", "score", "scores", "star", "stars", "value", "overall")
TIME_NAMES = ("time", "timestamp", "datetime", "date", "unixtime", "unixtimestamp", "ts")


class Chosen(NamedTuple):
    """The user, the item, the rating and the time column as a caller chose them.

    A `time` of False means that no times are wanted, None that a column with a well-known name
    holds them if there is one.
    """

    user: Column
    item: Column
    rating: Column
    time: Column | Literal[False] = False

    def positions(self, names: Names, where: object) -> tuple[int, ...]:
        """Return the positions of the three columns, and of the times if there are any.

        Errors are those of `resolve_columns`.
        """
        columns = {"user": self.user, "item": self.item, "rating": self.rating}
        time = self.time_in(names, where)
        if time is not None:
            columns["time"] = time
        return positions_of(names, columns, where)

    def time_in(self, names: Names, where: object) -> Column:
        """Return the column of the times; None if there is none or it is not wanted."""
        if self.time is False:
            return None
        if self.time is not None:
            return self.time
        if isinstance(names, int):
            return None
        known = [place for place, name in enumerate(names) if is_known_name(name, "time")]
        if len(known) > 1:
            found = in_words(names[place] for place in known)
            raise ValueError(
                f"{where}: cannot tell which column holds the times of {found}; pass time=,"
                " a column name or a position from 0, or time=False to leave the times out"
            )
        return known[0] if known else None


class RawRatings(NamedTuple):
    """The columns of a file as they were read; row k of each belongs to rating k.

    users, items : Encoded, whose ids are texts
    values : (n_ratings,) float64, NaN where a rating is no number
    times : (n_ratings,) float64 or int64 numbers, NaN where there is no time; None if not read
    """

    users: Encoded
    items: Encoded
    values: np.ndarray
    times: np.ndarray | None = None


def _with_ending(nouns: Iterable[str], ending: str) -> set[str]:
    """Return each noun with an ending."""
    return {f"{noun}{ending}" for noun in nouns}


# Role -> the names that tell a column of this role, as `squash` spells them.
KNOWN_NAMES = {
    "user": _with_ending(USER_NOUNS, "id").union(USER_NOUNS, ["uid"]),
    "item": _with_ending(ITEM_NOUNS, "id").union(ITEM_NOUNS, ["iid", "isbn", "asin"]),
    "rating": _with_ending(("user", *ITEM_NOUNS), "rating").union(RATING_NAMES),
    "time": _with_ending(("rating", "review"), "time").union(TIME_NAMES, ["unixreviewtime"]),
}


def resolve_columns(
    names: Names,
    user: Column,
    item: Column,
    rating: Column,
    where: object,
) -> tuple[int, ...]:
    """Return the positions of the user, the item and the rating column.

    Parameters
    ----------
    names : sequence or int
        The column names, or the number of columns where they have no names.
    user, item, rating : str, int or None
        The column's name, or its position from 0. None finds a well-known name (case, "_", "-"
        and blanks do not matter), or means position 0, 1 or 2 where columns have no names.
    where : object
        The file or table with these columns; messages name it.

    Raises
    ------
    ValueError
        If a column is not there, is chosen twice, or is not the only one with a well-known name.
    TypeError
        If a column is neither str nor int.
    """
    return Chosen(user, item, rating).positions(names, where)


def positions_of(
    names: Names,
    columns: Mapping[str, Column],
    where: object,
) -> tuple[int, ...]:
    """Return the position of each column of {role: column}; otherwise like `resolve_columns`.

    Without names, None means the role's own place in `columns`.
    """
    n_columns = names if isinstance(names, int) else len(names)
    positions: dict[str, int] = {}
    for place, (role, column) in enumerate(columns.items()):
        position = _position_of(names, role, column, place, where)
        if not 0 <= position < n_columns:
            raise ValueError(
                f"{where}: {role}={position} is out of range: {n_columns} columns, from 0"
            )
        for other, taken in positions.items():
            if taken == position:
                raise ValueError(
                    f"{where}: {other} and {role} are both column {position}; "
                    f"pass {other}= or {role}="
                )
        positions[role] = position
    return tuple(positions.values())


def _position_of(
    names: Names,
    role: str,
    column: Any,
    default: int,
    where: object,
) -> int:
    """Return the position of one column, `default` where neither a name nor a position tells."""
    if isinstance(column, Integral):
        return int(column)
    if column is None:
        if isinstance(names, int):
            return default
        return _well_known(names, role, where)
    if not isinstance(column, str):
        raise TypeError(f"{role} must be a column name or a position, got {column!r}")
    if isinstance(names, int):
        raise ValueError(
            f"{where}: {role}={column!r} names a column, but there is no header; "
            f"pass a position from 0 or header=True"
        )
    return _named(names, role, column, where)


def _well_known(names: Sequence[Any], role: str, where: object) -> int:
    """Return the position of the only column with a well-known name for a role."""
    known = []
    for position, name in enumerate(names):
        if is_known_name(name, role):
            known.append(position)
    if len(known) != 1:
        found = "several look like it" if known else "no name is known"
        raise ValueError(
            f"{where}: cannot tell which column is the {role} ({found}) of {in_words(names)}; "
            f"pass {role}=, a column name or a position from 0"
        )
    return known[0]


def _named(
    names: Sequence[Any],
    role: str,
    column: str,
    where: object,
) -> int:
    """Return the position of the only column with the name `column`."""
    found = []
    for position, name in enumerate(names):
        if name == column:
            found.append(position)
    if len(found) > 1:
        raise ValueError(
            f"{where}: {role}={column!r} names {len(found)} columns; pass a position of {found}"
        )
    if not found:
        raise ValueError(
            f"{where}: {role}={column!r} is not among the columns {in_words(names)}"
            f"{_hint(names, column)}"
        )
    return found[0]


def _hint(names: Sequence[Any], column: str) -> str:
    """Return "; did you mean 'NAME'?" with the most similar name, "" if none is similar."""
    import difflib  # for this message only, and slow to import

    squashed = {squash(name): name for name in names}
    close = difflib.get_close_matches(squash(column), squashed, n=1)
    return f"; did you mean {squashed[close[0]]!r}?" if close else ""


def is_known_name(name: Any, role: str) -> bool:
    """Return whether a column name is well known for a role: a key of `KNOWN_NAMES`."""
    return squash(name) in KNOWN_NAMES[role]


def squash(name: Any) -> str:
    """Return a column name without case, white space, "_" and "-"."""
    return re.sub(r"[\s_-]", "", str(name)).casefold()


def in_words(names: Iterable[Any]) -> str:
    """Return names for a message: quoted, with commas between them."""
    return ", ".join(map(repr, names))


def shorten(text: str, limit: int = 80) -> str:
    """Return a line for a message: quoted, without its line end, cut after `limit` characters."""
    text = text.rstrip("\r\n")
    if len(text) > limit:
        text = f"{text[:limit]}..."
    return repr(text)
