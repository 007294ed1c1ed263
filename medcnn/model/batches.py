"""Which images make a batch, in which order, and how they come: in this process or from workers.

The order is a function of (seed, epoch) alone, so a training that continues after a kill sees what it would have seen.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from medcnn.errors import InputError, RunError

CPU = torch.device("cpu")
DYING_SECONDS = 1.0
Job = TypeVar("Job")
Item = TypeVar("Item")


class BatchSource(Protocol):
    """Images by row number, as arrays."""

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        """uint8 (B, H, W, C) of the rows, augmented as in `epoch`; None: not augmented.

        shows: int (B,), how often each row came before in this epoch, when some come repeatedly.
        """


@runtime_checkable
class PreparingSource(BatchSource, Protocol):
    """Images whose augmentation can be left to the device that trains (see device_augment.py)."""

    def prepare(self, rows: np.ndarray, epoch: int, shows: np.ndarray | None = None) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """uint8 (B, H, W, C) of the rows, and what is still to be done to them; arguments as for `batch`."""


class Batch(NamedTuple):
    """What one step needs. rows: int64 (B,); pixels: uint8 (B, H, W, C); draws: what is still to be done to them, or empty."""

    rows: torch.Tensor
    pixels: torch.Tensor
    draws: Mapping[str, torch.Tensor]

    def pinned(self) -> "Batch":
        """The same in memory from which a GPU copies while the program goes on."""
        draws = {name: tensor.pin_memory() for name, tensor in self.draws.items()}
        return Batch(self.rows.pin_memory(), self.pixels.pin_memory(), draws)


@dataclass(frozen=True)
class Deal:
    """The images of one step: rows int64 (B,) of an epoch. shows: see BatchSource; None when no row comes twice."""

    epoch: int
    rows: np.ndarray
    shows: np.ndarray | None = None


def deal_epoch(rows: np.ndarray, classes: np.ndarray | None, *, batch_size: int, seed: int, epoch: int) -> list[Deal]:
    """Deal the rows of one epoch to batches whose sizes differ by at most one, so that no odd image trains alone.

    rows: int (n,), in any order. classes: int (n,), the class of each row: then every class is drawn equally often,
    rare ones repeatedly; None: every row once. A function of the set of rows, seed and epoch.
    """
    rng = np.random.default_rng([seed, epoch])
    by_row = np.argsort(rows, kind="stable")
    rows = rows[by_row].astype(np.int64)
    if classes is None:
        return [Deal(epoch, some) for some in np.array_split(rng.permutation(rows), n_batches(len(rows), batch_size))]
    drawn, shows = _drawn_equally(rows, classes[by_row], rng)
    order = rng.permutation(len(drawn))
    parts = np.array_split(order, n_batches(len(drawn), batch_size))
    return [Deal(epoch, drawn[part], shows[part]) for part in parts]


def n_batches(n_images: int, batch_size: int) -> int:
    """Batches that hold n images."""
    return -(-n_images // batch_size)


def n_drawn(rows: np.ndarray, classes: np.ndarray | None) -> int:
    """Images in an epoch: each row once, or as many of each class as keep the epoch's length."""
    if classes is None:
        return len(rows)
    n_classes = len(np.unique(classes))
    return n_batches(len(rows), n_classes) * n_classes


def _drawn_equally(rows: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As many rows of each class, in rounds over its members; returns the rows and the round each was drawn in."""
    present = np.unique(classes)
    n_each = n_batches(len(rows), len(present))
    drawn, shows = [], []
    for value in present:
        members = rows[classes == value]
        n_rounds = n_batches(n_each, len(members))
        drawn.append(np.concatenate([rng.permutation(members) for _ in range(n_rounds)])[:n_each])
        shows.append(np.repeat(np.arange(n_rounds), len(members))[:n_each])
    return np.concatenate(drawn), np.concatenate(shows)


def stream(
    images: BatchSource, deals: Iterable[Deal], *, n_workers: int, device: torch.device = CPU, augment_on: str = "host"
) -> Generator[Batch]:
    """Yield the batch of each deal, in order, its tensors in main memory; for a GPU one at least is read ahead, into pinned memory.

    augment_on: host, the images come augmented; device, with what is left to be done to them. What comes does not depend
    on n_workers. Raises what the source raises, InputError for a source that cannot leave its augmentation to a device;
    for a worker that dies see worker_deaths_named.
    """
    fetch = _Fetch(images, augment_on)
    if n_workers == 0 and device.type == "cpu":
        yield from map(fetch, deals)
        return
    if n_workers == 0:
        yield from read_ahead(deals, (lambda deal: fetch(deal).pinned()) if device.type == "cuda" else fetch)
        return
    loader: DataLoader[Any] = DataLoader(
        _Batches(fetch),
        sampler=deals,
        batch_size=None,
        num_workers=n_workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals_alone,
    )
    batches: Any = iter(loader)
    try:
        while (item := _fetch(batches)) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        # Left to the garbage collector, torch would go on raising for a worker that has died, in whatever code runs then.
        batches._shutdown_workers()


def read_ahead(jobs: Iterable[Job], read: Callable[[Job], Item]) -> Generator[Item]:
    """Yield `read(job)` of each job, in order; a thread reads the next one while the caller works on this one."""
    with ThreadPoolExecutor(1) as pool:
        ahead: Future[Item] | None = None
        for job in jobs:
            behind, ahead = ahead, pool.submit(read, job)
            if behind is not None:
                yield behind.result()
        if ahead is not None:
            yield ahead.result()


class _Fetch:
    """Reads the batch of a deal from the source."""

    def __init__(self, images: BatchSource, augment_on: str) -> None:
        self.images, self.preparing = images, images if augment_on == "device" else None
        if self.preparing is not None and not isinstance(images, PreparingSource):
            raise InputError(
                f"training.augment_on is device, but images of kind {type(images).__name__} cannot leave their augmentation to a device; "
                "set training.augment_on=host"
            )

    def __call__(self, deal: Deal) -> Batch:
        if isinstance(self.preparing, PreparingSource):
            pixels, draws = self.preparing.prepare(deal.rows, deal.epoch, deal.shows)
        else:
            pixels, draws = self.images.batch(deal.rows, deal.epoch, deal.shows), {}
        return Batch(
            torch.from_numpy(deal.rows), torch.from_numpy(pixels), {name: torch.from_numpy(array) for name, array in draws.items()}
        )


class _Batches(Dataset[Any]):
    """Batches as a torch data set. An error that the user can mend travels as an item, so that its message arrives as it
    was written and not wrapped into a worker's traceback."""

    def __init__(self, fetch: _Fetch) -> None:
        self.fetch = fetch

    def __getitem__(self, deal: Deal) -> Batch | Exception:
        try:
            return self.fetch(deal)
        except (InputError, RunError) as error:
            return error


def _fetch(batches: Any) -> Any:
    """The next item, None at the end."""
    try:
        return next(batches, None)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        # What a batch is fetched through may break in many ways while its worker dies; which one comes first is chance.
        if "DataLoader worker" in str(error) or not (_are_gone(error) or _someone_died(batches)):
            raise  # the source's own error, wrapped by torch, or torch's notice of the death
        raise _death("its batch cannot be fetched") from error


def _are_gone(error: Exception) -> bool:
    """The other end of a connection is not there."""
    return isinstance(error, ConnectionError | EOFError | FileNotFoundError)


def _someone_died(batches: Any) -> bool:
    """Whether a worker has ended otherwise than well; one that is about to die gets a moment to do so."""
    workers = getattr(batches, "_workers", [])
    for worker in workers:
        worker.join(DYING_SECONDS / len(workers))
    return any(worker.exitcode not in {None, 0} for worker in workers)


@contextlib.contextmanager
def worker_deaths_named() -> Iterator[None]:
    """Turn torch's notice of a dead worker into a RunError.

    torch raises it from a signal handler, so it can come up anywhere while workers run, not only where a batch is
    asked for: whoever works on the batches belongs inside this block.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RunError) or not str(error).startswith("DataLoader worker"):
            raise
        raise _death(str(error).splitlines()[0].rstrip(". ")) from error


def _death(reason: str) -> RunError:
    return RunError(f"a process that loads images died ({reason}); with little memory, set training.n_workers=0")


def _leave_signals_alone(worker: int) -> None:  # noqa: ARG001 - DataLoader's signature
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the main process ends the workers
    # torchrun sends SIGTERM to each process with its workers, and the process may want to save first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "TORCHELASTIC_RUN_ID" in os.environ else signal.SIG_DFL)
