import os
import signal
import threading
from collections import Counter
from contextlib import closing
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs

from medcnn.errors import InputError, RunError
from medcnn.model.batches import Deal, _fetch, deal_epoch, n_drawn, stream, worker_deaths_named

ROWS = np.array([40, 3, 17, 8, 25, 31, 2])


def dealt(deals: list[Deal]) -> list[list[int]]:
    return [deal.rows.tolist() for deal in deals]


def test_every_row_comes_once_and_batches_are_even() -> None:
    deals = deal_epoch(ROWS, None, batch_size=3, seed=0, epoch=0)
    assert sorted(np.concatenate([deal.rows for deal in deals])) == sorted(ROWS)
    assert sorted(len(deal.rows) for deal in deals) == [2, 2, 3]


def test_the_order_is_a_function_of_set_seed_and_epoch() -> None:
    first = dealt(deal_epoch(ROWS, None, batch_size=3, seed=5, epoch=2))
    assert dealt(deal_epoch(ROWS[::-1], None, batch_size=3, seed=5, epoch=2)) == first
    assert dealt(deal_epoch(ROWS, None, batch_size=3, seed=5, epoch=3)) != first
    assert dealt(deal_epoch(ROWS, None, batch_size=3, seed=6, epoch=2)) != first


def test_oversampling_draws_every_class_equally_often() -> None:
    rows = np.arange(100, 140)
    classes = np.repeat([0, 1, 2], [30, 7, 3])
    deals = deal_epoch(rows, classes, batch_size=8, seed=1, epoch=0)
    drawn = np.concatenate([deal.rows for deal in deals])
    assert Counter(classes[drawn - 100].tolist()) == {0: 14, 1: 14, 2: 14}
    assert len(drawn) == n_drawn(rows, classes) == 42
    counts = Counter(drawn[classes[drawn - 100] == 1].tolist())
    assert set(counts.values()) == {2}, "a class is used up before one of it comes again"


def test_a_repeated_row_knows_how_often_it_came() -> None:
    deals = deal_epoch(np.arange(20), np.repeat([0, 1], [18, 2]), batch_size=4, seed=1, epoch=0)
    pairs = [(row, show) for deal in deals for row, show in zip(deal.rows, deal.shows, strict=True)]
    assert len(set(pairs)) == len(pairs) == 20
    assert {show for row, show in pairs if row == 19} == set(range(5))


def test_oversampling_does_not_depend_on_row_order() -> None:
    rows, classes = np.arange(20), np.repeat([0, 1], [15, 5])
    shuffled = np.random.default_rng(0).permutation(20)
    one = deal_epoch(rows, classes, batch_size=4, seed=1, epoch=0)
    other = deal_epoch(rows[shuffled], classes[shuffled], batch_size=4, seed=1, epoch=0)
    assert dealt(one) == dealt(other)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_workers_bring_the_same_pixels_in_the_same_order(n_workers: int) -> None:
    source = Arrays(blobs(30)[0])
    deals = [deal for epoch in (0, 1) for deal in deal_epoch(np.arange(30), None, batch_size=7, seed=0, epoch=epoch)]
    here = list(stream(source, deals, n_workers=0))
    there = list(stream(source, deals, n_workers=n_workers))
    assert len(here) == len(there) == len(deals)
    for batch, theirs in zip(here, there, strict=True):
        assert torch.equal(batch.rows, theirs.rows)
        assert torch.equal(batch.pixels, theirs.pixels)
        assert not batch.draws


@pytest.mark.parametrize("n_workers", [0, 1])
def test_for_a_gpu_the_same_batches_come(n_workers: int) -> None:
    """Nothing is sent to the device here, so one that is not there can be named."""
    source = Arrays(blobs(30)[0])
    deals = deal_epoch(np.arange(30), None, batch_size=7, seed=0, epoch=1)
    there = list(stream(source, deals, n_workers=n_workers, device=torch.device("mps")))
    for batch, theirs in zip(stream(source, deals, n_workers=0), there, strict=True):
        assert torch.equal(batch.rows, theirs.rows)
        assert torch.equal(batch.pixels, theirs.pixels)


def test_for_a_gpu_the_next_batch_is_read_meanwhile_and_no_further_one() -> None:
    asked: list[int] = []
    second = threading.Event()

    class Announcing(Arrays):
        def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
            asked.append(int(rows[0]))
            if rows[0] == 1:
                second.set()
            return super().batch(rows, epoch, shows)

    deals = [Deal(0, np.array([row])) for row in range(8)]
    batches = stream(Announcing(blobs(8)[0]), deals, n_workers=0, device=torch.device("mps"))
    assert next(batches).rows.tolist() == [0]
    assert second.wait(timeout=10)
    batches.close()
    assert asked == [0, 1]


def test_on_a_cpu_nothing_is_read_before_it_is_needed() -> None:
    asked: list[int] = []

    class Counting(Arrays):
        def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
            asked.append(threading.get_ident())
            return super().batch(rows, epoch, shows)

    batches = stream(Counting(blobs(8)[0]), [Deal(0, np.array([row])) for row in range(8)], n_workers=0)
    next(batches)
    assert asked == [threading.get_ident()]


class Broken:
    """Fails at row 5: with an error for the user, or by dying."""

    def __init__(self, *, dies: bool) -> None:
        self.dies = dies

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        if 5 in rows and self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if 5 in rows:
            raise InputError("a.png: is not an image")
        return np.zeros((len(rows), 2, 2, 1), np.uint8)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_an_error_in_a_worker_says_what_it_would_say_here(n_workers: int) -> None:
    deals = [Deal(0, np.array([row])) for row in range(8)]
    with pytest.raises(InputError) as caught:
        list(stream(Broken(dies=False), deals, n_workers=n_workers))
    assert str(caught.value) == "a.png: is not an image"


def test_a_worker_that_dies_is_a_run_error() -> None:
    batches = stream(Broken(dies=True), [Deal(0, np.array([row])) for row in range(8)], n_workers=1)
    with pytest.raises(RunError, match=r"training.n_workers=0"), worker_deaths_named(), closing(batches):
        list(batches)


class Worker:
    """As torch keeps them, with what it ended with."""

    def __init__(self, exitcode: int | None) -> None:
        self.exitcode = exitcode

    def join(self, timeout: float) -> None:
        assert timeout <= 1


class Breaking:
    """An iterator that fails as the way to a worker does that dies while it sends a batch."""

    def __init__(self, error: Exception, exitcode: int | None) -> None:
        self.error, self._workers = error, [Worker(None), Worker(exitcode)]

    def __next__(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "reset by peer"),
        EOFError(),
        RuntimeError("received 0 items of ancillary data"),
        OSError("handle is closed"),
        UnpicklingError("pickle data was truncated"),
    ],
)
def test_however_the_way_to_a_dying_worker_breaks_it_is_a_death(error: Exception) -> None:
    with pytest.raises(RunError, match=r"died \(its batch cannot be fetched\).*n_workers=0"):
        _fetch(Breaking(error, -signal.SIGKILL))
    if not isinstance(error, ConnectionError | EOFError):
        with pytest.raises(type(error)):  # nobody died, so the error is somebody else's
            _fetch(Breaking(error, None))


def test_torchs_own_notice_passes() -> None:
    with pytest.raises(RuntimeError, match="killed by signal") as caught:
        _fetch(Breaking(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), -signal.SIGKILL))
    assert not isinstance(caught.value, RunError)


def test_other_runtime_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), worker_deaths_named():
        raise RuntimeError("CUDA: out of memory")
