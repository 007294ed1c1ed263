"""What each network costs: parameters and multiply-adds, counted without weights and without data."""

import copy
from dataclasses import dataclass
from fnmatch import fnmatch

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medcnn.model.backbones import OWN_MODELS, own_model, pretrained_facts
from medcnn.model.weights import weights_source
from medcnn.progress import Progress, silent

OWN_SIZE_PX = 224
USUAL_MODELS = (
    *OWN_MODELS, "tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2", "resnet18", "resnet50", "efficientnet_b0",
    "mobilenetv3_small_100", "densenet121", "convnext_tiny", "vit_tiny_patch16_224", "vit_small_patch16_224", "swin_tiny_patch4_window7_224",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One line of `medcnn models`: a network for `size_px` RGB images and two classes.

    n_multiply_adds: for one image. weights: `wheel ...`, `hub ...` or `none` (weights.weights_source).
    """

    name: str
    n_parameters: int
    n_multiply_adds: int
    size_px: int
    weights: str


def list_models(pattern: str = "", *, progress: Progress = silent) -> list[ModelRow]:
    """Networks whose name contains `pattern` or matches it as a glob; blank: the usual ones. Nothing is downloaded.

    Takes about 0.2 s for each network.
    """
    names = matching_names(pattern)
    return [_row(name) for name in progress(names, "counting", len(names))]


def matching_names(pattern: str) -> list[str]:
    """Names for list_models, our own first."""
    if not pattern:
        return list(USUAL_MODELS)
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [name for name in (*OWN_MODELS, *timm.list_models()) if fnmatch(name.lower(), glob.lower())]


def count_parameters(model: nn.Module) -> int:
    """Trainable and frozen parameters; batch-norm statistics are not parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, *, channels: int, size_px: int) -> int:
    """Multiply-adds of convolutions, linear layers and attention for one image, by torch's own counter on meta tensors."""
    shadow = copy.deepcopy(model).to("meta").eval().requires_grad_(False)  # the counter trips over weights that are themselves inputs
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(torch.empty(1, channels, size_px, size_px, device="meta"))
    return int(counter.get_total_flops()) // 2


def _row(name: str) -> ModelRow:
    with torch.device("meta"):
        model, size_px = _shadow(name)
    return ModelRow(
        name=name,
        n_parameters=count_parameters(model),
        n_multiply_adds=count_multiply_adds(model, channels=3, size_px=size_px),
        size_px=size_px,
        weights="none" if name in OWN_MODELS else weights_source(name),
    )


def _shadow(name: str) -> tuple[nn.Module, int]:
    if name in OWN_MODELS:
        return own_model(name, channels=3, n_outputs=2, size_px=OWN_SIZE_PX, dropout=0.0), OWN_SIZE_PX
    return timm.create_model(name, num_classes=2), pretrained_facts(name).input_size[-1]
