"""Directives of the site: examples that run, parameters by solver, the command line."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from numpydoc.docscrape import NumpyDocString
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from funksvd import FunkSVD, Ratings
from funksvd.cli.main import build_parser
from funksvd.datasets import make_ratings
from funksvd.hyper import RATES
from funksvd.parameters import NEEDS

EXAMPLES = Path(__file__).parents[1] / "tests" / "examples"
SEPARATOR = "\x1e"  # printed between the outputs of two cells
CELL = re.compile(r"^# %% ?(.*)$", flags=re.M)


# ----------------------------------------------------------------------------------------- examples


def prepare_files(folder: Path) -> None:
    """Write ratings.csv and titles.csv: MovieLens 100k from $FUNKSVD_DATA, else made-up ones."""
    movielens = Path(os.environ.get("FUNKSVD_DATA", "")) / "ml-100k"
    if (movielens / "u.data").exists():
        ratings = Ratings.read(movielens / "u.data")
        titles = (movielens / "titles.csv").read_text(encoding="utf-8")
    else:
        ratings = Ratings.from_arrays(*make_ratings(900, 600, 60_000)[:3])
        lines = [f"{item},Film {item}" for item in ratings.item_ids.tolist()]
        titles = "\n".join(["item_id,title", *lines]) + "\n"
    users = ratings.user_ids[ratings.users].tolist()
    items = ratings.item_ids[ratings.items].tolist()
    lines = ["user,item,rating"]
    for user, item, value in zip(users, items, ratings.values.tolist(), strict=True):
        lines.append(f"{user},{item},{value:.1f}")
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "titles.csv").write_text(titles, encoding="utf-8")


def output_of(script: str, arguments: list[str]) -> str:
    """Run a script in a folder of its own that holds two files; return the text it prints."""
    with tempfile.TemporaryDirectory() as name:
        prepare_files(Path(name))
        Path(name, "example.py").write_text(script, encoding="utf-8")
        command = [sys.executable, "example.py", *arguments]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"an example failed: {done.stderr}")
    return done.stdout


def cells_of(source: str) -> Iterator[tuple[str, str]]:
    """Yield (text, code) of each cell of a script; a line "# %% text" starts a cell.

    Comment lines that follow the start of a cell go on with its text.
    """
    parts = CELL.split(source)[1:]
    for text, body in zip(parts[::2], parts[1::2], strict=True):
        lines = body.strip("\n").splitlines()
        while lines and lines[0].startswith("# "):
            text += " " + lines.pop(0)[2:]
        yield text.strip(), "\n".join(lines).strip("\n")


class Example(SphinxDirective):
    """Show a script of tests/examples and the output that it prints.

    The first argument is the name of the script, the others are its arguments: ratings.csv and
    titles.csv are in the folder where it runs. With the option `cells` each cell is followed by its
    own output, and the option `silent` shows no output.
    """

    required_arguments = 1
    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {"cells": directives.flag, "silent": directives.flag}

    def run(self) -> list[nodes.Node]:
        name, *arguments = " ".join(self.arguments).split()
        script = EXAMPLES / name
        self.env.note_dependency(str(script))
        source = script.read_text(encoding="utf-8")
        if "cells" in self.options:
            return self.parse_text_to_nodes(celled(source, arguments))
        text = block("python", source)
        if "silent" not in self.options:
            text += f"\nIt prints:\n\n{block('text', output_of(source, arguments))}"
        return self.parse_text_to_nodes(text)


def celled(source: str, arguments: list[str]) -> str:
    """Return the Markdown of a script's cells, each followed by its output."""
    cells = list(cells_of(source))
    joined = f"\nprint({SEPARATOR!r})\n".join(code for _, code in cells)
    outputs = output_of(joined, arguments).split(f"{SEPARATOR}\n")
    parts = []
    for (text, code), output in zip(cells, outputs, strict=True):
        parts.append(f"{text}\n\n{block('python', code)}")
        if output:
            parts.append(block("text", output))
    return "\n".join(parts)


def block(language: str, text: str) -> str:
    """Return a Markdown block of code."""
    return f"```{language}\n{text.rstrip()}\n```\n"


# --------------------------------------------------------------------------------------- parameters


def descriptions() -> dict[str, tuple[str, str]]:
    """Return (type, description) of every parameter from the docstring of `FunkSVD`."""
    found = {}
    for parameter in NumpyDocString(inspect.cleandoc(FunkSVD.__doc__ or ""))["Parameters"]:
        text = " ".join(parameter.desc).strip()
        for name in parameter.name.split(","):
            found[name.strip()] = (parameter.type, text)
    return found


def solvers_of(name: str) -> tuple[str, ...]:
    """Return the solvers beside which a parameter means something."""
    conditions = [need for need in NEEDS.get(name, []) if need.other == "solver"]
    return tuple(
        solver for solver in RATES if all(condition.test(solver) for condition in conditions)
    )


def group_title(solvers: tuple[str, ...]) -> str:
    """Return the heading of the parameters that mean something beside these solvers."""
    if set(solvers) == set(RATES):
        return "Every solver"
    missing = [solver for solver in RATES if solver not in solvers]
    if len(missing) == 1:
        return f'Every solver but "{missing[0]}"'
    return "Only " + ", ".join(f'"{solver}"' for solver in solvers)


def other_needs(name: str) -> str:
    """Return the other conditions of a parameter in words."""
    words = [need.words for need in NEEDS.get(name, []) if need.other != "solver"]
    return f" Needs: {'; '.join(words)}." if words else ""


class Parameters(SphinxDirective):
    """The parameters of `FunkSVD`, grouped by the solvers beside which they mean something."""

    def run(self) -> list[nodes.Node]:
        groups: dict[tuple[str, ...], list[str]] = {}
        described = descriptions()
        for name, parameter in inspect.signature(FunkSVD).parameters.items():
            kind, text = described[name]
            term = f"`{name}={parameter.default!r}`"
            entry = f"{term}\n: *{kind}.* {text}{other_needs(name)}\n"
            groups.setdefault(solvers_of(name), []).append(entry)
        parts = []
        for solvers in sorted(groups, key=lambda solvers: -len(solvers)):
            parts += [f"## {group_title(solvers)}\n", *groups[solvers]]
        return self.parse_text_to_nodes("\n".join(parts), allow_section_headings=True)


def table_row(cells: list[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# ------------------------------------------------------------------------------------- command line


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command by its name."""
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise RuntimeError("the parser of funksvd has no commands")


def written(action: argparse.Action) -> str:
    """Return an argument as it is typed."""
    value = action.metavar if action.metavar is not None else action.dest.upper()
    if action.choices is not None and action.metavar is None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if isinstance(value, tuple):
        value = " ".join(value)
    if not action.option_strings:
        return f"`{value}`"
    takes_none = action.nargs == 0
    return ", ".join(
        f"`{option}`" if takes_none else f"`{option} {value}`" for option in action.option_strings
    )


def help_of(action: argparse.Action) -> str:
    """Return the help text of an argument, ready for Markdown."""
    text = (action.help or "").replace("%%", "%")
    return re.sub(r"([*_<>\\$])", r"\\\1", text)


def markdown_of(name: str, parser: argparse.ArgumentParser) -> str:
    """Return the reference of one command."""
    description = (parser.description or "").replace("\n", "\n\n")
    parts = [f"## funksvd {name}", help_text(description)]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if actions:
            rows = [table_row([written(action), help_of(action)]) for action in actions]
            head = table_row([group.title or "options", ""])
            parts.append("\n".join([head, "|---|---|", *rows]))
    examples = re.sub(r"^Example: ", "", parser.epilog or "", flags=re.M)
    if examples:
        parts.append(block("console", examples))
    return "\n\n".join(parts)


def help_text(text: str) -> str:
    """Return a description of argparse, ready for Markdown."""
    return re.sub(r"([*_<>\\$])", r"\\\1", text)


class Commands(SphinxDirective):
    """Every command with its arguments, from the parser of the command line."""

    def run(self) -> list[nodes.Node]:
        parts = [markdown_of(name, parser) for name, parser in subcommands().items()]
        return self.parse_text_to_nodes("\n\n".join(parts), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives to Sphinx."""
    app.add_directive("example", Example)
    app.add_directive("parameters", Parameters)
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
