"""Arrays of an NPZ file, unpacked once and kept."""

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from medcnn.data.formats import UnreadableImage, first_line

GIB = 1 << 30
MAX_ARRAY_BYTES = 16 * GIB  # the largest part of a MedMNIST set, at 224 px, has 13 GiB


def npz_row(file: Path, member: str, row: int) -> np.ndarray:
    """One image of an array: (H, W) or (H, W, 3). Raises UnreadableImage."""
    array = npz_member(file, member)
    if not 0 <= row < len(array):
        raise UnreadableImage(f"{file}#{member}", "no_such_frame", f"row {row} was asked for, the array has {len(array)}")
    pixels = np.asarray(array[row])
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def npz_names(file: Path) -> list[str]:
    """Names of the arrays of an NPZ file. Raises UnreadableImage."""
    try:
        with zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except NPZ_ERRORS as error:
        raise UnreadableImage(file, "damaged", f"cannot be read as an NPZ archive ({first_line(error)})") from None


def npz_member(file: Path, member: str) -> np.ndarray:
    """One array of an NPZ file, kept in memory while the file does not change. Raises UnreadableImage."""
    try:
        state = file.stat()
    except OSError:
        raise UnreadableImage(file, "missing_file", "no such file") from None
    with _NPZ_LOCK:  # threads that ask at once must not each unpack it
        return _unpacked(file, member, state.st_mtime_ns, state.st_size)


_NPZ_LOCK = Lock()
# What broken archives raise: encrypted members and unknown compression (RuntimeError, NotImplementedError), lying sizes, odd headers.
NPZ_ERRORS = (
    OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, IndexError, AttributeError, OverflowError, RuntimeError, NotImplementedError,
    MemoryError, RecursionError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip


@lru_cache(maxsize=3)  # train, val and test of one file
def _unpacked(file: Path, member: str, _mtime: int, _size: int) -> np.ndarray:
    try:
        with zipfile.ZipFile(file) as archive:
            _require_member(archive, file, member)
        with np.load(file, allow_pickle=False) as arrays:
            return np.asarray(arrays[member])
    except UnreadableImage:
        raise
    except NPZ_ERRORS as error:
        raise UnreadableImage(file, "damaged", f"cannot be read as an NPZ archive ({first_line(error)})") from None


def _require_member(archive: zipfile.ZipFile, file: Path, member: str) -> None:
    """Raise UnreadableImage unless the archive has the array, its header fits its size, and it fits into memory unpacked."""
    names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if member not in names:
        raise UnreadableImage(file, "missing_member", f"the archive has no array called {member}")
    info = names[member]
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read_header is None:
            raise UnreadableImage(file, "damaged", f"{member} is an array of format {version}; expected 1.0 or 2.0, as numpy.savez writes")
        shape, _, dtype = read_header(stream)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > info.file_size:
        raise UnreadableImage(file, "damaged", f"{member} claims shape {shape}, more than the {info.file_size} bytes that are packed")
    if claimed > MAX_ARRAY_BYTES:
        reason = f"{member} takes {claimed / GIB:.1f} GiB unpacked, more than {MAX_ARRAY_BYTES / GIB:.0f}; give such a cohort as files"
        raise UnreadableImage(file, "too_large", reason)
