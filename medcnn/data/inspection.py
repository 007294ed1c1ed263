"""One look at each image: it is decoded once, and everything that needs its pixels is taken at that moment."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from medcnn.data.digests import perceptual_hash, pixel_digest
from medcnn.data.formats import UnreadableImage
from medcnn.data.images import decode_place, read_file, shares_no_file
from medcnn.data.pixel_record import record_of
from medcnn.data.traits import Cell, traits_of

FACTS = ("height", "width", "bit_depth", "channels", "sha256", "pixel_sha256", "perceptual_hash")


@dataclass(frozen=True)
class Job:
    """The rows of the manifest that come from one file: it is read once. places: (frame, row)."""

    path: str
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Seen:
    """What is known of one row after its image was decoded; problem: why it was not, and then the rest is blank."""

    row: int
    facts: dict[str, Cell]
    traits: dict[str, Cell]
    record: dict[str, Cell]
    problem: UnreadableImage | None = None


def jobs_of(rows: pd.DataFrame) -> list[Job]:
    """One job for neighbouring rows (path, frame; index 0, 1, ...) of one file; images of an array are a job each."""
    keys = [(str(path), int(frame), row) for row, (path, frame) in enumerate(zip(rows["path"], rows["frame"], strict=True))]
    grouped = groupby(keys, key=lambda key: (key[0], key[2] if shares_no_file(key[0]) else 0))
    return [Job(path, tuple((frame, row) for _, frame, row in group)) for (path, _), group in grouped]


def look(job: Job, root: Path) -> list[Seen]:
    """Decode each image of one file; what cannot be decoded is returned with its reason, not raised."""
    try:
        data = None if shares_no_file(job.path) else read_file(job.path, root)
    except UnreadableImage as error:
        return [Seen(row, {}, {}, {}, error) for _, row in job.places]
    sha256 = hashlib.sha256(data).hexdigest() if data else None
    return [_seen(job.path, frame, row, root, data, sha256) for frame, row in job.places]


def _seen(path: str, frame: int, row: int, root: Path, data: bytes | None, sha256: str | None) -> Seen:
    try:
        pixels, header = decode_place(path, frame, root, data=data)
    except UnreadableImage as error:
        return Seen(row, {}, {}, {}, error)
    return Seen(row, _facts(pixels, header.bit_depth, sha256), traits_of(pixels, header.bit_depth), dict(record_of(header)))


def _facts(pixels: np.ndarray, bit_depth: int, sha256: str | None) -> dict[str, Cell]:
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else 3
    digest = pixel_digest(pixels)
    return dict(zip(FACTS, (height, width, bit_depth, channels, sha256 or digest, digest, perceptual_hash(pixels)), strict=True))


def named(path: str, frame: int) -> str:
    """An image as flow.json names it."""
    return f"{path} frame {frame}" if frame else path


def rows_seen(seen: Sequence[Seen], kind: str) -> pd.DataFrame:
    """`facts`, `traits` or `record` of what could be decoded, one row an image, indexed by the row number."""
    good = [one for one in seen if one.problem is None]
    return pd.DataFrame([getattr(one, kind) for one in good], index=[one.row for one in good])
