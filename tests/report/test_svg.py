"""The canvas: where a value lands, what is escaped, that the bytes are stable."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from medcnn.report.charts import slug
from medcnn.report.svg import Axis, Canvas, nice_axis

SVG = "{http://www.w3.org/2000/svg}"


def canvas(**changes: object) -> Canvas:
    return Canvas(
        Axis(0, 1, "x", (0, 1)),
        Axis(0, 2, "y", (0, 2)),
        **{"title": "t", "width": 200, "height": 150, "margin": (10, 20, 40, 30), **changes},
    )  # type: ignore[arg-type]


def test_values_land_where_they_belong() -> None:
    drawn = canvas()
    assert drawn.box == (30, 10, 150, 100)
    assert drawn.px([0, 0.5, 1]).tolist() == [30, 105, 180]
    assert drawn.py([0, 1, 2]).tolist() == [110, 60, 10]


def test_the_script_can_read_the_points_back() -> None:
    drawn = canvas()
    drawn.line(np.array([0.0, 0.25, 1.0]), np.array([0.0, 1.5, 2.0]), "curve")
    tree = ElementTree.fromstring(str(drawn.render()))  # noqa: S314 - our own drawing
    left, top, width, height = (float(value) for value in tree.attrib["data-box"].split())
    line = next(node for node in tree.iter(f"{SVG}polyline") if node.attrib.get("data-name") == "curve")
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert [(round((a - left) / width, 6), round(2 * (top + height - b) / height, 6)) for a, b in points] == [(0, 0), (0.25, 1.5), (1, 2)]


def test_text_is_escaped() -> None:
    drawn = canvas(title="<script>alert(1)</script>", description='"><img onerror=1>')
    drawn.line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), '"><script>')
    drawn.line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "<b>")
    drawn.dots(np.array([0.5]), np.array([0.5]), ['"><script>'], name="<i>")
    drawn.mark_x(0.5, "<u>")
    text = str(drawn.render())
    assert not any(tag in text for tag in ("<script", "<img", "<b>", "<i>", "<u>"))
    ElementTree.fromstring(text)  # noqa: S314


def test_the_same_drawing_has_the_same_bytes() -> None:
    def draw() -> str:
        drawn = canvas()
        drawn.line(np.linspace(0, 1, 50), np.linspace(0, 2, 50), "a")
        return str(drawn.render())

    assert draw() == draw()


def test_gaps_are_left_out_and_values_beyond_the_axis_are_clipped() -> None:
    drawn = canvas()
    drawn.line(np.array([0.0, 0.5, 1.0]), np.array([np.nan, 5.0, 1.0]), "a")
    assert 'points="105,10 180,60"' in drawn.parts[0]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.83, 0.97], (0.8, 0.85, 0.9, 0.95, 1.0)),
        ([0, 15], (0, 5, 10, 15)),
        ([0.4], (0.4, 0.41, 0.42, 0.43, 0.44)),
        ([], (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ([np.nan, 3, 7], (3, 4, 5, 6, 7)),
    ],
)
def test_ticks_are_round_and_cover_the_values(values: list[float], ticks: tuple[float, ...]) -> None:
    axis = nice_axis(np.array(values), "x")
    assert axis.ticks == pytest.approx(ticks)
    assert (axis.low, axis.high) == (axis.ticks[0], axis.ticks[-1])


def test_ids_of_different_labels_differ() -> None:
    assert slug("roc", "Pleural effusion") == "roc-pleural-effusion"
    ids = [slug("roc", label) for label in ("a/b", "a b", "a_b", "a_b?", "a  b", "肺炎", "気胸", "<script>")]
    assert len(set(ids)) == len(ids)
    assert all(c.isalnum() or c in "-_" for name in ids for c in name)
