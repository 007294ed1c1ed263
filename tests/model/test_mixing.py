"""Oracles: torchvision's MixUp and CutMix with the same share and the same patch; a training that was never interrupted."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from model_cases import Arrays, blobs, model_plan, training_plan
from torch import nn
from torchvision.transforms import v2

from medcnn.model.backbones import build_model
from medcnn.model.mixing import blend, draw_box, mix
from medcnn.model.training import TrainingResult, train
from medcnn.plan import TrainingPlan

NAN = float("nan")
IMAGES, CLASSES = blobs(96)
IMAGES_OF_3, CLASSES_OF_3 = blobs(96, n_classes=3)


def batch(n: int = 6, *, height: int = 12, width: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, height, width, generator=generator).contiguous(memory_format=torch.channels_last)
    return images, torch.eye(3)[torch.arange(n) % 3]


def test_mixup_is_torchvisions() -> None:
    images, y = batch()
    share = float(np.random.default_rng(5).beta(0.4, 0.4))
    params = {"labels": y, "batch_size": 6, "lam": share}
    theirs = v2.MixUp(alpha=0.4)
    expected = [theirs.transform(images, params), theirs.transform(y, params)]
    ours = mix(images.clone(memory_format=torch.preserve_format), y, mixup=0.4, cutmix=0.0, rng=np.random.default_rng(5))
    torch.testing.assert_close(list(ours), expected)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("seed", range(6))
def test_cutmix_is_torchvisions(seed: int) -> None:
    images, y = batch()
    rng = np.random.default_rng(seed)
    share = float(rng.beta(1.0, 1.0))
    top, bottom, left, right = draw_box(12, 9, share, rng)
    params = {"labels": y, "batch_size": 6, "box": (left, top, right, bottom), "lam_adjusted": 1 - (bottom - top) * (right - left) / 108}
    theirs = v2.CutMix(alpha=1.0)
    expected = [theirs.transform(images, params), theirs.transform(y, params)]
    ours = mix(images.clone(memory_format=torch.preserve_format), y, mixup=0.0, cutmix=1.0, rng=np.random.default_rng(seed))
    torch.testing.assert_close(list(ours), expected)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


def test_the_patch_has_the_area_that_was_drawn_where_it_fits_and_lies_anywhere() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([draw_box(64, 48, 0.75, rng) for _ in range(3000)])
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    assert heights.max() == 32 and widths.max() == 24 and heights.min() >= 16 and widths.min() >= 12
    assert boxes.min() == 0 and boxes[:, 1].max() == 64 and boxes[:, 3].max() == 48
    whole = (heights == 32) & (widths == 24)
    assert whole.mean() == pytest.approx(33 / 64 * 25 / 48, abs=0.03)
    top, bottom, left, right = draw_box(64, 48, 1.0, rng)
    assert top == bottom and left == right


def test_shares_follow_the_beta_distribution() -> None:
    images, y = torch.zeros(2, 1, 4, 4), torch.tensor([[1.0], [0.0]])
    shares = [mix(images, y, mixup=0.4, cutmix=0.0, rng=np.random.default_rng(seed))[1][0, 0].item() for seed in range(2000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.05)  # of Beta(a, a)


def test_one_of_the_two_is_drawn_for_each_batch_and_both_come_up_alike() -> None:
    images, y = batch(2)
    pasted = []
    for seed in range(400):
        mixed, _ = mix(images.clone(), y, mixup=1.0, cutmix=1.0, rng=np.random.default_rng(seed))
        own = (mixed == images).float().mean()
        pasted.append(bool(((mixed == images) | (mixed == images.roll(1, 0))).all()))
        assert pasted[-1] or own < 0.01
    assert np.mean(pasted) == pytest.approx(0.5, abs=0.08)


def test_a_blend_is_known_only_where_both_labels_are() -> None:
    y = torch.tensor([[1.0, NAN], [0.0, 1.0], [NAN, 1.0]])
    expected = torch.tensor([[NAN, NAN], [0.25 * 0 + 0.75 * 1, NAN], [NAN, 1.0]])
    torch.testing.assert_close(blend(y, 0.25), expected, equal_nan=True)


def test_a_share_of_one_changes_no_bit() -> None:
    images, y = batch()
    assert torch.equal(blend(images, 1.0), images) and torch.equal(blend(y, 1.0), y)
    assert torch.equal(blend(images, 0.0), images.roll(1, 0))


# ---------------------------------------------------------------- in training


def trained(
    plan: TrainingPlan, *, task: str = "binary", checkpoint_dir: Path | None = None, model: nn.Module | None = None
) -> TrainingResult:
    y = CLASSES[:, None].astype(np.float64)
    if task == "multilabel":
        y = np.where(np.arange(len(y))[:, None] % [5, 7, 3] == 0, np.nan, np.column_stack([y, 1 - y, y]))
    elif task == "multiclass":
        y = np.eye(3)[CLASSES_OF_3]
    n_outputs, images = 2 if task == "binary" else 3, IMAGES_OF_3 if task == "multiclass" else IMAGES
    return train(
        model or build_model(model_plan(), channels=1, n_outputs=n_outputs, size_px=16, seed=3), Arrays(images), y,
        rows_train=np.arange(72), rows_val=np.arange(72, 96), task=task, plan=plan, mean=(0.5,), std=(0.25,), seed=3, checkpoint_dir=checkpoint_dir,
    )  # fmt: skip


def same(one: TrainingResult, other: TrainingResult) -> bool:
    return one.history.equals(other.history) and all(torch.equal(tensor, other.state_dict[name]) for name, tensor in one.state_dict.items())


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0, "imbalance": "oversample"}])
def test_a_killed_training_on_blends_ends_with_the_same_bits(changes: dict[str, object], tmp_path: Path) -> None:
    plan = training_plan(epochs=2, checkpoint_minutes=0, **changes)
    passes: list[int] = []
    model = build_model(model_plan(), channels=1, n_outputs=2, size_px=16, seed=3)
    model.register_forward_hook(lambda *_: passes.append(1) if len(passes) < 8 else os.kill(os.getpid(), signal.SIGKILL))
    process = multiprocessing.get_context("fork").Process(target=lambda: trained(plan, checkpoint_dir=tmp_path, model=model))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    whole = trained(plan)
    assert same(trained(plan, checkpoint_dir=tmp_path), whole)
    assert not same(whole, trained(training_plan(epochs=2, checkpoint_minutes=0)))


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_blends_are_learnt_from_in_every_task(task: str, loss: str) -> None:
    result = trained(training_plan(epochs=4, mixup=0.2, cutmix=0.2, loss=loss), task=task)
    assert np.isfinite(result.history.to_numpy()).all()
    assert result.history["val_auroc"].iloc[-1] > 0.9


def test_what_is_validated_is_not_mixed() -> None:
    """With frozen batch norm and a learning rate of almost nothing, only the training loss can tell that images were blended."""
    still = {"epochs": 1, "learning_rate": 1e-30, "freeze_backbone": True}
    plain, mixed = (trained(training_plan(mixup=mixup, **still)) for mixup in (0.0, 1.0))
    assert plain.history["val_loss"].equals(mixed.history["val_loss"])
    assert not plain.history["train_loss"].equals(mixed.history["train_loss"])
