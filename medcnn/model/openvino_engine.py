"""OpenVINO as what computes a model's scores on a CPU (extra openvino). The compiled model lives in memory only."""

import hashlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from medcnn.errors import InputError, MissingExtra, RunError

Compiled = Callable[[np.ndarray], np.ndarray]
N_TRACED = 2  # images of the example; one could hide that the number of images is free
# Largest difference from torch, as a share of 1 + the largest score: float32 rounding, or 8 bits of bfloat16, over many layers.
TOLERANCE = {"f32": 1e-3, "bf16": 0.1}

_COMPILED: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], Compiled]] = WeakKeyDictionary()


def compile_openvino(model: nn.Module, shape: Sequence[int], *, precision: str, n_threads: int) -> Compiled:
    """The model, in evaluation mode on the CPU, as a function: float32 (B, C, H, W) to its scores, float32 (B, n_outputs).

    shape: (C, H, W); B is free. precision bfloat16 is honoured where the CPU has AMX; elsewhere float32 is faster, and is
    taken. Compiled once for the same weights, shape, precision and threads. Raises MissingExtra; InputError for a network that OpenVINO does not
    take; RunError when its scores are not torch's.
    """
    hint = "bf16" if precision == "bfloat16" and has_amx() else "f32"
    key = (weights_digest(model), tuple(shape), hint, n_threads)
    held = _COMPILED.get(model)
    if held is not None and held[0] == key:
        return held[1]
    example = _example(shape)
    compiled = _compiled(model, example, hint, n_threads)
    _check(model, example, compiled, hint)
    _COMPILED[model] = (key, compiled)
    return compiled


def is_installed() -> bool:
    """Whether the extra is there; nothing is imported."""
    return importlib.util.find_spec("openvino") is not None


def import_openvino() -> Any:
    """The package, kept from telling its maker of its use, as it would at import unless somebody had opted out.

    Raises MissingExtra.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # its import fails, and OpenVINO takes its own stub
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("openvino", "openvino", "prediction.engine openvino") from error
    return openvino


def has_amx() -> bool:
    """Whether the CPU multiplies bfloat16 in tiles. Measured without: OpenVINO takes 1.4 to 1.6 times as long in bfloat16 as in float32."""
    described = Path("/proc/cpuinfo")
    return described.is_file() and "amx_bf16" in described.read_text(encoding="utf-8")


def weights_digest(model: nn.Module) -> str:
    """sha256 over names and values of all parameters and buffers."""
    sha = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        sha.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def _example(shape: Sequence[int]) -> torch.Tensor:
    return torch.randn(N_TRACED, *shape, generator=torch.Generator().manual_seed(0))


def _compiled(model: nn.Module, example: torch.Tensor, hint: str, n_threads: int) -> Compiled:
    openvino = import_openvino()
    from openvino.frontend import OpConversionFailure

    # One stream, as the images come in batches; not pinned, or trainings side by side would share the first cores.
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": n_threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the tracer's, about shapes that are constant here
            converted = openvino.convert_model(model, example_input=example, input=[-1, *example.shape[1:]])
        compiled = openvino.Core().compile_model(converted, "CPU", settings)
    except (RuntimeError, OpConversionFailure) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"OpenVINO does not take this {type(model).__name__}: {reason}; use prediction.engine=torch") from error
    return lambda inputs: np.asarray(compiled(np.ascontiguousarray(inputs))[0])


def _check(model: nn.Module, example: torch.Tensor, compiled: Compiled, hint: str) -> None:
    """A conversion that goes wrong does so without a word, so its scores are compared once with torch's."""
    with torch.inference_mode():
        expected = model(example).float().numpy()
    difference = float(np.abs(compiled(example.numpy()) - expected).max() / (1 + np.abs(expected).max()))
    if not difference <= TOLERANCE[hint]:
        raise RunError(
            f"OpenVINO's scores of this {type(model).__name__} differ from torch's by {difference:.2g} of their size, more than "
            f"{TOLERANCE[hint]:g}; use prediction.engine=torch"
        )
