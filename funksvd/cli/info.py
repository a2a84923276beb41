"""The command `funksvd info`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from funksvd.cli.options import Commands, add_command, add_json
from funksvd.cli.shown import print_json, printable, size_of
from funksvd.machine.kernels import show_config
from funksvd.model import load
from funksvd.version import __version__

# Characters of an id that are shown.
MOST_SHOWN = 80


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "info",
        info,
        summary="describe a model file, or this installation",
        description=(
            "Print the content of a model file: sizes, parameters, epochs and the errors of the"
            " last epoch. Without a file, print the versions and the kernels of this installation."
        ),
        examples=["funksvd info movies.npz"],
    )
    command.add_argument(
        "model", metavar="MODEL", nargs="?", help="model file, as funksvd train writes it"
    )
    add_json(command)


def info(args: argparse.Namespace) -> None:
    """Print a description of a model file, or of the installation if there is none."""
    if args.model is None:
        describe_installation(args.json)
    else:
        describe_model(args.model, args.json)


def describe_installation(as_json: bool) -> None:
    """Print the versions and the kernels in use."""
    python = sys.version.split()[0]
    config = show_config()
    if as_json:
        print_json(
            {
                "funksvd": __version__,
                "python": python,
                "numpy": np.__version__,
                "config": config,
            }
        )
        return
    print(f"funksvd {__version__}, Python {python}, numpy {np.__version__}")
    print(config)


def describe_model(path: str, as_json: bool) -> None:
    """Print the content of a model file."""
    model = load(path, mmap=True)
    last_epoch = {}
    for name, values in model.history_.items():
        if len(values):
            last_epoch[name] = values[-1]
    n_factors = model.user_factors_.shape[1]
    dtype = str(model.user_factors_.dtype)
    if as_json:
        print_json(
            {
                "model": path,
                "bytes": os.path.getsize(path),
                "users": len(model.user_ids_),
                "items": len(model.item_ids_),
                "n_factors": n_factors,
                "dtype": dtype,
                "mean": model.global_mean_,
                "epochs": model.n_epochs_,
                "parameters": model.get_params(),
                "last_epoch": last_epoch,
            }
        )
        return
    print(f"{path}: {size_of(path)}")
    print(f"  users   {in_words(model.user_ids_)}")
    print(f"  items   {in_words(model.item_ids_)}")
    print(f"  factors {n_factors} of dtype {dtype}")
    print(f"  mean    {model.global_mean_:.4f}")
    print(f"  epochs  {model.n_epochs_}")
    print("parameters")
    for name, value in model.get_params().items():
        print(f"  {name} = {printable(repr(value))}")
    if last_epoch:
        print("last epoch of training")
        for name, value in last_epoch.items():
            print(f"  {printable(name):<14}{value:.6g}")


def in_words(ids: NDArray[Any]) -> str:
    """Return the number of some ids, their kind, and the first and the last one."""
    if ids.dtype.kind in "iu":
        kind = "whole numbers"
    elif isinstance(ids[0], str):
        kind = "text"
    else:
        kind = type(ids[0]).__name__
    first = printable(shortened(ids[0]))
    last = printable(shortened(ids[-1]))
    return f"{len(ids):,} (ids are {kind}, {first} to {last})"


def shortened(value: Any) -> str:
    """Return an id as text of at most 80 characters."""
    text = str(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
