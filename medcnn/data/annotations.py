"""Outlines that a pathologist drew, from QuPath (GeoJSON) or ASAP (XML), and which class each tile gets from them."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medcnn.errors import InputError, MissingExtra

ENDINGS = (".geojson", ".json", ".xml")
MAX_BYTES = 1 << 30
_AREAS = {"Polygon", "MultiPolygon"}
_NOT_AREAS = {"Point", "MultiPoint", "LineString", "MultiLineString"}


@dataclass(frozen=True)
class Outlines:
    """areas: class name -> shapely geometry in level-0 pixels, outlines of one class merged. notes: what was not taken, in words."""

    areas: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def find_annotation(folder: Path, slide: str) -> Path | None:
    """The annotation file of a slide (its relative path without ending): in the same subfolder of `folder`, or in its top.

    Raises InputError when several fit.
    """
    names = dict.fromkeys((slide, Path(slide).name))
    found = [path for name in names for ending in ENDINGS if (path := folder / f"{name}{ending}").is_file()]
    if len(found) > 1:
        raise InputError(f"{found[0]} and {found[1]}: both annotate slide {slide}; keep one")
    return found[0] if found else None


def read_outlines(path: Path, *, cut_out: Sequence[str] = ()) -> Outlines:
    """Outlines by class. cut_out: classes that are no label: their areas are taken away from all others (ASAP has no holes). Raises InputError for a file that is none, MissingExtra without shapely (extra wsi)."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: is larger than {MAX_BYTES >> 30} GiB; split it, or leave detections (cells) out of the export")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    shapes, notes = _of_asap(text, path) if path.suffix.lower() == ".xml" else _of_geojson(text, path)
    areas = _merged(shapes, path, notes)
    shapely = _import_shapely()
    holes = shapely.union_all([areas.pop(name) for name in list(areas) if name in cut_out])
    return Outlines({name: shapely.difference(area, holes) for name, area in areas.items()}, tuple(notes))


def tile_classes(outlines: Outlines, boxes: np.ndarray, *, least: float) -> tuple[list[str | None], np.ndarray]:
    """Class of each tile: the one that covers most of it, where that is at least the share `least`, else None; and the shares.

    boxes: float (n, 4) as x, y, width, height in level-0 pixels. Shares, float64 (n,) 0 to 1, are exact areas, of the class
    that covers most. Equal shares go to the class whose name comes first.
    """
    shapely = _import_shapely()
    names = sorted(outlines.areas)
    tiles = shapely.box(boxes[:, 0], boxes[:, 1], boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3])
    cover = np.zeros((len(boxes), len(names)))
    for column, name in enumerate(names):
        area = outlines.areas[name]
        shapely.prepare(area)
        inside, touched = shapely.contains_properly(area, tiles), shapely.intersects(area, tiles)
        cover[inside, column] = 1
        at = touched & ~inside
        cover[at, column] = shapely.area(shapely.intersection(tiles[at], area)) / (boxes[at, 2] * boxes[at, 3])
    most = cover.argmax(axis=1) if names else np.zeros(len(boxes), int)
    share = cover.max(axis=1, initial=0)
    return [names[column] if value >= least and value > 0 else None for column, value in zip(most, share, strict=True)], share


# ---------------------------------------------------------------- QuPath


def _of_geojson(text: str, path: Path) -> tuple[list[tuple[str, Any]], list[str]]:
    """(class, geometry) of each outline with a class; notes."""
    shapely = _import_shapely()
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{path}: is no JSON; expected a GeoJSON export (QuPath: File, Export objects as GeoJSON)") from None
    features = tree.get("features", [tree]) if isinstance(tree, dict) else tree
    if not isinstance(features, list):
        raise InputError(f"{path}: expected a FeatureCollection, a list of features or one feature")
    shapes, n_nameless, n_other = [], 0, 0
    for number, feature in enumerate(features):
        geometry = feature.get("geometry") if isinstance(feature, dict) else None
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        name = _class_of(feature.get("properties") or {}) if isinstance(feature, dict) else None
        if kind in _NOT_AREAS:
            n_other += 1
        elif kind not in _AREAS:
            raise InputError(f"{path}: feature {number} has geometry {kind!r}; expected Polygon or MultiPolygon")
        elif name is None:
            n_nameless += 1
        else:
            try:
                shapes.append((name, shapely.from_geojson(json.dumps(geometry))))
            except (shapely.errors.GEOSException, ValueError) as error:
                raise InputError(f"{path}: feature {number} is no outline ({str(error).splitlines()[0][:120]})") from None
    return shapes, _noted(n_nameless, n_other)


def _class_of(properties: Mapping[str, Any]) -> str | None:
    """QuPath's classification (an object with a name, or with names; or the bare name); None: the outline has no class."""
    said = properties.get("classification")
    if isinstance(said, dict):
        names = said.get("names")
        said = said.get("name") or (": ".join(map(str, names)) if isinstance(names, list) and names else None)
    return said.strip() or None if isinstance(said, str) else None


# ---------------------------------------------------------------- ASAP


def _of_asap(text: str, path: Path) -> tuple[list[tuple[str, Any]], list[str]]:
    shapely = _import_shapely()
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path}: declares XML entities, which an annotation has no need of; save it from ASAP anew")
    try:
        root = ET.fromstring(text)  # noqa: S314 - entities are refused above
    except ET.ParseError as error:
        raise InputError(f"{path}: is no XML ({error})") from None
    if root.tag != "ASAP_Annotations":
        raise InputError(f"{path}: the top element is {root.tag}; expected ASAP_Annotations")
    shapes, n_nameless, n_other = [], 0, 0
    for annotation in root.iter("Annotation"):
        name, kind = (annotation.get("PartOfGroup") or "").strip(), annotation.get("Type")
        points = _points(annotation, path)
        if kind not in {"Polygon", "Rectangle", "Spline"} or len(points) < 3:
            n_other += 1
        elif name in {"", "None"}:
            n_nameless += 1
        else:
            shapes.append((name, shapely.Polygon(points)))
    return shapes, _noted(n_nameless, n_other)


def _points(annotation: ET.Element, path: Path) -> list[tuple[float, float]]:
    try:
        points = [(int(at.attrib["Order"]), float(at.attrib["X"]), float(at.attrib["Y"])) for at in annotation.iter("Coordinate")]
    except (KeyError, ValueError):
        raise InputError(f"{path}: a coordinate of annotation {annotation.get('Name')!r} lacks a number; expected Order, X and Y") from None
    return [(x, y) for _, x, y in sorted(points)]


# ---------------------------------------------------------------- both


def _noted(n_nameless: int, n_other: int) -> list[str]:
    counted = [(n_nameless, "outlines without a class"), (n_other, "points, lines or measurements")]
    return [f"{n} {what} were not used" for n, what in counted if n]


def _merged(shapes: Iterable[tuple[str, Any]], path: Path, notes: list[str]) -> dict[str, Any]:
    """One geometry a class; outlines that cross themselves are mended, and counted."""
    shapely = _import_shapely()
    by_class: dict[str, list[Any]] = {}
    n_mended = 0
    for name, shape in shapes:
        if not np.isfinite(shapely.get_coordinates(shape)).all():
            raise InputError(f"{path}: an outline of class {name!r} has a coordinate that is no finite number")
        n_mended += not shapely.is_valid(shape)
        by_class.setdefault(name, []).append(shape if shapely.is_valid(shape) else shapely.make_valid(shape))
    if n_mended:
        notes.append(f"{n_mended} outlines cross themselves and were mended")
    return {name: shapely.union_all(parts) for name, parts in sorted(by_class.items())}


def _import_shapely() -> Any:
    try:
        import shapely
        import shapely.errors
    except ImportError:
        raise MissingExtra("shapely", "wsi", "Reading annotations") from None
    return shapely
