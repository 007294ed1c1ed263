"""Drawing: a small SVG canvas with axes. What it writes is byte-stable, needs no script, and stands alone.

Colours are written as attributes (so paper and a saved file show them) and as classes (so the page's dark theme can
override them). Series differ by dash and marker as well as by colour. The page's script reads the points back for hovering.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

import numpy as np
from markupsafe import Markup

from medcnn.report.numbers import compact

COLOURS = ("#0b5c8a", "#c2570c", "#5b7f2b", "#7a4a9c", "#8a6d1d", "#b03a5b")
DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "4 2")
INK, MUTED, GRID = "#1d2733", "#5a6675", "#e2e6eb"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


Key = tuple[str, int | str, str]  # of the legend: name, number of the series (or dash of a reference line), kind of mark


@dataclass(frozen=True)
class Axis:
    """One axis: its range, where ticks stand, what it measures, and how its ticks are written (share: percent without sign of direction)."""

    low: float
    high: float
    title: str
    ticks: Sequence[float] = ()
    style: Literal["number", "percent", "share", "compact"] = "number"
    log: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Position from 0 (low) to 1 (high)."""
        if self.log:
            return np.asarray((np.log(values) - np.log(self.low)) / (np.log(self.high) - np.log(self.low)))
        return np.asarray((values - self.low) / (self.high - self.low))

    def label(self, value: float) -> str:
        """A tick's text."""
        if self.style == "compact":
            return compact(value, short=True)
        if self.style != "number":
            return f"{100 * (abs(value) if self.style == 'share' else value):.3g}%"
        return f"{value:.6g}".replace("-", "\u2212")


UNIT_TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1)


def nice_axis(values: np.ndarray, title: str, *, floor: float | None = None, n_ticks: int = 5) -> Axis:
    """An axis over values with round ticks; floor fixes its lower end."""
    finite = np.asarray(values, dtype=float)[np.isfinite(values)]
    low = float(finite.min()) if finite.size else 0.0
    high = float(finite.max()) if finite.size else 1.0
    low = floor if floor is not None else low
    if high - low < 1e-12:
        high = low + (abs(low) or 1.0) * 0.1
    raw = (high - low) / n_ticks
    magnitude = 10.0 ** np.floor(np.log10(raw))
    step = float(next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    ticks = tuple(float(round(tick * step, 10)) for tick in np.arange(first, last + 1))
    return Axis(ticks[0], ticks[-1], title, ticks)


@dataclass
class Canvas:
    """A plot area within margins; methods add marks in data coordinates, `render` gives the SVG."""

    x: Axis
    y: Axis
    title: str
    description: str = ""
    width: int = 420
    height: int = 340
    margin: tuple[int, int, int, int] = (14, 14, 46, 54)
    parts: list[str] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the plot area in pixels."""
        top, right, bottom, left = self.margin
        return left, top, self.width - left - right, self.height - top - bottom

    def px(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Data to horizontal pixels."""
        left, _, width, _ = self.box
        return left + width * self.x.place(np.asarray(values, dtype=float))

    def py(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Data to vertical pixels."""
        _, top, _, height = self.box
        return top + height * (1 - self.y.place(np.asarray(values, dtype=float)))

    def line(
        self, x: np.ndarray, y: np.ndarray, name: str, *, series: int = 0, hover: bool = True, thresholds: np.ndarray | None = None
    ) -> None:
        """A curve; gaps (NaN) break it. thresholds: shown with each point when hovered."""
        dash = f' stroke-dasharray="{DASHES[series % len(DASHES)]}"' if series % len(DASHES) else ""
        data = f' data-name="{escape(name)}"' if hover else ""
        if hover and thresholds is not None:
            data += f' data-t="{" ".join(_short(value, 4) for value in thresholds)}"'
        colour = series % len(COLOURS)
        self.parts.append(
            f'<polyline class="s{colour}" fill="none" stroke="{COLOURS[colour]}" stroke-width="2" stroke-linejoin="round"{dash}{data}'
            f' points="{self._points(x, y)}"/>'
        )
        self.keys.append((name, series, "line"))

    def reference(self, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, name: str = "", dash: str = "4 4") -> None:
        """A quiet line to compare with: chance, ideal, zero; in the legend and hovered when it has a name."""
        if name:
            self.keys.append((name, dash, "ref"))
        pixels = " ".join(f"{a:.2f},{b:.2f}" for a, b in zip(self.px(x), self.py(y), strict=True))
        data = f' data-name="{escape(name)}"' if name else ""
        self.parts.append(
            f'<polyline class="ref" fill="none" stroke="{MUTED}" stroke-width="1" stroke-dasharray="{dash}"{data} points="{pixels}"/>'
        )

    def band(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, *, series: int = 0) -> None:
        """A confidence band."""
        known = np.isfinite(low) & np.isfinite(high) & np.isfinite(x)
        if known.sum() < 2:
            return
        colour = series % len(COLOURS)
        there = np.column_stack([self.px(x[known]), self.py(np.clip(high[known], self.y.low, self.y.high))])
        back = np.column_stack([self.px(x[known]), self.py(np.clip(low[known], self.y.low, self.y.high))])[::-1]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in np.vstack([there, back]))
        self.parts.append(f'<polygon class="f{colour}" fill="{COLOURS[colour]}" fill-opacity="0.14" stroke="none" points="{points}"/>')

    def dots(self, x: np.ndarray, y: np.ndarray, names: Sequence[str], *, series: int = 0, radius: float = 4, name: str = "") -> None:
        """Points with a text each (read by hovering and by screen readers)."""
        colour = series % len(COLOURS)
        for a, b, text in zip(self.px(x), self.py(y), names, strict=True):
            if np.isfinite(a) and np.isfinite(b):
                self.parts.append(
                    f'<circle class="p{colour}" cx="{a:.1f}" cy="{b:.1f}" r="{radius}" fill="{COLOURS[colour]}" stroke="#fff"'
                    f' stroke-width="1" data-text="{escape(text)}"/>'
                )
        if name:
            self.keys.append((name, series, "dot"))

    def whiskers(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, *, series: int = 0) -> None:
        """Vertical intervals."""
        colour = series % len(COLOURS)
        lows, highs = self.py(np.clip(low, self.y.low, self.y.high)), self.py(np.clip(high, self.y.low, self.y.high))
        for a, b, c in zip(self.px(x), lows, highs, strict=True):
            if np.isfinite([a, b, c]).all():
                self.parts.append(
                    f'<line class="s{colour}" x1="{a:.1f}" x2="{a:.1f}" y1="{b:.1f}" y2="{c:.1f}" stroke="{COLOURS[colour]}"/>'
                )

    def bars(self, left: np.ndarray, right: np.ndarray, value: np.ndarray, *, series: int = 0, name: str = "", base: float = 0.0) -> None:
        """Histogram bars from `base` to value."""
        colour = series % len(COLOURS)
        zero = float(self.py([base])[0])
        for a, b, c, v in zip(self.px(left), self.px(right), self.py(value), value, strict=True):
            if v != base and np.isfinite(c):
                self.parts.append(
                    f'<rect class="p{colour}" x="{a + 0.25:.2f}" width="{max(b - a - 0.5, 0.4):.2f}" y="{min(c, zero):.2f}"'
                    f' height="{abs(zero - c):.2f}" fill="{COLOURS[colour]}" fill-opacity="0.85"/>'
                )
        if name:
            self.keys.append((name, series, "bar"))

    def mark_x(self, value: float, text: str, css: str = "mark") -> None:
        """A vertical line with a word at its top."""
        _, top, _, height = self.box
        at = float(self.px([value])[0])
        anchor, shift = ("end", -4) if at > self.width * 0.66 else ("start", 4)
        self.parts.append(
            f'<g class="{css}"><line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{top + height}" stroke="{INK}" stroke-dasharray="2 2"/>'
            f'<text x="{at + shift:.1f}" y="{top + 11}" text-anchor="{anchor}" font-size="11" fill="{MUTED}">{escape(text)}</text></g>'
        )

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", size: int = 11, shift: tuple[float, float] = (0, 0)) -> None:
        """A word at data coordinates."""
        a, b = float(self.px([x])[0]) + shift[0], float(self.py([y])[0]) + shift[1]
        self.parts.append(
            f'<text class="quiet" x="{a:.1f}" y="{b:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{MUTED}">{escape(text)}</text>'
        )

    def render(self, *, legend: str = "top") -> Markup:
        """The SVG. legend: top (a row above the plot, kept free when there is one series, so that neighbours align) or none."""
        lines = [*self._axes(), *self.parts]
        rows, extra = legend_rows(self.keys if len(self.keys) > 1 else [], self.box[0], self.width - 8) if legend == "top" else ("", 0)
        if rows:
            lines.append(f'<g transform="translate(0,{-extra})">{rows}</g>')
        left, top, width, height = self.box
        data = (
            f' data-box="{left:g} {top:g} {width:g} {height:g}" data-x="{self.x.low:g} {self.x.high:g} {int(self.x.log)}"'
            f' data-y="{self.y.low:g} {self.y.high:g} {int(self.y.log)}" data-xname="{escape(self.x.title)}" data-yname="{escape(self.y.title)}"'
        )
        return frame(lines, (0, -extra, self.width, self.height + extra), self.title, self.description, data=data)

    def _points(self, x: np.ndarray, y: np.ndarray) -> str:
        known = np.isfinite(x) & np.isfinite(y)
        inside = np.clip(y[known], self.y.low, self.y.high)
        return " ".join(f"{_short(a, 2)},{_short(b, 2)}" for a, b in zip(self.px(x[known]), self.py(inside), strict=True))

    def _axes(self) -> list[str]:
        left, top, width, height = self.box
        bottom = top + height
        lines = []
        for tick in self.y.ticks:
            at = float(self.py([tick])[0])
            lines.append(f'<line class="grid" x1="{left}" x2="{left + width}" y1="{at:.1f}" y2="{at:.1f}" stroke="{GRID}"/>')
            lines.append(
                f'<text class="tick" x="{left - 7}" y="{at + 4:.1f}" text-anchor="end" font-size="11" fill="{MUTED}">{self.y.label(tick)}</text>'
            )
        for tick in self.x.ticks:
            at = float(self.px([tick])[0])
            lines.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}" stroke="{MUTED}"/>')
            lines.append(
                f'<text class="tick" x="{at:.1f}" y="{bottom + 17}" text-anchor="middle" font-size="11" fill="{MUTED}">{self.x.label(tick)}</text>'
            )
        lines.append(f'<line class="axis" x1="{left}" x2="{left + width}" y1="{bottom}" y2="{bottom}" stroke="{MUTED}"/>')
        middle = left + width / 2
        lines.append(
            f'<text class="name" x="{middle:.0f}" y="{bottom + 36}" text-anchor="middle" font-size="12" fill="{INK}">{escape(self.x.title)}</text>'
        )
        centre = top + height / 2
        lines.append(
            f'<text class="name" transform="translate(13,{centre:.0f}) rotate(-90)" text-anchor="middle" font-size="12" fill="{INK}">{escape(self.y.title)}</text>'
        )
        return lines


def legend_rows(keys: Sequence[Key], left: float, right: float) -> tuple[str, int]:
    """The legend as SVG, flowing over as many rows as it needs, and its height in pixels."""
    marks, x, y = [], left, 0.0
    row_height = 18
    for name, series, kind in keys:
        width = 40 + 6.5 * len(name)
        if x > left and x + width > right:
            x, y = left, y + row_height
        marks.append(
            f'<g transform="translate({x:.0f},{y:.0f})">{_key(series, kind)}<text class="name" x="28" y="12" font-size="11.5" fill="{INK}">{escape(name)}</text></g>'
        )
        x += width
    height = int(y) + row_height + 4
    return "".join(marks), height


def frame(lines: Sequence[str], view: tuple[float, float, float, float], title: str, description: str, *, data: str = "") -> Markup:
    """An `svg` element with its title and description."""
    about = f"<title>{escape(title)}</title>" + (f"<desc>{escape(description)}</desc>" if description else "")
    box = " ".join(f"{value:g}" for value in view)
    return Markup(  # noqa: S704 - every text above went through escape
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{view[2]:g}" height="{view[3]:g}" role="img" aria-label="{escape(title)}"'
        f' font-family="{escape(FONT)}"{data}>{about}{"".join(lines)}</svg>'
    )


def _key(series: int | str, kind: str) -> str:
    if isinstance(series, str):
        return f'<line class="ref" x1="0" x2="22" y1="8" y2="8" stroke="{MUTED}" stroke-dasharray="{series}"/>'
    colour = series % len(COLOURS)
    if kind == "dot":
        return f'<circle class="p{colour}" cx="11" cy="8" r="4" fill="{COLOURS[colour]}"/>'
    if kind == "bar":
        return f'<rect class="p{colour}" x="4" y="3" width="14" height="10" fill="{COLOURS[colour]}" fill-opacity="0.85"/>'
    dash = f' stroke-dasharray="{DASHES[series % len(DASHES)]}"' if series % len(DASHES) else ""
    return f'<line class="s{colour}" x1="0" x2="22" y1="8" y2="8" stroke="{COLOURS[colour]}" stroke-width="2"{dash}/>'


def _short(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
