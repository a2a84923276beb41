"""The command `funksvd evaluate`."""

from __future__ import annotations

from funksvd.cli.files import read_typed
from funksvd.cli.shown import print_json
from funksvd.model import load


def evaluate(args):
    model = load(args.model)
    scores = model.evaluate(read_typed(args, model, args.file))
    if args.json:
        print_json(scores)
        return
    print(f"RMSE     {scores['rmse']:.4f}  root mean squared error")
    print(f"MAE      {scores['mae']:.4f}  mean absolute error")
    print(f"ratings  {scores['n']:,}")
    print(f"unknown  {scores['unknown']:.2%}  of them have a user or an item not seen in training")
