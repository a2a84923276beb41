"""The files of the commands: outputs are checked early, ids get the types of the model's."""

from __future__ import annotations

import argparse
import os
from typing import Any, Literal

from numpy.typing import NDArray

from funksvd.cli.options import COLUMNS, number_of
from funksvd.cli.shown import say, shows_progress, size_of
from funksvd.machine.replacing import check_writable
from funksvd.model import FunkSVD
from funksvd.ratings.columns import RawRatings
from funksvd.ratings.ids import Encoded, kind_of
from funksvd.ratings.reading import read_columns
from funksvd.ratings.triples import Ratings

# Ids of a file, one a row, plain or as a dictionary of codes.
Column = NDArray[Any] | Encoded


def check_output(path: str, *inputs: str | None) -> None:
    """Raise an error if a file could not be written, or is one of the inputs.

    Commands call it before they work, so that minutes of training are not lost. Inputs that were
    not given are None.
    """
    check_writable(path)
    for name in inputs:
        if not name or not os.path.exists(path) or not os.path.exists(name):
            continue
        if os.path.samefile(path, name):
            raise ValueError(
                f"{path} is read here, and would be replaced; give the output another name"
            )


def check_differ(output: str, checkpoint: str) -> None:
    """Raise ValueError if the model would take the place of the checkpoint."""
    if os.path.realpath(output) == os.path.realpath(checkpoint):
        raise ValueError(
            f"{output} is the file of the model and that of the checkpoint, too; the model would"
            " replace the checkpoint, so give one of them another name"
        )


def save(args: argparse.Namespace, model: FunkSVD) -> None:
    """Save a model to the output and say so."""
    model.save(args.output)
    say(args, f"Saved the model to {args.output} ({size_of(args.output)}).")


def read(args: argparse.Namespace, path: str) -> tuple[Encoded, Encoded, NDArray[Any]]:
    """Return the users, items and ratings of a file, read as the options say."""
    raw = read_raw(args, path, False)
    return raw.users, raw.items, raw.values


def read_raw(
    args: argparse.Namespace, path: str, time: int | str | Literal[False] | None
) -> RawRatings:
    """Return the columns of a file, read as the options say; `time` as in `read_columns`."""
    columns = {name: getattr(args, f"{name}_column") for name in COLUMNS}
    return read_columns(
        path,
        **columns,
        time=time,
        sep=args.sep,
        header=args.header,
        on_bad_lines=args.on_bad_lines,
        progress=shows_progress(),
    )


def read_ratings(args: argparse.Namespace, path: str) -> Ratings:
    """Return the ratings of a file."""
    return Ratings.of_own(*read(args, path))


def read_ratings_for(args: argparse.Namespace, model: FunkSVD, path: str) -> Ratings:
    """Return the ratings of a file, with ids of the model's types."""
    users, items, ratings = read(args, path)
    users, items = typed_pairs(model, path, users, items)
    return Ratings.of_own(users, items, ratings)


def typed_pairs(model: FunkSVD, path: str, users: Any, items: Any) -> tuple[Any, Any]:
    """Return the users and items of a file with ids of the model's types."""
    return (
        typed_column(users, model.user_ids_, "user", path),
        typed_column(items, model.item_ids_, "item", path),
    )


def typed_column(column: Column, known_ids: NDArray[Any], role: str, path: str) -> Column:
    """Return a column with ids of the type of the model's.

    A file with the ids 1, 2, 3 may be a part of one with 1, 2, x, whose ids are text.

    Raises
    ------
    ValueError
        If the model's ids are whole numbers and an id of the file is not.
    """
    ids = column.ids if isinstance(column, Encoded) else column
    if known_ids.dtype.kind in "iu" and ids.dtype.kind not in "iu":
        texts = ids.tolist()
        # All may be whole numbers, if one of them is too large for an array of these.
        strange = [text for text in texts if not is_plain_whole(text)] or texts
        raise ValueError(
            f"{path}: {role} id {strange[0]!r} is not a plain whole number, as all {role} ids of"
            " the model are"
        )
    if kind_of(known_ids) == "str" and ids.dtype.kind in "iu":
        ids = ids.astype(str)
    return Encoded(column.codes, ids) if isinstance(column, Encoded) else ids


def is_plain_whole(text: Any) -> bool:
    """Return whether a text is a whole number as files are read: 007 and 1_0 are not 7 and 10."""
    value = number_of(text)
    return type(value) is int and str(value) == text


def known_id(model: FunkSVD, side: str, text: str) -> Any:
    """Return the user or item id that a text stands for, of the type of the model's ids.

    Raises
    ------
    ValueError
        If the model does not know it; the message names the nearest id.
    """
    known_ids = model.user_ids_ if side == "user" else model.item_ids_
    ids = known_ids.tolist()
    asked: int | str = text
    if known_ids.dtype.kind in "iu":
        if not is_plain_whole(text):
            raise ValueError(
                f"--{side} {text!r} is not a plain whole number, as all {side} ids of the model are"
            )
        asked = int(text)
    if asked in set(ids):
        return asked
    for known in ids:
        if str(known) == text:  # ids that are neither text nor numbers, such as dates
            return known
    near = nearest_id(asked, ids)
    hint = f"; the nearest id is {near}" if near is not None else ""
    raise ValueError(f"--{side} {text}: the model has not seen this {side} in training{hint}")


def nearest_id(asked: int | str, ids: list[Any]) -> Any:
    """Return the id of the model that is most like a number or a text, or None."""
    if isinstance(asked, int):

        def distance(known: int) -> int:
            return abs(known - asked)

        return min(ids, key=distance)
    import difflib  # not needed to import funksvd.cli

    close = difflib.get_close_matches(asked, [str(known) for known in ids], n=1)
    return close[0] if close else None
