"""Where independent pieces of work run: here, one after the other or side by side, or on a Ray cluster. The results are the same."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from typing import Any, Literal, TypeVar

from medcnn.errors import MissingExtra, RunError

Executor = Literal["local", "ray"]
Pool = Literal["threads", "processes", "ray"]
Result = TypeVar("Result")
AHEAD = 3  # pieces for each worker that are under way or wait to be taken
MOST_THREADS = 4  # beyond, threads wait for each other between two decodings: see pool_for


def gather(
    function: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    *,
    jobs: int = 1,
    executor: Executor = "local",
    n_cpus: int = 1,
    on_gpu: bool = False,
) -> list[Result]:
    """function(*arguments[i]) for each i, in the order of the arguments.

    n_cpus, on_gpu: what a piece needs on Ray, which gives it as many threads, and shows it no GPU that was not asked for: cores (0: all
    of a machine, of the smallest where they differ), and one GPU where the cluster has any.

    function: of a module, so that another process can find it; it and its arguments are pickled when jobs > 1 or on
    Ray, where every machine must see the same folders and the cluster decides how many run at once. The first error that a
    piece raises is raised here; here (not on Ray) pieces that wait are dropped first. Raises MissingExtra without Ray.
    """
    if executor == "ray":
        return _on_ray(function, arguments, n_cpus, on_gpu)
    if jobs == 1 or len(arguments) < 2:
        return [function(*some) for some in arguments]
    return _side_by_side(function, arguments, min(jobs, len(arguments)))


def in_order(
    function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]], *, workers: int, pool: Pool = "threads"
) -> Iterator[Result]:
    """function(*some) for each of the arguments, in their order, as they are wanted: few are under way at a time (AHEAD).

    For many small pieces of work: neither arguments nor results pile up. processes: kept by joblib between calls; function
    and arguments are pickled there and on Ray, which takes as many workers as the cluster has cores. The first error that
    a piece raises is raised here, and what waits is dropped. Raises RunError when a process is killed, MissingExtra without Ray.
    """
    if pool == "ray":
        yield from _in_order_on_ray(function, arguments)
    elif workers == 1:
        yield from (function(*some) for some in arguments)
    elif pool == "threads":
        with ThreadPoolExecutor(workers) as threads:
            yield from _windowed(arguments, lambda some: threads.submit(function, *some), Future.result, _settle, ahead=AHEAD * workers)
    else:
        from joblib.externals.loky import get_reusable_executor

        processes = get_reusable_executor(max_workers=workers)
        try:
            yield from _windowed(arguments, lambda some: processes.submit(function, *some), Future.result, _settle, ahead=AHEAD * workers)
        except BrokenExecutor as error:
            raise RunError(
                f"a process that decodes images was killed, perhaps for want of memory ({type(error).__name__}); run again"
            ) from None


def pool_for(executor: Executor, workers: int) -> Pool:
    """Decoders work beside each other in threads, but what Python does between two of them does not: many cores want processes."""
    if executor == "ray":
        return "ray"
    return "threads" if workers <= MOST_THREADS else "processes"


def n_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _windowed(
    arguments: Iterable[tuple[Any, ...]],
    submit: Callable[[tuple[Any, ...]], Any],
    take: Callable[[Any], Result],
    settle: Callable[[Collection[Any]], None],
    *,
    ahead: int,
) -> Iterator[Result]:
    """settle: ends with pieces that nobody will take; when it returns, none of them is under way, so none writes any more."""
    waiting: deque[Any] = deque()
    try:
        for some in arguments:
            waiting.append(submit(some))
            if len(waiting) >= ahead:
                yield take(waiting.popleft())
        while waiting:
            yield take(waiting.popleft())
    finally:
        settle(waiting)


def _settle(waiting: Collection[Future[Any]]) -> None:
    wait([piece for piece in waiting if not piece.cancel()])


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


def _on_ray(function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], n_cpus: int, on_gpu: bool) -> list[Result]:
    ray = _joined_ray()
    n_gpus = 1 if on_gpu and ray.cluster_resources().get("GPU", 0) >= 1 else 0
    n_cpus = n_cpus or _cores_of_a_machine(ray.nodes())
    remote = ray.remote(num_cpus=n_cpus, num_gpus=n_gpus, max_calls=1)(function)  # a fresh process: torch counts its threads once
    try:
        found: list[Result] = ray.get([remote.remote(*some) for some in arguments])
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return found


def _in_order_on_ray(function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
    ray = _joined_ray()
    remote = ray.remote(function)
    ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def settle(waiting: Collection[Any]) -> None:
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting))

    try:
        yield from _windowed(arguments, lambda some: remote.remote(*some), ray.get, settle, ahead=ahead)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


def _cores_of_a_machine(nodes: Sequence[Mapping[str, Any]]) -> int:
    """Cores of the smallest machine of a cluster that has any. nodes: as Ray lists them."""
    cores = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    return min((n for n in cores if n), default=1)


def _joined_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "ray", "executor=ray") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=True)  # joins the cluster that RAY_ADDRESS names, else starts one here
    return ray
