"""Which images make a batch, in which order, and how they come: in this process or from workers.

The order is a function of (seed, epoch) alone, so a training that continues after a kill sees what it would have seen.
"""

import contextlib
import os
import signal
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from medcnn.errors import InputError, RunError


class BatchSource(Protocol):
    """Images by row number, as arrays."""

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        """uint8 (B, H, W, C) of the rows, augmented as in `epoch`; None: not augmented.

        shows: int (B,), how often each row came before in this epoch, when some come repeatedly.
        """


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
    images: BatchSource, deals: Iterable[Deal], *, n_workers: int, pin_memory: bool = False
) -> Generator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (rows int64 (B,), images uint8 (B, H, W, C)) of each deal, in order.

    The pixels do not depend on n_workers. Raises what the source raises; for a worker that dies see worker_deaths_named.
    """
    if n_workers == 0:
        for deal in deals:
            yield torch.from_numpy(deal.rows), torch.from_numpy(images.batch(deal.rows, deal.epoch, deal.shows))
        return
    loader: DataLoader[Any] = DataLoader(
        _Batches(images),
        sampler=deals,
        batch_size=None,
        num_workers=n_workers,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_alone,
    )
    batches: Any = iter(loader)
    try:
        while (item := _fetch(batches)) is not None:
            if isinstance(item, Exception):
                raise item
            yield item[0], item[1]
    finally:
        # Left to the garbage collector, torch would go on raising for a worker that has died, in whatever code runs then.
        batches._shutdown_workers()


class _Batches(Dataset[Any]):
    """The source as a torch data set of whole batches. An error that the user can mend travels as an item, so that
    its message arrives as it was written and not wrapped into a worker's traceback."""

    def __init__(self, images: BatchSource) -> None:
        self.images = images

    def __getitem__(self, deal: Deal) -> tuple[np.ndarray, np.ndarray] | Exception:
        try:
            return deal.rows, self.images.batch(deal.rows, deal.epoch, deal.shows)
        except (InputError, RunError) as error:
            return error


def _fetch(batches: Iterator[Any]) -> Any:
    """The next item, None at the end."""
    try:
        return next(batches, None)
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        if "DataLoader worker" in str(error):
            raise  # the source's own error, wrapped by torch
        raise _death("its batch cannot be fetched") from error


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
