"""The pixels of a cohort's tiles as ingest decoded them: one file, a place for each tile, so that no slide is decoded twice."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TILES = "tiles.u8"


@dataclass(frozen=True)
class TileStore:
    """uint8 (px, px, 3) for each number, one after the other in a file. Workers of one machine or of several may write side by side."""

    file: Path
    px: int

    @property
    def tile_bytes(self) -> int:
        """Size of one tile."""
        return self.px**2 * 3

    def make(self, n_tiles: int) -> None:
        """Make the file, all of it unwritten; one that is there already with this size keeps what it holds."""
        size = n_tiles * self.tile_bytes
        if not self.file.is_file() or self.file.stat().st_size != size:
            with self.file.open("wb") as stream:
                stream.truncate(size)

    def put(self, number: int, pixels: np.ndarray) -> None:
        """Write one tile to its place."""
        rest = np.ascontiguousarray(pixels).data.cast("B")
        offset = number * self.tile_bytes
        file = os.open(self.file, os.O_WRONLY)
        try:
            while rest:
                n = os.pwrite(file, rest, offset)
                rest, offset = rest[n:], offset + n
        finally:
            os.close(file)

    def sync(self) -> None:
        """Make what was written last, before it is noted as done."""
        file = os.open(self.file, os.O_RDWR)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def get(self, number: int) -> np.ndarray:
        """Read one tile from its place; raises EOFError beyond the end."""
        file = os.open(self.file, os.O_RDONLY)
        try:
            data = os.pread(file, self.tile_bytes, number * self.tile_bytes)
        finally:
            os.close(file)
        if len(data) != self.tile_bytes:
            raise EOFError(f"{self.file}: ends before tile {number}")
        return np.frombuffer(data, np.uint8).reshape(self.px, self.px, 3)


@dataclass(frozen=True)
class TileReading:
    """What is done about tiles when they are read. store: where their pixels are kept, None: nowhere.

    keep: decode from the slide, measure, and put into the store (ingest); else take them from the store. mpp: microns per
    pixel of a tile; min_sharpness: less is refused as blurred, see tile_quality.sharpness.
    """

    store: TileStore | None = None
    keep: bool = False
    mpp: float = 0.5
    min_sharpness: float = 0.0
