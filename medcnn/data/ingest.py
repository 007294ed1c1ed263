"""Sources to the manifest: every image is decoded once, to be sure that it can be, and every file left out has its reason."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcnn.cohort import Exclusion, Flow
from medcnn.config_data import DataConfig
from medcnn.data.digests import perceptual_hash, pixel_digest
from medcnn.data.images import UnreadableImage, decode_bytes, decode_row, read_file, read_row
from medcnn.data.phantom import LABELS, phantom_table
from medcnn.data.sources import Candidates, n_threads
from medcnn.data.sources_folder import folder_candidates
from medcnn.data.sources_npz import npz_candidates, npz_path
from medcnn.data.sources_table import table_candidates, table_root
from medcnn.errors import InputError
from medcnn.progress import Progress, silent
from medcnn.section import Auto
from medcnn.tables import Task, check_manifest

FACTS = ("height", "width", "bit_depth", "channels", "sha256", "pixel_sha256", "perceptual_hash")
OPTIONAL = ("study_id", "site", "given_part", "given_fold", "spacing_mm")
Job = tuple[str, Sequence[tuple[int, int]]]  # path, [(frame, row)]
BATCH = 512  # files handed to the threads at a time: bounds what waits in memory


def ingest(config: DataConfig, *, task: Task | Auto = "auto", seed: int = 0, progress: Progress = silent) -> tuple[pd.DataFrame, Flow]:
    """Read every image that the config's source names, and say what came in.

    The manifest has MANIFEST_COLUMNS, `pixel_sha256` and `perceptual_hash` of the decoded pixels, one column y_LABEL (0, 1, NaN) per label,
    those of `study_id`, `site`, `given_part`, `given_fold`, `spacing_mm` that the source knows, and covariates; rows are
    sorted by image_id. `path` is relative to image_root(config); height and width in pixels. `sha256` is of the file's
    bytes (of the pixels where images share a file). `seed` draws the phantom and nothing else.
    Raises InputError when the source cannot be used at all; a single bad file is left out and listed in Flow.excluded.
    """
    candidates = _candidates(config, task, seed)
    rows, unreadable = _inspected(candidates.rows, image_root(config), progress)
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


def _inspected(rows: pd.DataFrame, root: Path, progress: Progress) -> tuple[pd.DataFrame, list[Exclusion]]:
    """The rows that can be decoded, with FACTS; and the others with their reasons. Order is kept."""
    rows = rows.reset_index(drop=True)
    jobs = _jobs(rows)
    facts: dict[int, dict[str, Any]] = {}
    excluded = []
    with ThreadPoolExecutor(n_threads()) as pool:
        done = (
            result for start in range(0, len(jobs), BATCH) for result in pool.map(lambda job: _look(job, root), jobs[start : start + BATCH])
        )
        for results in progress(done, "Reading images", len(jobs)):
            for row, fact in results:
                if isinstance(fact, UnreadableImage):
                    excluded.append(Exclusion(where=_named(rows, row), kind=fact.kind, reason=fact.reason))
                else:
                    facts[row] = fact
    known = pd.DataFrame.from_dict(facts, orient="index", columns=list(FACTS))
    return rows.loc[list(facts)].join(known), excluded


def _jobs(rows: pd.DataFrame) -> list[Job]:
    """One job a file, so that a file of many frames is read once; images of an array are a job each."""
    keys = [(str(path), int(frame), int(row)) for path, frame, row in zip(rows["path"], rows["frame"], rows.index, strict=True)]
    grouped = groupby(keys, key=lambda key: (key[0], key[2] if _is_array(key[0]) else 0))
    return [(path, [(frame, row) for _, frame, row in group]) for (path, _), group in grouped]


def _is_array(path: str) -> bool:
    return path.startswith("phantom:") or ".npz#" in path


def _named(rows: pd.DataFrame, row: int) -> str:
    path, frame = str(rows["path"][row]), int(rows["frame"][row])
    return f"{path} frame {frame}" if frame else path


def _look(job: Job, root: Path) -> list[tuple[int, dict[str, Any] | UnreadableImage]]:
    """Facts of each row of one file, or why it cannot be read."""
    path, frames = job
    try:
        data = b"" if _is_array(path) else read_file(path, root)
    except UnreadableImage as error:
        return [(row, error) for _, row in frames]
    sha256 = hashlib.sha256(data).hexdigest() if data else None
    found: list[tuple[int, dict[str, Any] | UnreadableImage]] = []
    for frame, row in frames:
        try:
            pixels, bit_depth = _pixels(path, data, frame, root)
        except UnreadableImage as error:
            found.append((row, error))
        else:
            found.append((row, _facts(pixels, bit_depth, sha256)))
    return found


def _pixels(path: str, data: bytes, frame: int, root: Path) -> tuple[np.ndarray, int]:
    if data:
        pixels, header = decode_bytes(data, frame, where=path)
        return pixels, header.bit_depth
    pixels = decode_row(path, frame, root=root)
    return pixels, 8 * pixels.itemsize


def _facts(pixels: np.ndarray, bit_depth: int, sha256: str | None) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else 3
    digest = pixel_digest(pixels)
    return dict(zip(FACTS, (height, width, bit_depth, channels, sha256 or digest, digest, perceptual_hash(pixels)), strict=True))


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
