"""Options that several commands share, and the help texts of the model parameters."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from funksvd.hyper import RATES
from funksvd.model import FunkSVD

COLUMNS = ("user", "item", "rating")

# The object that a command adds itself to; argparse has no public name for its type.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
# Runs a command with its options and returns the exit code; None is 0.
Run = Callable[[argparse.Namespace], int | None]

PARAMETER_HELP = {
    "n_factors": "factors of each user and each item; None is 100, 32 for gibbs, 128 for ials",
    "n_epochs": (
        "largest number of passes over the ratings; of passes for each feature if training is"
        " featurewise; None is 40, 120 for gibbs, 16 for ials"
    ),
    "solver": (
        f"update rule: {', '.join(RATES)}; gibbs takes no steps but samples the posterior; ials"
        " learns which items users take, not how they rate them"
    ),
    "training": "joint, or featurewise: one feature after the other, as Funk did",
    "batch_size": "ratings of each step; more than 1 makes mini-batches as Keras does",
    "shuffle": "draw mini-batches in a new order in each epoch",
    "learning_rate": "step size of the first epoch; None is the solver's own",
    "learning_rate_schedule": "constant, exponential, inverse_time or cosine",
    "learning_rate_decay": "decay of the exponential and of the inverse_time schedule",
    "momentum": "momentum of sgd",
    "beta_1": "decay of the mean gradient in adam and adamax",
    "beta_2": "decay of the gradient's size in adam and adamax",
    "epsilon": (
        "small constant added to the adaptive solvers' denominators to avoid division by zero"
    ),
    "initial_accumulator_value": "first sum of squared gradients in adagrad and adagrad_row",
    "l2": "L2 regularization of the factors",
    "l1": "L1 regularization of the factors",
    "l2_bias": "L2 regularization of the biases",
    "l1_bias": "L1 regularization of the biases",
    "reg_scale": "rating: regularize with every rating; row: regularize every row once an epoch",
    "non_negative": "keep the factors at 0 or above",
    "min_improvement": (
        "for featurewise training: go to the next feature once a pass improves the training RMSE"
        " by less than this"
    ),
    "biased": "learn a bias for each user and each item",
    "center": "start from the mean of the ratings instead of 0",
    "init_std": "standard deviation of the initial factors",
    "average": (
        "mean that gibbs keeps of its samples: low_rank, of rank 2 to 12 times n_factors,"
        " or factors"
    ),
    "moods": "what gibbs learns from times, in Python alone: files are read without their times",
    "exposure": "learn beside the ratings which items users take; recommend then ranks by both",
    "unseen_weight": (
        "for ials: weight of a pair that is not given beside that of one that is; None follows"
        " from the ratings"
    ),
    "exposure_l2": (
        "for ials: L2 regularization for each unit of the weight of a row's pairs; None follows"
        " from the ratings"
    ),
    "sets": (
        "for gibbs: learn from the sets of items that users rated and of users who rated items;"
        " None: True for gibbs"
    ),
    "rating_scale": "lowest and highest rating; predictions are clipped to them",
    "n_jobs": "number of threads; -1 uses all cores",
    "device": "device to train on: cpu, cuda, or for example cuda:1, the second GPU",
    "schedule": "on a GPU: strata, which is repeatable, or hogwild, all blocks at once",
    "max_device_bytes": "largest memory to use on a GPU; ratings that do not fit are streamed",
    "dtype": "precision of the factors: float32 or float64; on a GPU float32 or float16",
    "random_state": "seed; the same seed gives the same model",
}
# Parameters that take one number, or one for users and one for items.
PAIRS = ("l2", "l1", "l2_bias", "l1_bias")
# Parameters that take a whole number or None.
COUNTS_OR_NONE = ("n_factors", "n_epochs", "max_device_bytes")


class CommandHelp(argparse.RawDescriptionHelpFormatter):
    """Wraps each line of a description by itself; examples stay whole, to be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = []
        for line in text.splitlines():
            if not line.startswith("Example: "):
                # The raw formatter's own parent is the one that wraps.
                line = super(argparse.RawDescriptionHelpFormatter, self)._fill_text(
                    line, width, indent
                )
            filled.append(line)
        return "\n".join(filled)


def add_command(
    commands: Commands,
    name: str,
    run: Run,
    *,
    summary: str,
    description: str,
    examples: Sequence[str],
) -> argparse.ArgumentParser:
    """Add a command and return its parser, which the caller gives its options.

    Parameters
    ----------
    commands : the subparsers of `funksvd`
    name : str, as it is typed
    run : callable
        Called with the parsed options.
    summary : str, for `funksvd --help`
    description : str, for the help of the command; a newline starts a paragraph
    examples : sequence of str, command lines
    """
    command = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog="\n".join(f"Example: {example}" for example in examples),
        formatter_class=CommandHelp,
        allow_abbrev=False,
    )
    command.set_defaults(run=run, json=False)
    return command


def add_json(command: argparse.ArgumentParser, result: str = "the result as JSON") -> None:
    """Add the option --json, which prints `result`."""
    command.add_argument(
        "--json", action="store_true", help=f"print {result}, and messages on standard error"
    )


def add_model(command: argparse.ArgumentParser) -> None:
    """Add the argument MODEL."""
    command.add_argument("model", metavar="MODEL", help="model file, as funksvd train writes it")


def add_ratings(command: argparse.ArgumentParser, holds: str = "ratings") -> None:
    """Add the argument FILE, a file of ratings."""
    command.add_argument("file", metavar="FILE", help=f"{holds}, one per line: user, item, rating")


def add_titles(command: argparse.ArgumentParser) -> None:
    """Add the option --titles."""
    command.add_argument(
        "--titles", metavar="CSV", help="table with a column item_id or id and a column title"
    )


def add_list_options(command: argparse.ArgumentParser, top: int | None = None) -> None:
    """Add the options --top and --threshold of commands that measure recommendations."""
    default = "" if top is None else f" (default: {top})"
    command.add_argument(
        "--top",
        type=int,
        default=top,
        metavar="K",
        help=f"length of the lists of recommendations to measure{default}",
    )
    command.add_argument(
        "--threshold",
        type=float,
        metavar="RATING",
        help="rating from which on an item is relevant (default: every rated item is)",
    )


def add_table_output(command: argparse.ArgumentParser) -> None:
    """Add the option --output of commands that write a table."""
    command.add_argument(
        "-o", "--output", metavar="CSV", help="file to write (default: standard output)"
    )


def add_patience(command: argparse.ArgumentParser, ended: str) -> None:
    """Add the option --patience; `ended` names the training that ends."""
    command.add_argument(
        "--patience",
        type=int,
        default=3,
        metavar="EPOCHS",
        help=f"epochs without improvement after which {ended} ends (default: 3)",
    )


def add_time_column(command: argparse.ArgumentParser) -> None:
    """Add the option --time-column of commands that use the times of ratings."""
    command.add_argument(
        "--time-column",
        type=column_of,
        metavar="COLUMN",
        help="name of the column of times, or its position from 0 (default: found by its name)",
    )


def add_file_options(
    command: argparse.ArgumentParser, columns: Sequence[str] = COLUMNS, short: bool = True
) -> None:
    """Add the options that say how files of ratings are read.

    `columns` lists the roles of the columns to read. `short` allows --user for --user-column, which
    some commands need for an id.
    """
    group = command.add_argument_group("how files of ratings are read")
    for name in columns:
        flags = [f"--{name}", f"--{name}-column"] if short else [f"--{name}-column"]
        group.add_argument(
            *flags,
            dest=f"{name}_column",
            type=column_of,
            metavar="COLUMN",
            help=f"name of the {name} column, or its position from 0 (default: found by its name)",
        )
    group.add_argument(
        "--sep",
        type=separator_of,
        help=r"separator of the fields, such as , or :: or \t (default: found in the file)",
    )
    group.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line holds column names (default: found in the file)",
    )
    group.add_argument(
        "--on-bad-lines",
        choices=("raise", "skip"),
        default="raise",
        help="fail at a line that cannot be used, or leave it out with a warning (default: raise)",
    )


def add_parameters(command: argparse.ArgumentParser) -> None:
    """Add an option for each parameter of `FunkSVD`, which checks the values itself."""
    group = command.add_argument_group("model parameters")
    for name, default in default_parameters().items():
        flags = [f"--{name.replace('_', '-')}"]
        if name == "n_epochs":
            flags.append("--epochs")
        text = PARAMETER_HELP.get(name, "see FunkSVD")
        if name in PAIRS:
            text += "; X,X is one for users and one for items"
        group.add_argument(
            *flags,
            dest=name,
            default=default,
            help=f"{text} (default: {default})",
            **parsing_of(name, default),
        )


def parsing_of(name: str, default: Any) -> dict[str, Any]:
    """Return the arguments that tell argparse how to parse a parameter with this default."""
    if isinstance(default, bool) or name == "sets":
        return {"action": argparse.BooleanOptionalAction}
    if isinstance(default, str):
        return {"type": str, "metavar": "NAME"}
    if name == "rating_scale":
        return {"nargs": 2, "type": float, "metavar": ("LOW", "HIGH")}
    if name in PAIRS:
        return {"type": number_or_pair, "metavar": "X[,X]"}
    is_count = name in COUNTS_OR_NONE or isinstance(default, int)
    return {"type": number_of, "metavar": "N" if is_count else "X"}


def default_parameters() -> dict[str, Any]:
    """Return the parameters of `FunkSVD` that are options, with their defaults.

    The seed is fixed, so that a command run twice writes the same model.
    """
    defaults = {}
    for parameter in inspect.signature(FunkSVD).parameters.values():
        if parameter.name != "verbose":
            defaults[parameter.name] = parameter.default
    defaults["random_state"] = 0
    return defaults


def model_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters of the model among the options."""
    options = vars(args)
    parameters = {name: options[name] for name in default_parameters() if name in options}
    if parameters.get("rating_scale") is not None:
        parameters["rating_scale"] = tuple(parameters["rating_scale"])
    return parameters


def number_of(text: str) -> Any:
    """Return the number, truth value or None that a text stands for, or else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"None": None, "True": True, "False": False}.get(text, text)


def number_or_pair(text: str) -> Any:
    """Return the number of a text, or a tuple of the numbers between its commas."""
    if "," in text:
        return tuple(number_of(part) for part in text.split(","))
    return number_of(text)


def known_parameter(text: str, wrong: str) -> str:
    """Return the name of a parameter that a text stands for, such as "n-factors".

    Raises
    ------
    ValueError
        If there is none; `wrong` says which option takes which form, and the text it got.
    """
    name = text.strip().replace("-", "_")
    known = list(FunkSVD().get_params())
    if name in known:
        return name
    import difflib  # not needed to import funksvd.cli

    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"parameters are {', '.join(known)}"
    raise ValueError(f"{wrong}; {hint}")


def column_of(text: str) -> int | str:
    """Return the position or the name of a column."""
    return int(text) if text.isdecimal() else text


def separator_of(text: str) -> str:
    """Return a separator; a shell passes a tab most easily as backslash and t."""
    return text.replace("\\t", "\t")
