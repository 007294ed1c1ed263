"""Two networks small enough to read: a plain CNN, and the fully connected baseline it is compared with."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

N_FILTERS = (32, 64, 128)
N_HIDDEN = 64
DROPOUT = 0.3


class SimpleCNN(nn.Module):
    """Three blocks of 3x3 convolution, batch norm, ReLU and 2x2 max pooling; global average pooling; two linear layers.

    Input float32 (B, in_channels, H, W) with H and W at least 8; output float32 (B, n_classes), raw scores.
    With 3 channels and 2 classes it has 102,082 parameters, whatever the image size.
    """

    def __init__(self, in_channels: int = 3, n_classes: int = 2, *, dropout: float = DROPOUT) -> None:
        super().__init__()
        widths = (in_channels, *N_FILTERS)
        self.features = nn.Sequential(*(_block(before, after) for before, after in pairwise(widths)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(N_FILTERS[-1], N_HIDDEN), nn.ReLU(), nn.Dropout(dropout), nn.Linear(N_HIDDEN, n_classes)
        )
        # What timm's models say of their feature maps: the module, and how many input pixels one of its pixels covers.
        self.feature_info: Sequence[dict[str, str | int]] = [
            {"module": f"features.{block}.2", "reduction": 2**block, "num_chs": width} for block, width in enumerate(N_FILTERS)
        ]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classifier(self.pool(self.features(images)))
        return scores

    def get_classifier(self) -> nn.Module:
        """The head, under the name that timm's models give it."""
        return self.classifier


class FullyConnected(nn.Module):
    """One hidden layer on the raw pixels: what a network costs that knows nothing of images.

    Input float32 (B, in_channels, size_px, size_px); output float32 (B, n_classes). The first layer alone has
    (in_channels * size_px^2 + 1) * width parameters: 154 million for 3 x 224 x 224 and width 1024.
    """

    def __init__(self, in_channels: int, size_px: int, n_classes: int, width: int = 1024, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * size_px**2, width), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classifier(self.hidden(images))
        return scores

    def get_classifier(self) -> nn.Module:
        """The head, under the name that timm's models give it."""
        return self.classifier


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, kernel_size=3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2, 2))
