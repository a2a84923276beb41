"""The command `funksvd recommend`."""

from __future__ import annotations

import numpy as np

from funksvd.cli.files import check_output, known_id, read_typed
from funksvd.cli.shown import count, named, say, titled, writer
from funksvd.model import load
from funksvd.ratings.reading import read_titles


def recommend(args):
    if args.n < 1:
        raise ValueError(f"-n must be 1 or more, got {args.n}")
    if args.output is not None:
        check_output(args.output, args.model, args.exclude, args.titles)
    model = load(args.model)
    users = None if args.all else [known_id(model, "user", text) for text in args.user]
    titles = read_titles(args.titles) if args.titles else {}
    seen = read_typed(args, model, args.exclude) if args.exclude else None
    if args.all:
        batches = model.recommend_batches(args.n, seen)
    else:
        batches = [(np.array(users), *model.recommend(users, args.n, seen))]
    names = [] if users is not None and len(users) == 1 else ["user"]
    n_users = len(model.user_ids_) if users is None else len(users)
    with writer(args, [*names, "item", "score", *(["title"] if titles else [])], n_users) as write:
        for some, items, scores in batches:
            for user, *ranked in zip(some.tolist(), items.tolist(), scores.tolist(), strict=True):
                best = [
                    (item, score) for item, score in zip(*ranked, strict=True) if score == score
                ]
                first = [user] if names else []
                rows = [
                    [*first, item, f"{score:.4f}", *titled(titles, item)] for item, score in best
                ]
                entries = [named(titles, item) | {"score": score} for item, score in best]
                write(rows, {"user": user, "recommendations": entries})
    if args.output is not None:
        say(args, f"Wrote recommendations for {count(n_users, 'user')} to {args.output}.")
