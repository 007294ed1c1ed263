"""The cache: every image prepared once and kept on disk as uint8, in one memory map or, when it is large, in several."""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from medcnn.artifact import digest
from medcnn.data import shards
from medcnn.data.chunks import Chunks, chunk_size, forget, missing, work_through
from medcnn.data.prepared import prepare_image
from medcnn.data.shards import Layout, ShardedImages, layout_of
from medcnn.errors import InputError, RunError
from medcnn.executors import Executor, n_cores, pool_for
from medcnn.plan import ImagePlan
from medcnn.progress import Progress, silent

__all__ = ["CachedImages", "build_cache", "cache_bytes", "open_cache", "prepare_image"]

INDEX, CHUNKS = "index.parquet", "chunks"
CHUNK_BYTES = 32 << 20  # prepared pixels whose place in the cache is noted together: what a kill may cost each worker
RAM_SHARE = 0.25  # a cache up to this share of the free memory is read into it
GB = 1e9

Prepare = Callable[[str, int, ImagePlan], np.ndarray]
Wanted = tuple[str, str, int, Path, int]  # image_id, path, frame; file of the cache and the offset in it


def build_cache(
    manifest: pd.DataFrame,
    plan: ImagePlan,
    folder: Path,
    *,
    prepare: Prepare,
    executor: Executor = "local",
    progress: Progress = silent,
    n_workers: int | None = None,
) -> None:
    """Write `images.npy`, uint8 (N, S, S, C) in manifest order (above shards.SHARD_BYTES `images-00000.npy` and so on), and
    `index.parquet` (image_id, row, sha256 of the prepared pixels).

    prepare(path, frame, plan) returns one prepared image (see prepared.prepare_row). Each worker holds one image. A killed run leaves its
    finished chunks: called again with the same manifest and plan, they are kept. The bytes do not depend on executor or n_workers.
    Raises InputError when the cache would be too large or an image cannot be decoded (naming it), RunError when the
    disk is full.
    """
    shape = (plan.size_px, plan.size_px, plan.channels)
    most = max(1, CHUNK_BYTES // (plan.size_px**2 * plan.channels))
    wanted = manifest[["image_id", "path", "frame"]].astype({"image_id": str, "path": str, "frame": int})
    header = digest(
        [plan.model_dump(mode="json"), hashlib.sha256(pd.util.hash_pandas_object(wanted, index=False).to_numpy().tobytes()).hexdigest()]
    )
    chunks = Chunks(folder / CHUNKS, len(manifest), chunk_size(len(manifest), most), header)
    layout = layout_of(folder, len(manifest), shape, chunks.size)
    workers = n_workers or n_cores()
    _check_room(len(manifest), plan, folder)
    try:
        _make_room(layout, chunks)
        work_through(
            functools.partial(_prepare_chunk, plan=plan, prepare=prepare), functools.partial(_wanted, wanted, layout), chunks,
            pool=pool_for(executor, workers), workers=workers, progress=progress, title="Preparing images",
        )  # fmt: skip
        shas = [sha for file in chunks.files() for sha in json.loads(file.read_bytes())]
    except OSError as error:
        raise RunError(f"{folder}: cannot write the image cache ({error.strerror or error}); free some disk space and run again") from error
    index = pd.DataFrame({"image_id": wanted["image_id"], "row": np.arange(len(manifest)), "sha256": shas})
    index.to_parquet(folder / INDEX, index=False)
    forget(chunks)


def cache_bytes(n_images: int, plan: ImagePlan) -> int:
    """Size of the cache on disk, in bytes."""
    return n_images * plan.size_px**2 * plan.channels


def _check_room(n_images: int, plan: ImagePlan, folder: Path) -> None:
    needed = cache_bytes(n_images, plan)
    if needed > plan.max_cache_gb * GB:
        raise InputError(
            f"the image cache would take {needed / GB:.3g} GB ({needed} bytes: {n_images} images of {plan.size_px} px with "
            f"{plan.channels} channels), more than image.max_cache_gb = {plan.max_cache_gb:g}; "
            "set image.max_cache_gb higher or image.size_px lower"
        )
    held = sum(file.stat().st_blocks * 512 for file in folder.glob("images*.npy") if file.is_file())
    free = shutil.disk_usage(folder).free
    if needed - held > free:
        raise InputError(
            f"{folder}: the image cache needs {needed / GB:.3g} GB, the disk has {free / GB:.3g} GB free; free space or set --out"
        )


def _make_room(layout: Layout, chunks: Chunks) -> None:
    """Make the files that the images go to; the notes on chunks whose file had to be made (again) are removed."""
    made = {shard for shard in range(len(layout.files())) if layout.make(shard)}
    todo = set(missing(chunks))
    for number in range(len(chunks)):
        if number not in todo and chunks.bounds(number)[0] // layout.per_shard in made:
            chunks.file(number).unlink()


def _wanted(manifest: pd.DataFrame, layout: Layout, start: int, stop: int) -> list[Wanted]:
    rows = manifest.iloc[start:stop].itertuples(index=False, name=None)
    return [(image_id, path, frame, *layout.place(row)) for row, (image_id, path, frame) in enumerate(rows, start=start)]


def _prepare_chunk(wanted: list[Wanted], *, plan: ImagePlan, prepare: Prepare) -> bytes:
    """Prepare images and write each to its place; the note on them is their sha256 as a JSON list, made when they are on disk."""
    shas = []
    file = os.open(wanted[0][3], os.O_RDWR)  # a chunk lies in one file. Plain writes: a full disk kills a memory map's process
    try:
        for image_id, path, frame, _, offset in wanted:
            content = _prepared(image_id, path, frame, plan, prepare)
            _write_all(file, content, offset)
            shas.append(hashlib.sha256(content).hexdigest())
        os.fsync(file)
    finally:
        os.close(file)
    return json.dumps(shas).encode()


def _prepared(image_id: str, path: str, frame: int, plan: ImagePlan, prepare: Prepare) -> bytes:
    try:
        return prepare(path, frame, plan).tobytes()
    except (OSError, ValueError, cv2.error) as error:
        raise InputError(f"{image_id}: {path} can no longer be decoded ({error}); mend or remove the file and run again") from error


def _write_all(file: int, content: bytes, offset: int) -> None:
    rest = memoryview(content)
    while rest:
        n = os.pwrite(file, rest, offset)
        rest, offset = rest[n:], offset + n


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class CachedImages:
    """Prepared images. images: uint8 (N, S, S, C), in memory, mapped from disk or sharded; index: image_id, row, sha256."""

    images: np.ndarray
    index: pd.DataFrame

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, image_ids: Iterable[str]) -> np.ndarray:
        """Row of each image_id, int64, in the order given; raises InputError naming an id that is not in the cache."""
        wanted = pd.Index(image_ids)
        rows = pd.Index(self.index["image_id"]).get_indexer(wanted)
        if (rows < 0).any():
            missing = wanted[rows < 0]
            raise InputError(f"{len(missing)} images are not in the cache, first {missing[0]}; the cache was made from another manifest")
        found: np.ndarray = self.index["row"].to_numpy(np.int64)[rows]
        return found


def open_cache(folder: Path) -> CachedImages:
    """Open a finished cache, in memory when it is small beside what is free, else mapped. Raises RunError when it is damaged."""
    if not (folder / INDEX).is_file():
        raise RunError(f"{folder}: is not a finished image cache ({INDEX} is missing); delete the folder and run again")
    index = pd.read_parquet(folder / INDEX)
    single = folder / shards.IMAGES
    images: np.ndarray | ShardedImages
    if single.is_file():
        images = shards.mapped(single)
    else:
        files = sorted(folder.glob("images-*.npy"))
        if not files:
            raise RunError(f"{folder}: holds no images; delete the folder and run again")
        images = ShardedImages(files)
    if images.ndim != 4 or len(images) != len(index):
        raise RunError(f"{folder}: its images have shape {images.shape} but {INDEX} lists {len(index)}; delete the folder and run again")
    if images.nbytes <= RAM_SHARE * free_memory_bytes():
        images = np.array(images)
    return CachedImages(images, index)  # type: ignore[arg-type]  # sharded images are indexed as an array is


def free_memory_bytes() -> int:
    """Memory that can be used without swapping, in bytes; 0 where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return 0
    values = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines() if ":" in line)
    return int(values.get("MemAvailable", "0 kB").split()[0]) * 1024
