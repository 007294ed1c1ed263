"""A network in the style of VGG (doi:10.48550/arXiv.1409.1556), small enough to be trained from random weights on a CPU."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

WIDTHS = (32, 64, 128)
DROPOUT = 0.3


class SmallVGG(nn.Module):
    """Three blocks of two 3x3 convolutions (each with batch norm and ReLU) and 2x2 max pooling; global average pooling; a linear layer.

    Input float32 (B, in_channels, H, W) with H and W at least 8; output float32 (B, n_classes), raw scores.
    With 3 channels and 2 classes it has 287,714 parameters, whatever the image size. Convolutions start as He et al.
    propose for ReLU (doi:10.1109/ICCV.2015.123); they have no bias, which batch norm would take out again.
    """

    def __init__(self, in_channels: int = 3, n_classes: int = 2, *, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.features = nn.Sequential(*(_block(before, after) for before, after in pairwise((in_channels, *WIDTHS))))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(WIDTHS[-1], n_classes))
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        # What timm's models say of their feature maps: the module, and how many input pixels one of its pixels covers.
        self.feature_info: Sequence[dict[str, str | int]] = [
            {"module": f"features.{block}.5", "reduction": 2**block, "num_chs": width} for block, width in enumerate(WIDTHS)
        ]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classifier(self.pool(self.features(images)))
        return scores

    def get_classifier(self) -> nn.Module:
        """The head, under the name that timm's models give it."""
        return self.classifier


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (before, after):
        layers += [nn.Conv2d(width, after, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2, 2))
