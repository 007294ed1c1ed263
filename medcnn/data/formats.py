"""PNG, JPEG, TIFF, BMP, WebP and what else Pillow knows: headers and samples. The rules are those of images.py."""

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from medcnn.data.png import png_has_exif, png_is_whole, stored_png
from medcnn.errors import InputError

MAX_PIXELS = 178_956_970  # Pillow's own limit; a larger header is taken for a decompression bomb
# What decoders raise for damaged data, besides cv2.error.
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError, MemoryError,
    struct.error, zlib.error,
)  # fmt: skip
BLENDED_PIXELS = 1 << 20
# Pillow knows more, some of it by starting other programs (EPS), some by hardly a mark of their own (TGA).
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "PPM", "JPEG2000", "SGI")  # JPEG: MPO too
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 274, 258, 262
_GREY_MODES = {"1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
Unreadable = Literal[
    "missing_file",
    "unreadable_file",
    "empty_file",
    "truncated",
    "damaged",
    "not_an_image",
    "too_large",
    "unsupported_pixels",
    "no_such_frame",
    "missing_member",
    "not_dicom",
    "no_pixels",
    "no_decoder",
    "blurred",
]


class UnreadableImage(InputError):
    """A file that holds no image we can decode. kind: a word to count by; reason: a sentence; where: the path."""

    def __init__(self, where: object, kind: Unreadable, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.kind, self.reason = str(where), kind, reason


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What an image file says of itself. height, width: pixels after rotation; bit_depth: bits per sample; channels: 1 or 3.

    record: what the reader did to the stored values, in the columns of pixel_record.py; blank when it only unpacked them.
    measured: what it measured on the pixels for the manifest (a tile's sharpness).
    """

    format: str
    height: int
    width: int
    bit_depth: int
    channels: int
    n_frames: int = 1
    record: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)


def decode_file(data: bytes, frame: int, where: object, *, keep_px: tuple[int, int] | None = None) -> tuple[np.ndarray, ImageHeader]:
    """Pixels, uint8 or uint16, (H, W) or (H, W, 3) RGB, rotated as EXIF says; and the header, whose size is that of the whole image.

    keep_px: see `reduction`; None: decoded in full. Raises UnreadableImage.
    """
    image, header = open_image(data, where)
    if not 0 <= frame < header.n_frames:
        raise UnreadableImage(where, "no_such_frame", f"frame {frame} was asked for, the file has {header.n_frames}")
    try:
        pixels = _decode(data, image, header, frame, reduction(header, keep_px))
    except (*DECODER_ERRORS, cv2.error) as error:
        raise UnreadableImage(where, "damaged", f"{header.format} data cannot be decoded ({first_line(error)})") from None
    if pixels is None:
        raise UnreadableImage(where, "damaged", f"{header.format} data is damaged or cut short")
    if pixels.dtype not in (np.uint8, np.uint16):
        reason = f"{pixels.dtype} samples have no declared range; save the image with 8 or 16 bits per sample"
        raise UnreadableImage(where, "unsupported_pixels", reason)
    # Asked after decoding: Pillow rotates a TIFF as it loads it, and then says so by orientation 1.
    return np.ascontiguousarray(_rotate(pixels, _orientation(data, image))), header


# ---------------------------------------------------------------- headers


def open_image(data: bytes, where: object) -> tuple[Image.Image, ImageHeader]:
    """Pillow's lazy image and its header, after the checks that cost nothing. Raises UnreadableImage."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImage(where, "too_large", f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels")
        if _is_cut_short(data, str(image.format)):
            raise UnreadableImage(
                where,
                "truncated",
                f"the {image.format} data ends early: before its end marker, or with fewer bytes than so many pixels can be packed into",
            )
        return image, _header(data, image)
    except UnidentifiedImageError:
        raise UnreadableImage(where, "not_an_image", "the content is no image format that is known here") from None
    except Image.DecompressionBombError:
        raise UnreadableImage(where, "too_large", f"the header claims more than {MAX_PIXELS:,} pixels") from None
    except UnreadableImage:
        raise
    except DECODER_ERRORS as error:
        raise UnreadableImage(where, "damaged", f"the header cannot be read ({first_line(error)})") from None


def _header(data: bytes, image: Image.Image) -> ImageHeader:
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    # For TIFF Pillow gives the size after rotation already.
    width, height = image.size if _orientation(data, image) < 5 or kind == "TIFF" else image.size[::-1]
    channels = 1 if image.mode in _GREY_MODES else 3
    # A JPEG's further pictures (MPO) are previews; a photograph has one frame.
    n_frames = 1 if kind == "JPEG" else int(getattr(image, "n_frames", 1))
    return ImageHeader(format=kind, height=height, width=width, bit_depth=_bit_depth(data, image), channels=channels, n_frames=n_frames)


def _bit_depth(data: bytes, image: Image.Image) -> int:
    if image.format == "PNG":
        return max(8, data[24])
    if image.format == "TIFF":
        return max(8, *_tiff_tag(image, _BITS_PER_SAMPLE, (1,)))
    return 16 if image.mode.startswith("I") else 8


def _tiff_tag(image: Image.Image, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, default)  # type: ignore[attr-defined]  # TIFF only
    return tuple(value) if isinstance(value, tuple) else (int(value),)


def _orientation(data: bytes, image: Image.Image) -> int:
    if image.format == "PNG" and not png_has_exif(data):
        return 1  # Pillow would decode the whole picture to look behind it
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_cut_short(data: bytes, kind: str) -> bool:
    """True when the end marker is missing: decoders differ in what they make of such data, so none is asked."""
    if kind == "PNG":
        return not png_is_whole(data)
    if kind in {"JPEG", "MPO"}:
        return data.rfind(b"\xff\xd9", _scan_start(data)) < 0
    return False


def _scan_start(data: bytes) -> int:
    """Where the JPEG's first scan begins, past the previews in its headers, which have end markers of their own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


# ---------------------------------------------------------------- decoders


_REDUCED = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}


def reduction(header: ImageHeader, keep_px: tuple[int, int] | None) -> int:
    """1, 2, 4 or 8: a JPEG is decoded at this part of its size, from as many of its DCT coefficients as that takes.

    The largest that leaves its shorter side keep_px[0] and its longer side keep_px[1] pixels: a function of the image's size
    and format alone. 1 for all other formats, which cannot.
    """
    if keep_px is None or header.format != "JPEG":
        return 1
    short, long = sorted((header.height, header.width))
    return max(part for part in _REDUCED if part == 1 or (short >= part * keep_px[0] and long >= part * keep_px[1]))


def _decode(data: bytes, image: Image.Image, header: ImageHeader, frame: int, part: int) -> np.ndarray | None:
    if header.format == "TIFF" and header.bit_depth > 8:
        return _decode_deep_tiff(data, image, frame)
    if header.format == "JPEG" and image.mode in {"L", "RGB"}:
        return _trimmed(_decode_opencv(data, grey=header.channels == 1, part=part), image.size, part)
    if header.format == "PNG" and not ("transparency" in image.info and header.bit_depth == 8):
        return _decode_opencv(stored_png(data), grey=header.channels == 1, alpha=image.mode in {"LA", "RGBA"})
    if frame:
        image.seek(frame)
    return _pillow_pixels(image)


def _decode_opencv(data: bytes | memoryview, *, grey: bool, alpha: bool = False, part: int = 1) -> np.ndarray | None:
    # Rotation is left to _rotate: OpenCV's flags differ in it, and a file must not depend on the flag.
    colour = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB
    flags = cv2.IMREAD_UNCHANGED if alpha else colour | _REDUCED[part] | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None or not alpha or pixels.ndim < 3:
        return pixels
    if pixels.shape[2] == 4:
        blended = _over_black(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA))
        return blended[..., 0] if grey else blended
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _trimmed(pixels: np.ndarray | None, whole: tuple[int, int], part: int) -> np.ndarray | None:
    """Without the last row or column of a reduced decode where most of it lies beyond the image: the scale stays nearer the truth."""
    return pixels if pixels is None or part == 1 else pixels[: max(1, round(whole[1] / part)), : max(1, round(whole[0] / part))]


def _pillow_pixels(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return np.array(image).astype(np.uint16)
    if image.mode == "I":
        wide = np.array(image)
        return wide.astype(np.uint16) if wide.size and wide.min() >= 0 and wide.max() <= 65535 else wide
    if image.mode == "F":
        return np.array(image)
    if image.mode in {"LA", "PA", "RGBA", "RGBa", "La"} or "transparency" in image.info:
        grey = image.mode in _GREY_MODES
        blended = _over_black(np.array(image.convert("RGBA")))
        return blended[..., 0] if grey else blended
    return np.array(image.convert("L" if image.mode in _GREY_MODES else "RGB"))


def _decode_deep_tiff(data: bytes, image: Image.Image, frame: int) -> np.ndarray | None:
    if frame:
        image.seek(frame)
    pixels = _tiff_samples(data, frame)
    if pixels is None or pixels.dtype != np.uint16:
        return pixels  # signed or float samples: refused by the caller
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = _over_black(pixels)
    elif pixels.ndim == 3 and pixels.shape[2] in {1, 2}:
        pixels = pixels[..., 0]
    bits = max(_tiff_tag(image, _BITS_PER_SAMPLE, (16,)))
    white_is_zero = _tiff_tag(image, _PHOTOMETRIC, (1,))[0] == 0
    return np.uint16(2**bits - 1) - pixels if white_is_zero else pixels


def _tiff_samples(data: bytes, frame: int) -> np.ndarray | None:
    """Samples as stored, (H, W) or (H, W, samples), RGB order."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[frame]
            if page.size > 4 * MAX_PIXELS:  # Pillow read another size, or fewer planes
                raise ValueError(f"{page.size:,} samples")
            samples = np.asarray(page.asarray())
            return np.moveaxis(samples, 0, -1) if samples.ndim == 3 and page.axes.startswith("S") else samples
    except (ValueError, KeyError) as error:
        if "imagecodecs" not in str(error):  # only a codec that tifffile lacks is worth a second decoder
            raise
    read, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(frame, frame + 1))
    if not read or not pages:
        return None
    order = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
    samples = np.asarray(pages[0])
    return cv2.cvtColor(samples, order[samples.shape[2]]) if samples.ndim == 3 and samples.shape[2] in order else samples


def _over_black(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) with alpha last to (H, W, 3), composited over black; some rows at a time, as it is done in 8 bytes a sample."""
    top = np.iinfo(rgba.dtype).max
    if (rgba[..., 3] == top).all():
        return np.ascontiguousarray(rgba[..., :3])
    blended = np.empty((*rgba.shape[:2], 3), rgba.dtype)
    step = max(1, BLENDED_PIXELS // rgba.shape[1])
    for start in range(0, len(rgba), step):
        some = rgba[start : start + step]
        blended[start : start + step] = np.round(some[..., :3].astype(np.float64) * (some[..., 3:].astype(np.float64) / top))
    return blended


def _rotate(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation (1..8) of (H, W[, C])."""
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return pixels


def first_line(error: Exception) -> str:
    """What a foreign library said, cut to one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
