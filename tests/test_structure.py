"""The plan of the package: imports run down one line of floors, and nothing grows too dense.

``python tests/test_structure.py`` prints the figures and exits with the number of those that miss
their bound.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
import structure

# From the ground up. A module may import modules of its own floor and of the floors below.
FLOORS = (
    ("machine",),  # the computer: builds of the kernels, memory, threads, files written as a whole
    (
        "version",
        "checks",
        "boundary",
    ),  # the version; checks of arguments, and of what kernels trust
    ("schedules",),  # learning rates over the epochs
    ("hyper",),  # the hyper-parameters of a fit
    ("parameters",),  # the values that each of them may have
    ("ratings",),  # from raw triples to encoded ratings and the block grid
    ("weights", "_predict", "_formula"),  # the learned arrays and the prediction formula
    ("moods",),  # what the times of a user's ratings say
    ("features",),  # prior means of new rows of a sampled model
    ("posterior",),  # how sure a sampled model is
    ("metrics", "model_selection", "datasets"),  # what a user needs around a model
    ("callbacks",),  # what is called after each epoch
    ("engines",),  # from ratings and hyper-parameters to weights, an epoch at a time
    ("files",),  # models in files
    ("training",),  # the epoch loops, checkpoints, fold-in
    ("serving",),  # answers of a trained model
    ("card",),  # the card that a notebook shows for a model
    ("surprise", "model"),  # FunkSVD, which delegates to all of the above
    ("plots", "tuning", "comparing"),  # pictures, searches and comparisons of models
    ("cli",),  # the command line
    ("__init__", "__main__"),  # the public names, which nothing inside the package imports
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}

MAX_COLUMNS = 100
MAX_FILE_LINES = 400
MAX_KERNEL_LINES = 500
MAX_FUNCTION_LINES = 60


class Figure(NamedTuple):
    """A figure of the package, its bound, and the places that count against it."""

    name: str
    value: float
    holds: bool
    bound: str
    places: list[str]

    def __str__(self) -> str:
        verdict = "" if self.holds else "   MISSED"
        value = f"{self.value:.2f}".rstrip("0").rstrip(".")
        return f"{self.name:56}{value:>8}   ({self.bound}){verdict}"


def none_of(name: str, places: list[str]) -> Figure:
    """Return the figure of something that must not occur."""
    return Figure(name, len(places), not places, "must be 0", places)


def circles() -> Figure:
    return none_of("circles of imports", structure.circles(structure.of_runtime()))


def wrong_way_imports() -> Figure:
    return none_of("wrong-way imports", structure.upward(structure.of_runtime(), FLOOR_OF))


def imports_from_the_top() -> Figure:
    return none_of("imports from funksvd itself", structure.from_the_top())


def long_files() -> Figure:
    places = structure.long_files(structure.python_files(), MAX_FILE_LINES)
    places += structure.long_files(structure.kernel_files(), MAX_KERNEL_LINES)
    return none_of("files over 400 lines (kernels: 500)", places)


def long_functions() -> Figure:
    places = structure.long_functions(structure.python_files(), MAX_FUNCTION_LINES)
    return none_of("functions over 60 lines outside kernels", places)


def long_lines() -> Figure:
    paths = structure.python_files() + structure.kernel_files() + structure.surrounding_files()
    return none_of("lines over 100 columns", structure.long_lines(paths, MAX_COLUMNS))


def exempt_lines() -> Figure:
    places = structure.exempt_lines(structure.all_python_files())
    return none_of("fmt: skip and fmt: off", places)


def tuple_assignments() -> Figure:
    paths = structure.python_files()
    value = structure.tuples_per_thousand(paths)
    places = structure.tuple_assignments(paths)
    return Figure("tuple assignments in 1000 code lines", value, value < 5, "must be < 5", places)


def return_types() -> Figure:
    paths = structure.python_files()
    value = structure.typed_share(paths)
    places = structure.untyped_functions(paths)
    return Figure("functions with a return type, %", value, value >= 95, "must be >= 95", places)


def nodes_per_line() -> Figure:
    paths = structure.python_files()
    value = structure.nodes_per_line(paths)
    of_each = [(structure.nodes_per_line([path]), structure.shown(path)) for path in paths]
    places = [f"{path}: {nodes:.1f}" for nodes, path in sorted(of_each, reverse=True)[:5]]
    return Figure("syntax-tree nodes a code line", value, value <= 9, "must be <= 9", places)


FIGURES = (
    circles,
    wrong_way_imports,
    imports_from_the_top,
    long_files,
    long_functions,
    long_lines,
    exempt_lines,
    tuple_assignments,
    return_types,
    nodes_per_line,
)


@pytest.mark.parametrize("measure", FIGURES)
def test_figure(measure: Callable[[], Figure]) -> None:
    figure = measure()
    sys.stdout.write(f"\n{figure}\n")
    assert figure.holds, "\n".join([str(figure), *figure.places])


def test_every_module_has_a_floor() -> None:
    assert len(structure.modules()) > 80
    assert {structure.top_of(module) for module in structure.modules()} <= FLOOR_OF.keys()


def test_kernels_include_only_what_stands_below() -> None:
    if structure.kernel_sources() is None:
        pytest.skip("the sources of the kernels are in the source tree alone, which is not here")
    assert len(structure.kernel_imports()) > 10
    assert structure.upward(structure.kernel_imports(), FLOOR_OF) == []
    assert structure.circles(structure.kernel_imports()) == []


def test_a_circle_and_an_import_upwards_are_found() -> None:
    """The checks would see the faults that they are for."""
    imports = [
        structure.Import("ratings.ids", "model", 1),
        structure.Import("model", "ratings.ids", 2),
    ]
    assert structure.circles(imports) == ["model -> ratings.ids -> model"]
    assert structure.upward(imports, FLOOR_OF) == ["ratings.ids:1 imports model"]
    seen = {(one.source, one.target) for one in structure.python_imports()}
    assert ("weights", "_predict") in seen  # by the name of a kernel
    assert ("ratings.ids", "ratings._keys") in seen  # a compiled module
    assert ("engines.choose", "engines.gibbs") in seen  # within a function


def main() -> int:
    """Print all figures, with the places that count against those that are missed."""
    missed = 0
    for measure in FIGURES:
        figure = measure()
        missed += not figure.holds
        sys.stdout.write(f"{figure}\n")
        if not figure.holds:
            sys.stdout.writelines(f"    {place}\n" for place in figure.places[:20])
    only_types = [one for one in structure.python_imports() if one.only_types]
    sys.stdout.write(f"{'imports for type checkers alone':56}{len(only_types):>8}\n")
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
