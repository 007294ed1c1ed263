"""Where in the image a logit comes from: Grad-CAM (doi:10.1007/s11263-019-01228-7)."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from medcnn.errors import InputError
from medcnn.model.signature import Signature

SMALLEST_MAP = 4  # pixels on a side: a coarser map says nothing of a place


class _LabelLogits(nn.Module):
    """A model whose outputs are the labels' logits, so that what is explained is what is reported."""

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.model, self.signature = model, signature

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.signature.logits(self.model(images))


def grad_cam(model: nn.Module, images: np.ndarray, *, card: Signature, label: int = 0) -> np.ndarray:
    """What raises the logit of label number `label` (for a binary task 0: the positive class), image by image.

    images: uint8 (B, H, W, C). Returns float32 (B, H, W), 0 (no evidence for it) to 1 (the strongest in this image);
    all 0 where nothing in the map speaks for it. Uses the deepest feature map of at least 4 x 4, enlarged bilinearly: a
    coarse place, no proof of cause. The model itself is left as it was. Raises InputError for networks without
    such a map (transformers, fully connected ones).
    """
    from monai.visualize.class_activation_maps import GradCAM  # takes seconds to import

    device = next(model.parameters()).device
    # MONAI leaves hooks behind and takes gradients for contiguous; both are kept from the model itself.
    twin = copy.deepcopy(model).eval().requires_grad_(True).to(memory_format=torch.contiguous_format)
    layer = target_layer(twin, size_px=images.shape[1])
    cam = GradCAM(nn_module=_LabelLogits(twin, card), target_layers=f"model.{layer}", postprocessing=_unchanged)
    inputs = card.inputs(torch.from_numpy(images), device).contiguous()
    maps = cam(inputs, class_idx=label).detach().float().cpu().numpy()[:, 0]
    peaks = maps.max(axis=(1, 2), keepdims=True)
    scaled: np.ndarray = np.divide(maps, peaks, out=np.zeros_like(maps), where=peaks > 0)
    return scaled.astype(np.float32)


def target_layer(model: nn.Module, *, size_px: int) -> str:
    """Name of the deepest feature map with a usable place, or InputError saying why there is none."""
    info: Any = getattr(model, "feature_info", None)
    stages: Sequence[Mapping[str, Any]] = info if isinstance(info, Sequence) else getattr(info, "info", ())
    if not stages:
        raise InputError(f"Grad-CAM is not available for {type(model).__name__}: it has no feature maps")
    usable = [stage for stage in stages if size_px // int(stage["reduction"]) >= SMALLEST_MAP]
    if not usable:
        raise InputError(f"Grad-CAM is not available for {type(model).__name__} at {size_px} px: every feature map is below 4 x 4")
    name = str(usable[-1]["module"])
    shape = _map_shape(model, name, size_px)
    if len(shape) != 4 or shape[1] != usable[-1]["num_chs"]:
        raise InputError(
            f"Grad-CAM is not available for {type(model).__name__}: {name} gives {shape} instead of channels, height, width "
            "(a transformer's tokens); use a convolutional backbone for it"
        )
    return name


def _map_shape(model: nn.Module, name: str, size_px: int) -> tuple[int, ...]:
    """Shape of a module's output, found on meta tensors."""
    shadow = copy.deepcopy(model).to("meta").eval()
    channels = next(parameter.shape[1] for parameter in shadow.parameters() if parameter.ndim == 4)
    shapes: list[tuple[int, ...]] = []
    shadow.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape)))
    with torch.no_grad():
        shadow(torch.empty(1, channels, size_px, size_px, device="meta"))
    return shapes[0]


def _unchanged(maps: torch.Tensor) -> torch.Tensor:
    """MONAI's own postprocessing turns the map round, strongest to 0."""
    return maps
