"""What goes into a model and what comes out of it: pixels to inputs, outputs to logits and probabilities.

A binary model has two outputs, like any softmax classifier, and one label: its logit is z1 - z0.
"""

from functools import lru_cache

import numpy as np
import torch

from medcnn.errors import InputError
from medcnn.section import Section
from medcnn.tables import Task


class Signature(Section):
    """How a model's input is made and its output is read.

    mean, std: one number per channel, on the scale where black is 0 and white is 1. prior_correction: added to the
    outputs, so that probabilities refer to the cohort's prevalence although training weighted or repeated rare
    classes; blank: nothing to undo.
    """

    task: Task
    mean: tuple[float, ...]
    std: tuple[float, ...]
    prior_correction: tuple[float, ...] = ()

    def inputs(self, images: torch.Tensor, device: torch.device) -> torch.Tensor:
        """uint8 (B, H, W, C) to normalised float32 (B, C, H, W) on the device, in channels_last memory."""
        if images.shape[-1] != len(self.mean):
            raise InputError(f"the images have {images.shape[-1]} channels, the model takes {len(self.mean)}")
        scale, shift = _scale_and_shift(self.mean, self.std, device)
        pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2).to(torch.float32)
        return pixels.mul_(scale).add_(shift)

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs (B, n_outputs) to float32 logits (B, n_labels), the prior undone.

        binary: z1 - z0, the log-odds. multilabel: the log-odds of each label. multiclass: softmax over the columns
        gives the probabilities.
        """
        outputs = outputs.float()
        if self.prior_correction:
            outputs = outputs + torch.tensor(self.prior_correction, device=outputs.device)
        return outputs[:, 1:] - outputs[:, :1] if self.task == "binary" else outputs

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


def count_outputs(task: Task, n_labels: int) -> int:
    """How many outputs a model needs: 2 for a binary task, else one per label."""
    return 2 if task == "binary" else n_labels
