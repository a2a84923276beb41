"""Plants the faults and says which were caught."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from .mutants import BrokenPlantError, Check, Kernel, failure
from .plants import PLANTS, Plant


def controls_of(plants: Sequence[Plant]) -> dict[Kernel, list[Check]]:
    """Return each kernel that is compiled, with all tests that its faults must be caught by."""
    checks: dict[Kernel, list[Check]] = {}
    for plant in plants:
        of_kernel = checks.setdefault(plant.kernel, [])
        if plant.check not in of_kernel:
            of_kernel.append(plant.check)
    return checks


def check_controls(pool: ThreadPoolExecutor, plants: Sequence[Plant]) -> None:
    """Run the tests on kernels compiled without a fault; SystemExit if one fails."""
    controls = controls_of(plants)
    runs = {
        pool.submit(failure, kernel, None, checks): kernel for kernel, checks in controls.items()
    }
    for done in as_completed(runs):
        output = done.result()
        if output is not None:
            raise SystemExit(f"{output}\n{runs[done].source} fails without any fault planted")


def missed_faults(pool: ThreadPoolExecutor, plants: Sequence[Plant]) -> Iterator[Plant]:
    """Plant each fault, write a line about it, and yield it if no test caught it."""
    runs = {}
    for plant in plants:
        runs[pool.submit(failure, plant.kernel, plant.change, [plant.check])] = plant
    for done in as_completed(runs):
        plant = runs[done]
        note = ""
        try:
            verdict = "MISSED" if done.result() is None else "caught"
        except BrokenPlantError as error:
            verdict = "BROKEN"
            note = f"{error}\n"
        sys.stdout.write(f"{verdict}  {plant.change.file}: {plant.fault}\n{note}")
        sys.stdout.flush()
        if verdict != "caught":
            yield plant


def chosen_plants(arguments: argparse.Namespace) -> list[Plant]:
    """Return the plants that the command line asks for."""
    plants = [plant for plant in PLANTS if arguments.only in f"{plant.change.file} {plant.fault}"]
    if arguments.sample and arguments.sample < len(plants):
        return random.Random(arguments.seed).sample(plants, arguments.sample)
    return plants


def main() -> int:
    """Run the program; return the number of faults that were missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted_faults")
    parser.add_argument("--sample", type=int, default=0, help="plant this many faults, by chance")
    parser.add_argument("--seed", type=int, default=0, help="which faults the sample takes")
    parser.add_argument("--only", default="", help="plant the faults whose file or words have this")
    plants = chosen_plants(parser.parse_args())
    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        check_controls(pool, plants)
        missed = len(list(missed_faults(pool, plants)))
    seconds = time.perf_counter() - start
    caught = len(plants) - missed
    sys.stdout.write(f"{caught} of {len(plants)} planted faults caught in {seconds:.0f} s\n")
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
