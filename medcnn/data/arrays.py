"""Arrays of an NPZ file, unpacked once and kept."""

import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from medcnn.data.formats import UnreadableImage, first_line


def npz_row(file: Path, member: str, row: int) -> np.ndarray:
    """One image of an array: (H, W) or (H, W, 3). Raises UnreadableImage."""
    array = npz_member(file, member)
    if not 0 <= row < len(array):
        raise UnreadableImage(f"{file}#{member}", "no_such_frame", f"row {row} was asked for, the array has {len(array)}")
    pixels = np.asarray(array[row])
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def npz_member(file: Path, member: str) -> np.ndarray:
    """One array of an NPZ file, kept in memory while the file does not change. Raises UnreadableImage."""
    try:
        state = file.stat()
    except OSError:
        raise UnreadableImage(file, "missing_file", "no such file") from None
    with _NPZ_LOCK:  # threads that ask at once must not each unpack it
        return _unpacked(file, member, state.st_mtime_ns, state.st_size)


_NPZ_LOCK = Lock()


@lru_cache(maxsize=3)  # train, val and test of one file
def _unpacked(file: Path, member: str, _mtime: int, _size: int) -> np.ndarray:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return np.asarray(arrays[member])
    except KeyError:
        raise UnreadableImage(file, "missing_member", f"the archive has no array called {member}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UnreadableImage(file, "damaged", f"cannot be read as an NPZ archive ({first_line(error)})") from None
