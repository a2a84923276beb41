"""README is one page; its code runs in test_docs.py."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PEERS = ("surprise", "lightfm", "implicit", "keras", "scikit-learn")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the script that writes the tables of the benchmarks into the pages."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "tables", raising=False)
    import tables

    return tables


def test_readme_is_one_page() -> None:
    assert len(README.splitlines()) <= 130


def test_readme_has_two_commands() -> None:
    section = README.partition("## Set up")[2].partition("\n## ")[0]
    commands = re.findall(r"^    (\S.*)$", section, flags=re.M)
    assert [command.split()[-2:] for command in commands] == [
        ["funksvd", "demo"],
        ["pytest", "tests"],
    ]


@pytest.mark.parametrize("peer", PEERS)
def test_readme_links_a_page_for_every_peer(peer: str) -> None:
    assert f"docs/coming-from/{peer}.md" in README


def test_readme_shows_at_most_twelve_lines_with_their_output() -> None:
    code, output = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.S).groups()
    assert len([line for line in code.splitlines() if line]) <= 12
    assert output.startswith("RMSE 0.")


@pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md"])
def test_tables_are_those_of_the_results(tables: Any, name: str) -> None:
    """`python benchmarks/tables.py` writes the tables where this fails."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert tables.with_tables(text) == text


def test_the_picture_is_that_of_the_results(tables: Any) -> None:
    assert tables.digest() in tables.PICTURE.read_text(encoding="utf-8")


def test_a_changed_number_would_be_seen(
    tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {
        "command": "bench_some.py",
        "date": "2026-01-01",
        "machine": "a machine",
        "versions": "funksvd 0",
        "tables": {"set": {"header": ["model", "s", "s"], "rows": [["a", "1", "2"]]}},
    }
    (tmp_path / "some.json").write_text(json.dumps(made), encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    page = "<!-- table: some; model, s, s -->\nold\n<!-- end of table -->\n"
    written = tables.with_tables(page)
    assert "| set | a | 1 | 2 |" in written
    assert "Printed by `python benchmarks/bench_some.py` on 2026-01-01" in written
    assert tables.with_tables(written) == written
    assert tables.with_tables(written.replace("| 1 |", "| 3 |")) == written


def test_a_benchmark_is_saved_without_paths_of_the_machine(
    tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bench_tiny.py"
    script.write_text(
        "from common import print_header, print_table\n"
        "print_header()\n"
        "print_table(['model', 's'], [['a', 1.5]], 'set')\n"
    )
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(tables, "main", lambda: None)
    monkeypatch.setattr(sys, "argv", ["save.py", str(script), "--data", "/a/folder"])
    importlib.import_module("save").main()
    saved = json.loads((tmp_path / "results" / "tiny.json").read_text(encoding="utf-8"))
    assert saved["command"].endswith(" --data DIR")
    assert saved["tables"] == {"set": {"header": ["model", "s"], "rows": [["a", "1.50"]]}}
    assert {"machine", "versions", "date"} <= saved.keys()
