"""torch.compile for training steps: the network's forward and backward pass fused into fewer kernels.

Only the call is compiled. The network stays as it is, with its weights, their names, hooks and modes; validation and
prediction go on without it, since their batches come too seldom to pay for graphs of their own.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from medcnn.errors import InputError
from medcnn.model.machine import missing_for_compiling

BACKEND = "inductor"
Forward = Callable[[torch.Tensor], torch.Tensor]


@contextlib.contextmanager
def compiled(model: nn.Module, device: torch.device, *, wanted: bool) -> Iterator[Forward]:
    """How to call the model in training: compiled where that is wanted, else the model itself.

    It is compiled in the first step, and again where modes, gradients or batch sizes change (head first, the odd batch).
    Dropout draws other numbers than without it, from the same seeds. Raises InputError where this machine lacks the
    compiler; what was compiled is let go at the end, so that the models of a ladder do not use up torch's limit of graphs.
    """
    if not wanted:
        yield model
        return
    if BACKEND == "inductor":
        check_compiler(device.type)
    try:
        yield torch.compile(model, backend=BACKEND)
    finally:
        torch.compiler.reset()


def check_compiler(device: str) -> None:
    """Raise InputError, saying what is missing, where torch.compile cannot work for this kind of device."""
    missing = missing_for_compiling(device)
    if missing:
        raise InputError(f"training.compile is true, but {missing} is not installed here; install it, or set training.compile=false")
