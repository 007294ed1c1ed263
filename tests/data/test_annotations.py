"""Outlines of QuPath and ASAP to classes of tiles, against a count of pixels."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from medcnn.data.annotations import find_annotation, read_outlines, tile_classes
from medcnn.errors import InputError

pytest.importorskip("shapely", reason="needs the extra wsi")

SQUARE = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]
HOLE = [[20, 20], [20, 60], [60, 60], [60, 20], [20, 20]]


def feature(geometry: str, coordinates: object, classification: object = {"name": "tumour"}) -> dict[str, object]:
    return {"type": "Feature", "geometry": {"type": geometry, "coordinates": coordinates}, "properties": {"classification": classification}}


def geojson(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def asap(path: Path, *annotations: tuple[str, str, list[list[float]]]) -> Path:
    drawn = "".join(
        f'<Annotation Name="a" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>'
        + "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in reversed(list(enumerate(points))))
        + "</Coordinates></Annotation>"
        for kind, group, points in annotations
    )
    path.write_text(f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{drawn}</Annotations></ASAP_Annotations>')
    return path


@pytest.mark.parametrize("wrap", [lambda f: {"type": "FeatureCollection", "features": [f]}, lambda f: [f], lambda f: f])
def test_qupath_in_its_three_wrappings_with_a_hole(tmp_path: Path, wrap: object) -> None:
    outlines = read_outlines(geojson(tmp_path / "a.geojson", wrap(feature("Polygon", [SQUARE, HOLE]))))  # type: ignore[operator]
    assert outlines.areas["tumour"].area == 10_000 - 1_600


def test_multipolygons_names_and_what_has_none(tmp_path: Path) -> None:
    away = [[[x + 500, y] for x, y in SQUARE]]
    shapes = [
        feature("MultiPolygon", [[SQUARE, HOLE], away]),
        feature("Polygon", [SQUARE], "stroma"),
        feature("Polygon", [SQUARE], {"names": ["immune", "dense"]}),
        feature("Polygon", [SQUARE], None),
        feature("Point", [1, 2]),
    ]
    outlines = read_outlines(geojson(tmp_path / "a.json", shapes))
    assert {name: area.area for name, area in outlines.areas.items()} == {"tumour": 18_400, "stroma": 10_000, "immune: dense": 10_000}
    assert outlines.notes == ("1 outlines without a class were not used", "1 points, lines or measurements were not used")


def test_asap_with_a_group_that_is_a_hole(tmp_path: Path) -> None:
    path = asap(
        tmp_path / "a.xml",
        ("Polygon", "Tumor", SQUARE[:-1]),
        ("Rectangle", "Exclusion", HOLE[:-1]),
        ("Dot", "Tumor", [[1, 1]]),
        ("Polygon", "None", SQUARE[:-1]),
    )
    assert read_outlines(path).areas["Tumor"].area == 10_000
    outlines = read_outlines(path, cut_out=["Exclusion"])
    assert {name: area.area for name, area in outlines.areas.items()} == {"Tumor": 8_400}
    assert len(outlines.notes) == 2


def test_an_outline_that_crosses_itself_is_mended_and_said(tmp_path: Path) -> None:
    bow = [[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]
    outlines = read_outlines(geojson(tmp_path / "a.geojson", feature("Polygon", [bow])))
    assert outlines.areas["tumour"].area == pytest.approx(5_000)
    assert outlines.notes == ("1 outlines cross themselves and were mended",)


def test_shares_are_those_of_a_count_of_pixels(tmp_path: Path) -> None:
    """Oracle: both outlines painted at ten pixels a unit."""
    rng = np.random.default_rng(3)
    turns = np.sort(rng.uniform(0, 2 * np.pi, 40))
    drawn = {}
    for name, centre in (("tumour", (120, 110)), ("stroma", (200, 150))):
        reach = rng.uniform(40, 90, 40)
        drawn[name] = np.stack([centre[0] + reach * np.cos(turns), centre[1] + reach * np.sin(turns)], axis=1).round(1)
    content = [feature("Polygon", [[*points.tolist(), points[0].tolist()]], name) for name, points in drawn.items()]
    corners = np.array([[x, y] for x in range(0, 288, 32) for y in range(0, 256, 32)], float)
    boxes = np.concatenate([corners, np.full_like(corners, 32)], axis=1)
    names, share = tile_classes(read_outlines(geojson(tmp_path / "a.geojson", content)), boxes, least=0.3)
    painted = {
        name: cv2.fillPoly(np.zeros((3000, 3200), np.uint8), [np.round(points * 10).astype(np.int32)], 1) for name, points in drawn.items()
    }
    for (x, y), name, value in zip(corners.astype(int) * 10, names, share, strict=True):
        counted = {key: painted[key][y : y + 320, x : x + 320].mean() for key in painted}
        best = max(counted, key=lambda key: counted[key])
        assert value == pytest.approx(counted[best], abs=0.01)
        if abs(value - 0.3) > 0.01 and abs(counted["tumour"] - counted["stroma"]) > 0.01:
            assert name == (best if value >= 0.3 else None)
    assert {None, "tumour", "stroma"} == set(names)


def test_without_outlines_no_tile_has_a_class(tmp_path: Path) -> None:
    names, share = tile_classes(read_outlines(geojson(tmp_path / "a.geojson", [])), np.array([[0.0, 0, 5, 5]]), least=0.0)
    assert (names, share.tolist()) == ([None], [0.0])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.geojson", "no json", "is no JSON"),
        ("a.geojson", "3", "expected a FeatureCollection"),
        ("a.geojson", '[{"geometry": {"type": "Curve"}}]', "geometry 'Curve'"),
        ("a.geojson", json.dumps(feature("Polygon", [[[0, 0], [1, 1]]])), "no outline"),
        ("a.geojson", json.dumps(feature("Polygon", [[[0, 0], [1e400, 1], [1, 0], [0, 0]]])), "no outline|no finite"),
        ("a.xml", "<a>", "is no XML"),
        ("a.xml", "<Annotations/>", "expected ASAP_Annotations"),
        ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><ASAP_Annotations/>', "entities"),
        (
            "a.xml",
            '<ASAP_Annotations><Annotation Type="Polygon"><Coordinate Order="0" X="a" Y="1"/></Annotation></ASAP_Annotations>',
            "lacks a number",
        ),
    ],
)
def test_a_wrong_file_is_named_with_the_reason(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_outlines(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_outlines(tmp_path / "a.xml")


def test_which_file_annotates_a_slide(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    assert find_annotation(tmp_path, "site/s1") is None
    (tmp_path / "s1.xml").touch()
    assert find_annotation(tmp_path, "site/s1") == tmp_path / "s1.xml"
    (tmp_path / "site" / "s1.geojson").touch()
    with pytest.raises(InputError, match="keep one"):
        find_annotation(tmp_path, "site/s1")
