"""Write the tables of benchmarks/results/*.json into README and docs, and draw the picture.

    python benchmarks/tables.py

A table stands between two comments of a page:

    <!-- table: NAME, PART, PART; COLUMN, COLUMN -->
    <!-- end of table -->

NAME is that of the JSON, each PART one of its tables (all by default), and the columns are those to
show (all by default). `save.py` makes the JSON from a run of a benchmark.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
PAGES = [ROOT / "README.md", ROOT / "docs" / "benchmarks.md"]
PICTURE = ROOT / "docs" / "_static" / "error-and-seconds.svg"
PICTURED = "bayes"  # the results that the picture shows
PICTURED_SETS = ("ml-100k", "goodbooks")
MARKED = re.compile(r"(<!-- table: ([^;]*?)(?:; (.*?))? -->\n).*?(<!-- end of table -->)", re.S)
# Word of a run's name -> colour of its points; the markers tell runs of one colour apart.
COLOURS = {"gibbs": "#0b7a75", "Surprise": "#b5651d", "LIBMF": "#7a3b9a", "myFM": "#8a8a8a"}
OTHER_COLOUR = "#2f6fb0"
MARKERS = "osD^vPX"


def results(name: str) -> dict[str, Any] | None:
    """Return the results of a benchmark, or None where it has not run."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def row_of(cells: list[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |"


def columns_of(header: list[str], wanted: list[str]) -> list[int]:
    """Return the places of the wanted columns; of two columns with one name, one after the other.

    Raises
    ------
    ValueError
        If there is no such column.
    """
    if not wanted:
        return list(range(len(header)))
    places: list[int] = []
    for name in wanted:
        free = [place for place, own in enumerate(header) if own == name and place not in places]
        if not free:
            raise ValueError(f"no column {name!r} among {', '.join(header)}")
        places.append(free[0])
    return places


def table_of(name: str, parts: list[str], wanted: list[str]) -> str:
    """Return the Markdown of one or several tables of a benchmark, and the line that dates it."""
    found = results(name)
    if found is None:
        return f"*No results yet: `python benchmarks/save.py bench_{name}.py` makes them.*\n"
    parts = parts or list(found["tables"])
    lines: list[str] = []
    for part in parts:
        table = found["tables"][part]
        header = table["header"]
        if part == parts[0] or header != found["tables"][parts[0]]["header"]:
            shown = columns_of(header, wanted)
            names = [header[place] for place in shown]
            if lines:
                lines.append("")
            lines += [row_of(["ratings", *names]), "|---" * (len(names) + 1) + "|"]
        for number, cells in enumerate(table["rows"]):
            label = part if number == 0 else ""
            lines.append(row_of([label, *(cells[place] for place in shown)]))
    command = f"python benchmarks/{found['command']}"
    dated = f"Printed by `{command}` on {found['date']}: {found['machine']}; {found['versions']}."
    return "\n".join(["", *lines, "", dated, ""])


def with_tables(text: str) -> str:
    """Return a page with the tables of the results as they are now."""

    def replaced(match: re.Match[str]) -> str:
        start, names, columns, end = match.groups()
        name, *parts = [part.strip() for part in names.split(",")]
        wanted = [column.strip() for column in columns.split(",")] if columns else []
        return f"{start}{table_of(name, parts, wanted)}{end}"

    return MARKED.sub(replaced, text)


def digest() -> str:
    """Return the digest of the results that the picture shows; the picture carries it."""
    found = results(PICTURED)
    shown = {} if found is None else {name: found["tables"].get(name) for name in PICTURED_SETS}
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def colour_of(run: str) -> str:
    """Return the colour of a run's points."""
    for word, colour in COLOURS.items():
        if word in run:
            return colour
    return OTHER_COLOUR


def styles_of(runs: list[str]) -> dict[str, tuple[str, str]]:
    """Return (colour, marker) of each run, no two alike."""
    styles: dict[str, tuple[str, str]] = {}
    for run in runs:
        colour = colour_of(run)
        taken = sum(1 for other, _ in styles.values() if other == colour)
        styles[run] = (colour, MARKERS[taken % len(MARKERS)])
    return styles


def points_of(table: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return (seconds, RMSE) of each run of a table; runs that refine another one are left out."""
    place = {column: number for number, column in enumerate(table["header"])}
    points = {}
    for row in table["rows"]:
        if not row[0].startswith(" "):
            seconds = float(row[place["seconds"]].replace(",", ""))
            points[row[0]] = (seconds, float(row[place["RMSE"]]))
    return points


def draw() -> None:
    """Draw the picture of README: RMSE against seconds on two real sets of ratings."""
    found = results(PICTURED)
    if found is None:
        return
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "funksvd"
    matplotlib.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    points = {name: points_of(found["tables"][name]) for name in PICTURED_SETS}
    styles = styles_of(list(points[PICTURED_SETS[0]]))
    for axes, name in zip(figure.subplots(1, 2), PICTURED_SETS, strict=True):
        for run, (seconds, error) in points[name].items():
            colour, marker = styles.get(run, (OTHER_COLOUR, "*"))
            axes.plot(seconds, error, marker, color=colour, label=run, markersize=7)
        axes.set(xscale="log", xlabel="seconds of a fit (log scale)", title=name)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.margins(0.08)
    figure.axes[0].set_ylabel("RMSE on held-out ratings")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None, "Description": digest()})


def main() -> None:
    """Write all tables and the picture."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(with_tables(text), encoding="utf-8")
    if digest() not in (PICTURE.read_text(encoding="utf-8") if PICTURE.exists() else ""):
        draw()


if __name__ == "__main__":
    main()
