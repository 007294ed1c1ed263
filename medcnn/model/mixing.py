"""Mixup and CutMix: training on blends of two images, with the label blended alike.

Mixup: Zhang et al. 2018, arXiv:1710.09412. CutMix: Yun et al. 2019, doi:10.1109/ICCV.2019.00612. Batches are in random
order, so each image is blended with the one before it.
"""

import numpy as np
import torch


def mix(
    images: torch.Tensor, y: torch.Tensor, *, mixup: float, cutmix: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend a batch by one of the two, drawn evenly where both alphas are above 0 (one of them must be).

    images: float (B, C, H, W), may be written into. y: float (B, n_labels), NaN where a label is not known: that of a
    blend is known only where both are. All randomness comes from rng, on the CPU: the device is not waited for.
    """
    pasted = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    alpha = cutmix if pasted else mixup
    share = float(rng.beta(alpha, alpha))
    if not pasted:
        return blend(images, share), blend(y, share)
    top, bottom, left, right = draw_box(images.shape[2], images.shape[3], share, rng)
    images[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].roll(1, 0)
    return images, blend(y, 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3]))


def blend(batch: torch.Tensor, share: float) -> torch.Tensor:
    """share of each row, and 1 - share of the row before it (of the last one, for the first)."""
    return batch.roll(1, 0).lerp_(batch, share)


def draw_box(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """top, bottom, left, right of a patch with 1 - share of the area, cut off at the border; its centre is anywhere."""
    half = 0.5 * (1 - share) ** 0.5
    y, x = int(rng.integers(height)), int(rng.integers(width))
    half_height, half_width = int(half * height), int(half * width)
    return max(0, y - half_height), min(height, y + half_height), max(0, x - half_width), min(width, x + half_width)
