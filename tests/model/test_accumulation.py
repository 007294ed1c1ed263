"""Oracle: the same training with whole batches, and torch's gradient of the whole batch."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs, model_plan, training_plan
from torch import nn

from medcnn.errors import InputError
from medcnn.model.backbones import build_model
from medcnn.model.training import TrainingResult, train

IMAGES, CLASSES = blobs(60, n_classes=3)
TASKS = ("binary", "multiclass", "multilabel")


def labels(task: str) -> np.ndarray:
    """Multilabel with most of the first rows unknown, so that pieces of a step differ in how much they know."""
    if task == "binary":
        return (CLASSES == 1)[:, None].astype(float)
    y = np.eye(3)[CLASSES]
    if task == "multilabel":
        y[np.random.default_rng(0).random(y.shape) < 0.6] = np.nan
        y[:, 0] = np.eye(3)[CLASSES][:, 0]
    return y


def run(task: str = "binary", network: str = "fully_connected", *, source: Any = None, **changes: Any) -> TrainingResult:
    y = labels(task)
    folder = changes.pop("checkpoint_dir", None)
    model = build_model(
        model_plan(network, dropout=changes.pop("dropout", 0.0)), channels=1, n_outputs=max(2, y.shape[1]), size_px=16, seed=1
    )
    plan = training_plan(**({"epochs": 2, "batch_size": 16, "checkpoint_minutes": 0} | changes))
    return train(
        model, source or Arrays(IMAGES), y, rows_train=np.arange(45), rows_val=np.arange(45, 60), task=task, plan=plan,  # type: ignore[arg-type]
        mean=(0.5,), std=(0.25,), seed=0, checkpoint_dir=folder,
    )  # fmt: skip


def close(one: TrainingResult, other: TrainingResult) -> bool:
    losses = np.allclose(one.history["train_loss"], other.history["train_loss"], rtol=1e-5)
    return losses and all(torch.allclose(tensor, other.state_dict[name], rtol=1e-3, atol=1e-5) for name, tensor in one.state_dict.items())


@pytest.mark.parametrize("pieces", [2, 3, 16])
@pytest.mark.parametrize("task", TASKS)
def test_pieces_add_up_to_the_whole_batch(task: str, pieces: int) -> None:
    """Steps have 15 images, so pieces differ in size; 16 pieces are 15 of one image."""
    whole = run(task)
    in_pieces = run(task, accumulate=pieces)
    assert close(in_pieces, whole)
    assert in_pieces.n_images == whole.n_images


@pytest.mark.parametrize(
    "changes", [{"imbalance": "loss_weights"}, {"loss": "focal", "label_smoothing": 0.1}, {"mixup": 0.4}, {"cutmix": 1.0}]
)
def test_pieces_add_up_under_other_losses(changes: dict[str, Any]) -> None:
    for task in ("multiclass", "multilabel"):
        assert close(run(task, accumulate=4, **changes), run(task, **changes))


def test_the_gradient_is_that_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """To float64's tolerance, with labels unknown: what reaches the optimiser in the first step."""
    found: list[torch.Tensor] = []

    def clip(parameters: list[nn.Parameter], limit: float) -> torch.Tensor:
        found.append(torch.cat([parameter.grad.flatten().clone() for parameter in parameters if parameter.grad is not None]))
        raise InterruptedError

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", clip)
    for pieces in (1, 2, 5):
        with pytest.raises(InterruptedError):
            run("multilabel", accumulate=pieces)
    assert found[0].abs().max() > 1e-3
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-7)


def test_batch_norm_sees_pieces() -> None:
    assert not close(run(network="simple_cnn", accumulate=4), run(network="simple_cnn"))


def test_every_piece_has_its_own_dropout() -> None:
    """The same image in both halves of a batch is dropped out differently."""
    masks: list[torch.Tensor] = []
    model = build_model(model_plan("fully_connected", dropout=0.5), channels=1, n_outputs=2, size_px=16)
    dropout = next(module for module in model.modules() if isinstance(module, nn.Dropout))
    dropout.register_forward_hook(lambda module, _inputs, output: masks.append(output == 0) if module.training else None)
    plan = training_plan(epochs=1, batch_size=16, accumulate=2, select="last")
    images = Arrays(np.full((16, 16, 16, 1), 99, np.uint8))
    y = (np.arange(16) % 2)[:, None].astype(float)
    train(
        model, images, y, rows_train=np.arange(16), rows_val=np.arange(0), task="binary", plan=plan, mean=(0.5,), std=(0.25,), seed=0
    )  # fmt: skip
    assert len(masks) == 2 and not torch.equal(masks[0], masks[1])


@pytest.mark.parametrize("n", [2, 4, 6])
def test_a_training_in_pieces_that_was_stopped_ends_with_the_same_bits(n: int, tmp_path: Path) -> None:
    class Interrupted(Arrays):
        left = n

        def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
            self.left -= 1
            if not self.left:
                signal.raise_signal(signal.SIGTERM)
            return super().batch(rows, epoch, shows)

    settings: dict[str, Any] = {"accumulate": 3, "dropout": 0.3, "ema_decay": 0.9}
    whole = run(network="simple_cnn", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(network="simple_cnn", source=Interrupted(IMAGES), checkpoint_dir=tmp_path, **settings)
    again = run(network="simple_cnn", checkpoint_dir=tmp_path, **settings)
    assert whole.history.equals(again.history)
    assert all(torch.equal(tensor, again.state_dict[name]) for name, tensor in whole.state_dict.items())


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        ("fully_connected", {"accumulate": 17}, "training.accumulate is 17, but a step has only training.batch_size=16 images"),
        ("simple_cnn", {"accumulate": 8}, "cuts steps of 15 images into pieces of a single image, but this network has batch norm"),
    ],
)
def test_pieces_too_small_are_refused(network: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(network=network, **changes)
    assert run(network="simple_cnn", accumulate=7).chosen_epoch
