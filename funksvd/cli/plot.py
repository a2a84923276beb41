"""The command `funksvd plot`."""

from __future__ import annotations

from funksvd.cli.files import check_output, read_typed
from funksvd.cli.shown import print_json, say
from funksvd.model import load
from funksvd.ratings.reading import read_titles


def plot(args):
    import funksvd.plots as plots

    needed = {"predictions": ["ratings"], "popularity": ["ratings", "train"]}.get(args.kind, [])
    for name in needed:
        if getattr(args, name) is None:
            raise ValueError(f"funksvd plot {args.kind} needs --{name} FILE")
    output = args.output or f"{args.kind}.png"
    check_output(output, args.model, args.ratings, args.train, args.titles)
    model = load(args.model)
    ratings, trained = (
        read_typed(args, model, getattr(args, name)) if getattr(args, name) else None
        for name in ("ratings", "train")
    )
    titles = read_titles(args.titles) if args.titles else None
    {
        "learning-curve": lambda: plots.learning_curve(model, output),
        "predictions": lambda: plots.predicted_against_actual(model, ratings, output),
        "popularity": lambda: plots.error_by_popularity(
            model, ratings, trained, output, by=args.by
        ),
        "map": lambda: plots.factor_map(model, titles, output, ratings=ratings),
        "spectrum": lambda: plots.factor_spectrum(model, output),
    }[args.kind]()
    say(args, f"Drew {output}.")
    if args.json:
        print_json({"plot": output})
