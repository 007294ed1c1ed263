"""Batch norm's statistics of plain images, against sums by hand; what else a model holds stays as it is."""

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs, model_plan, training_plan
from torch import nn

from medcnn.model.backbones import build_model
from medcnn.model.plain_norm import MOST_IMAGES, take_plain_statistics
from medcnn.model.signature import Signature

IMAGES, CLASSES = blobs(60)
SIGNATURE = Signature(task="binary", mean=(0.5,), std=(0.25,))
CPU = torch.device("cpu")


def taken(model: nn.Module, rows: np.ndarray, batch_size: int = 16, images: np.ndarray = IMAGES) -> nn.Module:
    take_plain_statistics(model, Arrays(images), rows, signature=SIGNATURE, device=CPU, precision="float32", batch_size=batch_size)
    return model


def network() -> nn.Module:
    return build_model(model_plan(), channels=1, n_outputs=2, size_px=IMAGES.shape[1], seed=3)


def first_norm(model: nn.Module) -> nn.BatchNorm2d:
    return next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_the_first_layers_statistics_are_those_of_its_inputs() -> None:
    model = taken(network(), np.arange(48), batch_size=48)  # one batch: its mean and unbiased variance are the result
    inputs = SIGNATURE.inputs(torch.from_numpy(IMAGES[:48]), CPU)
    with torch.no_grad():
        seen = next(module for module in model.modules() if isinstance(module, nn.Conv2d))(inputs)
    torch.testing.assert_close(first_norm(model).running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first_norm(model).running_var, seen.var((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_they_follow_the_set_of_rows_alone() -> None:
    rows = np.arange(40)
    one, other, fewer = (taken(network(), some) for some in (rows, rows[::-1], rows[:20]))
    assert torch.equal(first_norm(one).running_mean, first_norm(other).running_mean)
    assert not torch.equal(first_norm(one).running_mean, first_norm(fewer).running_mean)


def test_nothing_else_of_the_model_changes() -> None:
    before, model = network().state_dict(), taken(network(), np.arange(40))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.endswith(("running_mean", "running_var")), name
    assert not model.training and not any(module.training for module in model.modules())
    assert {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}


def test_a_large_cohort_is_sampled() -> None:
    asked: list[int] = []

    class Counting(Arrays):
        def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
            assert epoch is None
            asked.extend(rows)
            return IMAGES[rows % len(IMAGES)]

    model = network()
    take_plain_statistics(model, Counting(IMAGES), np.arange(5000), signature=SIGNATURE, device=CPU, precision="float32", batch_size=512)
    assert len(asked) == len(set(asked)) == MOST_IMAGES
    assert (min(asked), max(asked)) == (0, 4999)


def test_a_network_without_batch_norm_is_left_alone() -> None:
    model = build_model(model_plan("fully_connected"), channels=1, n_outputs=2, size_px=IMAGES.shape[1])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    taken(model, np.arange(10))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}, {"select": "best"}])
def test_training_ends_with_them(changes: dict[str, object]) -> None:
    from medcnn.model.training import train

    def trained(norm_statistics: str) -> dict[str, torch.Tensor]:
        plan = training_plan(epochs=2, norm_statistics=norm_statistics, **changes)
        y = CLASSES.astype(np.float32).reshape(-1, 1)
        return train(
            network(), Arrays(IMAGES), y, rows_train=np.arange(40), rows_val=np.arange(40, 60), task="binary", plan=plan, mean=(0.5,), std=(0.25,), seed=0
        ).state_dict  # fmt: skip

    running, plain = trained("running"), trained("plain")
    again = network()
    again.load_state_dict(running)
    expected = taken(again, np.arange(40), batch_size=training_plan().batch_size).state_dict()
    for name, tensor in plain.items():
        assert torch.equal(tensor, expected[name]), name
    assert any(not torch.equal(plain[name], running[name]) for name in plain if name.endswith("running_mean"))
