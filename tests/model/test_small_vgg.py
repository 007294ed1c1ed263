"""Oracle: the layer list, parameters and multiply-adds counted by hand, the variance He et al. ask for."""

import math

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs, model_plan, training_plan
from torch import nn

from medcnn.model.backbones import build_model
from medcnn.model.catalogue import list_models
from medcnn.model.explain import grad_cam, target_layer
from medcnn.model.signature import Signature
from medcnn.model.small_vgg import SmallVGG
from medcnn.model.training import train

PAIRS = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]


def test_its_layers_are_exactly_these() -> None:
    layers = [module for module in SmallVGG().modules() if not list(module.children())]
    block = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2 + [nn.MaxPool2d]
    assert [type(layer) for layer in layers] == block * 3 + [nn.AdaptiveAvgPool2d, nn.Flatten, nn.Dropout, nn.Linear]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == PAIRS
    assert all(c.kernel_size == (3, 3) and c.padding == (1, 1) and c.bias is None for c in convolutions)


def test_parameters_and_multiply_adds_by_hand() -> None:
    n = sum(9 * before * after + 2 * after for before, after in PAIRS) + 128 * 2 + 2
    assert n == 287_714 and f"{n:,} parameters" in str(SmallVGG.__doc__)
    (row,) = list_models("small_vgg")
    assert (row.name, row.n_parameters, row.size_px, row.weights) == ("small_vgg", n, 224, "none")
    sides = (224, 224, 112, 112, 56, 56)
    assert row.n_multiply_adds == sum(9 * a * b * side**2 for (a, b), side in zip(PAIRS, sides, strict=True)) + 256


def test_convolutions_start_as_he_proposes() -> None:
    model = build_model(model_plan("small_vgg", dropout=0.1), channels=3, n_outputs=2, size_px=28, seed=1)
    assert isinstance(model, SmallVGG)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (9 * module.in_channels))
            n = module.weight.numel()
            assert module.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * n))  # five standard errors
        if isinstance(module, nn.Dropout):
            assert module.p == 0.1


@pytest.mark.parametrize("size_px", [8, 28, 33])
def test_any_size_from_8_px(size_px: int) -> None:
    assert SmallVGG(1, 3)(torch.zeros(2, 1, size_px, size_px)).shape == (2, 3)


def test_feature_info_names_the_maps_before_pooling() -> None:
    model, shapes = SmallVGG(1, 2), []
    for row in model.feature_info:
        model.get_submodule(str(row["module"])).register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(1, 1, 32, 32))
    assert shapes == [(int(row["num_chs"]), 32 // int(row["reduction"]), 32 // int(row["reduction"])) for row in model.feature_info]
    assert target_layer(model, size_px=28) == "features.2.5" and target_layer(model, size_px=14) == "features.1.5"


def test_it_learns_and_is_explained() -> None:
    images, classes = blobs(96)
    model = build_model(model_plan("small_vgg"), channels=1, n_outputs=2, size_px=16)
    result = train(
        model, Arrays(images), classes[:, None].astype(float), rows_train=np.arange(72), rows_val=np.arange(72, 96), task="binary",
        plan=training_plan(epochs=3), mean=(0.5,), std=(0.25,), seed=0,
    )  # fmt: skip
    assert result.history["val_auroc"].iloc[-1] > 0.9
    heat = grad_cam(model, images[:2], card=Signature(task="binary", mean=(0.5,), std=(0.25,)))
    assert heat.shape == (2, 16, 16)
