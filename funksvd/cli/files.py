"""What the commands of ``funksvd`` do. Each takes the parsed options and returns the exit status, None for 0."""

from __future__ import annotations

import os

from funksvd.cli.options import COLUMNS, number
from funksvd.cli.shown import say, shows_progress
from funksvd.machine.replacing import check_writable
from funksvd.ratings.ids import Encoded
from funksvd.ratings.reading import read_columns
from funksvd.ratings.triples import Ratings


def check_output(path, *inputs):
    """Fail now, not after minutes of training, where nothing could be saved or an input would be lost."""
    check_writable(path)
    for name in filter(None, inputs):
        if os.path.exists(path) and os.path.exists(name) and os.path.samefile(path, name):
            raise ValueError(
                f"{path} is read here, and would be replaced; give the output another name"
            )


def save(args, model):
    model.save(args.output)
    say(args, f"Saved the model to {args.output} ({os.path.getsize(args.output):,} bytes).")


def read(args, path):
    """Users, items and ratings of a file, read as the options say."""
    columns = {name: getattr(args, f"{name}_column") for name in COLUMNS}
    return read_columns(
        path,
        **columns,
        sep=args.sep,
        header=args.header,
        on_bad_lines=args.on_bad_lines,
        progress=shows_progress(),
    )


def read_typed(args, model, path):
    """The ratings of a file, with ids of the model's type."""
    return Ratings.from_arrays(*typed(model, path, *read(args, path)))


def typed(model, path, users, items, *ratings):
    """Give the ids of a file the type of the model's: a file with ids 1, 2, 3 may be part of one with 1, 2, x."""
    found = []
    for role, column, known_ids in (
        ("user", users, model.user_ids_),
        ("item", items, model.item_ids_),
    ):
        ids = column.ids if isinstance(column, Encoded) else column
        if known_ids.dtype.kind in "iu" and ids.dtype.kind not in "iu":
            strange = next(
                text
                for text in ids.tolist()
                if str(number(text)) != text or type(number(text)) is not int
            )
            raise ValueError(
                f"{path}: {role} id {strange!r} is not a plain whole number, which all {role} ids of the model are"
            )
        if known_ids.dtype.kind == "U" and ids.dtype.kind in "iu":
            ids = ids.astype(str)
        found.append(Encoded(column.codes, ids) if isinstance(column, Encoded) else ids)
    return *found, *ratings


def known_id(model, side, text):
    """The user or item id that `text` stands for, typed as in the model."""
    known_ids = getattr(model, f"{side}_ids_")
    found = text
    if known_ids.dtype.kind in "iu":
        try:
            found = int(text)
            if str(found) != text:  # 007, 1_0: files do not take them for 7 and 10 either
                raise ValueError(text)
        except ValueError as error:
            said = f"--{side} {text!r} is not a plain whole number, which all {side} ids of the model are"
            raise ValueError(said) from error
    ids = known_ids.tolist()
    if found in set(ids):
        return found
    same_text = [x for x in ids if str(x) == text]  # ids that are no text, such as dates
    if same_text:
        return same_text[0]
    if found != text:
        near = [min(ids, key=lambda x: abs(x - found))]
    else:
        import difflib  # not needed to import funksvd.cli

        near = difflib.get_close_matches(text, list(map(str, ids)), n=1)
    hint = f"; the nearest id is {near[0]}" if near else ""
    raise ValueError(f"--{side} {text}: the model has not seen this {side} in training{hint}")
