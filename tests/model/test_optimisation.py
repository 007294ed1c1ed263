"""Oracles: timm.optim for the layers, torch.optim.swa_utils for the average, the definition for the schedule."""

import math

import pytest
import timm
import torch
from model_cases import training_plan
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medcnn.errors import InputError
from medcnn.model.backbones import split_head
from medcnn.model.optimisation import MovingAverage, Schedule, make_optimiser, set_learning_rates, set_training_mode
from medcnn.model.simple_cnn import FullyConnected, SimpleCNN
from medcnn.model.small_vgg import SmallVGG


def test_groups_hold_every_weight_once_and_spare_vectors_from_decay() -> None:
    model = SimpleCNN(1, 2)
    groups = make_optimiser(model, training_plan(weight_decay=0.07, backbone_lr_factor=0.1)).param_groups
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    for group in groups:
        assert group["lr_scale"] == (1.0 if group["part"] == "head" else 0.1)
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] == 0.07}
    assert sum(p.numel() for group in groups if group["part"] == "head" for p in group["params"]) == 128 * 64 + 64 + 64 * 2 + 2


def test_position_embeddings_are_not_decayed() -> None:
    model = timm.create_model("test_vit", num_classes=2)
    groups = make_optimiser(model, training_plan(weight_decay=0.07)).param_groups
    spared = {id(parameter) for group in groups if group["weight_decay"] == 0 for parameter in group["params"]}
    assert id(model.pos_embed) in spared and model.pos_embed.ndim > 1


def test_a_frozen_backbone_is_not_in_the_optimiser() -> None:
    model = SimpleCNN(1, 2)
    groups = make_optimiser(model, training_plan(freeze_backbone=True)).param_groups
    assert {group["part"] for group in groups} == {"head"}


# ---------------------------------------------------------------- layer-wise learning rates


@pytest.mark.parametrize(
    "name",
    ["test_vit", "test_resnet", "test_convnext", "tf_efficientnet_lite0", "densenet121", "deit_tiny_distilled_patch16_224", "pit_ti_224"],
)
def test_layers_learn_at_the_rates_of_timms_own_groups(name: str) -> None:
    """Every weight: the same learning-rate scale (times the backbone's factor) and the same weight decay as in timm."""
    model = timm.create_model(name, num_classes=2)
    groups = make_optimiser(model, training_plan(layer_decay=0.7, backbone_lr_factor=0.3, weight_decay=0.07)).param_groups
    ours = {id(p): (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    spared = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    theirs = param_groups_layer_decay(model, weight_decay=0.07, no_weight_decay_list=spared, layer_decay=0.7)
    head = {id(parameter) for parameter in split_head(model)[1]}
    expected = {
        id(p): (group["lr_scale"] * (1 if id(p) in head else 0.3), group["weight_decay"]) for group in theirs for p in group["params"]
    }
    assert ours.keys() == expected.keys() and len(set(ours.values())) > 5
    assert all(ours[key] == pytest.approx(expected[key]) for key in ours)
    assert all((group["part"] == "head") == (id(p) in head) for group in groups for p in group["params"])


def test_layers_of_a_transformer_by_hand() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=2)
    groups = make_optimiser(model, training_plan(layer_decay=0.5)).param_groups
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    by_name = {name: scales[id(parameter)] for name, parameter in model.named_parameters()}
    assert by_name["head.weight"] == 1 and by_name["blocks.0.attn.qkv.weight"] == 2 * by_name["patch_embed.proj.weight"]
    assert [by_name[f"blocks.{block}.mlp.fc1.weight"] for block in range(12)] == [0.5 ** (12 - block) for block in range(12)]


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("model", [SimpleCNN(1, 2), SmallVGG(1, 2), FullyConnected(1, 8, 2), timm.create_model("test_vit", num_classes=2)])
def test_without_decay_and_in_our_own_networks_the_groups_are_four(model: nn.Module, layer_decay: float) -> None:
    groups = make_optimiser(model, training_plan(layer_decay=layer_decay, backbone_lr_factor=0.3)).param_groups
    kinds = [(group["part"], group["lr_scale"], group["weight_decay"]) for group in groups]
    if layer_decay == 1 or not hasattr(model, "pretrained_cfg"):
        assert kinds == [("head", 1.0, 0.01), ("head", 1.0, 0.0), ("backbone", 0.3, 0.01), ("backbone", 0.3, 0.0)]
    else:
        assert len(kinds) > 4


def test_layer_decay_leaves_a_frozen_backbone_out_and_waits_for_the_head() -> None:
    model = timm.create_model("test_vit", num_classes=2)
    frozen = make_optimiser(model, training_plan(layer_decay=0.5, freeze_backbone=True)).param_groups
    assert {group["part"] for group in frozen} == {"head"}
    optimiser = make_optimiser(model, training_plan(layer_decay=0.5))
    schedule = Schedule(n_steps=20, n_head_steps=10, warmup_fraction=0)
    set_learning_rates(optimiser, 0.1, schedule, 9)
    assert all((group["lr"] == 0) == (group["part"] == "backbone") for group in optimiser.param_groups)
    set_learning_rates(optimiser, 0.1, schedule, 10)
    rates = [group["lr"] for group in optimiser.param_groups if group["part"] == "backbone"]
    assert rates == [0.1 * group["lr_scale"] for group in optimiser.param_groups if group["part"] == "backbone"] and len(set(rates)) > 4


def test_a_backbone_without_layers_is_refused() -> None:
    model = SimpleCNN(1, 2)
    model.pretrained_cfg = {}  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"training.layer_decay is 0.5, but timm knows no layers of SimpleCNN; set it to 1"):
        make_optimiser(model, training_plan(layer_decay=0.5))


# ---------------------------------------------------------------- schedule


def test_schedule_warms_up_and_comes_down_to_zero() -> None:
    schedule = Schedule(n_steps=100, n_head_steps=0, warmup_fraction=0.1)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[10:] == pytest.approx([(1 + math.cos(math.pi * k / 90)) / 2 for k in range(90)])


def test_the_backbone_starts_its_own_warm_up_when_it_joins() -> None:
    schedule = Schedule(n_steps=120, n_head_steps=20, warmup_fraction=0.1)
    backbone = [schedule.factor(step, "backbone") for step in range(120)]
    alone = Schedule(n_steps=100, n_head_steps=0, warmup_fraction=0.1)
    assert backbone == [0.0] * 20 + [alone.factor(step) for step in range(100)]


@pytest.mark.parametrize(
    "schedule", [Schedule(n_steps=1, n_head_steps=0, warmup_fraction=1), Schedule(n_steps=3, n_head_steps=3, warmup_fraction=0)]
)
def test_short_schedules(schedule: Schedule) -> None:
    for part in ("head", "backbone"):
        assert all(0 <= schedule.factor(step, part) <= 1 for step in range(schedule.n_steps))


def test_learning_rates_follow_scale_and_schedule() -> None:
    optimiser = make_optimiser(SimpleCNN(1, 2), training_plan(backbone_lr_factor=0.1))
    set_learning_rates(optimiser, 0.5, Schedule(n_steps=10, n_head_steps=0, warmup_fraction=0), 5)
    assert {group["part"]: group["lr"] for group in optimiser.param_groups} == pytest.approx({"head": 0.25, "backbone": 0.025})


def test_a_backbone_that_does_not_learn_keeps_its_statistics() -> None:
    model = SimpleCNN(1, 2)
    images = torch.randn(4, 1, 16, 16)
    set_training_mode(model, backbone_learns=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(images).sum().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    backbone, head = split_head(model)
    assert all(parameter.grad is None for parameter in backbone) and all(parameter.grad is not None for parameter in head)
    assert model.classifier[3].training, "dropout of the head"
    set_training_mode(model, backbone_learns=True)
    model(images).sum().backward()
    assert all(parameter.grad is not None for parameter in backbone)
    assert not torch.equal(before["features.0.1.running_mean"], model.state_dict()["features.0.1.running_mean"])


def test_moving_average_is_torchs_once_its_decay_has_risen() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ours = MovingAverage(model, 0.9)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.n_averaged.fill_(1)
    for update in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model.train()(torch.randn(6, 3))
        ours.update(1000 + update)
        theirs.update_parameters(model)
    for name, tensor in theirs.module.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(ours.model.state_dict()[name], tensor)
    assert ours.model[1].num_batches_tracked == model[1].num_batches_tracked


def test_moving_average_forgets_its_start() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    average = MovingAverage(model, 0.999)
    nn.init.constant_(model.weight, 1.0)
    for update in range(60):
        average.update(update)
    assert average.model.weight.item() == pytest.approx(1, abs=0.01)
