"""One look at each image: it is decoded once, and everything that needs its pixels is taken at that moment.

What a chunk of images gave is one Arrow table: `row` (number of the candidate), `kind` and `reason` (why it cannot be
decoded, else null), and the columns of GROUPS, each with its group's name before it.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medcnn.data.digests import pixel_digest
from medcnn.data.formats import ImageHeader, UnreadableImage
from medcnn.data.images import Reading, decode_place, read_file, shares_no_file
from medcnn.data.pixel_record import record_of
from medcnn.data.traits import Cell, traits_of

FACTS = ("height", "width", "bit_depth", "channels", "sha256", "pixel_sha256")
GROUPS = ("facts", "traits", "record")
ROWS_AT_ONCE = 1 << 16  # of a table that is written: bounds what waits in memory
Row = dict[str, Cell]


@dataclass(frozen=True)
class Job:
    """The candidates that come from one file: it is read once. places: (frame, row)."""

    path: str
    places: tuple[tuple[int, int], ...]


def jobs_of(rows: pd.DataFrame, start: int, stop: int) -> list[Job]:
    """One job for neighbouring rows (path, frame) of one file among rows start to stop; images of an array are a job each."""
    places = rows[["path", "frame"]].iloc[start:stop].itertuples(index=False, name=None)
    keys = [(str(path), int(frame), row) for row, (path, frame) in enumerate(places, start=start)]
    grouped = groupby(keys, key=lambda key: (key[0], key[2] if shares_no_file(key[0]) else 0))
    return [Job(path, tuple((frame, row) for _, frame, row in group)) for (path, _), group in grouped]


def inspect_jobs(piece: tuple[Sequence[Job], Reading]) -> bytes:
    """Look at each image of the jobs; the chunk's table as an Arrow file. What cannot be decoded is listed, not raised."""
    jobs, reading = piece
    seen = [row for job in jobs for row in look(job, reading)]
    if reading.tiles.keep and reading.tiles.store:
        reading.tiles.store.sync()
    columns: dict[str, None] = {"row": None, "kind": None, "reason": None, **{name: None for row in seen for name in row}}
    table = pa.table({name: pa.array([row.get(name) for row in seen]) for name in columns})
    stream = io.BytesIO()
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def look(job: Job, reading: Reading) -> list[Row]:
    """Decode each image of one file: its row of the chunk's table."""
    try:
        data = None if shares_no_file(job.path) else read_file(job.path, reading.root)
    except UnreadableImage as error:
        return [_refused(row, error) for _, row in job.places]
    sha256 = hashlib.sha256(data).hexdigest() if data else None
    return [_seen(job.path, frame, row, reading, data, sha256) for frame, row in job.places]


def _seen(path: str, frame: int, row: int, reading: Reading, data: bytes | None, sha256: str | None) -> Row:
    try:
        pixels, header = decode_place(path, frame, reading, data=data)
    except UnreadableImage as error:
        return _refused(row, error)
    traits = _traits(_looked_at(pixels, header), header.bit_depth, reading)
    facts: Row = {**_facts(pixels, header.bit_depth, sha256), **header.measured}
    groups: tuple[Mapping[str, Cell], ...] = (facts, traits, record_of(header))
    named = {f"{group}.{name}": value for group, values in zip(GROUPS, groups, strict=True) for name, value in values.items()}
    return {"row": row, **named}


def _looked_at(pixels: np.ndarray, header: ImageHeader) -> np.ndarray:
    """What the traits are taken of. Tiles come by the hundred thousand, are of one size and compared with each other: half of it will do."""
    if header.format != "slide" or min(pixels.shape[:2]) < 2:
        return pixels
    return np.asarray(cv2.resize(pixels, (pixels.shape[1] // 2, pixels.shape[0] // 2), interpolation=cv2.INTER_AREA))


def _traits(pixels: np.ndarray, bit_depth: int, reading: Reading) -> Row:
    traits = traits_of(pixels, bit_depth)
    if not reading.find_text:
        return traits
    from medcnn.data.burned_in_text import text_in

    return {**traits, **text_in(pixels, bit_depth)}


def _refused(row: int, error: UnreadableImage) -> Row:
    return {"row": row, "kind": error.kind, "reason": error.reason}


def _facts(pixels: np.ndarray, bit_depth: int, sha256: str | None) -> Row:
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else 3
    digest = pixel_digest(pixels)
    return dict(zip(FACTS, (height, width, bit_depth, channels, sha256 or digest, digest), strict=True))


# ---------------------------------------------------------------- gathering the chunks


def read_facts(files: Iterable[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of all chunks: FACTS (and what a reader measured besides) of what could be decoded, indexed by row; `kind` and `reason` of the rest, indexed by row."""
    good, bad = [], []
    for file in files:
        table = _read(file)
        is_good = pa.compute.is_null(table["kind"])
        facts = table.filter(is_good)
        if len(facts):
            names = [name for name in facts.column_names if name.startswith("facts.")]
            good.append(pa.table({"row": facts["row"], **{name.removeprefix("facts."): facts[name] for name in names}}))
        bad.append(table.filter(pa.compute.invert(is_good)).select(["row", "kind", "reason"]))
    empty = pd.DataFrame(columns=["row", *FACTS])
    seen = pa.concat_tables(good, promote_options="permissive").to_pandas() if good else empty
    refused = pa.concat_tables(bad, promote_options="permissive").to_pandas() if bad else pd.DataFrame(columns=["row", "kind", "reason"])
    return seen.set_index("row"), refused.set_index("row")


def write_group(files: Sequence[Path], group: str, image_ids: pd.Series, place: Path) -> None:
    """One group's columns of all chunks as a Parquet table with `image_id` first, a row for each image that could be decoded.

    image_ids: of all candidates. A few rows are held at a time. A column has one type: where chunks differ, the wider.
    """
    prefix = f"{group}."
    schemas = [_schema(file, prefix) for file in files]
    whole = pa.unify_schemas([pa.schema([("image_id", pa.string())]), *schemas], promote_options="permissive")
    waiting: list[pa.Table] = []
    with pq.ParquetWriter(place, whole) as writer:
        for file in files:
            waiting.append(_group_table(_read(file), prefix, image_ids, whole))
            if sum(map(len, waiting)) >= ROWS_AT_ONCE:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))


def _group_table(table: pa.Table, prefix: str, image_ids: pd.Series, whole: pa.Schema) -> pa.Table:
    table = table.filter(pa.compute.is_null(table["kind"]))
    ids = pa.array(image_ids.iloc[table["row"].to_numpy()].astype(str).tolist(), pa.string())
    known = {name.removeprefix(prefix): table[name] for name in table.column_names if name.startswith(prefix)}
    columns = [known[field.name].cast(field.type) if field.name in known else pa.nulls(len(table), field.type) for field in list(whole)[1:]]
    return pa.table([ids, *columns], schema=whole)


def _schema(file: Path, prefix: str) -> pa.Schema:
    with pa.memory_map(str(file)) as source:
        schema = pa.ipc.open_file(source).schema
    return pa.schema([(field.name.removeprefix(prefix), field.type) for field in schema if field.name.startswith(prefix)])


def _read(file: Path) -> pa.Table:
    with file.open("rb") as stream:
        return pa.ipc.open_file(stream.read()).read_all()


def named(path: str, frame: int) -> str:
    """An image as flow.json names it."""
    return f"{path} frame {frame}" if frame else path
