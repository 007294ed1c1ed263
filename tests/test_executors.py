"""The same results, wherever the pieces run; errors arrive as they were raised."""

import importlib.util
import os
import time
from pathlib import Path

import pytest

from medcnn.errors import InputError, MissingExtra, RunError
from medcnn.executors import AHEAD, _cores_of_a_machine, gather, in_order, n_cores, pool_for

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


@pytest.mark.parametrize(("pool", "workers"), [("threads", 1), ("threads", 3), ("processes", 2)])
def test_results_in_order_and_few_pieces_under_way(pool, workers: int, tmp_path: Path) -> None:
    asked = []

    def arguments():
        for number in range(40):
            asked.append(number)
            yield number, tmp_path

    for number, result in enumerate(in_order(square, arguments(), workers=workers, pool=pool)):
        assert result == number**2
        assert len(asked) - number <= AHEAD * workers
    assert len(asked) == 40


@pytest.mark.parametrize(("pool", "workers"), [("threads", 1), ("threads", 2), ("processes", 2)])
def test_an_error_in_order_stops_what_waits(pool, workers: int, tmp_path: Path) -> None:
    arguments = [(0, tmp_path), (1, tmp_path), *((number, tmp_path) for number in range(3, 99))]
    with pytest.raises(InputError, match="image 1: broken"):
        list(in_order(fail, arguments, workers=workers, pool=pool))
    assert len(list(tmp_path.iterdir())) < 20


def die(number: int) -> int:
    if number == 3:
        os._exit(1)
    return number


def test_a_killed_process_is_named() -> None:
    with pytest.raises(RunError, match="a process that decodes images was killed"):
        list(in_order(die, ((number,) for number in range(9)), workers=2, pool="processes"))
    assert list(in_order(die, ((number,) for number in range(3)), workers=2, pool="processes")) == [0, 1, 2]  # and others take its place


def test_the_pool_follows_from_executor_and_cores() -> None:
    assert [pool_for("local", 2), pool_for("local", 64), pool_for("ray", 1)] == ["threads", "processes", "ray"]
    assert n_cores() >= 1


def threads(folder: Path) -> int:
    import torch

    return torch.get_num_threads()


def test_a_machines_cores_are_those_of_the_smallest_that_lives_and_computes() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 8.0}},
        {"Alive": True, "Resources": {"memory": 1.0}},  # a head that takes no work
        {"Alive": False, "Resources": {"CPU": 2.0}},
    ]
    assert _cores_of_a_machine(nodes) == 8
    assert _cores_of_a_machine([]) == 1


@needs_ray
@pytest.mark.slow
def test_ray_gives_the_same(tmp_path: Path) -> None:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}})
    try:
        assert gather(square, [(number, tmp_path) for number in range(3)], executor="ray") == [0, 1, 4]
        assert gather(threads, [(tmp_path,)], executor="ray", n_cpus=0, on_gpu=True) == [2]  # not the one thread that is Ray's default
        assert gather(threads, [(tmp_path,)], executor="ray", n_cpus=1) == [1]
        with pytest.raises(InputError, match="image 1: broken"):
            gather(fail, [(1, tmp_path)], executor="ray")
    finally:
        ray.shutdown()
