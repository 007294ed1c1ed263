"""The cache's files: prepared images in one .npy file, or in several shards where one would be too large to copy or to lose."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medcnn.errors import RunError

IMAGES = "images.npy"
SHARD_BYTES = 4 << 30  # a cache above this size is cut into files of about this size


@dataclass(frozen=True)
class Layout:
    """Where each of `n` images of `shape` (S, S, C), uint8, lies: `per_shard` in each file, a whole number of chunks."""

    folder: Path
    n: int
    shape: tuple[int, int, int]
    per_shard: int

    @property
    def image_bytes(self) -> int:
        """Size of one image."""
        return int(np.prod(self.shape))

    def n_of(self, shard: int) -> int:
        """Images in a shard."""
        return min(self.per_shard, self.n - shard * self.per_shard)

    def files(self) -> list[Path]:
        """`images.npy`, or `images-00000.npy` and so on."""
        n_shards = max(1, -(-self.n // self.per_shard))
        return [self.folder / IMAGES] if n_shards == 1 else [self.folder / f"images-{shard:05d}.npy" for shard in range(n_shards)]

    def make(self, shard: int) -> bool:
        """Make the shard's file with room for its images, unless it is there in its full size; True when it was made."""
        file, size = self.files()[shard], len(self._head(shard)) + self.n_of(shard) * self.image_bytes
        if file.is_file() and file.stat().st_size == size:
            return False
        with file.open("wb") as stream:
            stream.write(self._head(shard))
            stream.flush()
            os.ftruncate(stream.fileno(), size)  # no block is taken yet
        return True

    def place(self, row: int) -> tuple[Path, int]:
        """File of an image and the offset of its first byte."""
        shard, at = divmod(row, self.per_shard)
        return self.files()[shard], len(self._head(shard)) + at * self.image_bytes

    def _head(self, shard: int) -> bytes:
        import io

        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (self.n_of(shard), *self.shape)})
        return stream.getvalue()


def layout_of(folder: Path, n: int, shape: tuple[int, int, int], per_chunk: int) -> Layout:
    """One file up to SHARD_BYTES, else shards of about that size that hold whole chunks."""
    image_bytes = int(np.prod(shape))
    if n * image_bytes <= SHARD_BYTES:
        return Layout(folder, n, shape, max(1, n))
    per_shard = max(1, SHARD_BYTES // image_bytes // per_chunk) * per_chunk
    return Layout(folder, n, shape, per_shard)


class ShardedImages:
    """Images of several .npy files as one array, uint8 (N, S, S, C), each file mapped when it is first asked for.

    Indexed by a row number, a slice, or an integer or boolean array of rows, as an array is; what comes back is a copy in memory. It travels
    to another process as the files' names.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        shapes = [mapped(file).shape for file in self.files]
        if any(len(shape) != 4 or shape[1:] != shapes[0][1:] for shape in shapes):
            raise RunError(f"{self.files[0].parent}: its shards have shapes {sorted(set(shapes))}; delete the folder and run again")
        self._ends = np.cumsum([shape[0] for shape in shapes]).tolist()
        self.shape: tuple[int, ...] = (self._ends[-1], *shapes[0][1:])
        self._open: dict[int, np.ndarray] = {}

    @property
    def nbytes(self) -> int:
        """Size of all images."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            of_rows, rest = self[key[0]], key[1:]
            found: np.ndarray = of_rows[rest] if isinstance(key[0], int | np.integer) else of_rows[(slice(None), *rest)]
            return found
        if isinstance(key, int | np.integer):
            one: np.ndarray = self._rows(np.array([key]))[0]
            return one
        if isinstance(key, slice):
            return self._rows(np.arange(*key.indices(len(self))))
        rows = np.asarray(key)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        return self._rows(rows.astype(np.int64).ravel()).reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        if len(rows) and not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"rows from {rows.min()} to {rows.max()} were asked for, there are {len(self)}")
        rows = np.where(rows < 0, rows + len(self), rows)
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        shards = np.searchsorted(self._ends, rows, side="right")
        starts = np.concatenate([[0], self._ends[:-1]])
        for at, (shard, row) in enumerate(zip(shards.tolist(), (rows - starts[shards]).tolist(), strict=True)):
            out[at] = self._shard(shard)[row]  # one copy; numpy's way with a list of places takes two
        return out

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._open:
            self._open[number] = np.asarray(mapped(self.files[number]))  # a plain array is indexed faster than a memmap
        return self._open[number]


def mapped(file: Path) -> np.ndarray:
    """The images of one .npy file, mapped. Raises RunError when it is damaged."""
    try:
        images: np.ndarray = np.load(file, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: is damaged ({error}); delete the folder and run again") from error
    return images
