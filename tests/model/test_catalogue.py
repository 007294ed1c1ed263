"""Oracles: published sizes, and multiply-adds counted by hand."""

import pytest
import torch
from torch import nn

from medcnn.model.backbones import OWN_MODELS
from medcnn.model.catalogue import USUAL_MODELS, count_multiply_adds, count_parameters, list_models, matching_names
from medcnn.model.rules_model import OWN_NETWORKS
from medcnn.model.simple_cnn import SimpleCNN


def test_multiply_adds_by_hand() -> None:
    n, blocks = 0, [(3, 32, 64), (32, 64, 32), (64, 128, 16)]
    for before, after, side in blocks:
        n += 9 * before * after * side**2
    assert count_multiply_adds(SimpleCNN(), channels=3, size_px=64) == n + 128 * 64 + 64 * 2


def test_grouped_and_strided_convolutions() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, stride=2, padding=1), nn.Conv2d(4, 6, 1))
    assert count_multiply_adds(model, channels=4, size_px=8) == 16 * 4 * 9 + 16 * 4 * 6


def test_counting_leaves_the_model_alone() -> None:
    model = SimpleCNN(1, 2)
    count_multiply_adds(model, channels=1, size_px=28)
    assert model.training and next(model.parameters()).device.type == "cpu"
    assert not any(module._forward_hooks for module in model.modules())


def test_resnet18_has_its_published_size() -> None:
    (row,) = list_models("[r]esnet18")
    assert row.name == "resnet18" and row.size_px == 224
    assert row.n_parameters == 11_689_512 - 998 * 513  # with 2 classes instead of 1,000
    assert row.n_multiply_adds == pytest.approx(1.81e9, rel=0.01)
    assert row.weights.startswith("hub timm/resnet18")


def test_the_contrast_of_the_classic_comparison() -> None:
    rows = {row.name: row for pattern in ("simple_cnn", "fully_connected") for row in list_models(pattern)}
    assert rows["simple_cnn"].n_parameters == 102_082
    assert rows["fully_connected"].n_parameters == 154_141_696 + 2 * 1025
    assert rows["fully_connected"].n_multiply_adds < rows["simple_cnn"].n_multiply_adds
    assert {row.weights for row in rows.values()} == {"none"}


def test_attention_is_counted() -> None:
    (row,) = list_models("[v]it_tiny_patch16_224")
    assert row.n_multiply_adds == pytest.approx(1.26e9, rel=0.02)


def test_the_rules_know_all_our_own_networks() -> None:
    assert set(OWN_MODELS) == OWN_NETWORKS


def test_names() -> None:
    assert matching_names("simple") == ["simple_cnn"]
    assert set(matching_names("EFFICIENTNET_LITE")) >= {"efficientnet_lite0", "tf_efficientnet_lite4"}
    assert matching_names("tf_efficientnet_lite[01]") == ["tf_efficientnet_lite0", "tf_efficientnet_lite1"]
    assert matching_names("nothing_like_this") == []
    assert matching_names("") == list(USUAL_MODELS)
    assert set(USUAL_MODELS) <= set(matching_names("*"))


def test_frozen_weights_count_and_statistics_do_not() -> None:
    model = nn.BatchNorm2d(7).requires_grad_(False)
    assert count_parameters(model) == 14
    assert torch.is_tensor(model.running_mean)


def test_a_pooling_that_starts_from_a_learnt_query_is_counted() -> None:
    (row,) = list_models("vit_pe_core_tiny_patch16_384")
    assert row.n_multiply_adds > 1e9
