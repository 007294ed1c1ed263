"""One training on several processes that torchrun started: who they are, how they meet, what they add up.

The first process runs the whole flow; it alone reads configs, writes folders and prints. The others wait, asleep, until
it calls `together`; then all do the same work, each with its share of the images of every step, and sums over all
processes keep their weights identical to the last bit.
"""

import contextlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import distributed
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from medcnn.artifact import count_cpu_seconds
from medcnn.errors import InputError, RunError
from medcnn.model.batches import Deal
from medcnn.model.devices import choose_device

MEETING = timedelta(minutes=30)  # how long one process waits for the others within a training
IDLE = timedelta(days=365)  # how long the helpers wait for the next one: as long as the flow takes
END = "end"
P = ParamSpec("P")
T = TypeVar("T")
_meetings = itertools.count()
_leaders: set[int] = set()  # the process whose flow the others help; a copy of it, or a worker on Ray, is not


class ProcessLost(RunError):
    """Another process of this training has gone, so sums can no longer be taken."""


# ---------------------------------------------------------------- the flow


def n_processes() -> int:
    """How many processes torchrun started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def take_part(flow: Callable[[], object]) -> None:
    """Run `flow` in the first process; in the others help it wherever it calls `together`, until it is over.

    An error of any process is raised in one of them, and told once; the others end without a word, not with 0.
    """
    if n_processes() == 1:
        flow()
    elif int(os.environ["RANK"]) == 0:
        _store()
        _leaders.add(os.getpid())
        try:
            flow()
        finally:
            _tell(f"meeting{next(_meetings)}", END)
    else:
        _help()


def together(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`work(...)` in all processes of torchrun at once; returns what it returned in this one.

    work: of a module, with arguments that can be pickled; `Team.of_this_process()` tells it who else works on it. It
    must not write or print. Without torchrun it is simply called.
    """
    if n_processes() == 1:
        return work(*args, **kwargs)
    if os.getpid() not in _leaders:
        raise InputError("torchrun trains one model on all its processes, so jobs must be 1 and executor local; or start without torchrun")
    meeting = f"meeting{next(_meetings)}"
    _tell(meeting, "work")
    with _joined(meeting):
        distributed.broadcast_object_list([(work, args, kwargs)], src=0, device=torch.device("cpu"))
        found, helpers_seconds = _counted(lambda: work(*args, **kwargs))
    count_cpu_seconds(helpers_seconds)
    return found


def _counted(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and the CPU seconds that it took all other processes of the group together."""
    before = sum(os.times()[:4])
    found = work()
    own = sum(os.times()[:4]) - before
    return found, float(Team.of_this_process().add_up(torch.tensor(own, dtype=torch.float64)).item() - own)


def _help() -> None:
    """Work with the first process whenever it calls, until it says that it is over or is gone."""
    warnings.simplefilter("ignore")  # the first process shows them
    while (meeting := f"meeting{next(_meetings)}") and _hear(meeting) != END:
        with _joined(meeting), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            task: list[tuple[Callable[..., object], tuple[object, ...], dict[str, object]]] = [(lambda: None, (), {})]
            distributed.broadcast_object_list(task, src=0, device=torch.device("cpu"))
            work, args, kwargs = task[0]
            _counted(lambda work=work, args=args, kwargs=kwargs: work(*args, **kwargs))  # type: ignore[misc]


@contextlib.contextmanager
def _joined(meeting: str) -> Iterator[None]:
    """A process group for the block. It is torn down where the block ends well; after an error the process ends."""
    try:
        with _losses_named():
            distributed.init_process_group(
                _backend(),
                store=PrefixStore(meeting, _store()),
                rank=int(os.environ["RANK"]),
                world_size=n_processes(),
                timeout=MEETING,
            )
        yield
    except BaseException:
        if not _is_first_to_fail():
            raise SystemExit(1) from None
        raise
    distributed.destroy_process_group()


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"


@cache
def _store() -> Store:
    """What torchrun lends its processes to leave each other messages in."""
    place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    with _losses_named():
        kept_by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        keeps_it = not kept_by_torchrun and os.environ["RANK"] == "0"
        store = TCPStore(*place, None if kept_by_torchrun else n_processes(), is_master=keeps_it, timeout=MEETING)
    return PrefixStore(f"medcnn{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _tell(key: str, word: str) -> None:
    with _losses_named():
        _store().set(key, word)


def _hear(key: str) -> str:
    """The word, when it is said; END when torchrun is gone."""
    try:
        _store().wait([key], IDLE)
        return str(_store().get(key).decode())
    except RuntimeError:
        return END


def _is_first_to_fail() -> bool:
    try:
        return int(_store().add("failed", 1)) == 1
    except RuntimeError:  # torchrun has gone with its store, and the first process speaks for all
        return os.environ["RANK"] == "0"


@contextlib.contextmanager
def _losses_named() -> Iterator[None]:
    try:
        yield
    except RunError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise ProcessLost(
            f"another process of this training is gone ({reason}); with little memory, start fewer by --nproc-per-node; run the same command again to go on"
        ) from error


# ---------------------------------------------------------------- the training


class Team:
    """The processes that train one model. rank: from 0, of this process; size: how many they are."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def of_this_process(cls) -> "Team":
        """All processes within `together`; this one alone elsewhere."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def device(self, name: str) -> torch.device:
        """Where this process computes. Raises InputError when the machine has fewer GPUs than processes, or for MPS."""
        device = choose_device(name)
        if self.size == 1 or device.type == "cpu":
            return device
        if device.type == "mps" or ":" in name:
            raise InputError(f"training.device is {name!r}, but torchrun gives each process a GPU of its own; use cuda, cpu or auto")
        number = int(os.environ.get("LOCAL_RANK", self.rank))
        if number >= torch.cuda.device_count():
            raise InputError(f"torchrun started more processes than the {torch.cuda.device_count()} GPUs here; lower --nproc-per-node")
        torch.cuda.set_device(number)
        return torch.device("cuda", number)

    def share(self, deal: Deal, *, neighbours: bool = False) -> Deal:
        """This process's images of a step; the numbers of any two processes differ by at most one.

        neighbours: those that follow each other, and first the one before them (before the first: the last of the step), for
        blends of each image with the one before it, which then are the same whatever the number of processes.
        """
        if self.size == 1:
            return deal
        mine: slice | np.ndarray = slice(self.rank, None, self.size)
        if neighbours:
            own = self.rows(deal.rows)
            mine = np.arange(own.start - 1, own.stop)
        return Deal(deal.epoch, deal.rows[mine], None if deal.shows is None else deal.shows[mine])

    def rows(self, rows: np.ndarray) -> slice:
        """Which of the rows this process looks after, when they are dealt in their order."""
        bounds = np.linspace(0, len(rows), self.size + 1).astype(int)
        return slice(int(bounds[self.rank]), int(bounds[self.rank + 1]))

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over the processes, in place: the same bits in each of them. Raises ProcessLost."""
        if self.size > 1:
            with _losses_named():
                distributed.all_reduce(tensor)
        return tensor

    @torch.no_grad()
    def add_up_all(self, tensors: Sequence[torch.Tensor]) -> None:
        """Sum each tensor over the processes, in place and in one message; float32, on one device."""
        if self.size == 1:
            return
        total = self.add_up(torch.cat([tensor.reshape(-1) for tensor in tensors]))
        for tensor, part in zip(tensors, torch.split(total, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))
