"""Where torch computes and how precisely: device, threads, autocast."""

import contextlib
from collections.abc import Iterator
from functools import cache

import torch
from torch import nn

from medcnn.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1 or mps. Raises InputError when this machine does not have it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"training.device is {name!r}; expected auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        found = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
        raise InputError(f"training.device is {name!r}, but torch finds {found} here; use training.device=auto or cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("training.device is 'mps', but torch finds no Apple GPU here; use training.device=auto or cpu")
    if device.type not in {"cpu", "cuda", "mps"}:
        raise InputError(f"training.device is {name!r}; expected auto, cpu, cuda, cuda:1 or mps")
    return device


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the generators that a step on this device draws from: 2 microseconds, where torch.manual_seed takes 150."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextlib.contextmanager
def compute_settings(device: torch.device, *, n_threads: int = 0) -> Iterator[None]:
    """Threads (0: as they are) and, on CUDA, TF32 for float32 products and convolutions; everything is put back afterwards.

    On a CPU the same threads give the same bits. On CUDA they do not: TF32 keeps 10 bits of each factor, and sums in some
    backward passes (pooling, indexing) are taken in the order in which threads finish. cuDNN at least chooses its kernels
    by rule and not by a stopwatch (benchmark off), so that runs differ by rounding only.
    """
    threads, precision, cudnn = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.cudnn
    convolutions, stopwatch = cudnn.allow_tf32, cudnn.benchmark
    if n_threads:
        torch.set_num_threads(n_threads)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        cudnn.allow_tf32, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32, cudnn.benchmark = convolutions, stopwatch


@contextlib.contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Autocast to bfloat16, or nothing for float32. bfloat16 keeps float32's range, so no loss scaling is needed."""
    with torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "float32"):
        yield


@contextlib.contextmanager
def depthwise_in_float32(model: nn.Module, device: torch.device, precision: str) -> Iterator[None]:
    """Keep depthwise convolutions out of bfloat16 autocast on a CPU, whose bfloat16 backward pass of them is slow.

    The convolutions change their class for the time being, so weights and their names stay as they are.
    """
    swapped: list[nn.Module] = []
    if precision != "float32" and device.type == "cpu":
        swapped = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1]
    for module in swapped:
        module.__class__ = _float32_twin(type(module))  # type: ignore[arg-type]  # classes can be hashed
    try:
        yield
    finally:
        for module in swapped:
            module.__class__ = type(module).__mro__[1]


@cache
def _float32_twin(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    class Float32(kind):  # type: ignore[misc, valid-type]
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with torch.autocast(images.device.type, enabled=False):
                output: torch.Tensor = super().forward(images.float())
            return output

    return Float32
