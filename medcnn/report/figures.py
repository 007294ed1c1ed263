"""Each figure of a report as an SVG file, and its numbers as CSV."""

from collections.abc import Sequence
from pathlib import Path

from medcnn.report.blocks import Figure, walk_figures
from medcnn.report.comparison_sections import comparison_sections
from medcnn.report.contest import Contest
from medcnn.report.facts import ComparisonFacts, RunFacts
from medcnn.report.html import report_sections
from medcnn.report.reading import read_facts


def write_figures(facts: RunFacts | ComparisonFacts, folder: Path) -> list[Path]:
    """Write `ID.svg` (stands alone, in the light colours) and `ID.csv` for each figure of the report; returns the files.

    folder: made when absent. The same facts give the same bytes.
    """
    sections = comparison_sections(Contest(facts)) if isinstance(facts, ComparisonFacts) else report_sections(read_facts(facts))
    folder.mkdir(parents=True, exist_ok=True)
    return [path for figure in _named(walk_figures(sections)) for path in _write(figure[0], figure[1], folder)]


def _named(figures: Sequence[Figure]) -> list[tuple[str, Figure]]:
    """Each figure once, with a file name of its own."""
    named: dict[str, Figure] = {}
    for figure in figures:
        named.setdefault(figure.id, figure)
    return list(named.items())


def _write(name: str, figure: Figure, folder: Path) -> list[Path]:
    drawing, numbers = folder / f"{name}.svg", folder / f"{name}.csv"
    drawing.write_text(str(figure.svg) + "\n", encoding="utf-8")
    figure.numbers.to_csv(numbers, index=False)
    return [drawing, numbers]
