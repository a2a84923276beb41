"""The faults of tests/planted_faults still fit the kernels and the tests that they name."""

from __future__ import annotations

import ast

import pytest
from planted_faults.mutants import SOURCE, TESTS
from planted_faults.plants import PLANTS


def test_every_fault_changes_a_text_that_is_there() -> None:
    if not SOURCE.is_dir():
        pytest.skip("the sources of the kernels are in the source tree alone, which is not here")
    for plant in PLANTS:
        file, before, after = plant.change
        text = (SOURCE / file).read_text(encoding="utf-8")
        assert before in text, f"{file} no longer has {before!r}"
        assert before != after
        assert (SOURCE / plant.kernel.path).exists(), plant.kernel.source


def test_every_fault_names_a_test_that_is_there() -> None:
    for plant in PLANTS:
        path, _, name = plant.check.node.partition("::")
        tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in functions, plant.check.node


def test_every_kernel_has_faults() -> None:
    assert len(PLANTS) >= 20
    sources = {plant.kernel.source for plant in PLANTS}
    kernels = {"_predict", "engines._sgd", "engines._minibatch", "engines._featurewise"}
    kernels |= {
        "engines._gibbs",
        "engines._moods",
        "engines._low_rank",
        "serving._top",
        "training._ridge",
    }
    kernels |= {"engines._gibbs", "engines._low_rank", "serving._top", "training._ridge"}
    kernels |= {"engines._exposure"}
    kernels |= {"ratings._grid", "ratings._keys", "ratings._texts"}
    assert sources == kernels
    assert len({(plant.change, plant.kernel) for plant in PLANTS}) == len(PLANTS)
