"""The command `funksvd predict`."""

from __future__ import annotations

from funksvd.cli.files import check_output, typed
from funksvd.cli.shown import say, writer
from funksvd.model import load
from funksvd.ratings.reading import read_pairs


def predict(args):
    if args.output is not None:
        check_output(args.output, args.model, args.file)
    model = load(args.model)
    pairs = read_pairs(
        args.file,
        user=args.user_column,
        item=args.item_column,
        sep=args.sep,
        header=args.header,
        on_bad_lines=args.on_bad_lines,
    )
    users, items = typed(model, args.file, *pairs)
    predictions = model.predict((users, items), unknown=args.unknown)
    rows = zip(users.tolist(), items.tolist(), predictions.tolist(), strict=True)
    with writer(args, ["user", "item", "prediction"], len(predictions)) as write:
        for user, item, prediction in rows:
            entry = {
                "user": user,
                "item": item,
                "prediction": None if prediction != prediction else prediction,
            }
            write([[user, item, f"{prediction:.6g}"]], entry)
    if args.output is not None:
        say(args, f"Wrote {len(predictions):,} predictions to {args.output}.")
