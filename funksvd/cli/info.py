"""The command `funksvd info`."""

from __future__ import annotations

import os
import sys

import numpy as np

from funksvd.cli.shown import print_json
from funksvd.machine.kernels import show_config
from funksvd.model import load
from funksvd.version import __version__


def info(args):
    if args.model is None:
        if args.json:
            print_json(
                {
                    "funksvd": __version__,
                    "python": sys.version.split()[0],
                    "numpy": np.__version__,
                    "config": show_config(),
                }
            )
            return
        print(f"funksvd {__version__}, Python {sys.version.split()[0]}, numpy {np.__version__}")
        print(show_config())
        return
    model = load(args.model, mmap=True)
    last = {name: values[-1] for name, values in model.history_.items() if len(values)}
    n_factors, dtype = model.user_factors_.shape[1], str(model.user_factors_.dtype)
    if args.json:
        print_json(
            {
                "model": args.model,
                "bytes": os.path.getsize(args.model),
                "users": len(model.user_ids_),
                "items": len(model.item_ids_),
                "n_factors": n_factors,
                "dtype": dtype,
                "mean": model.global_mean_,
                "epochs": model.n_epochs_,
                "parameters": model.get_params(),
                "last_epoch": last,
            }
        )
        return
    print(f"{args.model}: {os.path.getsize(args.model):,} bytes")
    for side, ids in {"users": model.user_ids_, "items": model.item_ids_}.items():
        kind = (
            "whole numbers"
            if ids.dtype.kind in "iu"
            else "text"
            if ids.dtype.kind == "U"
            else type(ids[0]).__name__
        )
        print(f"  {side:<8}{len(ids):,} (ids are {kind}, {ids[0]} to {ids[-1]})")
    print(f"  factors {n_factors} of dtype {dtype}")
    print(f"  mean    {model.global_mean_:.4f}")
    print(f"  epochs  {model.n_epochs_}")
    print("parameters")
    for name, value in model.get_params().items():
        print(f"  {name} = {value!r}")
    if last:
        print("last epoch of training")
        for name, value in last.items():
            print(f"  {name:<14}{value:.6g}")
