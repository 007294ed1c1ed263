"""Whole slides: one interface over OpenSlide, TIFF and DICOM: levels, what the file says of its resolution, pixels of a rectangle.

OpenSlide opens what it can, and says what a file is; tifffile decodes the pixels where both are known to give the same
(data/slide_readers.py), TIFFs that OpenSlide refuses, and pydicom the DICOM slides that it refuses. Only the scanned area is
ever read: label and macro pictures, which show names and barcodes, have no way out of this room.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np

from medcnn.data.formats import MAX_PIXELS, UnreadableImage
from medcnn.data.images import is_dicom

SLIDE_ENDINGS = frozenset(
    {".svs", ".ndpi", ".tif", ".tiff", ".btf", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi", ".dcm", ".dicom"}
)
SCANNER_ENDINGS = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide"})  # which nothing but a slide has
OPEN_SLIDES = 4  # file handles that read_rectangle keeps open in a process


@dataclass(frozen=True)
class Level:
    """One resolution of the pyramid. width, height: pixels; downsample: level-0 pixels along one of its pixels, >= 1."""

    width: int
    height: int
    downsample: float


@dataclass(frozen=True, kw_only=True)
class SlideFacts:
    """What a slide says of itself, without anything that names a person.

    levels: finest first. mpp: microns per pixel of level 0 (x, y), as the file says, plausible or not; None: it does not say.
    power: the objective's magnification. bounds: x, y, width, height of the scanned area in level-0 pixels.
    """

    reader: str
    vendor: str
    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None = None
    power: float | None = None
    bounds: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def area(self) -> tuple[int, int, int, int]:
        """bounds, or all of level 0 where the file names none."""
        return self.bounds if self.bounds[2] and self.bounds[3] else (0, 0, self.levels[0].width, self.levels[0].height)


class Slide(Protocol):
    """An open slide; read may be called from several threads."""

    @property
    def facts(self) -> SlideFacts:
        """What it is."""
        ...

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """uint8 (height, width, 3) RGB of a rectangle in pixels of that level; what lies outside, or is transparent, is white.

        Raises UnreadableImage when the pixels cannot be decoded.
        """
        ...

    def thumbnail(self) -> np.ndarray | None:
        """uint8 (H, W, 3) of the whole scanned area as the scanner made it, or None; never the label or the macro picture."""
        ...

    def close(self) -> None:
        """Let the file go."""
        ...


def open_slide(path: Path, *, where: object = None) -> Slide:
    """The slide in a file; of a DICOM series any of its files. where: its name in errors.

    Raises UnreadableImage naming why it cannot be opened, MissingExtra without the extra `wsi`.
    """
    from medcnn.data import slide_readers

    where = path if where is None else where
    head = head_of(path, where)
    if is_dicom(head):
        return slide_readers.open_dicom(path, where)
    return slide_readers.open_file(path, where, is_tiff=is_tiff(head))


def is_tiff(head: bytes) -> bool:
    """True for the first bytes of a TIFF or BigTIFF."""
    return head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


def check_levels(levels: tuple[Level, ...], where: object) -> None:
    """Raise UnreadableImage for a slide without pixels."""
    if not levels or min(levels[0].width, levels[0].height) < 1:
        size = f"{levels[0].width} x {levels[0].height}" if levels else "no levels"
        raise UnreadableImage(where, "no_pixels", f"the slide has no pixels ({size})")


def pasted(canvas: np.ndarray, piece: np.ndarray, x: int, y: int) -> None:
    """Put piece into the canvas with its top left corner at x, y, which may lie outside; what does not fit is cut off."""
    top, left = max(0, y), max(0, x)
    bottom, right = min(canvas.shape[0], y + piece.shape[0]), min(canvas.shape[1], x + piece.shape[1])
    if top < bottom and left < right:
        canvas[top:bottom, left:right] = piece[top - y : bottom - y, left - x : right - x]


def white(width: int, height: int, where: object) -> np.ndarray:
    """A white canvas uint8 (height, width, 3). Raises UnreadableImage when it would be larger than any one picture may be."""
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise UnreadableImage(
            where, "too_large", f"a rectangle of {width} x {height} pixels was asked for; at most {MAX_PIXELS:,} are read"
        )
    return np.full((height, width, 3), 255, np.uint8)


def head_of(path: Path, where: object) -> bytes:
    """The file's first 132 bytes, by which it is known. Raises UnreadableImage."""
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except FileNotFoundError:
        raise UnreadableImage(where, "missing_file", "no such file") from None
    except OSError as error:
        raise UnreadableImage(where, "unreadable_file", f"cannot be opened ({error.strerror or error})") from None
    if not head:
        raise UnreadableImage(where, "empty_file", "the file has no bytes")
    return head


# ---------------------------------------------------------------- open slides of this process


class _OpenSlides:
    """The slides last read, kept open: reading tiles in any order opens each file once."""

    def __init__(self, n: int) -> None:
        self._n, self._lock, self._slides = n, Lock(), OrderedDict[tuple[str, int, int], Slide]()

    def forget(self) -> None:
        """Close all of them."""
        with self._lock:
            self._slides.clear()

    def get(self, path: Path, where: object) -> Slide:
        """The open slide; opened anew when the file has changed."""
        try:
            facts = path.stat()
        except OSError:
            raise UnreadableImage(where, "missing_file", "no such file") from None
        key = (str(path), facts.st_size, facts.st_mtime_ns)
        with self._lock:
            slide = self._slides.get(key)
            if slide is None:
                slide = self._slides[key] = open_slide(path, where=where)
            self._slides.move_to_end(key)
            while len(self._slides) > self._n:
                self._slides.popitem(last=False)  # closed when the last thread that reads it lets it go
        return slide


_open_slides = _OpenSlides(OPEN_SLIDES)


def forget_slides() -> None:
    """Close the slides that `opened` keeps, and drop the pixels that they hold."""
    _open_slides.forget()


def opened(path: Path, *, where: object = None) -> Slide:
    """The slide, kept open for further calls in this process. Raises as open_slide."""
    return _open_slides.get(path, path if where is None else where)
