"""Where independent pieces of work run: here, one after the other or side by side, or on a Ray cluster. The results are the same."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, Literal, TypeVar

from medcnn.errors import MissingExtra

Executor = Literal["local", "ray"]
Result = TypeVar("Result")


def gather(
    function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], *, jobs: int = 1, executor: Executor = "local"
) -> list[Result]:
    """function(*arguments[i]) for each i, in the order of the arguments.

    function: of a module, so that another process can find it; it and its arguments are pickled when jobs > 1 or on
    Ray, where every machine must see the same folders and the cluster decides how many run at once. The first error that a
    piece raises is raised here; here (not on Ray) pieces that wait are dropped first. Raises MissingExtra without Ray.
    """
    if executor == "ray":
        return _on_ray(function, arguments)
    if jobs == 1 or len(arguments) < 2:
        return [function(*some) for some in arguments]
    return _side_by_side(function, arguments, min(jobs, len(arguments)))


def _side_by_side(function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], jobs: int) -> list[Result]:
    # spawn: a forked copy of a process that has used torch's threads may hang
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(function, *some) for some in arguments]
        try:
            for done in as_completed(waiting):
                done.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [done.result() for done in waiting]


def _on_ray(function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]) -> list[Result]:
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "ray", "executor=ray") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=True)  # joins the cluster that RAY_ADDRESS names, else starts one here
    remote = ray.remote(function)
    try:
        found: list[Result] = ray.get([remote.remote(*some) for some in arguments])
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return found
