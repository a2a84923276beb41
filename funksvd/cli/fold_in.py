"""The command `funksvd fold-in`."""

from __future__ import annotations

from funksvd.cli.files import check_output, read_typed, save
from funksvd.cli.shown import count, print_json, say
from funksvd.model import load


def fold_in(args):
    check_output(args.output, args.file)
    model = load(args.model)
    ratings = read_typed(args, model, args.file)
    before = len(model.user_ids_), len(model.item_ids_)
    extended = model.fold_in(ratings, side=args.side)
    added = len(extended.user_ids_) - before[0], len(extended.item_ids_) - before[1]
    side = args.side.removesuffix("s")
    n = ratings.n_users if side == "user" else ratings.n_items
    new = added[0] if side == "user" else added[1]
    say(args, f"Folded in {count(n, side)}, {new:,} of them new, from {len(ratings):,} ratings.")
    save(args, extended)
    if args.json:
        print_json({"model": args.output, "folded_in": n, "new": new, "ratings": len(ratings)})
