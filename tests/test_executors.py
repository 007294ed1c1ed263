"""The same results, wherever the pieces run; errors arrive as they were raised."""

import importlib.util
import os
import time
from pathlib import Path

import pytest

from medcnn.errors import InputError, MissingExtra
from medcnn.executors import gather

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray, which is absent here")


def square(number: int, folder: Path) -> int:
    (folder / f"{number}").write_text(str(os.getpid()))
    return number * number


def fail(number: int, folder: Path) -> int:
    if number == 1:
        raise InputError("image 1: broken")
    if number == 2:
        raise MissingExtra("openslide", "slides", "a slide")
    return square(number, folder)


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_come_in_the_order_of_the_arguments(jobs: int, tmp_path: Path) -> None:
    assert gather(square, [(number, tmp_path) for number in range(5)], jobs=jobs) == [0, 1, 4, 9, 16]
    processes = {(tmp_path / f"{number}").read_text() for number in range(5)}
    assert (str(os.getpid()) in processes) == (jobs == 1)


def test_pieces_run_side_by_side(tmp_path: Path) -> None:
    started = time.monotonic()
    gather(wait_for_each_other, [(number, tmp_path) for number in range(2)], jobs=2)  # one after the other they would wait for ever
    assert time.monotonic() - started < 60


def wait_for_each_other(number: int, folder: Path) -> None:
    (folder / f"{number}").touch()
    while not (folder / f"{1 - number}").exists():
        time.sleep(0.01)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("number", "kind", "words"), [(1, InputError, "image 1: broken"), (2, MissingExtra, "needs the package openslide")]
)
def test_an_error_arrives_as_it_was_raised(jobs: int, number: int, kind: type[InputError], words: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=words):
        gather(fail, [(0, tmp_path), (number, tmp_path), (3, tmp_path)], jobs=jobs)


@needs_ray
@pytest.mark.slow
def test_ray_gives_the_same(tmp_path: Path) -> None:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}})
    try:
        assert gather(square, [(number, tmp_path) for number in range(3)], executor="ray") == [0, 1, 4]
        with pytest.raises(InputError, match="image 1: broken"):
            gather(fail, [(1, tmp_path)], executor="ray")
    finally:
        ray.shutdown()
