"""DICOM slides (VL Whole Slide Microscopy) by pydicom, for those that OpenSlide refuses: JPEG-LS, missing tags, and to say why not."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder

from medcnn.data.dicom_codecs import DICOM_ERRORS, frame_bytes, is_native
from medcnn.data.formats import UnreadableImage, first_line
from medcnn.data.images import is_dicom
from medcnn.data.slides import Level, SlideFacts, check_levels, head_of, pasted, white
from medcnn.errors import MissingExtra

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG_LS = {"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"}
MAX_BYTES = 1 << 30  # pydicom holds the file in memory
CACHED_FRAMES = 256
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # 0xF7: JPEG-LS; the others are tables
_ERRORS = (*DICOM_ERRORS, InvalidDicomError, RuntimeError, ArithmeticError)  # RuntimeError: pydicom's for an unknown value representation


@dataclass(frozen=True)
class SlideHeader:
    """What says which files are one slide. series: SeriesInstanceUID, which must not leave memory; kind: VOLUME, LABEL, ..."""

    series: str
    kind: str
    width: int
    height: int


def slide_header(path: Path, where: object) -> SlideHeader:
    """Header of one file of a DICOM slide; its pixels are not read. Raises UnreadableImage when it is none."""
    with _damage_named(where):
        return _header(_read(path, where, pixels=False))


class DicomSlide:
    """A slide whose levels are the VOLUME files of one series in one folder."""

    def __init__(self, path: Path, where: object, *, refused: str) -> None:
        self._where = where
        own = slide_header(path, where)
        series = own.series
        if own.kind != "VOLUME":
            raise UnreadableImage(where, "no_pixels", f"its DICOM image type is {own.kind}: no scanned area")
        files = [other for other in sorted(path.parent.iterdir()) if other == path or _is_level(other, series)]
        with _damage_named(where):
            self._levels = sorted((_DicomLevel(file, where) for file in files), key=lambda level: -level.width)
            finest = self._levels[0]
            levels = tuple(Level(level.width, level.height, finest.width / level.width) for level in self._levels)
        check_levels(levels, where)
        self._facts = SlideFacts(
            reader=f"pydicom, since: {refused}"[:200], vendor="dicom", levels=levels, mpp=finest.mpp, power=finest.power
        )

    @property
    def facts(self) -> SlideFacts:
        """What it is."""
        return self._facts

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """As Slide.read."""
        canvas = white(width, height, self._where)
        for left, top, frame in self._levels[level].frames_below(x, y, width, height):
            pasted(canvas, self._levels[level].frame(frame), left - x, top - y)
        return canvas

    def thumbnail(self) -> np.ndarray | None:
        """None: the levels serve."""
        return None

    def close(self) -> None:
        """Let the pixels go."""
        self._levels.clear()


class _DicomLevel:
    """One file: frames row by row on a grid (TILED_FULL), or each where its functional groups say (TILED_SPARSE)."""

    def __init__(self, path: Path, where: object) -> None:
        if path.stat().st_size > MAX_BYTES:
            raise UnreadableImage(
                where, "too_large", f"OpenSlide refuses it, and it is larger than the {MAX_BYTES >> 30} GiB that pydicom may hold"
            )
        self._where, self._dataset = where, _read(path, where, pixels=True)
        _check_samples(self._dataset, where)
        header = _header(self._dataset)
        self.width, self.height, self.mpp, self.power = header.width, header.height, _resolution(self._dataset), _power(self._dataset)
        self._tile = (int(self._dataset.Columns), int(self._dataset.Rows))
        self._places = _places(self._dataset, header, where)
        self._cache, self._lock = OrderedDict[int, np.ndarray](), Lock()

    def frames_below(self, x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int, int]]:
        """(left, top, frame) of each frame that a rectangle touches."""
        wide, high = self._tile
        for left, top, frame in self._places:
            if left < x + width and left + wide > x and top < y + height and top + high > y:
                yield left, top, frame

    def frame(self, number: int) -> np.ndarray:
        """uint8 (h, w, 3) of one frame, without the padding beyond the picture's edge."""
        with self._lock:
            if number not in self._cache:
                self._cache[number] = self._decoded(number)
            self._cache.move_to_end(number)
            while len(self._cache) > CACHED_FRAMES:
                self._cache.popitem(last=False)
            pixels = self._cache[number]
        left, top, _ = self._places[number]
        return pixels[: self.height - top, : self.width - left]

    def _check_frame(self, number: int) -> None:
        """Refuse a frame whose own header claims another size: a decoder would make that many pixels, or work on them for minutes."""
        if is_native(self._dataset.file_meta.TransferSyntaxUID):
            return
        data = frame_bytes(self._dataset, number)
        claimed = jpeg_size(data)
        if claimed is None and data[:2] == b"\xff\xd8":
            raise UnreadableImage(self._where, "damaged", f"frame {number} has no JPEG frame header")
        if claimed is not None and claimed != self._tile:
            reason = f"frame {number} says that it has {claimed[0]} x {claimed[1]} pixels, the file {self._tile[0]} x {self._tile[1]}"
            raise UnreadableImage(self._where, "damaged", reason)

    def _decoded(self, number: int) -> np.ndarray:
        try:
            self._check_frame(number)
            syntax = self._dataset.file_meta.TransferSyntaxUID
            if str(syntax) in JPEG_LS:
                pixels = _jpeg_ls(frame_bytes(self._dataset, number))
            else:
                pixels = get_decoder(syntax).as_array(self._dataset, index=number)[0]
        except _ERRORS as error:
            raise UnreadableImage(self._where, "damaged", f"frame {number} cannot be decoded ({first_line(error)})") from None
        if pixels.dtype != np.uint8 or pixels.shape[1::-1] != self._tile:
            reason = f"frame {number} holds {pixels.dtype} {pixels.shape}, not 8 bits of {self._tile[0]} x {self._tile[1]}"
            raise UnreadableImage(self._where, "damaged", reason)
        if pixels.ndim == 2:
            grey = 255 - pixels if self._dataset.get("PhotometricInterpretation") == "MONOCHROME1" else pixels
            return np.repeat(grey[..., None], 3, axis=2)
        return pixels


@contextlib.contextmanager
def _damage_named(where: object) -> Iterator[None]:
    """Whatever a damaged header makes pydicom raise, as UnreadableImage; elements are only parsed when they are asked for."""
    try:
        yield
    except UnreadableImage:
        raise
    except _ERRORS as error:
        raise UnreadableImage(where, "damaged", f"its DICOM header cannot be read ({type(error).__name__})") from None


def _jpeg_ls(data: bytes) -> np.ndarray:
    """By imagecodecs: pydicom's decoder for it, pyjpegls, ends the whole process on some damaged streams."""
    try:
        import imagecodecs
    except ImportError:
        raise MissingExtra("imagecodecs", "wsi", "Reading slides compressed by JPEG-LS") from None
    return np.asarray(imagecodecs.jpegls_decode(data))


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG or JPEG-LS stream's frame header names; None where there is none before the pixels."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _START_OF_FRAME:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker == 0xDA:
            return None
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _read(path: Path, where: object, *, pixels: bool) -> pydicom.Dataset:
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
        kind = str(dataset.get("SOPClassUID", ""))
    except _ERRORS as error:
        raise UnreadableImage(where, "damaged", f"its DICOM header cannot be read ({type(error).__name__})") from None
    if kind != WHOLE_SLIDE:
        raise UnreadableImage(where, "no_pixels", "a DICOM object that is no whole slide; data.source: dicom reads images of other kinds")
    return dataset


def _header(dataset: pydicom.Dataset) -> SlideHeader:
    words = [str(word) for word in dataset.get("ImageType") or []]
    width = int(dataset.get("TotalPixelMatrixColumns") or dataset.Columns)
    height = int(dataset.get("TotalPixelMatrixRows") or dataset.Rows)
    kind = words[2] if len(words) > 2 else "VOLUME"  # nothing said: the picture itself
    return SlideHeader(str(dataset.get("SeriesInstanceUID", "")), kind, width, height)


def _is_level(path: Path, series: str) -> bool:
    if not series or not path.is_file():
        return False
    try:
        if not is_dicom(head_of(path, path)):
            return False
        header = slide_header(path, path)
    except UnreadableImage:
        return False  # a neighbour that is no slide; the source lists it on its own
    return (header.series, header.kind) == (series, "VOLUME")


def _check_samples(dataset: pydicom.Dataset, where: object) -> None:
    bits, samples = int(dataset.get("BitsAllocated", 0)), int(dataset.get("SamplesPerPixel", 0))
    if bits != 8 or samples not in {1, 3}:
        reason = f"{bits}-bit samples, {samples} a pixel, have no declared range from black to white; expected 8 bits, grey or RGB"
        raise UnreadableImage(where, "unsupported_pixels", reason)
    for name, text in (("NumberOfOpticalPaths", "optical paths"), ("TotalPixelMatrixFocalPlanes", "focal planes")):
        if int(dataset.get(name) or 1) > 1:
            raise UnreadableImage(where, "unsupported_pixels", f"it has {dataset.get(name)} {text}; one is expected")


def _places(dataset: pydicom.Dataset, header: SlideHeader, where: object) -> list[tuple[int, int, int]]:
    """(left, top, frame) in pixels, of each frame in its order."""
    wide, high, n_frames = int(dataset.Columns), int(dataset.Rows), int(dataset.get("NumberOfFrames") or 1)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if groups and "PlanePositionSlideSequence" in groups[0]:
        spots = [group.PlanePositionSlideSequence[0] for group in groups]
        return [
            (int(at.ColumnPositionInTotalImagePixelMatrix) - 1, int(at.RowPositionInTotalImagePixelMatrix) - 1, frame)
            for frame, at in enumerate(spots)
        ]
    if str(dataset.get("DimensionOrganizationType") or "") != "TILED_FULL":
        # Guessed row by row, a real file of this kind (its frames run down the columns) came out shuffled.
        reason = "it does not say where its frames lie: DimensionOrganizationType is not TILED_FULL, and no frame has a plane position"
        raise UnreadableImage(where, "damaged", reason)
    n_across, n_down = -(-header.width // wide), -(-header.height // high)
    if n_across * n_down != n_frames:
        reason = (
            f"{n_frames} frames of {wide} x {high} do not tile {header.width} x {header.height} pixels ({n_across} x {n_down} are expected)"
        )
        raise UnreadableImage(where, "damaged", reason)
    return [(frame % n_across * wide, frame // n_across * high, frame) for frame in range(n_frames)]


def _resolution(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """Microns per pixel (x, y) from PixelSpacing in mm, which names rows first; None where it is not said."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    measures = shared[0].get("PixelMeasuresSequence") or [dataset]
    spacing = measures[0].get("PixelSpacing")
    if not spacing or len(spacing) != 2 or min(float(value) for value in spacing) <= 0:
        return None
    return float(spacing[1]) * 1000, float(spacing[0]) * 1000


def _power(dataset: pydicom.Dataset) -> float | None:
    path = (dataset.get("OpticalPathSequence") or [pydicom.Dataset()])[0]
    power = path.get("ObjectiveLensPower")
    return float(power) if power else None


def is_whole_slide(path: Path) -> bool:
    """True for a DICOM file that is a whole slide by its header; False for whatever else it is."""
    try:
        return is_dicom(head_of(path, path)) and bool(slide_header(path, path).kind)
    except UnreadableImage:
        return False
