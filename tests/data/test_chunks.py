"""Work in chunks: the same result wherever it runs, nothing done twice, nothing half done."""

import functools
import importlib.util
import os
import time
from pathlib import Path

import pytest

from medcnn.data.chunks import Chunks, chunk_size, forget, missing, work_through
from medcnn.errors import InputError

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray, which is absent here")


def squares(piece: range, *, bad: int = -1, log: Path | None = None) -> bytes:
    if log is not None:
        (log / f"{piece.start}").write_text(str(os.getpid()))
    if bad in piece:
        raise InputError(f"item {bad} is bad")
    return " ".join(str(number**2) for number in piece).encode()


def contents(chunks: Chunks) -> list[int]:
    return [int(word) for file in chunks.files() for word in file.read_bytes().split()]


def chunks_in(folder: Path, n: int = 23, size: int = 5, header: str = "h") -> Chunks:
    return Chunks(folder / "chunks", n, size, header)


@pytest.mark.parametrize(("pool", "workers"), [("threads", 1), ("threads", 3), ("processes", 2)])
def test_every_item_is_worked_on_once_in_order(tmp_path: Path, pool, workers: int) -> None:
    chunks, seen = chunks_in(tmp_path), []

    def progress(items, title, total=None):
        for item in items:
            seen.append((title, total))
            yield item

    work_through(functools.partial(squares, log=tmp_path), range, chunks, pool=pool, workers=workers, progress=progress, title="t")
    assert contents(chunks) == [number**2 for number in range(23)]
    assert seen == [("t", 23)] * 23
    processes = {(tmp_path / f"{start}").read_text() for start in range(0, 23, 5)}
    assert (str(os.getpid()) in processes) == (pool == "threads")
    forget(chunks)
    assert not chunks.folder.exists()


@pytest.mark.parametrize(("pool", "counted"), [("threads", False), ("processes", True)])
def test_what_processes_spend_is_counted_and_nothing_twice(tmp_path: Path, monkeypatch, pool, counted: bool) -> None:
    noted: list[float] = []
    monkeypatch.setattr("medcnn.data.chunks.count_cpu_seconds", noted.append)
    work_through(burn, range, chunks_in(tmp_path, n=4, size=2), pool=pool, workers=2, title="t")
    assert bool(noted) == counted
    assert not counted or sum(noted) >= 0.19


def burn(piece: range) -> bytes:
    until = time.thread_time() + 0.05 * len(piece)
    while time.thread_time() < until:
        pass
    return b""


@needs_ray
@pytest.mark.slow
def test_ray_gives_the_same(tmp_path: Path) -> None:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        chunks = chunks_in(tmp_path)
        work_through(squares, range, chunks, pool="ray", title="t")
        assert contents(chunks) == [number**2 for number in range(23)]
        with pytest.raises(InputError, match="item 7 is bad"):
            work_through(functools.partial(squares, bad=7), range, chunks_in(tmp_path, header="other"), pool="ray", title="t")
    finally:
        ray.shutdown()


@pytest.mark.parametrize(("pool", "workers"), [("threads", 1), ("threads", 2), ("processes", 2)])
def test_an_error_arrives_and_finished_chunks_stay(tmp_path: Path, pool, workers: int) -> None:
    chunks = chunks_in(tmp_path)
    with pytest.raises(InputError, match="item 12 is bad"):
        work_through(functools.partial(squares, bad=12), range, chunks, pool=pool, workers=workers, title="t")
    left = list(missing(chunks))
    assert 2 in left
    assert {0, 1}.isdisjoint(left)
    (tmp_path / "log").mkdir()
    work_through(functools.partial(squares, log=tmp_path / "log"), range, chunks, workers=1, title="t")
    assert {int(file.name) // 5 for file in (tmp_path / "log").iterdir()} == set(left)
    assert contents(chunks) == [number**2 for number in range(23)]


@pytest.mark.parametrize("other", [{"header": "x"}, {"n": 24}, {"size": 4}])
def test_results_of_other_work_are_thrown_away(tmp_path: Path, other: dict) -> None:
    work_through(squares, range, chunks_in(tmp_path), title="t")
    changed = chunks_in(tmp_path, **other)
    assert len(list(missing(changed))) == len(changed)
    work_through(squares, range, changed, title="t")
    assert contents(changed) == [number**2 for number in range(changed.n)]


def test_the_chunk_size_follows_from_the_number_alone() -> None:
    assert [chunk_size(n, 512) for n in (0, 1, 600, 6400, 10**6)] == [16, 16, 16, 100, 512]
    assert chunk_size(10**6, 3) == 3
