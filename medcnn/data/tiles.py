"""Tiles of a slide: where they lie, and how one is read from its place alone."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from medcnn.config_data import SlidesConfig
from medcnn.data.formats import ImageHeader, UnreadableImage
from medcnn.data.pseudonyms import MASK, find_file
from medcnn.data.slides import Slide, SlideFacts, opened
from medcnn.data.tile_places import TilePlace, tile_place
from medcnn.data.tile_quality import sharpness
from medcnn.data.tile_store import TileReading

SAME_MPP = 0.01  # a level within this share of the wanted resolution is taken as it is; the exact spacing is stated either way
STRIP_PIXELS = 16_000_000  # most pixels of a level that are held to make the overview


@dataclass(frozen=True)
class Cut:
    """How tiles are cut from a slide. level: which is read; side, step: level pixels; mpp: microns per tile pixel, exactly."""

    level: int
    downsample: float
    side: int
    step: int
    mpp: float


# ---------------------------------------------------------------- where tiles lie


def cut_of(facts: SlideFacts, mpp: float, config: SlidesConfig) -> Cut | str:
    """How to cut tiles of config.mpp from a slide with mpp microns per level-0 pixel; a sentence when it cannot be done.

    The coarsest level that is not coarser than wanted (by more than SAME_MPP) is read; a finer one is averaged down.
    """
    wanted = config.mpp / mpp  # level-0 pixels along a tile pixel
    if wanted < 1 / config.max_enlargement:
        return (
            f"its finest level has {mpp:.4g} um/px, too coarse for tiles of {config.mpp:g} um/px; set data.slides.mpp to {mpp:.4g} or "
            f"more, or data.slides.max_enlargement to {1 / wanted:.3g}"
        )
    fine_enough = [number for number, level in enumerate(facts.levels) if level.downsample <= wanted * (1 + SAME_MPP)]
    level = max(fine_enough, key=lambda number: facts.levels[number].downsample, default=0)
    downsample = facts.levels[level].downsample
    scale = wanted / downsample
    side = config.tile_px if abs(scale - 1) <= SAME_MPP else round(config.tile_px * scale)
    step = max(1, round(side * (1 - config.overlap)))
    _, _, width, height = facts.area
    if min(width, height) < side * downsample:
        return f"{width} x {height} pixels of {mpp:.4g} um are smaller than one tile ({side * downsample:.0f} pixels); set data.slides.tile_px lower"
    return Cut(level=level, downsample=downsample, side=side, step=step, mpp=mpp * downsample * side / config.tile_px)


def grid_of(facts: SlideFacts, cut: Cut) -> np.ndarray:
    """Top left corners, int64 (n, 2) x, y in level-0 pixels, of all tiles that lie wholly inside the scanned area, column by column."""
    left, top, width, height = (value / cut.downsample for value in facts.area)
    columns = np.arange(np.ceil(left), left + width - cut.side + 1e-6, cut.step)
    rows = np.arange(np.ceil(top), top + height - cut.side + 1e-6, cut.step)
    corners = np.stack([axis.ravel() for axis in np.meshgrid(columns, rows, indexing="ij")], axis=1)
    return np.asarray(np.round(corners * cut.downsample).astype(np.int64))


# ---------------------------------------------------------------- reading


def read_place(path: str, root: Path | None) -> np.ndarray:
    """uint8 (px, px, 3) of the tile that a manifest's path names; the slide stays open for the next. Raises UnreadableImage."""
    place = tile_place(path)
    if place is None:
        raise UnreadableImage(path, "not_an_image", "is no place of a tile; expected FILE#x=..,y=..,level=..,side=..,px=..")
    base = Path() if root is None else root
    file = find_file(base, place.file) if MASK in place.file else base / place.file
    return read_tile(opened(file, where=place.file), place)


def decode_tile(path: str, number: int, root: Path | None, how: TileReading) -> tuple[np.ndarray, ImageHeader]:
    """A tile's pixels, uint8 (px, px, 3), and what stands for a file's header, with its sharpness when ingest looks at it.

    number: its place in the store. Raises UnreadableImage, of kind blurred when it is less sharp than asked for.
    """
    if how.store is not None and not how.keep:
        pixels, measured = how.store.get(number), {}
    else:
        pixels = read_place(path, root)
        measured = {"sharpness": round(sharpness(pixels, how.mpp), 2)} if how.keep else {}
    if measured and measured["sharpness"] < how.min_sharpness:
        reason = f"its sharpness is {measured['sharpness']:g}, less than {how.min_sharpness:g} (data.slides.min_sharpness)"
        raise UnreadableImage(path, "blurred", reason)
    if how.keep and how.store is not None:
        how.store.put(number, pixels)
    height, width = pixels.shape[:2]
    return pixels, ImageHeader(format="slide", height=height, width=width, bit_depth=8, channels=3, measured=measured)


def read_tile(slide: Slide, place: TilePlace) -> np.ndarray:
    """uint8 (px, px, 3) RGB: averaged by area where the level is finer, cubic where it is coarser. Raises UnreadableImage."""
    levels = slide.facts.levels
    if place.level >= len(levels) or place.side < 1 or place.px < 1:
        raise UnreadableImage(place.file, "no_such_frame", f"there is no such tile: {place} (the slide has {len(levels)} levels)")
    step = levels[place.level].downsample
    pixels = slide.read(place.level, round(place.x / step), round(place.y / step), place.side, place.side)
    if place.side == place.px:
        return pixels
    how = cv2.INTER_AREA if place.side > place.px else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (place.px, place.px), interpolation=how))


def read_overview(slide: Slide, mpp: float, wanted: float) -> tuple[np.ndarray, tuple[float, float]]:
    """The scanned area, uint8 (h, w, 3), at about `wanted` microns per pixel, and its exact microns per pixel (y, x).

    mpp: of level 0. From the coarsest level that is fine enough, in strips; from the scanner's own thumbnail where that
    is large enough and the level has more than four times the pixels. Raises UnreadableImage.
    """
    left, top, width, height = slide.facts.area
    size = max(1, round(width * mpp / wanted)), max(1, round(height * mpp / wanted))
    exact = height * mpp / size[1], width * mpp / size[0]
    levels = slide.facts.levels
    number = max((n for n, level in enumerate(levels) if level.downsample <= wanted / mpp), key=lambda n: levels[n].downsample, default=0)
    step = levels[number].downsample
    if 2 * step * mpp < wanted and (width, height) == (levels[0].width, levels[0].height):
        thumbnail = slide.thumbnail()
        if thumbnail is not None and thumbnail.shape[1] >= size[0] and thumbnail.shape[0] >= size[1]:
            return np.asarray(cv2.resize(thumbnail, size, interpolation=cv2.INTER_AREA)), exact
    x, y, wide, high = (round(value / step) for value in (left, top, width, height))
    overview = np.empty((size[1], size[0], 3), np.uint8)
    n_strips = min(size[1], -(-wide * high // STRIP_PIXELS))
    bounds = np.linspace(0, size[1], n_strips + 1).round().astype(int)
    for first, last in itertools.pairwise(bounds):
        begin, end = (round(row * high / size[1]) for row in (first, last))
        strip = slide.read(number, x, y + begin, wide, max(1, end - begin))
        overview[first:last] = cv2.resize(strip, (size[0], int(last - first)), interpolation=cv2.INTER_AREA)
    return overview, exact
