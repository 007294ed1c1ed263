"""Sources to the manifest: every image is decoded once, to be sure that it can be, and every file left out has its reason."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from medcnn.cohort import Exclusion, Flow
from medcnn.config_data import DataConfig
from medcnn.data.images import read_row
from medcnn.data.inspection import FACTS, Seen, jobs_of, look, named, rows_seen
from medcnn.data.phantom import LABELS, phantom_table
from medcnn.data.sources import Candidates, n_threads
from medcnn.data.sources_folder import folder_candidates
from medcnn.data.sources_npz import npz_candidates, npz_path
from medcnn.data.sources_table import table_candidates, table_root
from medcnn.errors import InputError
from medcnn.progress import Progress, silent
from medcnn.section import Auto
from medcnn.tables import Task, check_manifest, write_table

OPTIONAL = ("study_id", "site", "given_part", "given_fold", "spacing_mm")
TABLES = {"traits.parquet": "traits", "pixels.parquet": "record"}  # what is written beside the manifest, a row an image
BATCH = 512  # files handed to the threads at a time: bounds what waits in memory


def ingest(
    config: DataConfig, *, task: Task | Auto = "auto", seed: int = 0, folder: Path | None = None, progress: Progress = silent
) -> tuple[pd.DataFrame, Flow]:
    """Read every image that the config's source names, and say what came in.

    The manifest has MANIFEST_COLUMNS, `pixel_sha256` and `perceptual_hash` of the decoded pixels, one column y_LABEL (0, 1, NaN) per label,
    those of `study_id`, `site`, `given_part`, `given_fold`, `spacing_mm` that the source knows, and covariates; rows are
    sorted by image_id. `path` is relative to image_root(config); height and width in pixels. `sha256` is of the file's
    bytes (of the pixels where images share a file). `seed` draws the phantom and nothing else.
    folder: where the tables of TABLES are written, a row for each row of the manifest, in its order: image_id, and what
    traits_of and record_of say of the image; None: they are not.
    Raises InputError when the source cannot be used at all; a single bad file is left out and listed in Flow.excluded.
    """
    candidates = _candidates(config, task, seed)
    by_name = candidates.rows.sort_values("image_id", kind="stable").reset_index(drop=True)
    rows, unreadable, tables = _inspected(by_name, image_root(config), progress)
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
    )
    if rows.empty:
        counted = ", ".join(f"{n} {kind}" for kind, n in flow.counts().items())
        first = f"; the first: {excluded[0].where}: {excluded[0].reason}" if excluded else ""
        raise InputError(f"{source}: none of {flow.n_found} files came in ({counted or 'there are none'}){first}")
    if folder is not None:
        for file, table in tables.items():
            write_table(table, folder / file)
    return check_manifest(_ordered(rows), source=source), flow


def image_root(config: DataConfig) -> Path:
    """Folder that the manifest's paths start at; decode_row needs it. A phantom has no files: the current folder."""
    if config.source == "phantom":
        return Path()
    if config.source == "npz":
        return npz_path(config).parent
    return table_root(config) if config.source == "table" else Path(str(config.path))


def row_reader(config: DataConfig) -> Callable[[str, int], np.ndarray]:
    """read(path, frame) for the cache: uint8 pixels of a manifest row of this source."""
    root = image_root(config)
    return lambda path, frame: read_row(path, frame, root=root)


def _candidates(config: DataConfig, task: Task | Auto, seed: int) -> Candidates:
    if config.source == "folder":
        return folder_candidates(config, task)
    if config.source == "table":
        return table_candidates(config, task)
    if config.source == "npz":
        return npz_candidates(config, task)
    if config.source == "dicom":
        from medcnn.data.sources_dicom import dicom_candidates

        return dicom_candidates(config, task)
    rows = phantom_table(config.n_images, seed, config.phantom_labels)
    unread = rows[[f"y_{label}" for label in LABELS[config.phantom_labels]]].isna().all(axis=1)
    return Candidates(rows=rows[~unread], n_found=len(rows), notes=["Made-up images: no result on them says anything about patients"])


# ---------------------------------------------------------------- looking at each image


def _inspected(rows: pd.DataFrame, root: Path, progress: Progress) -> tuple[pd.DataFrame, list[Exclusion], dict[str, pd.DataFrame]]:
    """The rows that can be decoded, with FACTS; the others with their reasons; the tables of TABLES. Order is kept."""
    jobs = jobs_of(rows)
    seen: list[Seen] = []
    with ThreadPoolExecutor(n_threads()) as pool:
        batches = (pool.map(lambda job: look(job, root), jobs[start : start + BATCH]) for start in range(0, len(jobs), BATCH))
        for looked in progress((looked for batch in batches for looked in batch), "Reading images", len(jobs)):
            seen += looked
    excluded = [
        Exclusion(where=named(str(rows["path"][one.row]), int(rows["frame"][one.row])), kind=one.problem.kind, reason=one.problem.reason)
        for one in seen
        if one.problem is not None
    ]
    facts = rows_seen(seen, "facts").reindex(columns=list(FACTS))
    kept = rows.loc[facts.index]
    ids = kept[["image_id"]]
    return kept.join(facts), excluded, {file: ids.join(rows_seen(seen, kind)) for file, kind in TABLES.items()}


# ---------------------------------------------------------------- putting together


def _n_files(rows: pd.DataFrame, config: DataConfig) -> int:
    shares_files = config.source in {"npz", "phantom"}  # there an image is what was looked at
    return len(rows) if shares_files else int(rows["path"].nunique())


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns in the order: identity, place, facts, what is known, covariates, labels. A column that knows nothing is dropped."""
    rows = rows.drop(columns=[column for column in OPTIONAL if column in rows and rows[column].isna().all()])
    first = ["image_id", "patient_id", "path", "frame", *FACTS, *(column for column in OPTIONAL if column in rows)]
    labels = [column for column in rows.columns if column.startswith("y_")]
    covariates = [column for column in rows.columns if column not in {*first, *labels}]
    whole = dict.fromkeys(("frame", "height", "width", "bit_depth", "channels"), "int64")
    return rows[[*first, *covariates, *labels]].astype(whole)
