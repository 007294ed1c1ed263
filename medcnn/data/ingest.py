"""Sources to the manifest: every image is decoded once, to be sure that it can be, and every file left out has its reason."""

import contextlib
import dataclasses
import functools
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from medcnn.cohort import Exclusion, Flow
from medcnn.config_data import DataConfig
from medcnn.data.chunks import Chunks, chunk_size, forget, work_through
from medcnn.data.images import Reading, read_row
from medcnn.data.inspection import FACTS, inspect_jobs, jobs_of, named, read_facts, write_group
from medcnn.data.phantom import LABELS, phantom_table
from medcnn.data.sources import Candidates
from medcnn.data.sources_folder import folder_candidates
from medcnn.data.sources_npz import npz_candidates, npz_path
from medcnn.data.sources_table import table_candidates, table_root
from medcnn.data.tile_store import TILES, TileReading, TileStore
from medcnn.errors import InputError
from medcnn.executors import Executor, n_cores, pool_for
from medcnn.progress import Progress, silent
from medcnn.section import Auto
from medcnn.tables import Task, check_manifest

OPTIONAL = ("study_id", "site", "given_part", "given_fold", "spacing_mm")
TABLES = {"traits.parquet": "traits", "pixels.parquet": "record"}  # what is written beside the manifest, a row an image
CHUNK = 512  # images whose results are published together: what a kill may cost each worker


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where work on many files is done. folder: for what waits until all is done."""

    folder: Path
    executor: Executor
    progress: Progress


def ingest(
    config: DataConfig,
    *,
    task: Task | Auto = "auto",
    modality: str = "auto",
    seed: int = 0,
    folder: Path | None = None,
    executor: Executor = "local",
    progress: Progress = silent,
) -> tuple[pd.DataFrame, Flow]:
    """Read every image that the config's source names, and say what came in.

    The manifest has MANIFEST_COLUMNS, `pixel_sha256` of the decoded pixels, one column y_LABEL (0, 1, NaN) per label,
    those of `study_id`, `site`, `given_part`, `given_fold`, `spacing_mm` that the source knows, and covariates; rows are
    sorted by image_id. `path` is relative to image_root(config); height and width in pixels. `sha256` is of the file's
    bytes (of the pixels where images share a file). `seed` draws the phantom and nothing else.
    folder: where the tables of TABLES are written, a row for each row of the manifest, in its order: image_id, and what
    traits_of and record_of say of the image; None: they are not. Images are read in chunks, each of which leaves a file there
    until all are done: called again after a kill, finished chunks are kept. executor: where they are read (see executors.py).
    modality: the config's; of a DICOM tree only what can be of it comes in (see data.objects).
    Raises InputError when the source cannot be used at all; a single bad file is left out and listed in Flow.excluded.
    """
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory())) if folder is None else folder
        candidates = _candidates(config, task, modality, seed, Bench(place, executor, progress))
        by_name = candidates.rows.sort_values("image_id", kind="stable").reset_index(drop=True)
        reading = _keeping_tiles(config, folder, len(by_name))
        rows, unreadable = _inspected(by_name, reading, place, executor, progress)
    excluded = (*candidates.excluded, *unreadable)
    source = f"{config.source} {config.path or config.dataset or config.phantom_labels}"
    flow = Flow(
        source=f"{config.source} {config.path.name if config.path else config.dataset or config.phantom_labels}",
        n_found=candidates.n_found,
        n_files=_n_files(rows, config),
        n_images=len(rows),
        n_patients=int(rows["patient_id"].nunique()),
        excluded=excluded,
        notes=tuple(candidates.notes),
        tiles=_with_blurred(candidates.tiles, unreadable),
    )
    if rows.empty:
        counted = ", ".join(f"{n} {kind}" for kind, n in flow.counts().items())
        first = f"; the first: {excluded[0].where}: {excluded[0].reason}" if excluded else ""
        raise InputError(f"{source}: none of {flow.n_found} files came in ({counted or 'there are none'}){first}")
    return check_manifest(_ordered(rows), source=source), flow


def image_root(config: DataConfig) -> Path:
    """Folder that the manifest's paths start at; decode_row needs it. A phantom has no files: the current folder."""
    if config.source == "phantom":
        return Path()
    if config.source == "npz":
        return npz_path(config).parent
    return table_root(config) if config.source == "table" else Path(str(config.path))


def reading_of(config: DataConfig, ingested: Path | None = None) -> Reading:
    """How the config's files become pixels. ingested: the folder that ingest wrote, where the pixels of tiles may be."""
    kept = None if ingested is None else TileStore(ingested / TILES, config.slides.tile_px)
    tiles = TileReading(kept if kept and kept.file.is_file() else None)
    return Reading(image_root(config), config.window, tiles=tiles, find_text=config.find_text)


def _keeping_tiles(config: DataConfig, folder: Path | None, n_tiles: int) -> Reading:
    """As reading_of; tiles of slides are measured, and their pixels kept in the folder, if there is one and the config does not say no."""
    if config.source != "slides":
        return reading_of(config)
    store = TileStore(folder / TILES, config.slides.tile_px) if folder is not None and config.slides.keep_tiles else None
    if store is not None:
        store.make(n_tiles)
    tiles = TileReading(store, keep=True, mpp=config.slides.mpp, min_sharpness=config.slides.min_sharpness)
    return dataclasses.replace(reading_of(config), tiles=tiles)


def row_reader(config: DataConfig, ingested: Path | None = None) -> Callable[[str, int], np.ndarray]:
    """read(path, frame): uint8 pixels of a manifest row of this source, decoded in full. ingested: see reading_of."""
    return functools.partial(read_row, reading=reading_of(config, ingested))


def _candidates(config: DataConfig, task: Task | Auto, modality: str, seed: int, bench: Bench) -> Candidates:
    if config.source == "folder":
        return folder_candidates(config, task)
    if config.source == "table":
        return table_candidates(config, task)
    if config.source == "npz":
        return npz_candidates(config, task)
    if config.source == "dicom":
        from medcnn.data.sources_dicom import dicom_candidates

        return dicom_candidates(config, task, modality)
    if config.source == "slides":
        from medcnn.data.sources_slides import slides_candidates

        return slides_candidates(config, task, bench.folder, executor=bench.executor, progress=bench.progress)
    rows = phantom_table(config.n_images, seed, config.phantom_labels)
    unread = rows[[f"y_{label}" for label in LABELS[config.phantom_labels]]].isna().all(axis=1)
    return Candidates(rows=rows[~unread], n_found=len(rows), notes=["Made-up images: no result on them says anything about patients"])


# ---------------------------------------------------------------- looking at each image


def _inspected(
    rows: pd.DataFrame, reading: Reading, folder: Path, executor: Executor, progress: Progress
) -> tuple[pd.DataFrame, list[Exclusion]]:
    """The rows that can be decoded, with FACTS; and the others with their reasons. Order is kept. Writes TABLES."""
    places = rows[["path", "frame"]].assign(root=str(reading.root), window=str(reading.window))
    header = hashlib.sha256(pd.util.hash_pandas_object(places.astype(str), index=False).to_numpy().tobytes()).hexdigest()
    chunks = Chunks(folder / "chunks", len(rows), chunk_size(len(rows), CHUNK), header)
    workers = n_cores()
    work_through(
        inspect_jobs, lambda start, stop: (jobs_of(rows, start, stop), reading), chunks,
        pool=pool_for(executor, workers), workers=workers, progress=progress, title="Reading images",
    )  # fmt: skip
    facts, refused = read_facts(chunks.files())
    for file, group in TABLES.items():
        write_group(chunks.files(), group, rows["image_id"], folder / file)
    where = [named(str(path), int(frame)) for path, frame in rows.loc[refused.index, ["path", "frame"]].itertuples(index=False, name=None)]
    excluded = [
        Exclusion(where=place, kind=kind, reason=reason)
        for place, kind, reason in zip(where, refused["kind"], refused["reason"], strict=True)
    ]
    forget(chunks)
    return rows.loc[facts.index].join(facts), excluded


# ---------------------------------------------------------------- putting together


def _with_blurred(tiles: dict[str, int], refused: list[Exclusion]) -> dict[str, int]:
    """The tiles that were left out, with those that were decoded first."""
    kinds = [exclusion.kind for exclusion in refused] if tiles else []
    return {**tiles, **{kind: kinds.count(kind) for kind in sorted(set(kinds))}}


def _n_files(rows: pd.DataFrame, config: DataConfig) -> int:
    if config.source in {"npz", "phantom"}:  # there an image is what was looked at
        return len(rows)
    files = rows["path"].str.rpartition("#")[0] if config.source == "slides" else rows["path"]
    return int(files.nunique())


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns in the order: identity, place, facts, what is known, covariates, labels. A column that knows nothing is dropped."""
    rows = rows.drop(columns=[column for column in OPTIONAL if column in rows and rows[column].isna().all()])
    first = ["image_id", "patient_id", "path", "frame", *FACTS, *(column for column in OPTIONAL if column in rows)]
    labels = [column for column in rows.columns if column.startswith("y_")]
    covariates = [column for column in rows.columns if column not in {*first, *labels}]
    whole = dict.fromkeys(("frame", "height", "width", "bit_depth", "channels"), "int64")
    return rows[[*first, *covariates, *labels]].astype(whole)
