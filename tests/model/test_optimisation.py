"""Oracles: torch.optim.swa_utils for the average, the definition for the schedule."""

import math

import pytest
import timm
import torch
from model_cases import training_plan
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medcnn.model.backbones import split_head
from medcnn.model.optimisation import MovingAverage, Schedule, make_optimiser, set_learning_rates, set_training_mode
from medcnn.model.simple_cnn import SimpleCNN


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
