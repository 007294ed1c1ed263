"""Batch norm's statistics taken anew from training images as they are, once training has ended.

Training sees augmented images only, prediction plain ones, so running statistics belong to the wrong population (and to
weights from some steps ago; of averaged weights they are an average too). Taken anew they are those of the final weights
on images such as will come (precise batch norm, arXiv:2105.07576).
"""

import numpy as np
import torch
from torch import nn

from medcnn.model.batches import BatchSource, n_batches
from medcnn.model.devices import autocast
from medcnn.model.shared_norm import batch_norms
from medcnn.model.signature import Signature

MOST_IMAGES = 2048  # enough for means and variances of a channel, which every pixel of a feature map adds to


@torch.no_grad()
def take_plain_statistics(
    model: nn.Module, images: BatchSource, rows: np.ndarray, *, signature: Signature, device: torch.device, precision: str, batch_size: int
) -> None:
    """Replace mean and variance of each batch norm by their mean over batches of plain images; the model ends in evaluation mode.

    rows: int (n,), the training rows; at most MOST_IMAGES of them are used, drawn evenly over their sorted order and then
    shuffled in one fixed way, so that the result is a function of the set of rows. Nothing is done to a network without batch norm.
    """
    norms = [norm for norm in batch_norms(model) if norm.running_mean is not None]
    if not norms:
        return
    model.eval()
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    used = np.sort(rows)[np.linspace(0, len(rows) - 1, min(len(rows), MOST_IMAGES)).round().astype(int)]
    shuffled = np.random.default_rng(0).permutation(used)
    for some in np.array_split(shuffled, n_batches(len(shuffled), batch_size)):
        pixels = torch.from_numpy(images.batch(np.sort(some), None))
        with autocast(device, precision):
            model(signature.inputs(pixels, device))
    for norm, momentum, count in zip(norms, momenta, counts, strict=True):
        norm.momentum = momentum
        if count is not None and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.copy_(count)
    model.eval()
