"""Oracle: the published layer list, and parameter counts done by hand."""

import pytest
import torch
from torch import nn

from medcnn.model.simple_cnn import FullyConnected, SimpleCNN


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_its_layers_are_exactly_these() -> None:
    layers = [module for module in SimpleCNN().modules() if not list(module.children())]
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d] * 3 + [
        nn.AdaptiveAvgPool2d,
        nn.Flatten,
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
        nn.Linear,
    ]
    assert [type(layer) for layer in layers] == kinds
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.padding) for c in convolutions] == [
        (3, 32, (3, 3), (1, 1)),
        (32, 64, (3, 3), (1, 1)),
        (64, 128, (3, 3), (1, 1)),
    ]
    assert [(layer.kernel_size, layer.stride) for layer in layers if isinstance(layer, nn.MaxPool2d)] == [(2, 2)] * 3
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.3]
    assert [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)] == [(128, 64), (64, 2)]


def test_eight_images_give_eight_pairs_of_scores() -> None:
    assert SimpleCNN(in_channels=3, n_classes=2)(torch.zeros(8, 3, 224, 224)).shape == (8, 2)


def test_parameters() -> None:
    assert n_parameters(SimpleCNN()) == 102_082
    assert n_parameters(SimpleCNN().features[0][0]) == 896  # (3 * 3 * 3 + 1) * 32
    assert n_parameters(SimpleCNN(1, 5)) == 102_082 - 2 * 9 * 32 + 3 * 65


@pytest.mark.parametrize("size_px", [8, 28, 33])
def test_any_size_from_8_px(size_px: int) -> None:
    assert SimpleCNN(1, 3)(torch.zeros(2, 1, size_px, size_px)).shape == (2, 3)


def test_feature_info_names_the_maps_before_pooling() -> None:
    model, shapes = SimpleCNN(1, 2), []
    for row in model.feature_info:
        model.get_submodule(str(row["module"])).register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(1, 1, 32, 32))
    assert shapes == [(32, 32, 32), (64, 16, 16), (128, 8, 8)]
    assert [32 // int(row["reduction"]) for row in model.feature_info] == [32, 16, 8]


def test_the_fully_connected_baseline_is_huge() -> None:
    with torch.device("meta"):
        model = FullyConnected(3, 224, 2)
    assert n_parameters(model.hidden) == (3 * 224 * 224 + 1) * 1024 == 154_141_696
    assert FullyConnected(1, 8, 2, width=4)(torch.zeros(5, 1, 8, 8)).shape == (5, 2)
