"""The one preprocessing, and its result kept on disk: every image decoded once to a uint8 memory map.

`prepare_image` makes the pixels for training, prediction and export alike; nothing else resizes an image.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import cv2
import numpy as np
import pandas as pd

from medcnn.artifact import digest, write_file
from medcnn.data.images import to_uint8
from medcnn.errors import InputError, RunError
from medcnn.plan import ImagePlan
from medcnn.progress import Progress, silent

IMAGES, INDEX, JOURNAL = "images.npy", "index.parquet", "journal.jsonl"
CHUNK_BYTES = 32 << 20  # prepared pixels between two entries of the journal
RAM_SHARE = 0.25  # a cache up to this share of the free memory is read into it
GB = 1e9

Reader = Callable[[str, int], np.ndarray]
In = TypeVar("In")
Out = TypeVar("Out")

cv2.setNumThreads(1)  # work is spread over images; threads inside one small image cost more than they bring


# ---------------------------------------------------------------- one image


def prepare_image(pixels: np.ndarray, plan: ImagePlan, *, bit_depth: int = 16) -> np.ndarray:
    """Bring one decoded image to the model's size and channels.

    pixels: uint8 or uint16 (H, W), (H, W, 1) or (H, W, 3) RGB, any size; uint16 becomes uint8 by images.to_uint8 with
    `bit_depth`. Returns uint8 (size_px, size_px, channels), C-contiguous. Shrinks by area averaging and enlarges by cubic interpolation, each axis as it needs. pad: the long side fits,
    the rest is 0 (black, the background once polarity is mended); crop: the centred square; stretch: aspect ignored.
    Raises InputError for any other dtype or shape.
    """
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in {1, 3})):
        raise InputError(f"pixels: expected shape (H, W) or (H, W, 3), got {pixels.shape}")
    pixels = _with_channels(to_uint8(pixels, bit_depth), plan.channels)
    height, width = pixels.shape[:2]
    size = plan.size_px
    if plan.fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    if plan.fit != "pad":
        return np.ascontiguousarray(_resized(pixels, size, size)).reshape(size, size, plan.channels)
    scale = size / max(height, width)
    inner = _resized(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    canvas = np.zeros((size, size, plan.channels), np.uint8)
    top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner.reshape(*inner.shape[:2], plan.channels)
    return canvas


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Grey (H, W) or colour (H, W, 3); luma 0.299 R + 0.587 G + 0.114 B when colour becomes grey (ITU-R BT.601)."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if channels == 1:
        return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)


def _resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area average on the axes that shrink, then cubic on those that grow."""
    small = (min(height, pixels.shape[0]), min(width, pixels.shape[1]))
    if small != pixels.shape[:2]:
        pixels = cv2.resize(pixels, small[::-1], interpolation=cv2.INTER_AREA)
    if (height, width) != pixels.shape[:2]:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
    return pixels


# ---------------------------------------------------------------- all images


def build_cache(
    manifest: pd.DataFrame,
    plan: ImagePlan,
    folder: Path,
    *,
    read: Reader,
    progress: Progress = silent,
    n_threads: int | None = None,
) -> None:
    """Write `images.npy`, uint8 (N, S, S, C) in manifest order, and `index.parquet` (image_id, row, sha256 of the prepared pixels).

    read(path, frame) returns the decoded pixels (see prepare_image). Threads prepare images side by side; at most one decoded image per thread
    is held. A killed run leaves a journal: called again with the same manifest and plan, finished chunks are kept.
    Raises InputError when the cache would be too large or an image cannot be decoded (naming it), RunError when the
    disk is full.
    """
    _check_room(len(manifest), plan, folder)
    image_bytes = plan.size_px**2 * plan.channels
    per_chunk = max(1, CHUNK_BYTES // image_bytes)
    header = digest([plan.model_dump(mode="json"), manifest[["image_id", "path", "frame"]].astype(str).to_numpy().tolist(), per_chunk])
    shape = (len(manifest), plan.size_px, plan.size_px, plan.channels)
    shas = _read_journal(folder, header, image_bytes)
    todo = list(manifest[["image_id", "path", "frame"]].itertuples(index=False, name=None))[len(shas) :]
    workers = n_threads or n_cores()
    try:
        with ThreadPoolExecutor(workers) as pool, _opened_at(folder / IMAGES, shape, len(shas)) as stream:
            prepared = _in_order(pool, lambda row: _prepared_row(row, plan, read), todo, ahead=4 * workers)
            shown = progress(prepared, "Preparing images", len(todo))
            for chunk in _chunks(shown, per_chunk):
                stream.write(b"".join(pixels for pixels, _ in chunk))
                _sync(stream)
                shas += [sha for _, sha in chunk]
                _note(folder, [sha for _, sha in chunk])
    except OSError as error:
        raise RunError(f"{folder}: cannot write the image cache ({error.strerror or error}); free some disk space and run again") from error
    index = pd.DataFrame({"image_id": manifest["image_id"].astype(str), "row": np.arange(len(manifest)), "sha256": shas})
    index.to_parquet(folder / INDEX, index=False)
    (folder / JOURNAL).unlink()


def n_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    held = (folder / IMAGES).stat().st_size if (folder / IMAGES).is_file() else 0
    free = shutil.disk_usage(folder).free
    if needed - held > free:
        raise InputError(
            f"{folder}: the image cache needs {needed / GB:.3g} GB, the disk has {free / GB:.3g} GB free; free space or set --out"
        )


def _prepared_row(row: tuple[str, str, int], plan: ImagePlan, read: Reader) -> tuple[bytes, str]:
    image_id, path, frame = row
    try:
        pixels = prepare_image(read(path, int(frame)), plan)
    except (OSError, ValueError, cv2.error) as error:
        raise InputError(f"{image_id}: {path} can no longer be decoded ({error}); mend or remove the file and run again") from error
    content = pixels.tobytes()
    return content, hashlib.sha256(content).hexdigest()


def _in_order(pool: ThreadPoolExecutor, work: Callable[[In], Out], items: Iterable[In], *, ahead: int) -> Iterator[Out]:
    """Results of work(item) in the order of the items; at most `ahead` are under way or waiting."""
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _chunks(items: Iterator[Out], size: int) -> Iterator[list[Out]]:
    chunk: list[Out] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


# ---------------------------------------------------------------- the journal


def _read_journal(folder: Path, header: str, image_bytes: int) -> list[str]:
    """sha256 of each image that is safely on disk; starts a new journal when there is none for this header."""
    path = folder / JOURNAL
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    held = (folder / IMAGES).stat().st_size if (folder / IMAGES).is_file() else 0
    if not lines or lines[0] != header:
        write_file(path, f"{header}\n".encode())
        return []
    shas: list[str] = []
    for number, line in enumerate(lines[1:], start=1):
        try:
            shas += json.loads(line)
        except ValueError:  # the kill came while this line was written: its chunk is done again
            write_file(path, ("\n".join(lines[:number]) + "\n").encode())
            break
    if held < len(shas) * image_bytes:  # somebody removed or cut the images
        write_file(path, f"{header}\n".encode())
        return []
    return shas


def _note(folder: Path, shas: Sequence[str]) -> None:
    with (folder / JOURNAL).open("ab") as stream:
        stream.write(json.dumps(shas).encode() + b"\n")
        _sync(stream)


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _opened_at(path: Path, shape: tuple[int, ...], n_done: int) -> BinaryIO:
    """The .npy file, open for writing after its first n_done images; plain writes, since a full disk kills a memory map's process."""
    stream = path.open("r+b" if n_done else "wb")
    if not n_done:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return stream
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    stream.seek(n_done * int(np.prod(shape[1:])), os.SEEK_CUR)  # what an unfinished chunk left is written over
    return stream


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class CachedImages:
    """Prepared images. images: uint8 (N, S, S, C), in memory or mapped from disk; index: image_id, row, sha256."""

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
    try:
        images: np.ndarray = np.load(folder / IMAGES, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / IMAGES}: is damaged ({error}); delete the folder and run again") from error
    if images.ndim != 4 or len(images) != len(index):
        raise RunError(
            f"{folder}: {IMAGES} has shape {images.shape} but {INDEX} lists {len(index)} images; delete the folder and run again"
        )
    if images.nbytes <= RAM_SHARE * free_memory_bytes():
        images = np.array(images)
    return CachedImages(images, index)


def free_memory_bytes() -> int:
    """Memory that can be used without swapping, in bytes; 0 where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return 0
    values = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines() if ":" in line)
    return int(values.get("MemAvailable", "0 kB").split()[0]) * 1024
