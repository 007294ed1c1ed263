"""TIFF slides by tifffile: flat pictures and pyramids, read by their tiles or strips, so that memory is bounded whatever their size."""

import os
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tifffile

from medcnn.data.formats import MAX_PIXELS, UnreadableImage, first_line
from medcnn.data.slides import Level, SlideFacts, check_levels, pasted, white

CACHE_BYTES = 64 << 20  # decoded segments kept for one slide
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _YCBCR = 0, 1, 2, 6
_JPEG = {6, 7, 34892, 33007}
_END_OF_JPEG = b"\xff\xd9"
_MICRONS = {2: 25_400.0, 3: 10_000.0}  # microns in the tag's unit: inch, centimetre
# What tifffile, imagecodecs and their libraries raise on damaged files.
_ERRORS = (
    OSError, ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, EOFError,
    struct.error, zlib.error, tifffile.TiffFileError,
)  # fmt: skip

Thumbnail = Callable[[], np.ndarray | None]


class TiffSlide:
    """A TIFF read by its segments. known, pages: what OpenSlide says of it, and which page is which level."""

    def __init__(
        self,
        path: Path,
        where: object,
        *,
        known: SlideFacts | None = None,
        pages: Sequence[int] = (),
        thumbnail: Thumbnail | None = None,
    ) -> None:
        self._where, self._thumbnail = where, thumbnail
        self._cache, self._lock, self._held = OrderedDict[tuple[int, int], np.ndarray](), Lock(), 0
        try:
            self._file = tifffile.TiffFile(path)
            self._pages = [_page(self._file, number) for number in pages] or _pyramid(self._file)
            facts = known or _facts(self._pages)
        except _ERRORS as error:
            raise UnreadableImage(where, "damaged", f"its TIFF header cannot be read ({first_line(error)})") from None
        self._facts = SlideFacts(**{**vars(facts), "reader": "openslide+tifffile" if known else "tifffile"})
        check_levels(self._facts.levels, where)
        try:
            for page in self._pages:
                _check_samples(page, where)
        except TypeError:  # a number that is a list
            raise UnreadableImage(where, "damaged", "its TIFF header holds several values where one is expected") from None

    @property
    def facts(self) -> SlideFacts:
        """What it is."""
        return self._facts

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """As Slide.read."""
        canvas = white(width, height, self._where)
        page = self._pages[level]
        for number, left, top in _segments_below(page, x, y, width, height):
            piece = self._segment(level, page, number)
            piece = piece[: page.imagelength - top, : page.imagewidth - left]  # a tile's padding is no part of the picture
            pasted(canvas, piece, left - x, top - y)
        return canvas

    def thumbnail(self) -> np.ndarray | None:
        """As Slide.thumbnail; a flat TIFF has none."""
        return self._thumbnail() if self._thumbnail else None

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def _segment(self, level: int, page: Any, number: int) -> np.ndarray:
        with self._lock:
            if (known := self._cache.get((level, number))) is not None:
                self._cache.move_to_end((level, number))
                return known
        found = self._decoded(page, number)
        with self._lock:
            if (level, number) not in self._cache:
                self._cache[level, number] = found
                self._held += found.nbytes
            while self._held > CACHE_BYTES and len(self._cache) > 1:
                self._held -= self._cache.popitem(last=False)[1].nbytes
        return found

    def _decoded(self, page: Any, number: int) -> np.ndarray:
        """uint8 (h, w, 3) of one tile or strip."""
        n_bytes = page.databytecounts[number]
        if not n_bytes:  # a sparse file: nothing was scanned here
            return np.full((*_segment_shape(page), 3), 255, np.uint8)
        try:
            # Not seek and read: tifffile's own lock is none by default, and threads read each other's blocks.
            data = os.pread(self._file.filehandle.fileno(), n_bytes, page.dataoffsets[number])
            cut = len(data) < n_bytes or (page.compression in _JPEG and data.rfind(_END_OF_JPEG) < 0)
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in _JPEG else {}
            pixels = None if cut else page.decode(data, number, _fullsize=page.is_tiled, **tables)[0]
        except _ERRORS as error:
            raise UnreadableImage(self._where, "damaged", f"its pixels cannot be decoded ({first_line(error)})") from None
        if cut:
            raise UnreadableImage(self._where, "truncated", "the file ends before its pixels do")
        if pixels is None:
            raise UnreadableImage(self._where, "damaged", "a block of its pixels is empty")
        return _as_rgb(pixels.reshape(pixels.shape[-3:]), page.photometric)


def pages_of(path: Path, levels: Sequence[Level]) -> list[int] | None:
    """Number of the TIFF page that holds each level, or None where tifffile cannot stand in for OpenSlide: unlike sizes, blocks left out."""
    try:
        with tifffile.TiffFile(path) as file:
            sizes: dict[tuple[int, int], int] = {}
            for number in range(len(file.pages)):
                page = _page(file, number)
                sizes.setdefault((page.imagewidth, page.imagelength), number)
            found = [sizes.get((level.width, level.height), -1) for level in levels]
            if min(found) < 0 or not all(_is_plain(_page(file, number)) for number in found):
                return None
    except _ERRORS:
        return None  # OpenSlide, which opened it, reads it
    return found


def _is_plain(page: Any) -> bool:
    return bool(page.is_tiled and all(page.databytecounts) and page.photometric in {_RGB, _YCBCR} and not _sample_problem(page))


def _page(file: tifffile.TiffFile, number: int) -> Any:
    page = file.pages[number]
    return page.aspage() if isinstance(page, tifffile.TiffFrame) else page


def _pyramid(file: tifffile.TiffFile) -> list[Any]:
    """The first picture and its smaller copies, finest first."""
    first = _page(file, 0)
    if not first.imagewidth * first.imagelength:
        return [first]
    levels = [level.keyframe for level in file.series[0].levels] if file.series else []
    same = [page for page in levels if page.imagewidth <= first.imagewidth and not _sample_problem(page)]
    return same if same and same[0].index == first.index else [first]


def _facts(pages: Sequence[Any]) -> SlideFacts:
    finest = pages[0]
    steps = [finest.imagewidth / page.imagewidth if page.imagewidth else 1.0 for page in pages]
    levels = tuple(Level(page.imagewidth, page.imagelength, step) for page, step in zip(pages, steps, strict=True))
    return SlideFacts(reader="tifffile", vendor="tiff", levels=levels, mpp=_resolution(finest))


def _resolution(page: Any) -> tuple[float, float] | None:
    """Microns per pixel by the tags XResolution, YResolution and ResolutionUnit (inch where it is not said); unit 1 is none."""
    unit = page.tags["ResolutionUnit"].value if "ResolutionUnit" in page.tags else 2
    microns = _MICRONS.get(int(unit))
    per_unit = []
    with suppress(KeyError, ZeroDivisionError, TypeError):
        per_unit = [value[0] / value[1] for value in (page.tags[name].value for name in ("XResolution", "YResolution"))]
    if microns is None or len(per_unit) != 2 or min(per_unit) <= 0:
        return None
    return microns / per_unit[0], microns / per_unit[1]


def _check_samples(page: Any, where: object) -> None:
    problem = _sample_problem(page)
    if problem:
        raise UnreadableImage(where, "unsupported_pixels", problem)
    height, width = _segment_shape(page)
    if min(height, width) < 1 or len(page.dataoffsets) != len(page.databytecounts) or len(page.dataoffsets) < _n_segments(page):
        raise UnreadableImage(where, "damaged", "its header does not say where all of its blocks are")
    if height * width > MAX_PIXELS:
        reason = f"one block of it has {width} x {height} pixels, more than {MAX_PIXELS:,} at a time; save it with tiles"
        raise UnreadableImage(where, "too_large", reason)


def _sample_problem(page: Any) -> str:
    """Why its samples are not shown as a slide; blank when they are."""
    if not isinstance(page.compression, tifffile.COMPRESSION):
        return f"its compression {page.compression} is not known here"
    if page.dtype != np.uint8:
        return f"{page.dtype} samples have no declared range from black to white; save the slide with 8 bits per sample"
    wanted = {_MIN_IS_WHITE: (1,), _MIN_IS_BLACK: (1,), _RGB: (3, 4), _YCBCR: (3,)}.get(int(page.photometric), ())
    if page.samplesperpixel not in wanted or (page.photometric == _YCBCR and page.compression not in _JPEG):
        return f"{page.samplesperpixel} samples per pixel of photometric kind {int(page.photometric)}; expected grey, RGB or RGB with alpha"
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        return "its colours are stored as separate planes; save it with contiguous samples"
    return "it is a stack of several depths" if page.imagedepth > 1 else ""


def _segment_shape(page: Any) -> tuple[int, int]:
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip or page.imagelength, page.imagelength), page.imagewidth


def _n_segments(page: Any) -> int:
    height, width = _segment_shape(page)
    return int(-(-page.imagelength // height) * -(-page.imagewidth // width))


def _segments_below(page: Any, x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int, int]]:
    """(number, left, top) of each tile or strip that a rectangle touches."""
    step_y, step_x = _segment_shape(page)
    right, bottom = min(x + width, page.imagewidth), min(y + height, page.imagelength)
    n_across = -(-page.imagewidth // step_x)
    for row in range(max(0, y) // step_y, -(-bottom // step_y)):
        for column in range(max(0, x) // step_x, -(-right // step_x)):
            yield row * n_across + column, column * step_x, row * step_y


def _as_rgb(pixels: np.ndarray, photometric: int) -> np.ndarray:
    from medcnn.data.slide_readers import over_white

    if pixels.shape[2] == 1:
        grey = 255 - pixels if photometric == _MIN_IS_WHITE else pixels
        return np.repeat(grey, 3, axis=2)
    return over_white(pixels)


def is_pyramid(path: Path) -> bool:
    """True for a TIFF whose first picture is stored in tiles and has smaller copies in the file; False for whatever else it is."""
    try:
        with tifffile.TiffFile(path) as file:
            first = _page(file, 0)
            copies = [page for page in (_page(file, number) for number in range(1, len(file.pages))) if page.is_tiled]
            return bool(first.is_tiled and any(page.imagewidth < first.imagewidth for page in copies))
    except _ERRORS:
        return False
