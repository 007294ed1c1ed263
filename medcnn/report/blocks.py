"""What a page is made of. Sections are lists of blocks; the templates know how each block looks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd
from markupsafe import Markup


@dataclass(frozen=True)
class Text:
    """A paragraph. tone: plain, lead, note (small), caution (boxed), author (what the author must state)."""

    text: str
    tone: str = "plain"
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Cell:
    """A table cell with a second, quieter line: an estimate over its interval."""

    text: str
    small: str = ""


Row = list[str | Cell]


@dataclass(frozen=True)
class Table:
    """A table. The first column holds the row's name; `numeric` names the columns (by index) that are aligned right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    note: str = ""
    numeric: Sequence[int] = ()
    strong_rows: Sequence[int] = ()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Figure:
    """A chart: its id (also the file name of its SVG and CSV), title, drawing, caption and the numbers it shows.

    span: 1 shares a row with others, 2 takes the whole row.
    """

    id: str
    title: str
    svg: Markup
    caption: str = ""
    numbers: pd.DataFrame = field(default_factory=pd.DataFrame)
    span: int = 1
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Figures:
    """Charts side by side where there is room; `beside`: blocks in the place of the second chart."""

    figures: Sequence[Figure]
    beside: Sequence[Any] = ()
    kind: ClassVar[str] = "figures"


@dataclass(frozen=True)
class Panels:
    """One panel per label; a script shows one at a time, paper shows all."""

    names: Sequence[str]
    panels: Sequence[Sequence[Any]]
    kind: ClassVar[str] = "panels"


@dataclass(frozen=True)
class Facts:
    """Pairs of a term and what holds for it."""

    pairs: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Picture:
    """One image of a gallery; src and second (the same image with where the model looked) are data URIs."""

    title: str
    lines: Sequence[str]
    src: str
    second: str = ""


@dataclass(frozen=True)
class Gallery:
    """Thumbnails; second_name: what the second picture of each shows."""

    pictures: Sequence[Picture]
    second_name: str = ""
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Slider:
    """The threshold slider of one label. data: what the script reads (thresholds, tp, fp, n_positive, n_negative, chosen)."""

    label: str
    data: dict[str, Any]
    start: dict[str, str]
    figures: Sequence[Figure] = ()
    note: str = ""
    kind: ClassVar[str] = "slider"


@dataclass(frozen=True)
class Code:
    """Text as it stands in a file."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Details:
    """Blocks behind a summary line; open on paper."""

    summary: str
    blocks: Sequence[Any]
    kind: ClassVar[str] = "details"


@dataclass(frozen=True)
class Editable:
    """A paragraph to copy into a manuscript."""

    title: str
    text: str
    kind: ClassVar[str] = "editable"


@dataclass(frozen=True)
class ChecklistRow:
    """One item of a reporting checklist. status: stated, author (must state it) or absent (not part of this run)."""

    topic: str
    text: str
    sources: str
    status: str
    section: str


@dataclass(frozen=True)
class Checklist:
    """A reporting checklist, by topic."""

    rows: Sequence[ChecklistRow]
    kind: ClassVar[str] = "checklist"


@dataclass(frozen=True)
class Section:
    """A numbered part of the report."""

    id: str
    title: str
    blocks: Sequence[Any]
    lead: str = ""


def walk_figures(blocks: Sequence[Any]) -> list[Figure]:
    """Every figure within blocks, in the order of the page."""
    found: list[Figure] = []
    for block in blocks:
        if isinstance(block, Figure):
            found.append(block)
        elif isinstance(block, Figures | Slider):
            found += block.figures
        elif isinstance(block, Panels):
            for panel in block.panels:
                found += walk_figures(panel)
        elif isinstance(block, Details | Section):
            found += walk_figures(block.blocks)
    return found
