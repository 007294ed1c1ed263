"""Files to pixels: one function decodes any row of a manifest, whatever the format.

Rules, the same for every format:
- The content decides what a file is; its ending is not looked at.
- EXIF (TIFF: orientation tag) rotation is applied, so height and width are as a person sees them.
- Alpha is composited over black. Palettes are resolved. CMYK becomes RGB. 1-bit becomes 0 and 255. ICC profiles are ignored.
- A file that is cut short is refused, never filled with grey.

OpenCV decodes JPEG and PNG, being fastest; Pillow the rest; tifffile (or OpenCV, for codecs it lacks) TIFF of more than 8 bits.
"""

import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medcnn.config_data import WindowChoice
from medcnn.data.arrays import npz_row
from medcnn.data.formats import ImageHeader, UnreadableImage, decode_file, open_image
from medcnn.data.pseudonyms import MASK, find_file
from medcnn.data.tile_places import tile_place
from medcnn.data.tile_store import TileReading
from medcnn.errors import InputError

__all__ = [
    "ImageHeader",
    "Reading",
    "UnreadableImage",
    "decode_bytes",
    "decode_image",
    "decode_place",
    "decode_row",
    "probe_image",
    "read_bytes",
    "read_row",
    "shares_no_file",
    "to_uint8",
]

GIB = 1 << 30
MAX_FILE_BYTES = GIB  # the samples of the largest picture that is taken (formats.MAX_PIXELS, colour, 16 bits), unpacked
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5


@dataclass(frozen=True)
class Reading:
    """How files become pixels. root: where a manifest's paths start (see ingest.image_root).

    window: DICOM, see DataConfig.window. keep_px: a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as
    its (shorter, longer) side keeps this many pixels; None: always in full. tiles: what is done about tiles of slides.
    find_text: ingest reads each image with OCR.
    """

    root: Path | None = None
    window: WindowChoice = "first"
    keep_px: tuple[int, int] | None = None
    tiles: TileReading = field(default_factory=TileReading)
    find_text: bool = False


WHOLE = Reading()


def decode_row(path: str | Path, frame: int = 0, *, root: Path | None = None) -> np.ndarray:
    """Pixels of one manifest row: uint8 or uint16, (H, W) grey or (H, W, 3) RGB.

    path: as the manifest has it: relative to `root` (see ingest.image_root), `FILE.npz#MEMBER` (frame: the row of
    the array), a tile's place (see tile_places.py), or `phantom:...`. Raises UnreadableImage.
    """
    return decode_place(str(path), frame, Reading(root))[0]


def read_row(path: str | Path, frame: int = 0, *, root: Path | None = None, reading: Reading | None = None) -> np.ndarray:
    """As decode_row, brought to uint8 by to_uint8: what the one preprocessing starts from."""
    pixels, header = decode_place(str(path), frame, reading or Reading(root))
    return to_uint8(pixels, header.bit_depth)


def decode_image(path: Path, frame: int = 0) -> np.ndarray:
    """Pixels of one file, DICOM included: uint8 or uint16, (H, W) grey or (H, W, 3) RGB. Raises UnreadableImage."""
    return decode_bytes(read_bytes(path), frame, where=path)[0]


def decode_bytes(data: bytes, frame: int = 0, *, where: object, reading: Reading = WHOLE) -> tuple[np.ndarray, ImageHeader]:
    """As decode_image, for a file already in memory, with what its header says; `where` names it in errors."""
    if is_dicom(data):
        from medcnn.data.dicom import decode_dicom

        return decode_dicom(data, frame, where=where, window=reading.window)
    return decode_file(data, frame, where, keep_px=reading.keep_px)


def decode_place(path: str, frame: int, reading: Reading, *, data: bytes | None = None) -> tuple[np.ndarray, ImageHeader]:
    """Pixels and header of what a manifest's row names; every kind of path is told apart here. data: the file, where it was read already."""
    if path.startswith("phantom:"):
        from medcnn.data.phantom import phantom_pixels

        return _with_header(phantom_pixels(path, frame), "phantom")
    if tile_place(path) is not None:
        from medcnn.data.tiles import decode_tile

        return decode_tile(path, frame, reading.root, reading.tiles)
    file, hash_sign, member = path.rpartition("#")
    if hash_sign and file.lower().endswith(".npz"):
        return _with_header(npz_row(_below(reading.root, file), member, frame), "NPZ")
    return decode_bytes(read_file(path, reading.root) if data is None else data, frame, where=path, reading=reading)


def shares_no_file(path: str) -> bool:
    """True for a path whose images are rows of an array, parts of a slide, or made up: there is no file to read as a whole."""
    return path.startswith("phantom:") or ".npz#" in path.lower() or tile_place(path) is not None


def _with_header(pixels: np.ndarray, kind: str) -> tuple[np.ndarray, ImageHeader]:
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else 3
    return pixels, ImageHeader(format=kind, height=height, width=width, bit_depth=8 * pixels.itemsize, channels=channels)


def read_file(path: str, root: Path | None) -> bytes:
    """Bytes of the file that a manifest's path names; the path may hold masked names. Raises UnreadableImage naming it as the manifest does."""
    place = _below(root, path)
    if MASK in path:
        place = find_file(Path() if root is None else root, path)
    return read_bytes(place, where=path)


def probe_image(path: Path) -> ImageHeader:
    """What the file's header says, without decoding the pixels. Raises UnreadableImage; a probe that succeeds proves nothing of the pixels."""
    data = read_bytes(path)
    if is_dicom(data):
        from medcnn.data.dicom import probe_dicom

        return probe_dicom(data, where=path)
    return open_image(data, path)[1]


def read_bytes(path: Path, *, where: object = None) -> bytes:
    """The file's bytes. where: its name in errors.

    Raises UnreadableImage when it is missing, empty, no plain file, not permitted, or larger than MAX_FILE_BYTES, of which
    then no byte is read.
    """
    where = path if where is None else where
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise UnreadableImage(where, "unreadable_file", "is a folder" if path.is_dir() else "is not a plain file")
        if state.st_size > MAX_FILE_BYTES:
            reason = f"the file has {state.st_size / GIB:.1f} GiB, more than the {MAX_FILE_BYTES / GIB:.0f} that one image may have"
            raise UnreadableImage(where, "too_large", reason)
        data = path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImage(where, "missing_file", "no such file") from None
    except OSError as error:
        raise UnreadableImage(where, "unreadable_file", f"cannot be opened ({error.strerror or error})") from None
    except UnreadableImage:
        raise
    except ValueError:  # a NUL byte
        raise UnreadableImage(where, "missing_file", "no file can have such a name") from None
    if not data:
        raise UnreadableImage(where, "empty_file", "the file has no bytes")
    return data


def is_dicom(data: bytes) -> bool:
    """True for DICOM with its preamble, and for data sets without one that start with a group 2 or 8 element."""
    if data[128:132] == b"DICM":
        return True
    group, element = struct.unpack("<HH", data[:4]) if len(data) >= 8 else (0, 0)
    return group in {0x0002, 0x0008} and element <= 0x0070


def to_uint8(pixels: np.ndarray, bit_depth: int = 16) -> np.ndarray:
    """Pixels as uint8, same shape. uint8 comes back unchanged.

    A depth below 16 is taken at its word: 0..2**bit_depth - 1 becomes 0..255. 16 is only the size of the container
    (12-bit radiographs are commonly stored in it, and the full range would leave them almost black), so the window from
    the 0.5th to the 99.5th percentile of the image's own samples (all channels together, which keeps the hue) becomes 0..255.
    Both are exact and deterministic. A constant 16-bit image becomes 0.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype != np.uint16:
        raise InputError(f"pixels: expected uint8 or uint16, got {pixels.dtype}")
    low, high = (0, 2**bit_depth - 1) if bit_depth < 16 else _percentile_window(pixels)
    table = np.clip((np.arange(65536) - low) / max(high - low, 1), 0, 1) * 255
    return np.asarray(np.round(table).astype(np.uint8)[pixels])


def _percentile_window(pixels: np.ndarray) -> tuple[int, int]:
    # From the histogram: linear in the number of samples, where a sort is not.
    cumulative = np.cumsum(np.bincount(pixels.ravel(), minlength=65536))
    wanted = np.array([LOW_PERCENTILE, HIGH_PERCENTILE]) / 100 * cumulative[-1]
    low, high = np.searchsorted(cumulative, wanted)
    return int(low), int(high)


def _below(root: Path | None, path: str) -> Path:
    return Path(path) if root is None else root / path
