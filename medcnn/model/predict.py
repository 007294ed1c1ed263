"""A trained model on images: logits and probabilities."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from medcnn.errors import RunError
from medcnn.model.batches import BatchSource, n_batches
from medcnn.model.devices import autocast, choose_device, depthwise_in_float32
from medcnn.model.signature import Signature
from medcnn.progress import Progress, silent

BATCH_SIZE = 64


def predict(
    model: nn.Module,
    images: BatchSource,
    rows: np.ndarray,
    *,
    card: Signature,
    device: str = "auto",
    precision: str = "float32",
    batch_size: int = BATCH_SIZE,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict rows of a source, in their order, without augmentation.

    card: a ModelCard, or any Signature. Returns logits float32 (n, n_labels) and probabilities float64 (n, n_labels),
    which refer to the prevalence of the training cohort; what a logit is says Signature.logits. The model stays in
    evaluation mode on the device. Raises RunError when an output is not finite.
    """
    where = choose_device(device)
    model.to(where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    chunks = np.array_split(rows, max(1, n_batches(len(rows), batch_size)))
    with depthwise_in_float32(model, where, precision):
        parts = list(_predict_batches(model, images, progress(chunks, "predicting", len(chunks)), card, where, precision))
    logits = np.concatenate(parts)
    lost = ~np.isfinite(logits).all(axis=1)
    if lost.any():
        raise RunError(
            f"the model gave a score that is not a number for {int(lost.sum())} of {len(rows)} images, first row {rows[lost][0]}; "
            "its weights have diverged, or bfloat16 overflowed: try training.precision=float32"
        )
    return logits, card.probabilities(logits)


def _predict_batches(
    model: nn.Module, images: BatchSource, chunks: Iterator[np.ndarray], card: Signature, device: torch.device, precision: str
) -> Iterator[np.ndarray]:
    for chunk in chunks:
        pixels = card.inputs(torch.from_numpy(images.batch(chunk, None)), device)
        with torch.inference_mode(), autocast(device, precision):
            outputs = model(pixels)
        yield card.logits(outputs).cpu().numpy()
