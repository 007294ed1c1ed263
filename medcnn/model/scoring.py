"""Images through a network in batches, by what computes fastest: torch with batch norm folded, OpenVINO, or a GPU."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import nn

from medcnn.errors import Diverged
from medcnn.model.batches import BatchSource, read_ahead
from medcnn.model.devices import autocast, depthwise_in_float32
from medcnn.model.folding import folded
from medcnn.model.openvino_engine import compile_openvino
from medcnn.model.signature import Signature

Engine = Literal["torch", "openvino"]
Ask = tuple[np.ndarray, int | None]  # rows of a source, and the epoch whose augmentation they get; None: none
Score = Callable[[torch.Tensor], torch.Tensor]


def score_batches(
    model: nn.Module,
    images: BatchSource,
    asked: Iterable[Ask],
    *,
    signature: Signature,
    device: torch.device,
    precision: str,
    engine: Engine,
) -> Iterator[torch.Tensor]:
    """Yield the model's own outputs for each batch, (B, n_outputs) on the device, in order.

    The model stands in evaluation mode on the device, in channels_last memory. On a CPU its batch norms are folded, or
    OpenVINO computes; on a GPU nothing waits for a result, and the next batch is read meanwhile.
    """
    score: Score | None = None
    with contextlib.ExitStack() as stack:
        batches = stack.enter_context(contextlib.closing(_loaded(images, asked, device)))
        for pixels in batches:
            inputs = signature.inputs(pixels, device)
            if score is None:
                score = stack.enter_context(_scoring(model, inputs, precision, engine))
            yield score(inputs)


def check_finite(values: np.ndarray, rows: np.ndarray, what: str) -> None:
    """Raise Diverged naming the first row with a value that is not finite. values: float (n, k), row by row of `rows`."""
    lost = ~np.isfinite(values).all(axis=1)
    if lost.any():
        raise Diverged(
            f"the model gave a {what} that is not a number for {int(lost.sum())} of {len(rows)} images, first row {rows[lost][0]}; "
            "its weights have diverged, or bfloat16 overflowed: try training.precision=float32"
        )


def _loaded(images: BatchSource, asked: Iterable[Ask], device: torch.device) -> Generator[torch.Tensor]:
    """uint8 (B, H, W, C) of each batch. For a GPU a thread reads one batch ahead, into memory that copies itself over."""
    if device.type == "cpu":
        for rows, epoch in asked:
            yield torch.from_numpy(images.batch(rows, epoch))
        return

    def read(ask: Ask) -> torch.Tensor:
        pixels = torch.from_numpy(images.batch(*ask))
        return pixels.pin_memory() if device.type == "cuda" else pixels

    yield from read_ahead(asked, read)


@contextlib.contextmanager
def _scoring(model: nn.Module, inputs: torch.Tensor, precision: str, engine: Engine) -> Iterator[Score]:
    """The fastest way from inputs (B, C, H, W) to scores; the model is as it was afterwards."""
    device, shape = inputs.device, tuple(inputs.shape[1:])
    if device.type == "cpu" and engine == "openvino" and len(inputs):
        compiled = compile_openvino(model, shape, precision=precision, n_threads=torch.get_num_threads())
        yield lambda images: torch.from_numpy(compiled(images.numpy()))
        return
    quick = folded(model, shape) if device.type == "cpu" else model

    def score(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), autocast(device, precision):
            scores: torch.Tensor = quick(images)
        return scores

    with depthwise_in_float32(quick, device, precision):
        yield score
