"""Drawings that are not curves: the flow of patients and images, the forest plot, cost against quality."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np
import pandas as pd
from markupsafe import Markup

from medcnn.report.blocks import Figure
from medcnn.report.numbers import NOT_ESTIMABLE, compact, count, fixed, is_known
from medcnn.report.svg import COLOURS, GRID, INK, MUTED, Axis, Canvas, frame, nice_axis


@dataclass(frozen=True)
class Box:
    """A box of the flow diagram: a bold first line and further lines."""

    title: str
    lines: Sequence[str] = ()


def flow_chart(steps: Sequence[tuple[Box, Box | None]], parts: Sequence[Box]) -> Figure:
    """Boxes from top to bottom, what left at the right, the parts side by side at the end."""
    width, left_width, gap = 640, 290, 36
    lines: list[str] = []
    y = 4.0
    for number, (box, aside) in enumerate(steps):
        height = max(_height(box), _height(aside) if aside else 0)
        lines.append(_box(box, 4, y, left_width, _height(box)))
        if aside:
            right = left_width + gap + 4
            lines.append(_box(aside, right, y, width - right - 4, _height(aside), quiet=True))
            at = y + 22
            lines.append(_arrow(left_width + 4, at, right - 1, at))
        last = number == len(steps) - 1
        if not last:
            lines.append(_arrow(24, y + _height(box), 24, y + height + 25))
        y += height + (26 if not last or parts else 4)
    if parts:
        start = y - 26 - (max(_height(steps[-1][0]), _height(steps[-1][1]) if steps[-1][1] else 0) - _height(steps[-1][0]))
        lines.append(_branches(parts, start, y, width))
        y += max(_height(box) for box in parts) + 4
    rows = [{"box": box.title, "text": "; ".join(box.lines)} for pair in steps for box in pair if box] + [
        {"box": b.title, "text": "; ".join(b.lines)} for b in parts
    ]
    svg = frame(lines, (0, 0, width, y), "Flow of files, images and patients", "; ".join(row["box"] for row in rows))
    return Figure("flow", "Flow of files, images and patients", svg, "", pd.DataFrame(rows), span=2)


def _branches(parts: Sequence[Box], start: float, y: float, width: float) -> str:
    each = (width - 8 - 10 * (len(parts) - 1)) / len(parts)
    lines = []
    for number, box in enumerate(parts):
        x = 4 + number * (each + 10)
        at = 24.0 if number == 0 else x + each / 2
        if number:
            lines.append(f'<line class="axis" x1="{24}" x2="{at:.1f}" y1="{start + 13:.1f}" y2="{start + 13:.1f}" stroke="{MUTED}"/>')
        lines.append(_arrow(at, start if number == 0 else start + 13, at, y - 1))
        lines.append(_box(box, x, y, each, max(_height(other) for other in parts)))
    return "".join(lines)


def _height(box: Box) -> float:
    return 28 + 17 * len(box.lines) + (6 if box.lines else 4)


def _box(box: Box, x: float, y: float, width: float, height: float, *, quiet: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if quiet else ""
    longest = max(int((width - 20) / 6.3), 8)
    texts = [
        f'<text class="name" x="{x + 11:.1f}" y="{y + 20:.1f}" font-size="13" font-weight="600" fill="{INK}">{escape(_cut(box.title, longest))}</text>'
    ]
    for number, line in enumerate(box.lines):
        texts.append(
            f'<text class="quiet" x="{x + 11:.1f}" y="{y + 38 + 17 * number:.1f}" font-size="12" fill="{MUTED}">{escape(_cut(line, longest))}</text>'
        )
    return f'<g><rect class="box" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" fill="#ffffff" stroke="#aab4bf"{dash}/>{"".join(texts)}</g>'


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    head = f"M{x2:.1f},{y2:.1f} l-3.5,-6 h7 z" if x1 == x2 else f"M{x2:.1f},{y2:.1f} l-6,-3.5 v7 z"
    return f'<line class="axis" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{MUTED}"/><path class="head" d="{head}" fill="{MUTED}"/>'


@dataclass(frozen=True)
class ForestRow:
    """One row of a forest plot. heading: a row without numbers. value is None: not estimable."""

    name: str
    columns: Sequence[str] = ()
    value: float | None = None
    low: float | None = None
    high: float | None = None
    text: str = ""
    heading: bool = False
    weight: float = 1.0


def forest_chart(
    rows: Sequence[ForestRow],
    *,
    id: str,
    title: str,
    axis_title: str,
    columns: Sequence[str],
    reference: float | None,
    first: str = "Subgroup",
) -> Figure:
    """Names, counts, estimates with intervals on one axis, and the numbers in words."""
    width, row_height, top = 700, 25, 34
    plot_left, plot_right = 300, 530
    known = [v for row in rows for v in (row.value, row.low, row.high) if is_known(v)]
    known += [reference] if reference is not None else []
    axis = nice_axis(np.array(known or [0.0, 1.0]), axis_title, n_ticks=4)
    bottom = top + row_height * len(rows)

    def at(value: float) -> float:
        return plot_left + (plot_right - plot_left) * float(axis.place(np.array(value)))

    lines = [_forest_text(8, top - 14, first, bold=True), _forest_text(plot_right + 14, top - 14, axis_title, bold=True)]
    places = [206, 276][: len(columns)]
    lines += [_forest_text(x, top - 14, name, anchor="end", bold=True) for x, name in zip(places, columns, strict=False)]
    for tick in axis.ticks:
        lines.append(f'<line class="grid" x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="{top - 6}" y2="{bottom}" stroke="{GRID}"/>')
        lines.append(
            f'<text class="tick" x="{at(tick):.1f}" y="{bottom + 17}" text-anchor="middle" font-size="11" fill="{MUTED}">{axis.label(tick)}</text>'
        )
    if reference is not None:
        lines.append(
            f'<line class="ref" x1="{at(reference):.1f}" x2="{at(reference):.1f}" y1="{top - 6}" y2="{bottom}" stroke="{MUTED}" stroke-dasharray="4 4"/>'
        )
    for number, row in enumerate(rows):
        lines.append(
            _forest_row(replace(row, name=_cut(row.name, 26 if columns else 42)), top + row_height * number + 13, at, places, plot_right)
        )
    numbers = pd.DataFrame(
        [
            {"subgroup": r.name, **dict(zip(columns, r.columns, strict=False)), "value": r.value, "low": r.low, "high": r.high}
            for r in rows
            if not r.heading
        ]
    )
    svg = frame(lines, (0, 0, width, bottom + 26), title, "")
    return Figure(id, title, svg, "", numbers, span=2)


def _forest_row(row: ForestRow, y: float, at: Callable[[float], float], places: Sequence[float], plot_right: float) -> str:
    if row.heading:
        return _forest_text(8, y + 4, row.name, bold=True)
    lines = [_forest_text(20, y + 4, row.name)]
    lines += [_forest_text(x, y + 4, text, anchor="end") for x, text in zip(places, row.columns, strict=False)]
    if row.value is None or not is_known(row.value):
        return "".join([*lines, _forest_text(plot_right + 14, y + 4, NOT_ESTIMABLE, quiet=True)])
    centre = at(row.value)
    if row.low is not None and row.high is not None:
        lines.append(
            f'<line class="s0" x1="{at(row.low):.1f}" x2="{at(row.high):.1f}" y1="{y}" y2="{y}" stroke="{COLOURS[0]}" stroke-width="1.6"/>'
        )
    side = 3.2 + 3.2 * row.weight
    lines.append(
        f'<rect class="p0" x="{centre - side:.1f}" y="{y - side:.1f}" width="{2 * side:.1f}" height="{2 * side:.1f}" fill="{COLOURS[0]}"/>'
    )
    lines.append(_forest_text(plot_right + 14, y + 4, row.text))
    return "".join(lines)


def _forest_text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False, quiet: bool = False) -> str:
    css, colour = ("quiet", MUTED) if quiet else ("name", INK)
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12"{weight} fill="{colour}">{escape(text)}</text>'
    )


def cost_chart(
    points: Sequence[tuple[str, float, float, float | None, float | None]],
    *,
    axis_title: str,
    id: str,
    y_title: str = "AUROC",
    wide: bool = False,
) -> Figure:
    """Quality with its interval against cost (log scale): (name, cost, value, low, high). wide: takes the whole row."""
    costs = np.array([point[1] for point in points], dtype=float)
    low, high = 10 ** np.floor(np.log10(costs.min())), 10 ** np.ceil(np.log10(costs.max() * 1.0001))
    ticks = tuple(float(t) for t in 10 ** np.arange(np.log10(low), np.log10(high) + 0.5))
    values = np.array([v for point in points for v in point[2:] if v is not None], dtype=float)
    canvas = Canvas(
        Axis(float(low), float(high), axis_title, ticks, style="compact", log=True),
        nice_axis(values, y_title),
        f"{y_title} against {_inner(axis_title)}",
        width=700 if wide else 420,
        height=320,
    )
    for series, (name, cost, value, lower, upper) in enumerate(points):
        at = np.array([cost])
        if lower is not None and upper is not None:
            canvas.whiskers(at, np.array([lower]), np.array([upper]), series=series)
        canvas.dots(
            at, np.array([value]), [f"{name}: {y_title} {fixed(value)}, {_inner(axis_title)} {compact(cost)}"], series=series, radius=5
        )
    for (name, cost, value, _, _), (right, down) in zip(points, _label_places(canvas, points), strict=True):
        canvas.text(cost, value, name, anchor="end" if right else "start", shift=(-9 if right else 9, 4 + down))
    numbers = pd.DataFrame(points, columns=["name", "cost", "value", "low", "high"])
    return Figure(id, canvas.title, canvas.render(legend="none"), "", numbers, span=2 if wide else 1)


def _inner(title: str) -> str:
    """A title within a sentence; an abbreviation keeps its capitals."""
    return title if title[:2].isupper() else title[:1].lower() + title[1:]


def _label_places(canvas: Canvas, points: Sequence[tuple[str, float, float, float | None, float | None]]) -> list[tuple[bool, float]]:
    """For each point: whether its name stands to its left, and how far down it is moved so that no two names touch."""
    line, letter = 13.0, 6.2
    at = [(float(canvas.px([point[1]])[0]), float(canvas.py([point[2]])[0])) for point in points]
    places: list[tuple[bool, float]] = [(False, 0.0)] * len(points)
    taken: list[tuple[float, float, float]] = []
    for number in sorted(range(len(points)), key=lambda number: at[number][1]):
        x, y = at[number]
        right, width = x > canvas.width * 0.6, letter * len(points[number][0]) + 9
        left, end = (x - width, x) if right else (x, x + width)
        for start, stop, height in sorted(taken, key=lambda box: box[2]):
            if start < end and left < stop and abs(y - height) < line:
                y = height + line
        taken.append((left, end, y))
        places[number] = (right, y - at[number][1])
    return places


def confusion_chart(matrix: pd.DataFrame, *, id: str, title: str) -> Figure:
    """A k x k table of counts: rows the reference standard, columns the prediction; shade is the share of the row."""
    names = [str(name) for name in matrix.index]
    values = matrix.to_numpy(dtype=float)
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    side, left, top = 92, 130, 52
    lines = [
        _forest_text(left + side * len(names) / 2, 16, "Predicted", anchor="middle", bold=True),
        _forest_text(8, top - 10, "Reference standard", bold=True),
    ]
    for row, name in enumerate(names):
        lines.append(_forest_text(left - 10, top + side * 0.55 * (row + 0.5) + 4, _cut(name, 17), anchor="end"))
        lines.append(_forest_text(left + side * (row + 0.5), top - 10, _cut(name, 13), anchor="middle"))
        for column in range(len(names)):
            x, y = left + side * column, top + side * 0.55 * row
            part = shares[row, column]
            lines.append(
                f'<rect class="cell f0" x="{x + 1}" y="{y + 1:.1f}" width="{side - 2}" height="{side * 0.55 - 2:.1f}" fill="{COLOURS[0]}" fill-opacity="{0.05 + 0.35 * part:.3f}"'
                f'{f""" stroke="{COLOURS[0]}" stroke-width="1.5" """ if row == column else ""}/>'
            )
            lines.append(_forest_text(x + side / 2, y + 22, count(values[row, column]), anchor="middle", bold=row == column))
            lines.append(
                f'<text class="quiet" x="{x + side / 2}" y="{y + 38:.1f}" text-anchor="middle" font-size="11" fill="{MUTED}">{100 * part:.1f}%</text>'
            )
    height = top + side * 0.55 * len(names) + 8
    svg: Markup = frame(lines, (0, 0, left + side * len(names) + 8, height), title, "Rows: reference standard; columns: prediction")
    return Figure(id, title, svg, "", matrix.rename_axis("reference").reset_index(), span=2 if len(names) > 3 else 1)
