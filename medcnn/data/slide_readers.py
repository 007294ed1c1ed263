"""Which reader opens which slide, and the reader that asks OpenSlide."""

from pathlib import Path
from typing import Any

import numpy as np

from medcnn.data.formats import UnreadableImage
from medcnn.data.slides import Level, Slide, SlideFacts, check_levels, white
from medcnn.errors import MissingExtra

CACHE_BYTES = 64 << 20  # decoded blocks that OpenSlide keeps for one slide
# Of these two vendors tifffile and OpenSlide decode the same pixels (benchmarks/results/slides.md), and tifffile does it
# in a fifth of the time (JPEG) or in two thirds (JPEG 2000).
SAME_PIXELS = {"aperio", "generic-tiff"}


def open_file(path: Path, where: object, *, is_tiff: bool) -> Slide:
    """A slide that is no DICOM: by OpenSlide; a TIFF that it refuses by tifffile. Raises UnreadableImage."""
    from medcnn.data.slide_tiff import TiffSlide, pages_of

    try:
        slide = OpenSlideSlide(path, where)
    except UnreadableImage:
        if not is_tiff:
            raise
        return TiffSlide(path, where)
    if not is_tiff or slide.facts.vendor not in SAME_PIXELS:
        return slide
    pages = pages_of(path, slide.facts.levels)
    return TiffSlide(path, where, known=slide.facts, pages=pages, thumbnail=slide.thumbnail) if pages else slide


def open_dicom(path: Path, where: object) -> Slide:
    """A DICOM slide: by OpenSlide, else by pydicom. Raises UnreadableImage."""
    from medcnn.data.slide_dicom import DicomSlide

    try:
        return OpenSlideSlide(path, where)
    except UnreadableImage as refused:
        return DicomSlide(path, where, refused=refused.reason)


class OpenSlideSlide:
    """A slide read by OpenSlide."""

    def __init__(self, path: Path, where: object) -> None:
        openslide = import_openslide()
        self._where = where
        try:
            self._slide = openslide.OpenSlide(path)
            self._slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
            properties, dimensions = dict(self._slide.properties), self._slide.level_dimensions
            downsamples = self._slide.level_downsamples
        except openslide.OpenSlideUnsupportedFormatError:
            raise UnreadableImage(where, "not_an_image", "OpenSlide knows no such slide format") from None
        except (openslide.OpenSlideError, OSError, KeyError, ValueError) as error:  # the last two: properties that are no text
            raise UnreadableImage(where, "damaged", f"OpenSlide cannot open it ({_without_path(error, path)})") from None
        levels = tuple(Level(width, height, float(step)) for (width, height), step in zip(dimensions, downsamples, strict=True))
        check_levels(levels, where)
        self._facts = _facts(properties, levels)
        self._path = path

    @property
    def facts(self) -> SlideFacts:
        """What it is."""
        return self._facts

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """As Slide.read. OpenSlide wants the corner in level-0 pixels."""
        openslide = import_openslide()
        white(width, height, self._where)  # the same limits as of every reader
        step = self._facts.levels[level].downsample
        try:
            region = self._slide.read_region((round(x * step), round(y * step)), level, (width, height))
        except openslide.OpenSlideError as error:
            raise UnreadableImage(self._where, "damaged", f"its pixels cannot be decoded ({_without_path(error, self._path)})") from None
        return over_white(np.asarray(region))

    def thumbnail(self) -> np.ndarray | None:
        """The associated picture of that name, where it has the shape of the slide."""
        openslide = import_openslide()
        try:
            picture = self._slide.associated_images.get("thumbnail")
        except openslide.OpenSlideError:
            return None  # a damaged preview is no fault of the slide: the mask is then made from a level
        if picture is None:
            return None
        pixels, finest = over_white(np.asarray(picture)), self._facts.levels[0]
        stretched = (pixels.shape[1] / finest.width) / (pixels.shape[0] / finest.height)
        return pixels if 0.99 < stretched < 1.01 else None

    def close(self) -> None:
        """Let the file go."""
        self._slide.close()


def import_openslide() -> Any:
    """The package openslide, or MissingExtra."""
    try:
        import openslide
    except ImportError:
        raise MissingExtra("openslide-python with openslide-bin", "wsi", "Reading whole slides") from None
    return openslide


def over_white(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of uint8 (H, W, 4): laid over white by its alpha; (H, W, 3) comes back as it is."""
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    share = alpha.astype(np.uint16)
    mixed = (pixels[..., :3].astype(np.uint16) * share + 255 * (255 - share) + 127) // 255
    return np.asarray(mixed, dtype=np.uint8)


def _facts(properties: dict[str, str], levels: tuple[Level, ...]) -> SlideFacts:
    """Only numbers and the vendor's name are taken: descriptions hold users, dates and barcodes."""
    x, y = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    bounds = tuple(int(_number(properties.get(f"openslide.bounds-{name}")) or 0) for name in ("x", "y", "width", "height"))
    return SlideFacts(
        reader="openslide",
        vendor=properties.get("openslide.vendor", ""),
        levels=levels,
        mpp=(x, y) if x and y else None,
        power=_number(properties.get("openslide.objective-power")),
        bounds=(bounds[0], bounds[1], bounds[2], bounds[3]),
    )


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and np.isfinite(value) and value >= 0 else None


def _without_path(error: Exception, path: Path) -> str:
    """OpenSlide's words without the file's name, which may be a patient's."""
    words = (str(error).splitlines() or [type(error).__name__])[0]
    return words.replace(str(path), "").replace(path.name, "").strip(" :")[:200]
