"""Options that several commands share, and the table of model parameters."""

from __future__ import annotations

import argparse
import inspect

from funksvd.model import FunkSVD

COLUMNS = ("user", "item", "rating")


# Options and files
def model_parameters(args):
    """The parameters of the model among the options."""
    parameters = {
        name: value
        for name, value in vars(args).items()
        if name in FunkSVD().get_params() and name != "verbose"
    }
    if parameters.get("rating_scale") is not None:
        parameters["rating_scale"] = tuple(parameters["rating_scale"])
    return parameters


def number(text):
    """The number, truth value or None that a text stands for, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"None": None, "True": True, "False": False}.get(text, text)


_PARAMETER_HELP = {
    "n_factors": "factors of each user and item; None is 100, and 32 for gibbs",
    "n_epochs": "passes over the ratings, at most; featurewise, for each feature; None is 40, and 120 for gibbs",
    "solver": "update rule: sgd, adagrad_row, adagrad, adam or adamax; gibbs samples and has no step",
    "training": "joint, or featurewise: one feature after the other, as Funk did",
    "batch_size": "ratings a step; more than 1 makes mini-batches as Keras does",
    "shuffle": "mini-batches in another order each epoch",
    "learning_rate": "step size of the first epoch; None is the solver's own",
    "learning_rate_schedule": "constant, exponential, inverse_time or cosine",
    "learning_rate_decay": "how the step size shrinks from epoch to epoch",
    "momentum": "of sgd",
    "beta_1": "of adam and adamax: decay of the mean gradient",
    "beta_2": "of adam and adamax: decay of the gradient's size",
    "epsilon": "of the adaptive solvers: keeps what they divide by from zero",
    "initial_accumulator_value": "of adagrad and adagrad_row: first sum of squares",
    "l2": "L2 regularization of the factors",
    "l1": "L1 regularization of the factors",
    "l2_bias": "L2 regularization of the biases",
    "l1_bias": "L1 regularization of the biases",
    "reg_scale": "regularize with every rating, or every row once an epoch: rating or row",
    "non_negative": "keep the factors at 0 or above",
    "min_improvement": "featurewise: least gain in training RMSE for another pass with a feature",
    "biased": "learn a bias for each user and item",
    "center": "start from the mean of the ratings instead of 0",
    "average": "what gibbs keeps of its samples: low_rank (2 to 12 n_factors) or factors",
    "init_std": "standard deviation of the initial factors",
    "rating_scale": "lowest and highest rating; predictions are clipped to them",
    "n_jobs": "threads; -1 is all cores",
    "device": "where to train: cpu, cuda, or cuda:1, the second GPU",
    "schedule": "on a GPU: strata, repeatable, or hogwild, all blocks at once",
    "max_device_bytes": "memory of the GPU to use at most; ratings that do not fit are streamed",
    "dtype": "precision of the factors",
    "random_state": "seed: the same seed gives the same model",
}
_PAIRS = ("l2", "l1", "l2_bias", "l1_bias")


def add_command(added, name, run, summary, description, *examples):
    command = added.add_parser(
        name,
        help=summary,
        description=" ".join(description.split()),
        epilog="\n".join(f"Example: {example}" for example in examples),
        formatter_class=_Help,
        allow_abbrev=False,
    )
    command.set_defaults(run=run, json=False)
    return command


class _Help(argparse.RawDescriptionHelpFormatter):
    """The description as a paragraph, the examples one a line."""

    def _fill_text(self, text, width, indent):
        return "\n".join(
            super(argparse.RawDescriptionHelpFormatter, self)._fill_text(line, width, indent)
            for line in text.splitlines()
        )


def add_json(command, what="the result as JSON"):
    command.add_argument(
        "--json", action="store_true", help=f"print {what}, and messages on standard error"
    )


def add_titles(command):
    command.add_argument(
        "--titles", metavar="CSV", help="table with a column item_id or id and a column title"
    )


def add_model(command):
    command.add_argument("model", metavar="MODEL", help="file written by funksvd train")


def add_file_options(command, columns=COLUMNS, short=True):
    group = command.add_argument_group("how FILE is read")
    for name in columns:
        flags = [f"--{name}", f"--{name}-column"] if short else [f"--{name}-column"]
        group.add_argument(
            *flags,
            dest=f"{name}_column",
            type=_column,
            metavar="COLUMN",
            help=f"name of the {name} column, or its position from 0 (default: found by its name)",
        )
    group.add_argument(
        "--sep",
        type=_separator,
        help=r"what separates fields, such as , or :: or \t (default: found)",
    )
    group.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line holds column names (default: found)",
    )
    group.add_argument(
        "--on-bad-lines",
        choices=("raise", "skip"),
        default="raise",
        help="fail at a line that cannot be used, or leave it out with a warning (default: raise)",
    )


def add_parameters(command):
    """One option for each parameter of `FunkSVD`; their values are checked there."""
    group = command.add_argument_group("model parameters")
    for name, default in default_parameters().items():
        flags = [f"--{name.replace('_', '-')}"] + (["--epochs"] if name == "n_epochs" else [])
        about = _PARAMETER_HELP.get(name, "see FunkSVD")
        options = {"dest": name, "default": default, "help": f"{about} (default: {default})"}
        if isinstance(default, bool):
            options["action"] = argparse.BooleanOptionalAction
        elif name == "rating_scale":
            options.update(nargs=2, type=float, metavar=("LOW", "HIGH"))
        elif name in _PAIRS:
            options.update(
                type=_number_or_pair,
                metavar="X[,X]",
                help=f"{about}; two are users,items (default: {default})",
            )
        else:
            kind = str if isinstance(default, str) else number
            options.update(type=kind, metavar="N" if type(default) is int else "X")
        group.add_argument(*flags, **options)


def default_parameters():
    parameters = inspect.signature(FunkSVD).parameters.values()
    defaults = {
        parameter.name: parameter.default for parameter in parameters if parameter.name != "verbose"
    }
    return defaults | {"random_state": 0}


def _number_or_pair(text):
    return tuple(map(number, text.split(","))) if "," in text else number(text)


def _column(text):
    return int(text) if text.isdecimal() else text


def _separator(text):
    return text.replace("\\t", "\t")
