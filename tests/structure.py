"""The parts of the package: files, imports between modules, and how dense the lines are.

The Python files are those of the installed package. The sources of the kernels are not installed;
they are read from the source tree beside the tests, where there is one.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
KERNEL_SUFFIXES = (".pyx", ".pxi", ".cu", ".h")


def package_folder() -> Path:
    """Return the folder of the package that an import would find, else that of the source tree."""
    found = importlib.util.find_spec("funksvd")
    if found is None or not found.submodule_search_locations:
        return ROOT / "funksvd"
    return Path(found.submodule_search_locations[0]).resolve()


PACKAGE = package_folder()


# -------------------------------------------------------------------------------------------- files


def python_files() -> list[Path]:
    """Return the Python files of the installed package."""
    return sorted(PACKAGE.rglob("*.py"))


def kernel_sources() -> Path | None:
    """Return the package folder that holds the Cython sources, or None where there is none."""
    for folder in (PACKAGE, ROOT / "funksvd"):
        if next(folder.rglob("*.pyx"), None):
            return folder
    return None


def kernel_files() -> list[Path]:
    """Return the files of the kernels: those of the source tree, else those that are installed."""
    folder = kernel_sources() or PACKAGE
    return sorted(path for path in folder.rglob("*") if path.suffix in KERNEL_SUFFIXES)


def surrounding_files() -> list[Path]:
    """Return the Python and C++ files of tests and benchmarks, and setup.py."""
    found = [ROOT / "setup.py"] if (ROOT / "setup.py").exists() else []
    for folder in ("tests", "benchmarks"):
        for pattern in ("*.py", "*.cpp", "*.hpp"):
            found += sorted((ROOT / folder).rglob(pattern))
    return found


def shown(path: Path) -> str:
    """Return a path from the folder that holds the package or the tests."""
    for folder in (PACKAGE.parent, ROOT):
        if folder in path.parents:
            return path.relative_to(folder).as_posix()
    return path.as_posix()


def all_python_files() -> list[Path]:
    """Return the Python files of the package and of all that surrounds it."""
    around = [path for path in surrounding_files() if path.suffix == ".py"]
    return python_files() + around


@cache
def text_of(path: Path) -> str:
    """Return the text of a file."""
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file."""
    return ast.parse(text_of(path))


# ------------------------------------------------------------------------------------------ imports


class Import(NamedTuple):
    """One import: the importing module, the imported one, and whether only type checkers see it."""

    source: str
    target: str
    line: int
    only_types: bool = False

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def module_name(path: Path, package: Path) -> str:
    """Return the name of a module without the leading "funksvd."; that of the package is ""."""
    parts = path.relative_to(package).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


def top_of(module: str) -> str:
    """Return the wing of a module, or the name of a module that stands in no wing."""
    return module.partition(".")[0] or "__init__"


@cache
def modules() -> frozenset[str]:
    """Return the names of all modules, the kernels by the names of their sources."""
    names = {module_name(path, PACKAGE) for path in python_files()}
    for path in PACKAGE.rglob("_*"):
        if path.suffix in (".so", ".pyd", ".pyx"):
            stem = re.sub(r"_float(32|64)(_v\d)?$", "", path.name.partition(".")[0])
            names.add(".".join((*path.relative_to(PACKAGE).parts[:-1], stem)))
    return frozenset(names)


def targets_of(module: str, names: list[str]) -> list[str]:
    """Return the modules that `from funksvd.module import names` imports."""
    if not module:
        return [""]  # `from funksvd import name` runs funksvd/__init__.py, whatever the name is
    found = []
    for name in names:
        inner = f"{module}.{name}"
        found.append(inner if inner in modules() else module)
    return found


def type_blocks(tree: ast.Module) -> set[int]:
    """Return the lines inside of `if TYPE_CHECKING:`."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                lines.update(range(child.lineno, (child.end_lineno or child.lineno) + 1))
    return lines


def absolute(node: ast.ImportFrom, path: Path) -> str:
    """Return the full name of the module of a `from` import."""
    if not node.level:
        return node.module or ""
    parts = ("funksvd", *path.relative_to(PACKAGE).parts)
    base = parts[: len(parts) - node.level]
    return ".".join((*base, node.module) if node.module else base)


def named_modules(node: ast.AST, path: Path) -> list[str]:
    """Return the modules of this package that one node of a syntax tree imports."""
    if isinstance(node, ast.Import):
        full = [alias.name for alias in node.names]
        return [name.partition(".")[2] for name in full if name.partition(".")[0] == "funksvd"]
    if isinstance(node, ast.ImportFrom):
        top, _, module = absolute(node, path).partition(".")
        if top == "funksvd":
            return targets_of(module, [alias.name for alias in node.names])
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "kernels" and node.args:
        source = node.args[0]  # kernels("engines._sgd", dtype) loads a kernel
        if isinstance(source, ast.Constant) and isinstance(source.value, str):
            return [source.value]
    return []


@cache
def python_imports() -> tuple[Import, ...]:
    """Return all imports between modules of the package, those within functions too."""
    found = []
    for path in python_files():
        source = module_name(path, PACKAGE)
        lines_of_types = type_blocks(tree_of(path))
        for node in ast.walk(tree_of(path)):
            for target in named_modules(node, path):
                line = getattr(node, "lineno", 0)
                found.append(Import(source, target, line, line in lines_of_types))
    return tuple(found)


@cache
def kernel_imports() -> tuple[Import, ...]:
    """Return what the Cython files include, and the headers that they and other headers take."""
    folder = kernel_sources()
    if folder is None:
        return ()
    pattern = re.compile(r'(?:include|cdef extern from) "([^"]+)"')
    found = []
    for path in folder.rglob("*"):
        if path.suffix not in (".pyx", ".pxi", ".h"):
            continue
        for line, text in enumerate(text_of(path).splitlines(), 1):
            match = pattern.search(text)
            if match is None:
                continue
            target = (path.parent / match[1]).resolve()
            found.append(Import(module_name(path, folder), module_name(target, folder), line))
    return tuple(found)


def circles(imports: Iterable[Import]) -> list[str]:
    """Return the circles of imports, each as a chain of modules that ends where it starts."""
    below: dict[str, list[str]] = {}
    for one in imports:
        if one.source != one.target:
            below.setdefault(one.source, []).append(one.target)
    found: list[str] = []
    done: set[str] = set()

    def visit(module: str, chain: list[str]) -> None:
        if module in chain:
            found.append(" -> ".join([*chain[chain.index(module) :], module]))
            return
        if module in done:
            return
        for target in below.get(module, []):
            visit(target, [*chain, module])
        done.add(module)

    for module in sorted(below):
        visit(module, [])
    return found


def upward(imports: Iterable[Import], floors: Mapping[str, int]) -> list[str]:
    """Return the imports of a module that stands on a higher floor, or on none.

    `floors` gives the floor of each wing, counted from the ground.
    """
    found = []
    for one in imports:
        source = floors.get(top_of(one.source), -1)
        target = floors.get(top_of(one.target), len(floors))
        if target > source:
            found.append(str(one))
    return found


def from_the_top() -> list[str]:
    """Return the imports of names from `funksvd` itself inside the package."""
    return [str(one) for one in python_imports() if one.target == ""]


def of_runtime() -> list[Import]:
    """Return all imports that happen when the package runs or is built."""
    imports = [*python_imports(), *kernel_imports()]
    return [one for one in imports if not one.only_types]


# -------------------------------------------------------------------------------------------- lines


def documentation_lines(tree: ast.Module) -> set[int]:
    """Return the lines of all docstrings."""
    lines: set[int] = set()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    for node in ast.walk(tree):
        if not isinstance(node, kinds) or not node.body:
            continue
        first = node.body[0]
        if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
            continue
        if isinstance(first.value.value, str):
            lines.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def code_lines(path: Path) -> int:
    """Return the number of lines that hold code: no blank line, no comment, no docstring."""
    silent = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text_of(path)).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documentation_lines(tree_of(path)))


def total_code_lines(paths: list[Path]) -> int:
    """Return the number of code lines of all these files."""
    return sum(code_lines(path) for path in paths)


def functions_of(path: Path) -> Iterator[ast.FunctionDef]:
    """Yield the functions of a file, methods and inner functions too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            yield node


def nodes_per_line(paths: list[Path]) -> float:
    """Return how many nodes of the syntax tree stand on a code line, on the average."""
    nodes = 0
    for path in paths:
        nodes += sum(1 for _ in ast.walk(tree_of(path)))
    return nodes / max(1, total_code_lines(paths))


def tuple_assignments(paths: list[Path]) -> list[str]:
    """Return the assignments with a tuple on both sides; swaps count too."""
    found = []
    for path in paths:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
                continue
            if isinstance(node.targets[0], ast.Tuple):
                found.append(f"{shown(path)}:{node.lineno}")
    return found


def tuples_per_thousand(paths: list[Path]) -> float:
    """Return how many tuple assignments stand in 1000 code lines."""
    return 1000 * len(tuple_assignments(paths)) / total_code_lines(paths)


def untyped_functions(paths: list[Path]) -> list[str]:
    """Return the functions without a return type."""
    found = []
    for path in paths:
        for function in functions_of(path):
            if function.returns is None:
                found.append(f"{shown(path)}:{function.lineno} {function.name}")
    return found


def typed_share(paths: list[Path]) -> float:
    """Return the share of functions with a return type, in percent."""
    total = sum(1 for path in paths for _ in functions_of(path))
    return 100 - 100 * len(untyped_functions(paths)) / total


def long_functions(paths: list[Path], most: int) -> list[str]:
    """Return the functions of more than `most` lines."""
    found = []
    for path in paths:
        for function in functions_of(path):
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            if length > most:
                found.append(f"{shown(path)}:{function.lineno} {function.name}: {length} lines")
    return found


def long_files(paths: list[Path], most: int) -> list[str]:
    """Return the files of more than `most` lines."""
    found = []
    for path in paths:
        length = len(text_of(path).splitlines())
        if length > most:
            found.append(f"{shown(path)}: {length} lines")
    return found


def long_lines(paths: list[Path], most: int) -> list[str]:
    """Return the lines of more than `most` columns."""
    found = []
    for path in paths:
        for number, line in enumerate(text_of(path).splitlines(), 1):
            if len(line) > most:
                found.append(f"{shown(path)}:{number}")
    return found


def exempt_lines(paths: list[Path]) -> list[str]:
    """Return the comments that keep lines from the formatter."""
    found = []
    for path in paths:
        for token in tokenize.generate_tokens(io.StringIO(text_of(path)).readline):
            is_comment = token.type == tokenize.COMMENT
            if is_comment and re.search(r"fmt:\s*(skip|off)", token.string):
                found.append(f"{shown(path)}:{token.start[0]}")
    return found
