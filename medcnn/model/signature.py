"""What goes into a model and what comes out of it: pixels to inputs, outputs to logits and probabilities.

A binary model has two outputs, like any softmax classifier, and one label: its logit is z1 - z0. An ordinal model has
one output fewer than classes.
"""

from functools import lru_cache

import numpy as np
import torch

from medcnn.config import Loss
from medcnn.errors import InputError
from medcnn.model.posterior import class_scores
from medcnn.section import Section
from medcnn.tables import Task


class Signature(Section):
    """How a model's input is made and its output is read.

    mean, std: one number per channel, on the scale where black is 0 and white is 1. loss, focal_gamma: what training
    minimised, as it decides what an output means (see posterior.py). prior_correction: added to the scores of the
    classes, so that probabilities refer to the cohort's prevalence although training weighted or repeated rare classes;
    blank: nothing to undo.
    """

    task: Task
    mean: tuple[float, ...]
    std: tuple[float, ...]
    prior_correction: tuple[float, ...] = ()
    loss: Loss = "cross_entropy"
    focal_gamma: float = 2.0

    @property
    def ordinal(self) -> bool:
        """Whether the outputs are CORN's, for classes in their order."""
        return self.loss == "ordinal"

    def inputs(self, images: torch.Tensor, device: torch.device) -> torch.Tensor:
        """uint8 (B, H, W, C) to normalised float32 (B, C, H, W) on the device, in channels_last memory."""
        if images.shape[-1] != len(self.mean):
            raise InputError(f"the images have {images.shape[-1]} channels, the model takes {len(self.mean)}")
        scale, shift = _scale_and_shift(self.mean, self.std, device)
        pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2).to(torch.float32)
        return pixels.mul_(scale).add_(shift)

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs (B, n_outputs) to float32 logits (B, n_labels), what loss and prior did to them undone.

        binary: z1 - z0, the log-odds. multilabel: the log-odds of each label. multiclass: softmax over the columns
        gives the probabilities; ordinal: the columns are their logarithms.
        """
        scores = class_scores(outputs.float(), task=self.task, loss=self.loss, gamma=self.focal_gamma)
        if self.prior_correction:
            scores = scores + torch.tensor(self.prior_correction, device=scores.device)
        if self.ordinal:
            return scores.log_softmax(dim=1)
        return scores[:, 1:] - scores[:, :1] if self.task == "binary" else scores

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits (n, n_labels) to float64 probabilities (n, n_labels)."""
        logits = logits.astype(np.float64)
        if self.task == "multiclass":
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            softmax: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
            return softmax
        sigmoid: np.ndarray = np.exp(-np.logaddexp(0, -logits))
        return sigmoid


@lru_cache(maxsize=8)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(x / 255 - mean) / std as one product and one sum, in place: half the memory traffic."""
    means, stds = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (mean, std))
    return (1 / (255 * stds)).to(device, torch.float32), (-means / stds).to(device, torch.float32)


def count_outputs(task: Task, n_labels: int, loss: Loss = "cross_entropy") -> int:
    """How many outputs a model needs: 2 for a binary task, else one per label; one fewer for classes in their order."""
    if loss == "ordinal":
        return n_labels - 1
    return 2 if task == "binary" else n_labels
