"""A trained model on images: logits and probabilities."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from medcnn.model.batches import BatchSource, n_batches
from medcnn.model.devices import choose_device, compute_settings
from medcnn.model.features import last_linear
from medcnn.model.scoring import Ask, Engine, check_finite, score_batches
from medcnn.model.signature import Signature
from medcnn.progress import Progress, silent

BATCH_SIZE = 64
VIEW_EPOCHS = 1_000_000_000  # the augmented views are those of epochs from here on, which no training reaches


def predict(  # noqa: PLR0913 - the room's front door
    model: nn.Module,
    images: BatchSource,
    rows: np.ndarray,
    *,
    card: Signature,
    device: str = "auto",
    precision: str = "float32",
    batch_size: int = BATCH_SIZE,
    views: int = 1,
    engine: Engine = "torch",
    n_threads: int = 0,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict rows of a source, in their order.

    card: a ModelCard, or any Signature. views: how many views of each image are asked: the plain one, and views - 1 that
    the source augments (test-time augmentation), always the same for a row. Their logits are averaged: unlike
    probabilities these do not saturate, and a temperature fitted later does the same before or after the mean.
    engine: what computes on a CPU. n_threads: CPU threads, 0: as they are; the same number gives the same bits.

    Returns logits float32 (n, n_labels) and probabilities float64 (n, n_labels), which refer to the prevalence of the
    training cohort; what a logit is says Signature.logits. The model stays in evaluation mode on the device. Raises
    RunError when an output is not finite.
    """
    where = choose_device(device)
    model.to(where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    chunks = np.array_split(rows, max(1, n_batches(len(rows), batch_size)))
    asked = _views(progress(chunks, "predicting", len(chunks)), views)
    with compute_settings(where, n_threads=n_threads):
        outputs = score_batches(model, images, asked, signature=card, device=where, precision=precision, engine=engine)
        of_views = [card.logits(output) for output in outputs]  # left on the device: a GPU need not wait for one before the next
        logits = torch.cat([_mean(of_views[start : start + views]) for start in range(0, len(of_views), views)]).cpu().numpy()
    check_finite(logits, rows, "score")
    return logits, card.probabilities(logits)


def predict_from_features(model: nn.Module, features: np.ndarray, rows: np.ndarray, *, card: Signature) -> tuple[np.ndarray, np.ndarray]:
    """What `predict` gives for these rows, from features that `write_features` has made with the same backbone: no image is read.

    features: float32 (N, D). Computed on the CPU. Returns logits and probabilities as `predict` does; raises RunError
    when a score is not finite.
    """
    head = last_linear(model)
    weight, bias = (parameter.detach().cpu() for parameter in (head.weight, head.bias))
    chunks = np.array_split(rows, max(1, n_batches(len(rows), BATCH_SIZE)))
    outputs = torch.cat([nn.functional.linear(torch.from_numpy(np.array(features[chunk])), weight, bias) for chunk in chunks])
    logits = card.logits(outputs).numpy()
    check_finite(logits, rows, "score")
    return logits, card.probabilities(logits)


def _views(chunks: Iterator[np.ndarray], views: int) -> Iterator[Ask]:
    """Each chunk as often as there are views: not augmented, then as in epochs of their own."""
    for rows in chunks:
        yield rows, None
        yield from ((rows, VIEW_EPOCHS + view) for view in range(1, views))


def _mean(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    if len(logits) == 1:
        return logits[0]
    return torch.stack(list(logits)).double().mean(dim=0).float()
