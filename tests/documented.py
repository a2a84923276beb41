"""The code blocks of README and of the pages of docs: how they are found, run and compared.

A block of `python` runs, in the order of its page and with the names of the blocks before it. Of a
block of `console` each line that starts with "funksvd " runs as a command. A block of `text` right
after one of them is the text that it prints: numbers may differ in the last digit shown, and "..."
stands for anything. A comment `<!-- not run: reason -->` before a block of Python keeps it from
running; it must compile all the same.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funksvd.cli.main import main as funksvd_command

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```([\w-]+)\n(.*?)^```$", flags=re.M | re.S)
HEADING = re.compile(r"^#+ (.+)$", flags=re.M)
NOT_RUN = re.compile(r"<!-- not run: (.+) -->\n\s*\Z")
SCRIPT = re.compile(r"\bpython (-m )?((?:benchmarks|tests)[/.][/.\w]*\w)")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
PIECES = re.compile(rf"(\.\.\.|{NUMBER.pattern})")


@dataclass(frozen=True)
class Block:
    """A block of code of a page: its language, its text, and where it stands.

    heading : the heading above it
    expected : the text that it prints, where the page shows it
    not_run : the reason why it does not run, or None
    span : first and last place of the text shown, in the page
    """

    language: str
    code: str
    heading: str
    expected: str | None
    not_run: str | None
    span: tuple[int, int]


def pages() -> list[Path]:
    """Return README and all pages of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of Python and of commands of a page."""
    found: list[Block] = []
    fences = list(FENCE.finditer(text))
    for number, fence in enumerate(fences):
        language, code = fence.groups()
        if language not in ("python", "console"):
            continue
        expected = None
        span = (fence.end(), fence.end())
        if number + 1 < len(fences):
            after = fences[number + 1]
            is_next = not text[fence.end() : after.start()].strip()
            if after[1] == "text" and is_next:
                expected = after[2]
                span = after.span(2)
        reason = NOT_RUN.search(text, 0, fence.start())
        above = [heading[1] for heading in HEADING.finditer(text, 0, fence.start())]
        heading = above[-1] if above else ""
        not_run = reason[1] if reason else None
        found.append(Block(language, code, heading, expected, not_run, span))
    return found


def modules_of(code: str) -> set[str]:
    """Return the packages that a block of Python imports."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def run_block(block: Block, scope: dict[str, Any], place: str) -> str:
    """Run a block with the names of `scope`; return the text that it prints."""
    printed = io.StringIO()
    code = compile(block.code, place, "exec") if block.language == "python" else None
    if block.not_run is not None:
        return ""
    with contextlib.redirect_stdout(printed):
        if code is not None:
            exec(code, scope)
        else:
            run_commands(block.code)
    return printed.getvalue()


def run_commands(code: str) -> None:
    """Run the lines of a block that are commands of funksvd; ValueError if one of them fails."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["funksvd"] or "&&" in words:
            continue
        exit_code = funksvd_command(words[1:])
        if exit_code:
            raise ValueError(f"exit code {exit_code}: {line}")


def scripts_of(code: str) -> Iterator[Path]:
    """Yield the paths of the scripts that the commands of a block start with Python."""
    for module, name in SCRIPT.findall(code):
        path = ROOT / (name.replace(".", "/") if module else name)
        yield path.with_suffix(".py") if module and not path.is_dir() else path


def agrees(printed: str, expected: str) -> bool:
    """Return whether a text is the expected one, but for the last digit of its numbers."""
    pattern = ""
    wanted = []
    for part in PIECES.split(expected.strip()):
        if part == "...":
            pattern += ".*"
        elif NUMBER.fullmatch(part):
            pattern += f"({NUMBER.pattern})"
            wanted.append(part)
        else:
            pattern += re.escape(part)
    found = re.fullmatch(pattern, printed.strip(), flags=re.S)
    return found is not None and all(map(is_close, found.groups(), wanted))


def is_close(printed: str, expected: str) -> bool:
    """Return whether a number is another one to within two units of the last digit shown.

    Whole numbers must be equal.
    """
    digits = len(expected.partition(".")[2])
    if not digits:
        return printed == expected
    return abs(float(printed) - float(expected)) <= 2.01 * 10.0**-digits


def with_outputs(text: str, printed: list[str]) -> str:
    """Return a page in which the texts shown are those that its blocks print now.

    A text with "..." stays as it is.
    """
    for block, output in reversed(list(zip(blocks_of(text), printed, strict=True))):
        if block.expected is not None and "..." not in block.expected:
            start, end = block.span
            text = text[:start] + output.rstrip() + "\n" + text[end:]
    return text
