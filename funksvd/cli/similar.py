"""The command `funksvd similar`."""

from __future__ import annotations

import csv
import sys

from funksvd.cli.files import known_id
from funksvd.cli.shown import named, print_json, titled
from funksvd.model import load
from funksvd.ratings.reading import read_titles


def similar(args):
    if args.n < 1:
        raise ValueError(f"-n must be 1 or more, got {args.n}")
    model = load(args.model)
    side = "user" if args.item is None else "item"
    asked = known_id(model, side, getattr(args, side))
    titles = read_titles(args.titles) if args.titles else {}
    ids, scores = (model.similar_users if side == "user" else model.similar_items)(
        asked, args.n, args.measure
    )
    pairs = list(zip(ids.tolist(), scores.tolist(), strict=True))
    if args.json:
        print_json(
            {
                side: asked,
                "measure": args.measure,
                "similar": [named(titles, x, side) | {"similarity": score} for x, score in pairs],
            }
        )
        return
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([side, "similarity", *(["title"] if titles else [])])
    out.writerows([x, f"{score:.4f}", *titled(titles, x)] for x, score in pairs)
