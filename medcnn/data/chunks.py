"""Work on many images in chunks: what comes of each is one file, published whole, so a kill costs no more than the chunks under way."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medcnn.artifact import count_cpu_seconds, write_file
from medcnn.executors import Pool, in_order, n_cores
from medcnn.progress import Progress, silent

SMALLEST, AT_LEAST = 16, 64  # items of a chunk; chunks of a cohort that is large enough for it, so that all cores have work
HEADER = "header"
Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Chunks:
    """`n` items in runs of `size`; what was made of run k is the file `folder/00000k`.

    header: names all that the results depend on; results under another header are thrown away.
    """

    folder: Path
    n: int
    size: int
    header: str

    def __len__(self) -> int:
        return -(-self.n // self.size)

    def bounds(self, number: int) -> tuple[int, int]:
        """First item of a chunk, and the first after it."""
        return number * self.size, min((number + 1) * self.size, self.n)

    def file(self, number: int) -> Path:
        """Where the chunk's result is, or will be."""
        return self.folder / f"{number:07d}"

    def files(self) -> list[Path]:
        """All results, in order."""
        return [self.file(number) for number in range(len(self))]


def chunk_size(n: int, most: int) -> int:
    """Items in a chunk, from their number alone, so that a cohort is cut alike on every machine."""
    return max(1, min(most, max(SMALLEST, -(-n // AT_LEAST))))


def work_through(
    work: Callable[[Piece], bytes],
    piece: Callable[[int, int], Piece],
    chunks: Chunks,
    *,
    pool: Pool = "threads",
    workers: int | None = None,
    progress: Progress = silent,
    title: str,
) -> None:
    """Have every chunk's file made that is not there yet; items of chunks that are there count as done.

    piece(start, stop): what a worker needs for these items, built when its turn comes. work(piece): the file's content; it
    runs in a thread, a process or on another machine that sees the same folders. The result is the same wherever it runs.
    Raises what `work` raises; finished chunks stay.
    """
    _open(chunks)
    todo = [number for number in range(len(chunks)) if not chunks.file(number).is_file()]
    arguments = ((work, piece(*chunks.bounds(number)), chunks.file(number)) for number in todo)
    workers = workers or n_cores()
    made = in_order(_publish, arguments, workers=workers, pool=pool)
    n_todo = sum(stop - start for start, stop in map(chunks.bounds, todo))
    spent = 0.0
    items = (seconds if first else 0.0 for number, seconds in zip(todo, made, strict=True) for first in _firsts(*chunks.bounds(number)))
    for seconds in progress(items, title, n_todo):
        spent += seconds
    if pool == "ray" or (pool == "processes" and workers > 1):  # these outlive the stage, so it would not count them
        count_cpu_seconds(spent)


def forget(chunks: Chunks) -> None:
    """Remove the results, once something lasting was made of them."""
    shutil.rmtree(chunks.folder)


def missing(chunks: Chunks) -> Iterator[int]:
    """Numbers of the chunks that have no result under this header."""
    is_ours = _is_ours(chunks)
    yield from (number for number in range(len(chunks)) if not (is_ours and chunks.file(number).is_file()))


def _firsts(start: int, stop: int) -> Iterator[bool]:
    """True for the first item of a chunk, False for the rest."""
    return (number == start for number in range(start, stop))


def _publish(work: Callable[[Piece], bytes], piece: Piece, file: Path) -> float:
    """Make one chunk's file; returns the CPU seconds that it took this thread."""
    started = time.thread_time()
    write_file(file, work(piece))
    return time.thread_time() - started


def _open(chunks: Chunks) -> None:
    if not _is_ours(chunks):
        shutil.rmtree(chunks.folder, ignore_errors=True)
        chunks.folder.mkdir(parents=True)
        write_file(chunks.folder / HEADER, _stated(chunks))


def _is_ours(chunks: Chunks) -> bool:
    path = chunks.folder / HEADER
    return path.is_file() and path.read_bytes() == _stated(chunks)


def _stated(chunks: Chunks) -> bytes:
    return f"{chunks.header} {chunks.n} {chunks.size}\n".encode()
